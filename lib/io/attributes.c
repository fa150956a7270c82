/* SPDX-License-Identifier: MIT */
/*
 * attributes.c - what a file system is told about a new file.
 */
#include "io/attributes.h"

#include <linux/fs.h>
#include <sys/ioctl.h>

#include "base/arith.h"
#include "io/file.h"

static void set_nocow(int fd)
{
    int flags;

    if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
        return;
    flags |= FS_NOCOW_FL;
    ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

static void set_extent_size(int fd, uint64_t hint)
{
    struct fsxattr attributes;

    if (ioctl(fd, FS_IOC_FSGETXATTR, &attributes) < 0)
        return;
    attributes.fsx_xflags |= FS_XFLAG_EXTSIZE;
    attributes.fsx_extsize = (uint32_t)min_u64(hint, UINT32_MAX);
    ioctl(fd, FS_IOC_FSSETXATTR, &attributes);
}

void io_set_attributes(struct lam_io *io, bool nocow,
                       uint64_t extent_size_hint)
{
    if (io->ops != &file_ops)
        return;
    int fd = file_descriptor(io);
    if (nocow)
        set_nocow(fd);
    if (extent_size_hint)
        set_extent_size(fd, extent_size_hint);
}
