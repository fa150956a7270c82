/* SPDX-License-Identifier: MIT */
/*
 * chardev.c - a character device as a host object: /dev/null and the like, as
 * long as seeking to its end says, which is mostly 0.
 */
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"

static int chardev_size(struct lam_io *io, uint64_t *size)
{
    off_t end = lseek(file_of(io)->fd, 0, SEEK_END);

    if (end < 0)
        return -errno;
    *size = (uint64_t)end;
    return 0;
}

static int chardev_truncate(struct lam_io *io, uint64_t size)
{
    return size == atomic_load(&io->size) ? 0 : -ENOTSUP;
}

/* Some, like /dev/zero, give bytes behind what they say is their end. */
static ssize_t chardev_readv(struct lam_io *io, const struct iovec *iov,
                             int iovcnt, uint64_t offset)
{
    return offset < atomic_load(&io->size)
        ? file_readv(io, iov, iovcnt, offset) : 0;
}

/* Most have nothing that could be flushed, and say so. */
static int chardev_flush(struct lam_io *io)
{
    int rc = file_flush(io);

    return rc == -EINVAL || rc == -EROFS ? 0 : rc;
}

const struct lam_io_ops chardev_ops = {
    .name = "host_device",
    .readv = chardev_readv,
    .writev = file_writev,
    .flush = chardev_flush,
    .size = chardev_size,
    .truncate = chardev_truncate,
    .set_writable = file_set_writable,
    .descriptor = file_descriptor,
    .close = file_close,
};

int chardev_probe(struct file *file, struct lam_error *err)
{
    uint64_t size;
    int rc = chardev_size(&file->io, &size);

    if (rc < 0)
        return lam_fail_errno(err, -rc, "Could not refresh total sector count");
    atomic_store(&file->io.size, size);
    file->io.limits.is_block_device = true;
    return 0;
}
