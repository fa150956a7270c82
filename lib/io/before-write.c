/* SPDX-License-Identifier: MIT */
/*
 * before-write.c - a filter that copies what is about to be overwritten into
 * another object (copy-before-write), and the disk as it was (snapshot-access).
 *
 * A cluster is copied once.  Copying, and reading a cluster of the snapshot,
 * happen under the filter's lock, so that no write comes between looking where
 * a cluster is and reading it there; the writes themselves need no lock.
 */
#include "io/before-write.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "io/filter.h"

enum { CHUNK = 1 << 20 };       /* bytes copied at a time */

struct before_write {
    struct io_filter filter;
    struct lam_io *target;      /* owned */
    struct io_before_options options;
    uint64_t size;              /* of the snapshot, in bytes */
    pthread_mutex_t lock;       /* all below */
    uint8_t *copied;            /* a bit a cluster: it need not be any more; */
    uint8_t *dropped;           /* ... since nobody wants it */
    uint8_t *buffer;            /* CHUNK bytes */
    bool broken;                /* something was overwritten uncopied */
};

static struct before_write *before_of(const struct lam_io *io)
{
    return (struct before_write *)io;
}

static bool has(const uint8_t *bits, uint64_t cluster)
{
    return bits[cluster / 8] >> cluster % 8 & 1;
}

static void set(uint8_t *bits, uint64_t cluster)
{
    bits[cluster / 8] |= (uint8_t)(1 << cluster % 8);
}

/* ----------------------------------------------------------------- copying */

/* Some of [@offset, @offset + *@length), which becomes how much it was. */
static int copy_some(struct before_write *b, uint64_t offset, uint64_t *length)
{
    enum lam_io_state state;
    uint64_t run;
    int rc = lam_io_extent(b->filter.inner, offset, *length, &state, &run,
                           NULL);

    if (rc < 0)
        return rc;
    *length = min_u64(*length, run);
    if (state == LAM_IO_HOLE)
        return lam_io_zero(b->target, offset, *length, LAM_ZERO_UNMAP, NULL);
    *length = min_u64(*length, CHUNK);
    rc = lam_io_read(b->filter.inner, b->buffer, *length, offset, NULL);
    return rc < 0 ? rc
        : lam_io_write(b->target, b->buffer, *length, offset, NULL);
}

static int copy_bytes(struct before_write *b, uint64_t offset, uint64_t end)
{
    uint64_t room;
    int rc = lam_io_size(b->target, &room, NULL);

    if (rc == 0 && end > room)
        rc = -ENOSPC;
    while (rc == 0 && offset < end) {
        uint64_t n = end - offset;
        rc = copy_some(b, offset, &n);
        offset += n;
    }
    return rc;
}

static int copy_cluster(struct before_write *b, uint64_t cluster)
{
    uint64_t offset = cluster * b->options.cluster;
    time_t start = time(NULL);
    int rc = copy_bytes(b, offset, min_u64(offset + b->options.cluster,
                                           b->size));

    if (rc == 0 && b->options.timeout
        && (uint64_t)(time(NULL) - start) > b->options.timeout)
        rc = -ETIMEDOUT;
    if (rc == 0)
        set(b->copied, cluster);
    return rc;
}

/* Before [@offset, @offset + @length) changes. */
static int before(struct before_write *b, uint64_t offset, uint64_t length)
{
    uint64_t cluster = b->options.cluster;
    int rc = 0;

    if (offset >= b->size || !length)
        return 0;
    uint64_t last = (offset + min_u64(length, b->size - offset) - 1) / cluster;
    LAM_LOCKED(&b->lock);
    for (uint64_t i = offset / cluster; i <= last && rc == 0; i++)
        if (!b->broken && !has(b->copied, i))
            rc = copy_cluster(b, i);
    if (rc < 0 && b->options.break_snapshot) {
        b->broken = true;
        rc = 0;
    }
    return rc;
}

/* ------------------------------------------------------------ the filter */

