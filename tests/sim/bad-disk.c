/* SPDX-License-Identifier: MIT */
/*
 * bad-disk.c - a host object one of whose operations fails.
 */
#include "bad-disk.h"
#include "io/transfer.h"

const struct bad_mode bad_modes[BAD_MODES] = {
    { "EIO once", EIO, false, false, true },
    { "EIO from then on", EIO, true, false, true },
    { "ENOSPC once", ENOSPC, false, false, false },
    { "ENOSPC from then on", ENOSPC, true, false, false },
    { "half a write, EIO", EIO, false, true, false },
    { "half a write, ENOSPC", ENOSPC, false, true, false },
    { "half a write, ENOSPC from then on", ENOSPC, true, true, false },
};

struct bad_disk {
    struct lam_io io;
    struct lam_io *inner;       /* the caller's */
    struct trouble *trouble;
    bool owner;                 /* of inner */
};

static struct bad_disk *bad_disk(struct lam_io *io)
{
    return (struct bad_disk *)io;
}

/* 0, or the -errno of the operation that is asked for now. */
static int next_result(struct bad_disk *d)
{
    struct trouble *t = d->trouble;
    uint64_t n = t->count++;
    bool bad = n == t->fail_at || (t->mode->sticky && n > t->fail_at);

    return bad ? -t->mode->errnum : 0;
}

static ssize_t bad_readv(struct lam_io *io, const struct iovec *iov,
                         int iovcnt, uint64_t offset)
{
    struct bad_disk *d = bad_disk(io);
    int rc = d->trouble->mode->reads ? next_result(d) : 0;

    if (rc < 0)
        return rc;
    return d->inner->ops->readv(d->inner, iov, iovcnt, offset);
}

static ssize_t write_some(struct bad_disk *d, const struct iovec *iov,
                          int iovcnt, uint64_t offset)
{
    ssize_t n = d->inner->ops->writev(d->inner, iov, iovcnt, offset);

    if (n > 0)
        io_grown(d->inner, offset + (uint64_t)n);
    return n;
}

/* About half of the sectors; a single one is written as a whole or not. */
static ssize_t write_half(struct bad_disk *d, const struct iovec *iov,
                          int iovcnt, uint64_t offset)
{
    struct iovec half[64];
    size_t total = 0, left;
    int count = 0;

    for (int i = 0; i < iovcnt; i++)
        total += iov[i].iov_len;
    left = total / 1024 * 512;
    if (!left)
        return -d->trouble->mode->errnum;
    for (int i = 0; i < iovcnt && count < 64 && left > 0; i++) {
        half[count] = iov[i];
        half[count].iov_len = min_u64(left, iov[i].iov_len);
        left -= half[count++].iov_len;
    }
    d->trouble->half_done = true;
    return write_some(d, half, count, offset);
}

static ssize_t bad_writev(struct lam_io *io, const struct iovec *iov,
                          int iovcnt, uint64_t offset)
{
    struct bad_disk *d = bad_disk(io);
    struct trouble *t = d->trouble;

    if (t->half_done) {
        t->half_done = false;
        return -t->mode->errnum;
    }
    int rc = next_result(d);
    if (rc == 0)
        return write_some(d, iov, iovcnt, offset);
    return t->mode->torn ? write_half(d, iov, iovcnt, offset) : rc;
}

static int bad_flush(struct lam_io *io)
{
    return next_result(bad_disk(io));
}

static int bad_size(struct lam_io *io, uint64_t *size)
{
    return bad_disk(io)->inner->ops->size(bad_disk(io)->inner, size);
}

static int bad_truncate(struct lam_io *io, uint64_t size)
{
    struct bad_disk *d = bad_disk(io);
    int rc = next_result(d);

    return rc < 0 ? rc : lam_io_truncate(d->inner, size, NULL);
}

static int bad_zero_range(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct bad_disk *d = bad_disk(io);
    int rc = next_result(d);

    return rc < 0 ? rc : lam_io_zero(d->inner, offset, length, 0, NULL);
}

static int bad_discard(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct bad_disk *d = bad_disk(io);
    int rc = next_result(d);

    return rc < 0 ? rc : lam_io_discard(d->inner, offset, length, NULL);
}

static void bad_close(struct lam_io *io)
{
    if (bad_disk(io)->owner)
        lam_io_close(bad_disk(io)->inner);
    lam_io_deinit(io);
    free(io);
}

static const struct lam_io_ops bad_ops = {
    .name = "bad", .readv = bad_readv, .writev = bad_writev,
    .flush = bad_flush, .size = bad_size, .truncate = bad_truncate,
    .zero_range = bad_zero_range, .discard = bad_discard, .close = bad_close,
};

struct lam_io *bad_disk_new(struct lam_io *inner, struct trouble *t)
{
    struct bad_disk *d = calloc(1, sizeof *d);

    assert_non_null(d);
    assert_int_equal(lam_io_init(&d->io, &bad_ops, "bad disk", NULL), 0);
    d->inner = inner;
    d->trouble = t;
    d->io.limits = inner->limits;
    d->io.limits.can_punch = false;
    d->io.writable = d->io.unmap = true;
    atomic_store(&d->io.size, atomic_load(&inner->size));
    return &d->io;
}

struct lam_io *bad_disk_over(struct lam_io *inner, struct trouble *t)
{
    struct lam_io *io = bad_disk_new(inner, t);

    bad_disk(io)->owner = true;
    return io;
}
