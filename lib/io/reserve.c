/* SPDX-License-Identifier: MIT */
/*
 * reserve.c - a host object that takes space ahead of what is written to it,
 * and gives back at the end what was too much (the driver preallocate).
 *
 * Unlike growing ahead (ahead.h) it is asked for by name and says how much.
 */
#include "io/reserve.h"

#include "base/cleanup.h"
#include "io/filter.h"

struct reserve {
    struct io_filter filter;
    uint64_t align, size;       /* bytes */
    pthread_mutex_t lock;
    _Atomic uint64_t end;       /* of what was written */
    uint64_t taken;             /* of the file; at least @end */
};

static struct reserve *reserve_of(const struct lam_io *io)
{
    return (struct reserve *)io;
}

/* What cannot be taken is for the write itself to tell. */
static void take(struct reserve *r, uint64_t end)
{
    uint64_t sum, wanted;

    LAM_LOCKED(&r->lock);
    if (end <= r->taken || add_overflows(end, r->size, &sum)
        || sum > INT64_MAX - r->align)
        return;
    wanted = align_up(sum, r->align);
    if (lam_io_allocate(r->filter.inner, r->taken, wanted - r->taken,
                        NULL) == 0)
        r->taken = wanted;
}

static void written(struct reserve *r, uint64_t end)
{
    uint64_t old = atomic_load(&r->end);

    while (old < end && !atomic_compare_exchange_weak(&r->end, &old, end))
        ;
}

static int give_back(struct reserve *r)
{
    uint64_t end = atomic_load(&r->end);
    int rc = 0;

    LAM_LOCKED(&r->lock);
    if (r->taken > end)
        rc = lam_io_truncate(r->filter.inner, end, NULL);
    r->taken = end;
    return rc;
}

static ssize_t reserve_writev(struct lam_io *io, const struct iovec *iov,
                              int iovcnt, uint64_t offset)
{
    struct reserve *r = reserve_of(io);
    uint64_t bytes = 0;

    for (int i = 0; i < iovcnt; i++)
        bytes += iov[i].iov_len;
    if (io->limits.can_grow)
        take(r, offset + bytes);
    ssize_t n = io_filter_writev(io, iov, iovcnt, offset);
    if (n > 0)
        written(r, offset + (uint64_t)n);
    return n;
}

static int reserve_size(struct lam_io *io, uint64_t *size)
{
    *size = atomic_load(&reserve_of(io)->end);
    return 0;
}

static int reserve_truncate(struct lam_io *io, uint64_t size)
{
    struct reserve *r = reserve_of(io);

    LAM_LOCKED(&r->lock);
    int rc = io_filter_truncate(io, size);
    if (rc == 0) {
        atomic_store(&r->end, size);
        r->taken = size;
    }
    return rc;
}

static int reserve_zero_range(struct lam_io *io, uint64_t offset,
                              uint64_t length)
{
    int rc = io_filter_zero_range(io, offset, length);

    if (rc == 0)
        written(reserve_of(io), offset + length);
    return rc;
}

static int reserve_allocate(struct lam_io *io, uint64_t offset,
                            uint64_t length)
{
    int rc = io_filter_allocate(io, offset, length);

    if (rc == 0)
        written(reserve_of(io), offset + length);
    return rc;
}

static ssize_t reserve_readv(struct lam_io *io, const struct iovec *iov,
                             int iovcnt, uint64_t offset)
{
    uint64_t end = atomic_load(&reserve_of(io)->end);
    ssize_t n = offset < end ? io_filter_readv(io, iov, iovcnt, offset) : 0;

    return n > 0 && (uint64_t)n > end - offset ? (ssize_t)(end - offset) : n;
}

static int reserve_set_writable(struct lam_io *io, bool writable,
                                enum lam_io_locking locking,
                                struct lam_error *err)
{
    if (!writable && io->writable && give_back(reserve_of(io)) < 0)
        return lam_fail(err, EIO, "Could not give back what was reserved "
                        "behind the end of '%s'", io->name);
    return io_filter_set_writable(io, writable, locking, err);
}

static void reserve_close(struct lam_io *io)
{
    struct reserve *r = reserve_of(io);

    if (io->writable)
        give_back(r);
    pthread_mutex_destroy(&r->lock);
    io_filter_close(io);
}

static const struct lam_io_ops reserve_ops = {
    .name = "preallocate",
    .readv = reserve_readv,
    .writev = reserve_writev,
    .flush = io_filter_flush,
    .size = reserve_size,
    .stat = io_filter_stat,
    .truncate = reserve_truncate,
    .punch = io_filter_punch,
    .zero_range = reserve_zero_range,
    .discard = io_filter_discard,
    .allocate = reserve_allocate,
    .extent = io_filter_extent,
    .hole = io_filter_hole,
    .set_writable = reserve_set_writable,
    .descriptor = io_filter_descriptor,
    .inner = io_filter_inner,
    .event = io_filter_event,
    .close = reserve_close,
};

int lam_io_reserve_new(struct lam_io *inner, uint64_t align, uint64_t size,
                       struct lam_io **out, struct lam_error *err)
{
    struct reserve *r = calloc(1, sizeof *r);
    int rc = r ? io_filter_init(&r->filter, &reserve_ops, inner, 0,
                                IO_FILTER_WHOLE, err)
               : lam_fail(err, ENOMEM, "no memory for a file");

    if (rc < 0) {
        free(r);
        lam_io_close(inner);
        return rc;
    }
    pthread_mutex_init(&r->lock, NULL);
    r->align = align;
    r->size = size;
    r->taken = atomic_load(&r->filter.io.size);
    atomic_store(&r->end, r->taken);
    *out = &r->filter.io;
    return 0;
}