static ssize_t before_writev(struct lam_io *io, const struct iovec *iov,
                             int iovcnt, uint64_t offset)
{
    uint64_t bytes = 0;

    for (int i = 0; i < iovcnt; i++)
        bytes += iov[i].iov_len;
    int rc = before(before_of(io), offset, bytes);
    return rc < 0 ? rc : io_filter_writev(io, iov, iovcnt, offset);
}

static int before_punch(struct lam_io *io, uint64_t offset, uint64_t length)
{
    int rc = before(before_of(io), offset, length);

    return rc < 0 ? rc : io_filter_punch(io, offset, length);
}

static int before_zero_range(struct lam_io *io, uint64_t offset,
                             uint64_t length)
{
    int rc = before(before_of(io), offset, length);

    return rc < 0 ? rc : io_filter_zero_range(io, offset, length);
}

static int before_discard(struct lam_io *io, uint64_t offset, uint64_t length)
{
    int rc = before(before_of(io), offset, length);

    return rc < 0 ? rc : io_filter_discard(io, offset, length);
}

static int before_truncate(struct lam_io *io, uint64_t size)
{
    struct before_write *b = before_of(io);
    int rc = size < b->size ? before(b, size, b->size - size) : 0;

    return rc < 0 ? rc : io_filter_truncate(io, size);
}

static int before_flush(struct lam_io *io)
{
    int rc = lam_io_flush(before_of(io)->target, NULL);

    return rc < 0 ? rc : io_filter_flush(io);
}

static void before_close(struct lam_io *io)
{
    struct before_write *b = before_of(io);

    lam_io_close(b->target);
    pthread_mutex_destroy(&b->lock);
    free(b->copied);
    free(b->dropped);
    free(b->buffer);
    io_filter_close(io);
}

static const struct lam_io_ops before_ops = {
    .name = "copy-before-write",
    .readv = io_filter_readv, .writev = before_writev,
    .flush = before_flush, .size = io_filter_size, .stat = io_filter_stat,
    .truncate = before_truncate, .punch = before_punch,
    .zero_range = before_zero_range, .discard = before_discard,
    .allocate = io_filter_allocate, .extent = io_filter_extent,
    .hole = io_filter_hole, .set_writable = io_filter_set_writable,
    .descriptor = io_filter_descriptor, .inner = io_filter_inner,
    .event = io_filter_event, .close = before_close,
};

static void free_memory(struct before_write *b)
{
    free(b->copied);
    free(b->dropped);
    free(b->buffer);
    free(b);
}

static int start(struct before_write *b, struct lam_io *inner,
                 struct lam_error *err)
{
    int rc = lam_io_size(inner, &b->size, err);

    if (rc < 0)
        return rc;
    uint64_t bytes = div_up(b->size, b->options.cluster) / 8 + 1;
    b->copied = calloc(1, bytes);
    b->dropped = calloc(1, bytes);
    b->buffer = malloc(CHUNK);
    if (!b->copied || !b->dropped || !b->buffer)
        return lam_fail(err, ENOMEM, "no memory for what is copied before "
                        "writes");
    return io_filter_init(&b->filter, &before_ops, inner, 0, IO_FILTER_WHOLE,
                          err);
}

int lam_io_before_write_new(struct lam_io *inner, struct lam_io *target,
                            const struct io_before_options *options,
                            struct lam_io **out, struct lam_error *err)
{
    struct before_write *b = calloc(1, sizeof *b);
    int rc = b ? 0 : lam_fail(err, ENOMEM, "no memory for a filter");

    if (rc == 0) {
        b->target = target;
        b->options = *options;
        rc = start(b, inner, err);
    }
    if (rc < 0) {
        if (b)
            free_memory(b);
        lam_io_close(target);
        lam_io_close(inner);
        return rc;
    }
    pthread_mutex_init(&b->lock, NULL);
    *out = &b->filter.io;
    return 0;
}

/* ------------------------------------------------------------ the snapshot */

/* The filter whose snapshot it is; NULL: there is none. */
static struct before_write *snapshot_of(const struct lam_io *io)
{
    struct lam_io *inner = io_filter_of(io)->inner;

