/* SPDX-License-Identifier: MIT */
/*
 * window.c - part of a host object as an object of its own.
 *
 * Requests go to the inner object through its front door, which bounces what
 * O_DIRECT does not allow: the window itself has no alignment, since it may
 * start anywhere.
 */
#include "io/window.h"

#include <inttypes.h>

#include "base/cleanup.h"
#include "extent/range.h"

enum { MAX_SEGMENTS = 64 };     /* what the front end passes at a time */

struct window {
    struct lam_io io;
    struct lam_io *inner;
    uint64_t offset, size;
};

static struct window *window_of(const struct lam_io *io)
{
    return (struct window *)io;
}

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

static ssize_t transfer(struct lam_io *io, const struct iovec *iov, int iovcnt,
                        uint64_t offset, bool write)
{
    struct window *w = window_of(io);
    struct iovec inside[MAX_SEGMENTS];
    int count;

    if (offset >= w->size)
        return write ? -ENOSPC : 0;
    iovcnt = iovcnt < MAX_SEGMENTS ? iovcnt : MAX_SEGMENTS;
    size_t total = clip(iov, iovcnt, w->size - offset, inside, &count);
    int rc = write
        ? lam_io_writev(w->inner, inside, count, w->offset + offset, NULL)
        : lam_io_readv(w->inner, inside, count, w->offset + offset, NULL);
    return rc < 0 ? rc : (ssize_t)total;
}

static ssize_t window_readv(struct lam_io *io, const struct iovec *iov,
                            int iovcnt, uint64_t offset)
{
    return transfer(io, iov, iovcnt, offset, false);
}

static ssize_t window_writev(struct lam_io *io, const struct iovec *iov,
                             int iovcnt, uint64_t offset)
{
    return transfer(io, iov, iovcnt, offset, true);
}

static int window_flush(struct lam_io *io)
{
    return lam_io_flush(window_of(io)->inner, NULL);
}

static int window_size(struct lam_io *io, uint64_t *size)
{
    *size = window_of(io)->size;
    return 0;
}

static int window_punch(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct window *w = window_of(io);
    int rc = lam_io_zero(w->inner, w->offset + offset, length,
                         LAM_ZERO_UNMAP | LAM_ZERO_NO_FALLBACK, NULL);
    return rc == -ENOTSUP ? -EOPNOTSUPP : rc;
}

static int window_zero_range(struct lam_io *io, uint64_t offset,
                             uint64_t length)
{
    struct window *w = window_of(io);
    int rc = lam_io_zero(w->inner, w->offset + offset, length,
                         LAM_ZERO_NO_FALLBACK, NULL);
    return rc == -ENOTSUP ? -EOPNOTSUPP : rc;
}

static int window_discard(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct window *w = window_of(io);
    return lam_io_discard(w->inner, w->offset + offset, length, NULL);
}

static int window_extent(struct lam_io *io, uint64_t offset, uint64_t length,
                         enum lam_io_state *state, uint64_t *run)
{
    struct window *w = window_of(io);
    return lam_io_extent(w->inner, w->offset + offset, length, state, run,
                         NULL);
}

static uint64_t window_hole(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct window *w = window_of(io);

    return lam_io_hole(w->inner, w->offset + offset, length);
}

static void copy_limits(struct lam_io *io, const struct lam_io *inner)
{
    io->limits = inner->limits;
    io->limits.request_alignment = 1;
    io->limits.memory_alignment = 1;
    io->limits.is_block_device = false;
    io->limits.can_grow = false;
    io->limits.discard_granularity = 0;
    io->cache = inner->cache;
    io->writable = inner->writable;
    io->unmap = inner->unmap;
}

static int window_set_writable(struct lam_io *io, bool writable,
                               enum lam_io_locking locking,
                               struct lam_error *err)
{
    struct window *w = window_of(io);
    int rc = lam_io_set_writable(w->inner, writable, locking, err);
    if (rc == 0)
        copy_limits(io, w->inner);
    return rc;
}

static int window_descriptor(const struct lam_io *io)
{
    return lam_io_fd(window_of(io)->inner);
}

static void window_event(struct lam_io *io, enum io_event event)
{
    lam_io_event(window_of(io)->inner, event);
}

static struct lam_io *window_inner(const struct lam_io *io)
{
    return window_of(io)->inner;
}

static void window_close(struct lam_io *io)
{
    struct window *w = window_of(io);
    lam_io_close(w->inner);
    lam_io_deinit(io);
    free(w);
}

static const struct lam_io_ops window_ops = {
    .name = "window",
    .readv = window_readv,
    .writev = window_writev,
    .flush = window_flush,
    .size = window_size,
    .punch = window_punch,
    .zero_range = window_zero_range,
    .discard = window_discard,
    .extent = window_extent,
    .hole = window_hole,
    .set_writable = window_set_writable,
    .descriptor = window_descriptor,
    .event = window_event,
    .inner = window_inner,
    .close = window_close,
};

static int window_fit(struct lam_io *inner, uint64_t offset, uint64_t *size,
                      struct lam_error *err)
{
    uint64_t length;
    int rc = lam_io_size(inner, &length, err);
    if (rc < 0)
        return rc;
    if (!range_fits(offset, *size, length))
        return lam_fail(err, EINVAL, "The sum of offset (%" PRIu64 ") and size"
                        " (%" PRIu64 ") has to be smaller or equal to the "
                        "actual size of the containing file (%" PRIu64 ")",
                        offset, *size, length);
    if (*size == 0)
        *size = length - offset;
    return 0;
}

int lam_io_window_new(struct lam_io *inner, uint64_t offset, uint64_t size,
                      struct lam_io **out, struct lam_error *err)
{
    lam_autofree struct window *w = NULL;
    int rc = window_fit(inner, offset, &size, err);

    if (rc == 0) {
        w = calloc(1, sizeof *w);
        rc = w ? lam_io_init(&w->io, &window_ops, inner->name, err)
               : lam_fail(err, ENOMEM, "no memory for part of a file");
    }
    if (rc < 0) {
        lam_io_close(inner);
        return rc;
    }
    w->inner = inner;
    w->offset = offset;
    w->size = size;
    copy_limits(&w->io, inner);
    inner->unmap = true;            /* the window's own word counts */
    atomic_store(&w->io.size, size);
    *out = &lam_take(&w)->io;
    return 0;
}
