/* SPDX-License-Identifier: MIT */
/*
 * file.c - a regular file as a host object: holes, punch, zero range.
 */
#include "io/file.h"

#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "io/pool.h"

/*
 * A buffered write gets memory in blocks of its own size.  Blocks of 1 MiB are
 * cut from the largest free ones, which a virtual machine has given back to its
 * host and has to fetch again, page by page, at ten times the cost of the copy;
 * these are small enough for the memory that was used before, and as fast.
 * Writes to one file exclude each other, too: who waits for a short one spins
 * on the inode's lock, and need not be woken.
 */
enum { BUFFERED_MAX = 256 * 1024 };

static int rc_of(int result)
{
    return result < 0 ? -errno : 0;
}

ssize_t file_readv(struct lam_io *io, const struct iovec *iov, int iovcnt,
                   uint64_t offset)
{
    struct file *file = file_of(io);
    int fd;
    int rc = file_use(file, &fd);

    if (rc < 0)
        return rc;
    ssize_t n = preadv(fd, iov, iovcnt, (off_t)offset);
    int code = errno;
    file_unuse(file);
    return n < 0 ? -code : n;
}

ssize_t file_writev(struct lam_io *io, const struct iovec *iov, int iovcnt,
                    uint64_t offset)
{
    ssize_t n = pwritev(file_of(io)->fd, iov, iovcnt, (off_t)offset);
    return n < 0 ? -errno : n;
}

/*
 * Memory that the page cache has not had before may cost a virtual machine ten
 * times the copy, see above; and what is not read soon had better not push out
 * what is.  A second opening, so that requests meanwhile stay as they are; the
 * kernel keeps the cache in line with what goes past it.
 */
