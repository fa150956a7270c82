/* SPDX-License-Identifier: MIT */
/*
 * filter.c - a host object that stands on another one, and hands on what it is
 * asked for.
 */
#include "io/filter.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "extent/range.h"

enum { MAX_SEGMENTS = 64 };     /* what the front end passes at a time */

/* @iov cut to @room bytes; the bytes that are left. */
static size_t clip(const struct iovec *iov, int iovcnt, uint64_t room,
                   struct iovec *out, int *count)
{
    size_t total = 0;

    for (*count = 0; *count < iovcnt && room > 0; ++*count) {
        out[*count] = iov[*count];
        out[*count].iov_len = min_u64(iov[*count].iov_len, room);
        room -= out[*count].iov_len;
        total += out[*count].iov_len;
    }
    return total;
}

ssize_t io_filter_readv(struct lam_io *io, const struct iovec *iov, int iovcnt,
                        uint64_t offset)
{
    struct io_filter *f = io_filter_of(io);
    struct iovec inside[MAX_SEGMENTS];
    uint64_t size;
    int count;
    int rc = io_filter_size(io, &size);

    if (rc < 0)
        return rc;
    if (offset >= size)
        return 0;
    iovcnt = iovcnt < MAX_SEGMENTS ? iovcnt : MAX_SEGMENTS;
    size_t total = clip(iov, iovcnt, size - offset, inside, &count);
    rc = lam_io_readv(f->inner, inside, count, f->offset + offset, NULL);
    return rc < 0 ? rc : (ssize_t)total;
}

ssize_t io_filter_writev(struct lam_io *io, const struct iovec *iov, int iovcnt,
                         uint64_t offset)
{
    struct io_filter *f = io_filter_of(io);
    struct iovec inside[MAX_SEGMENTS];
    int count;

    if (offset >= f->length)
        return -ENOSPC;
    iovcnt = iovcnt < MAX_SEGMENTS ? iovcnt : MAX_SEGMENTS;
    size_t total = clip(iov, iovcnt, f->length - offset, inside, &count);
    int rc = lam_io_writev(f->inner, inside, count, f->offset + offset, NULL);
    return rc < 0 ? rc : (ssize_t)total;
}

int io_filter_flush(struct lam_io *io)
{
    return lam_io_flush(io_filter_of(io)->inner, NULL);
}

int io_filter_size(struct lam_io *io, uint64_t *size)
{
    struct io_filter *f = io_filter_of(io);

    if (f->length != IO_FILTER_WHOLE) {
        *size = f->length;
        return 0;
    }
    int rc = lam_io_size(f->inner, size, NULL);
    *size = *size > f->offset ? *size - f->offset : 0;
    return rc;
}

int io_filter_truncate(struct lam_io *io, uint64_t size)
{
    struct io_filter *f = io_filter_of(io);
    uint64_t end;

    if (f->length != IO_FILTER_WHOLE)
        return -ENOTSUP;
    if (add_overflows(f->offset, size, &end))
        return -EFBIG;
    return lam_io_truncate(f->inner, end, NULL);
}

static int zero(struct lam_io *io, uint64_t offset, uint64_t length,
                unsigned flags)
{
    struct io_filter *f = io_filter_of(io);
    int rc = lam_io_zero(f->inner, f->offset + offset, length,
                         flags | LAM_ZERO_NO_FALLBACK, NULL);
    return rc == -ENOTSUP ? -EOPNOTSUPP : rc;
}

int io_filter_punch(struct lam_io *io, uint64_t offset, uint64_t length)
{
    return zero(io, offset, length, LAM_ZERO_UNMAP);
}

int io_filter_zero_range(struct lam_io *io, uint64_t offset, uint64_t length)
{
    return zero(io, offset, length, 0);
}

int io_filter_discard(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct io_filter *f = io_filter_of(io);
    return lam_io_discard(f->inner, f->offset + offset, length, NULL);
}

int io_filter_allocate(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct io_filter *f = io_filter_of(io);
    return lam_io_allocate(f->inner, f->offset + offset, length, NULL);
}

