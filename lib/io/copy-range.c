/* SPDX-License-Identifier: MIT */
/*
 * copy-range.c - bytes from file to file by the host alone: shared blocks where
 * the file system can do that, else a copy inside the kernel.
 */
#include <errno.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "io/change.h"
#include "io/io.h"
#include "io/transfer.h"

static bool same_object(const struct lam_io *a, const struct lam_io *b)
{
    struct lam_io_identity x, y;

    lam_io_identity(a, &x);
    lam_io_identity(b, &y);
    return !x.known || !y.known || (x.dev == y.dev && x.ino == y.ino);
}

/* Not past an object that shifts or watches what goes through it. */
bool lam_io_can_copy_range(const struct lam_io *to, const struct lam_io *from)
{
    return !to->ops->inner && !from->ops->inner && to->writable &&
           !to->limits.is_block_device && !from->limits.is_block_device &&
           lam_io_has_fd(to) && lam_io_has_fd(from) &&
           !same_object(to, from);
}

/* Through the page cache, if need be. */
static bool copy_all(int to, uint64_t to_offset, int from,
                     uint64_t from_offset, uint64_t length)
{
    off_t in = (off_t)from_offset, out = (off_t)to_offset;

    while (length > 0) {
        ssize_t n = copy_file_range(from, &in, to, &out, length, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        length -= (uint64_t)n;
    }
    return true;
}

static bool clone_all(int to, uint64_t to_offset, int from,
                      uint64_t from_offset, uint64_t length)
{
    struct file_clone_range range = {
        .src_fd = from,
        .src_offset = from_offset,
        .src_length = length,
        .dest_offset = to_offset,
    };
    int rc;

    do
        rc = ioctl(to, FICLONERANGE, &range);
    while (rc < 0 && errno == EINTR);
    return rc == 0;
}

/* O_DIRECT says: not by way of the page cache. */
static bool copy_between(const struct lam_io *to, uint64_t to_offset,
                         const struct lam_io *from, uint64_t from_offset,
                         uint64_t length)
{
    int fd = lam_io_borrow_fd(from);

    if (fd < 0)
        return false;
    bool done = to->limits.direct || from->limits.direct
        ? clone_all(lam_io_fd(to), to_offset, fd, from_offset, length)
        : copy_all(lam_io_fd(to), to_offset, fd, from_offset, length);
    lam_io_return_fd(from);
    return done;
}

int lam_io_copy_range(struct lam_io *to, uint64_t to_offset,
                      const struct lam_io *from, uint64_t from_offset,
                      uint64_t length, struct lam_error *err)
{
    int rc = io_check_change(to, to_offset, length, "write", err);

    if (rc < 0 || !length)
        return rc;
    if (!lam_io_can_copy_range(to, from))
        return lam_fail(err, ENOTSUP, "'%s' cannot be copied from '%s' by the "
                        "host", to->name, from->name);
    struct io_change change = { .range = range_make(to_offset, length) };
    io_change_begin(to, &change);
    bool done = copy_between(to, to_offset, from, from_offset, length);
    if (done)
        io_grown(to, to_offset + length);
    io_change_end(to, &change);
    if (!done)
        return lam_fail(err, ENOTSUP, "'%s' cannot be copied from '%s' by the "
                        "host", to->name, from->name);
    return io_sync_change(to, err);
}
