/* SPDX-License-Identifier: MIT */
/*
 * blockdev.c - a block device as a host object: size, sectors, and what its
 * queue says about discarding and zeroing.
 *
 * Three ways to get rid of data, and only one of them is both thin and
 * certain: fallocate(PUNCH_HOLE) unmaps and guarantees zeroes, or fails;
 * BLKZEROOUT zeroes and keeps the blocks (and writes, if the device has no
 * command for it); BLKDISCARD promises nothing about what is read afterwards.
 */
#include <linux/fs.h>
#include <linux/major.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "io/file.h"
#include "io/provision.h"
#include "io/sysfs.h"

static int blockdev_size(struct lam_io *io, uint64_t *size)
{
    return ioctl(file_of(io)->fd, BLKGETSIZE64, size) < 0 ? -errno : 0;
}

/* A device has the size it has. */
static int blockdev_truncate(struct lam_io *io, uint64_t size)
{
    uint64_t now;
    int rc = blockdev_size(io, &now);
    if (rc < 0)
        return rc;
    return size == now ? 0 : -ENOTSUP;
}

static int range_ioctl(struct lam_io *io, unsigned long request,
                       uint64_t offset, uint64_t length)
{
    uint64_t range[2] = { offset, length };
    return ioctl(file_of(io)->fd, request, range) < 0 ? -errno : 0;
}

static int blockdev_zero_range(struct lam_io *io, uint64_t offset,
                               uint64_t length)
{
    return range_ioctl(io, BLKZEROOUT, offset, length);
}

static int blockdev_discard(struct lam_io *io, uint64_t offset,
                            uint64_t length)
{
    return range_ioctl(io, BLKDISCARD, offset, length);
}

const struct lam_io_ops blockdev_ops = {
    .name = "host_device",
    .readv = file_readv,
    .writev = file_writev,
    .flush = file_flush,
    .size = blockdev_size,
    .truncate = blockdev_truncate,
    .punch = file_punch,
    .zero_range = blockdev_zero_range,
    .discard = blockdev_discard,
    .set_writable = file_set_writable,
    .descriptor = file_descriptor,
    .close = file_close,
};

/* ----------------------------------------------------------------- probing */

/* A partition has no queue of its own: it is its disk's. */
static uint64_t queue_limit(dev_t device, const char *name)
{
    char attribute[SYSFS_NAME_MAX];
    uint64_t value;

    snprintf(attribute, sizeof attribute, "queue/%s", name);
    return sysfs_number(sysfs_disk(device), attribute, &value) ? value : 0;
}

/* Where the granules begin; a partition's own, unlike the rest. */
static uint64_t discard_alignment(dev_t device)
{
    uint64_t value;

    return sysfs_number(device, "discard_alignment", &value) &&
           value != UINT32_MAX ? value : 0;
}

static int probe_sectors(struct file *file, struct lam_error *err)
{
    struct lam_io_limits *limits = &file->io.limits;
    int logical = 0;
    unsigned physical = 0;
    uint64_t size;
    int rc = blockdev_size(&file->io, &size);
    if (rc < 0)
        return lam_fail_errno(err, -rc, "Could not get the size of '%s'",
                              file->io.name);
    atomic_store(&file->io.size, size);
    if (ioctl(file->fd, BLKSSZGET, &logical) < 0 ||
        !is_power_of_two((unsigned)logical))
        logical = 512;
    if (ioctl(file->fd, BLKPBSZGET, &physical) < 0 ||
        !is_power_of_two(physical))
        physical = (unsigned)logical;
    limits->logical_sector = (uint32_t)logical;
    limits->physical_sector = physical;
    if (limits->direct) {
        limits->request_alignment = (uint32_t)logical;
        limits->memory_alignment = 512;
        file_direct_alignment(file->fd, &limits->memory_alignment,
                              &limits->request_alignment);
    }
    return 0;
}

static void probe_queue(struct file *file, dev_t device)
{
    struct lam_io_limits *limits = &file->io.limits;
    struct provision provision;

    provision_probe(device, &provision);
    limits->discard_max = queue_limit(device, "discard_max_bytes");
    limits->discard_granularity = queue_limit(device, "discard_granularity");
    limits->discard_alignment = max_u64(discard_alignment(device),
                                        provision.discard_alignment);
    limits->discard_reads_zero = queue_limit(device, "discard_zeroes_data");
    limits->zero_max = queue_limit(device, "write_zeroes_max_bytes");
    limits->can_discard = limits->discard_max > 0;
    limits->discard_undefined = provision.discard_undefined;
    /* The kernel unmaps by way of write-zeroes, so it takes both. */
    limits->can_punch = limits->discard_max > 0 && limits->zero_max > 0 &&
                        !provision.zeroing_keeps;
    limits->can_zero_range = true;
}

int blockdev_probe(struct file *file, struct lam_error *err)
{
    struct lam_io_limits *limits = &file->io.limits;
    struct stat st;
    if (fstat(file->fd, &st) < 0)
        return lam_fail_errno(err, errno, "Could not stat '%s'",
                              file->io.name);
    limits->is_block_device = true;
    limits->is_loop = major(st.st_rdev) == LOOP_MAJOR;
    /* A write-protected device can be opened for writing, and each write then
     * fails with EPERM. */
    int read_only = 0;
    if (file->io.writable && ioctl(file->fd, BLKROGET, &read_only) == 0 &&
        read_only)
        return lam_fail_errno(err, EACCES, "The device is not writable");
    int rc = probe_sectors(file, err);
    if (rc == 0 && file->io.writable)
        probe_queue(file, st.st_rdev);
    return rc;
}