int io_filter_extent(struct lam_io *io, uint64_t offset, uint64_t length,
                     enum lam_io_state *state, uint64_t *run)
{
    struct io_filter *f = io_filter_of(io);
    int rc = lam_io_extent(f->inner, f->offset + offset, length, state, run,
                           NULL);
    *run = min_u64(*run, length);
    return rc;
}

uint64_t io_filter_hole(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct io_filter *f = io_filter_of(io);
    return lam_io_hole(f->inner, f->offset + offset, length);
}

int io_filter_stat(struct lam_io *io, struct stat *st)
{
    struct lam_io *inner = io_filter_of(io)->inner;
    int fd;

    if (inner->ops->stat)
        return inner->ops->stat(inner, st);
    fd = lam_io_fd(inner);
    if (fd < 0)
        return -EBADF;
    return fstat(fd, st) < 0 ? -errno : 0;
}

static void copy_limits(struct io_filter *f)
{
    struct lam_io *io = &f->io;
    const struct lam_io *inner = f->inner;

    io->limits = inner->limits;
    io->limits.request_alignment = 1;
    io->limits.memory_alignment = 1;
    io->limits.is_block_device = false;
    io->limits.reserve_first = false;
    io->limits.write_max = 0;
    io->limits.can_grow = inner->limits.can_grow
        && f->length == IO_FILTER_WHOLE;
    io->limits.discard_granularity = 0;
    io->cache = inner->cache;
    io->writable = inner->writable;
    io->unmap = inner->unmap;
}

int io_filter_set_writable(struct lam_io *io, bool writable,
                           enum lam_io_locking locking, struct lam_error *err)
{
    struct io_filter *f = io_filter_of(io);
    bool unmap = io->unmap;
    int rc = lam_io_set_writable(f->inner, writable, locking, err);

    if (rc == 0)
        copy_limits(f);
    io->unmap = unmap;
    return rc;
}

int io_filter_descriptor(const struct lam_io *io)
{
    return lam_io_fd(io_filter_of(io)->inner);
}

void io_filter_close(struct lam_io *io)
{
    struct io_filter *f = io_filter_of(io);

    lam_io_close(f->inner);
    lam_io_deinit(io);
    free(f);
}

int io_filter_init(struct io_filter *f, const struct lam_io_ops *ops,
                   struct lam_io *inner, uint64_t offset, uint64_t length,
                   struct lam_error *err)
{
    uint64_t size;
    int rc = lam_io_size(inner, &size, err);

    if (rc == 0)
        rc = lam_io_init(&f->io, ops, inner->name, err);
    if (rc < 0)
        return rc;
    f->inner = inner;
    f->offset = offset;
    f->length = length;
    copy_limits(f);
    inner->unmap = true;            /* the filter's own word counts */
    atomic_store(&f->io.size, length != IO_FILTER_WHOLE ? length
                            : size > offset ? size - offset : 0);
    return 0;
}

struct lam_io *io_filter_inner(const struct lam_io *io)
{
    return io_filter_of(io)->inner;
}

void io_filter_event(struct lam_io *io, enum io_event event)
{
    lam_io_event(io_filter_of(io)->inner, event);
}

static const struct lam_io_ops through_ops = {
    .name = "raw",
    IO_FILTER_OPS,
};

int lam_io_through_new(struct lam_io *inner, uint64_t offset,
                       struct lam_io **out, struct lam_error *err)
{
    struct io_filter *f = calloc(1, sizeof *f);
    uint64_t size;
    int rc = f ? lam_io_size(inner, &size, err)
               : lam_fail(err, ENOMEM, "no memory for a view of a file");

    if (rc == 0 && offset > size)
        rc = lam_fail(err, EINVAL, "Offset (%" PRIu64 ") cannot be greater "
                      "than size of the containing file (%" PRIu64 ")", offset,
                      size);
    if (rc == 0)
        rc = io_filter_init(f, &through_ops, inner, offset, IO_FILTER_WHOLE,
                            err);

    if (rc < 0) {
        free(f);
        lam_io_close(inner);
        return rc;
    }
    *out = &f->io;
    return 0;
}
