/* SPDX-License-Identifier: MIT */
/*
 * throttle.c - a host object whose requests wait for the limits of its group.
 */
#include "io/throttle.h"

#include <stdlib.h>

#include "io/filter.h"

struct throttled {
    struct io_filter filter;
    struct throttle_group *group;
};

static struct throttle_group *group_of(const struct lam_io *io)
{
    return ((const struct throttled *)io)->group;
}

static uint64_t total(const struct iovec *iov, int iovcnt)
{
    uint64_t bytes = 0;

    for (int i = 0; i < iovcnt; i++)
        bytes += iov[i].iov_len;
    return bytes;
}

static ssize_t throttled_readv(struct lam_io *io, const struct iovec *iov,
                               int iovcnt, uint64_t offset)
{
    throttle_wait(group_of(io), false, total(iov, iovcnt));
    return io_filter_readv(io, iov, iovcnt, offset);
}

static ssize_t throttled_writev(struct lam_io *io, const struct iovec *iov,
                                int iovcnt, uint64_t offset)
{
    throttle_wait(group_of(io), true, total(iov, iovcnt));
    return io_filter_writev(io, iov, iovcnt, offset);
}

static int throttled_punch(struct lam_io *io, uint64_t offset, uint64_t length)
{
    throttle_wait(group_of(io), true, length);
    return io_filter_punch(io, offset, length);
}

static int throttled_zero_range(struct lam_io *io, uint64_t offset,
                                uint64_t length)
{
    throttle_wait(group_of(io), true, length);
    return io_filter_zero_range(io, offset, length);
}

static int throttled_discard(struct lam_io *io, uint64_t offset,
                             uint64_t length)
{
    throttle_wait(group_of(io), true, length);
    return io_filter_discard(io, offset, length);
}

static void throttled_close(struct lam_io *io)
{
    throttle_group_put(group_of(io));
    io_filter_close(io);
}

static const struct lam_io_ops throttled_ops = {
    .name = "throttle",
    .readv = throttled_readv,
    .writev = throttled_writev,
    .flush = io_filter_flush,
    .size = io_filter_size,
    .stat = io_filter_stat,
    .truncate = io_filter_truncate,
    .punch = throttled_punch,
    .zero_range = throttled_zero_range,
    .discard = throttled_discard,
    .allocate = io_filter_allocate,
    .extent = io_filter_extent,
    .hole = io_filter_hole,
    .set_writable = io_filter_set_writable,
    .descriptor = io_filter_descriptor,
    .inner = io_filter_inner,
    .event = io_filter_event,
    .close = throttled_close,
};

int lam_io_throttle_new(struct lam_io *inner, struct throttle_group *group,
                        struct lam_io **out, struct lam_error *err)
{
    struct throttled *t = calloc(1, sizeof *t);
    int rc = t ? io_filter_init(&t->filter, &throttled_ops, inner, 0,
                                IO_FILTER_WHOLE, err)
               : lam_fail(err, ENOMEM, "no memory for a throttle");

    if (rc < 0) {
        free(t);
        lam_io_close(inner);
        return rc;
    }
    t->group = throttle_group_get(group);
    *out = &t->filter.io;
    return 0;
}
