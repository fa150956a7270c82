/* SPDX-License-Identifier: MIT */
/*
 * null.c - a host object that stores nothing, for measuring what is above it.
 *
 * What is read is zero, be it asked for or not: bytes of somebody's memory are
 * nothing to hand out.
 */
#include "io/null.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"

struct null {
    struct lam_io io;
    struct io_null_options options;
};

static struct null *null_of(const struct lam_io *io)
{
    return (struct null *)io;
}

static void pass_time(const struct null *n)
{
    uint64_t ns = n->options.latency_ns;
    const struct timespec wait = {
        (time_t)(ns / 1000000000), (long)(ns % 1000000000)
    };

    if (ns)
        nanosleep(&wait, NULL);
}

/* The bytes of @iov before the end. */
static size_t inside(const struct null *n, const struct iovec *iov, int iovcnt,
                     uint64_t offset)
{
    uint64_t total = 0;

    for (int i = 0; i < iovcnt; i++)
        total += iov[i].iov_len;
    return offset >= n->options.size ? 0
        : min_u64(total, n->options.size - offset);
}

static ssize_t null_readv(struct lam_io *io, const struct iovec *iov,
                          int iovcnt, uint64_t offset)
{
    struct null *n = null_of(io);
    size_t bytes = inside(n, iov, iovcnt, offset), left = bytes;

    pass_time(n);
    for (int i = 0; i < iovcnt && left; i++) {
        size_t part = min_u64(iov[i].iov_len, left);
        memset(iov[i].iov_base, 0, part);
        left -= part;
    }
    return (ssize_t)bytes;
}

static ssize_t null_writev(struct lam_io *io, const struct iovec *iov,
                           int iovcnt, uint64_t offset)
{
    struct null *n = null_of(io);

    pass_time(n);
    size_t bytes = inside(n, iov, iovcnt, offset);
    return bytes ? (ssize_t)bytes : -ENOSPC;
}

static int null_flush(struct lam_io *io)
{
    pass_time(null_of(io));
    return 0;
}

static int null_size(struct lam_io *io, uint64_t *size)
{
    *size = null_of(io)->options.size;
    return 0;
}

/* Each is an object of its own, on no device. */
static int null_stat(struct lam_io *io, struct stat *st)
{
    *st = (struct stat){ .st_ino = (ino_t)(uintptr_t)io, .st_mode = S_IFREG };
    return 0;
}

static int null_change(struct lam_io *io, uint64_t offset, uint64_t length)
{
    (void)offset;
    (void)length;
    pass_time(null_of(io));
    return 0;
}

static int null_extent(struct lam_io *io, uint64_t offset, uint64_t length,
                       enum lam_io_state *state, uint64_t *run)
{
    (void)io;
    (void)offset;
    *state = LAM_IO_HOLE;
    *run = length;
    return 0;
}

static int null_set_writable(struct lam_io *io, bool writable,
                             enum lam_io_locking locking,
                             struct lam_error *err)
{
    (void)locking;
    (void)err;
    io->writable = writable;
    return 0;
}

static void null_close(struct lam_io *io)
{
    lam_io_deinit(io);
    free(io);
}

static const struct lam_io_ops null_ops = {
    .name = "null",
    .readv = null_readv,
    .writev = null_writev,
    .flush = null_flush,
    .size = null_size,
    .stat = null_stat,
    .punch = null_change,
    .zero_range = null_change,
    .discard = null_change,
    .allocate = null_change,
    .extent = null_extent,
    .set_writable = null_set_writable,
    .close = null_close,
};

int io_null_new(const char *name, const struct io_null_options *options,
                struct lam_io **out, struct lam_error *err)
{
    lam_autofree struct null *n = calloc(1, sizeof *n);

    if (!n)
        return lam_fail(err, ENOMEM, "no memory for '%s'", name);
    if (options->size > INT64_MAX)
        return lam_fail(err, EFBIG, "size %" PRIu64 " is beyond the limit of "
                        "2^63", options->size);
    int rc = lam_io_init(&n->io, &null_ops, name, err);
    if (rc < 0)
        return rc;
    n->options = *options;
    n->io.writable = options->writable;
    n->io.cache = options->cache;
    n->io.limits.can_punch = n->io.limits.can_zero_range = true;
    n->io.limits.can_discard = true;
    atomic_store(&n->io.size, options->size);
    *out = &lam_take(&n)->io;
    return 0;
}