    return inner->ops == &before_ops ? before_of(inner) : NULL;
}

static int read_snapshot(struct before_write *b, void *buf, uint64_t length,
                         uint64_t offset)
{
    uint64_t cluster = offset / b->options.cluster;

    LAM_LOCKED(&b->lock);
    if (b->broken || has(b->dropped, cluster))
        return -EACCES;
    return lam_io_read(has(b->copied, cluster) ? b->target : b->filter.inner,
                       buf, length, offset, NULL);
}

/* What is in one cluster; the front end asks for the rest. */
static ssize_t snapshot_readv(struct lam_io *io, const struct iovec *iov,
                              int iovcnt, uint64_t offset)
{
    struct before_write *b = snapshot_of(io);

    (void)iovcnt;
    if (!b)
        return -ENOTSUP;
    if (offset >= b->size)
        return 0;
    uint64_t room = b->options.cluster - offset % b->options.cluster;
    uint64_t n = min_u64(min_u64(iov->iov_len, room), b->size - offset);
    int rc = read_snapshot(b, iov->iov_base, n, offset);
    return rc < 0 ? rc : (ssize_t)n;
}

static ssize_t snapshot_writev(struct lam_io *io, const struct iovec *iov,
                               int iovcnt, uint64_t offset)
{
    (void)io;
    (void)iov;
    (void)iovcnt;
    (void)offset;
    return -ENOTSUP;
}

static int snapshot_change(struct lam_io *io, uint64_t offset, uint64_t length)
{
    (void)io;
    (void)offset;
    (void)length;
    return -ENOTSUP;
}

/* Nobody is going to read these clusters. */
static int snapshot_discard(struct lam_io *io, uint64_t offset,
                            uint64_t length)
{
    struct before_write *b = snapshot_of(io);

    if (!b)
        return -ENOTSUP;
    uint64_t end = min_u64(offset + length, b->size);
    uint64_t stop = end == b->size ? div_up(end, b->options.cluster)
                                   : end / b->options.cluster;
    LAM_LOCKED(&b->lock);
    for (uint64_t i = div_up(offset, b->options.cluster); i < stop; i++) {
        set(b->copied, i);
        set(b->dropped, i);
    }
    return 0;
}

static int snapshot_truncate(struct lam_io *io, uint64_t size)
{
    (void)io;
    (void)size;
    return -ENOTSUP;
}

static int snapshot_size(struct lam_io *io, uint64_t *size)
{
    const struct before_write *b = snapshot_of(io);

    if (!b)
        return io_filter_size(io, size);
    *size = b->size;
    return 0;
}

static int snapshot_extent(struct lam_io *io, uint64_t offset, uint64_t length,
                           enum lam_io_state *state, uint64_t *run)
{
    (void)offset;
    *state = LAM_IO_DATA;
    *run = length;
    return snapshot_of(io) ? 0 : -ENOTSUP;
}

static const struct lam_io_ops snapshot_ops = {
    .name = "snapshot-access",
    .readv = snapshot_readv, .writev = snapshot_writev,
    .flush = io_filter_flush, .size = snapshot_size, .stat = io_filter_stat,
    .truncate = snapshot_truncate, .punch = snapshot_change,
    .zero_range = snapshot_change, .discard = snapshot_discard,
    .allocate = snapshot_change, .extent = snapshot_extent,
    .set_writable = io_filter_set_writable,
    .descriptor = io_filter_descriptor, .inner = io_filter_inner,
    .event = io_filter_event, .close = io_filter_close,
};

int lam_io_snapshot_access_new(struct lam_io *inner, struct lam_io **out,
                               struct lam_error *err)
{
    struct io_filter *f = calloc(1, sizeof *f);
    int rc = f ? io_filter_init(f, &snapshot_ops, inner, 0, IO_FILTER_WHOLE,
                                err)
               : lam_fail(err, ENOMEM, "no memory for a filter");

    if (rc < 0) {
        free(f);
        lam_io_close(inner);
        return rc;
    }
    *out = &f->io;
    return 0;
}