static bool file_write_past_cache(struct lam_io *io, const void *buf,
                                  uint64_t length, uint64_t offset)
{
    uint32_t memory = 4096, request = 4096;
    char path[64];

    file_direct_alignment(file_of(io)->fd, &memory, &request);
    if (!is_aligned((uintptr_t)buf, memory) ||
        !is_aligned(offset | length, request))
        return false;
    snprintf(path, sizeof path, "/proc/self/fd/%d", file_of(io)->fd);
    lam_autoclose int fd = open(path, O_WRONLY | O_DIRECT | O_CLOEXEC |
                                      O_NOCTTY);
    uint64_t done = 0;
    while (fd >= 0 && done < length) {
        ssize_t n = pwrite(fd, (const uint8_t *)buf + done, length - done,
                           (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0 || !is_aligned((uint64_t)n, request))
            return false;
        done += (uint64_t)n;
    }
    return fd >= 0;
}

int file_flush(struct lam_io *io)
{
    return rc_of(fdatasync(file_of(io)->fd));
}

static int file_stat(struct lam_io *io, struct stat *st)
{
    struct file *file = file_of(io);

    return file->pool ? io_pool_stat(file, st) : rc_of(fstat(file->fd, st));
}

static int file_size(struct lam_io *io, uint64_t *size)
{
    struct stat st;
    int rc = file_stat(io, &st);

    if (rc == 0)
        *size = (uint64_t)st.st_size;
    return rc;
}

static int file_truncate(struct lam_io *io, uint64_t size)
{
    return rc_of(ftruncate(file_of(io)->fd, (off_t)size));
}

int file_punch(struct lam_io *io, uint64_t offset, uint64_t length)
{
    return rc_of(fallocate(file_of(io)->fd,
                           FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                           (off_t)offset, (off_t)length));
}

static int file_allocate(struct lam_io *io, uint64_t offset, uint64_t length)
{
    return rc_of(fallocate(file_of(io)->fd, 0, (off_t)offset, (off_t)length));
}

static void file_write_out(struct lam_io *io, uint64_t offset, uint64_t length)
{
    sync_file_range(file_of(io)->fd, (off_t)offset, (off_t)length,
                    SYNC_FILE_RANGE_WRITE);
}

/* tmpfs and others know no ZERO_RANGE: a hole that is allocated again does the
 * same in two steps. */
static int file_zero_range(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct file *file = file_of(io);
    if (!atomic_load(&file->no_zero_range)) {
        int rc = rc_of(fallocate(file->fd, FALLOC_FL_ZERO_RANGE,
                                 (off_t)offset, (off_t)length));
        if (rc != -EOPNOTSUPP)
            return rc;
        atomic_store(&file->no_zero_range, true);
    }
    int rc = file_punch(io, offset, length);
    return rc < 0 ? rc : file_allocate(io, offset, length);
}

/*
 * Looking for the next hole costs as much as there is data before it, page by
 * page on tmpfs, and an image's clusters are asked for in any order.  So the
 * last run of data is remembered, while nobody here writes: data that is a hole
 * meanwhile is still read right.
 */
static bool in_known_run(struct file *file, uint64_t offset, uint64_t *left)
{
    LAM_LOCKED(&file->run_lock);
    if (file->io.writable || offset < file->run_start ||
        offset >= file->run_end)
        return false;
    *left = file->run_end - offset;
    return true;
}

static void remember_run(struct file *file, uint64_t start, uint64_t end)
{
    LAM_LOCKED(&file->run_lock);
    file->run_start = start;
    file->run_end = end;
}

/* The file has not been cut since it was opened: what lies between its end and
 * where that was is no hole, but gone, which reading finds out. */
static bool still_reaches(const struct file *file, int fd, uint64_t end)
{
    struct stat st;

    end = min_u64(end, atomic_load(&file->io.size));
    return fstat(fd, &st) == 0 && (uint64_t)st.st_size >= end;
}

/* What lseek() says is a hint: whatever is odd about it means data. */
static int seek_extent(struct file *file, int fd, uint64_t offset,
                       uint64_t length, enum lam_io_state *state, uint64_t *run)
{
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
    if (data < 0) {
        if (errno == ENXIO && still_reaches(file, fd, offset + length))
            *state = LAM_IO_HOLE;
        return 0;
    }
    if ((uint64_t)data > offset) {
        *state = LAM_IO_HOLE;
        *run = min_u64(length, (uint64_t)data - offset);
        return 0;
    }
    off_t hole = lseek(fd, (off_t)offset, SEEK_HOLE);
    if (hole > 0 && (uint64_t)hole > offset) {
        remember_run(file, offset, (uint64_t)hole);
        *run = min_u64(length, (uint64_t)hole - offset);
    }
    return 0;
}

static int file_extent(struct lam_io *io, uint64_t offset, uint64_t length,
                       enum lam_io_state *state, uint64_t *run)
{
    struct file *file = file_of(io);
    uint64_t left;
    int fd;

    *state = LAM_IO_DATA;
    *run = length;
    if (in_known_run(file, offset, &left)) {
        *run = min_u64(length, left);
        return 0;
    }
    int rc = file_use(file, &fd);
    if (rc < 0)
        return rc;
    rc = seek_extent(file, fd, offset, length, state, run);
    file_unuse(file);
    return rc;
}

static uint64_t file_hole(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct file *file = file_of(io);
    uint64_t hole = 0;
    int fd;

    if (file_use(file, &fd) < 0)
        return 0;
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
    if (data > 0 && (uint64_t)data > offset)
        hole = min_u64(length, (uint64_t)data - offset);
    else if (data < 0 && errno == ENXIO &&
             still_reaches(file, fd, offset + length))
        hole = length;
    file_unuse(file);
    return hole;
}

/* Whoever knows the descriptor may use it at any time. */
int file_descriptor(const struct lam_io *io)
{
    struct file *file = (struct file *)io;

    return io_pool_pin(file) < 0 ? -1 : file->fd;
}

void file_close(struct lam_io *io)
{
    struct file *file = file_of(io);
    int fd = file->fd;
    io_pool_remove(file);
    if (fd >= 0)
        close(fd);
    pthread_mutex_destroy(&file->run_lock);
    lam_io_deinit(io);
    free(file);
}

const struct lam_io_ops file_ops = {
    .name = "file",
    .readv = file_readv,
    .writev = file_writev,
    .write_past_cache = file_write_past_cache,
    .flush = file_flush,
    .size = file_size,
    .stat = file_stat,
    .truncate = file_truncate,
    .punch = file_punch,
    .zero_range = file_zero_range,
    .discard = file_punch,
    .allocate = file_allocate,
    .write_out = file_write_out,
    .extent = file_extent,
    .hole = file_hole,
    .set_writable = file_set_writable,
    .descriptor = file_descriptor,
    .close = file_close,
};

/* ----------------------------------------------------------------- probing */

bool file_direct_alignment(int fd, uint32_t *memory, uint32_t *request)
{
#ifdef STATX_DIOALIGN
    struct statx sx;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &sx) == 0 &&
        (sx.stx_mask & STATX_DIOALIGN) &&
        is_power_of_two(sx.stx_dio_mem_align) &&
        is_power_of_two(sx.stx_dio_offset_align)) {
        *memory = sx.stx_dio_mem_align;
        *request = sx.stx_dio_offset_align;
        return true;
    }
#else
    (void)fd;
    (void)memory;
    (void)request;
#endif
    return false;
}

/* Under ext4's number there are file systems that cannot, too: who is told no
 * later on learns from that. */
static bool is_known_to_punch(const struct file *file)
{
    struct statfs fs;

    return fstatfs(file->fd, &fs) == 0 &&
           (fs.f_type == EXT4_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC ||
            fs.f_type == BTRFS_SUPER_MAGIC || fs.f_type == TMPFS_MAGIC);
}

/*
 * A hole well behind the end changes nothing but the file's time stamps; but by
 * them others see that a file has changed, and a refused command changes
 * nothing.  So ask only where it is not known, and on behalf of somebody who
 * means to punch.  Others hope for the best and learn.
 */
static bool punch_works(struct file *file, uint64_t size)
{
    if (!file->io.unmap || is_known_to_punch(file))
        return true;
    uint64_t behind = align_down(min_u64(size, INT64_MAX / 2), LAM_MIB) +
                      LAM_GIB;
    int rc = file_punch(&file->io, behind, 4096);
    return rc == 0 || rc == -EFBIG;
}

/*
 * ext4 looks for room, and counts it, for each block of a buffered write into a
 * hole by itself; what is reserved is found at once.  Others (XFS, btrfs) are
 * better left to choose when the data go out; tmpfs would zero it all.
 */
static bool reserving_helps(const struct file *file)
{
    struct statfs fs;

    return !file->io.limits.direct && fstatfs(file->fd, &fs) == 0 &&
           fs.f_type == EXT4_SUPER_MAGIC;
}

int file_probe(struct file *file, struct lam_error *err)
{
    struct lam_io_limits *limits = &file->io.limits;
    struct stat st;
    if (fstat(file->fd, &st) < 0)
        return lam_fail_errno(err, errno, "Could not stat '%s'",
                              file->io.name);
    atomic_store(&file->io.size, (uint64_t)st.st_size);
    limits->can_grow = true;
    limits->logical_sector = limits->physical_sector = 512;
    if (limits->direct) {
        limits->memory_alignment = limits->request_alignment = 4096;
        file_direct_alignment(file->fd, &limits->memory_alignment,
                              &limits->request_alignment);
    }
    if (!file->io.writable)
        return 0;
    limits->write_max = limits->direct ? 0 : BUFFERED_MAX;
    limits->reserve_first = reserving_helps(file);
    limits->can_punch = punch_works(file, (uint64_t)st.st_size);
    limits->can_discard = limits->discard_reads_zero = limits->can_punch;
    limits->can_zero_range = true;
    limits->discard_granularity = (uint64_t)st.st_blksize;
    limits->discard_max = limits->can_punch ? INT64_MAX : 0;
    limits->zero_max = INT64_MAX;
    return 0;
}
