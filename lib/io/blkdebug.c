/* SPDX-License-Identifier: MIT */
/*
 * blkdebug.c - the object that fails and waits: its requests.
 */
#include "io/blkdebug-internal.h"

#include <inttypes.h>
#include <limits.h>

#include "base/arith.h"
#include "base/cleanup.h"
#include "io/transfer.h"

enum { MAX_SEGMENTS = 64 };     /* what the front end passes at a time */

/* ----------------------------------------------------------------- requests */

/* As much as one transfer may be. */
static int clip(const struct blkdebug *b, const struct iovec *iov, int iovcnt,
                struct iovec *out, uint64_t *length)
{
    uint64_t room = b->options.max_transfer ? b->options.max_transfer
                                            : UINT64_MAX;
    int count = 0;

    *length = 0;
    for (; count < iovcnt && count < MAX_SEGMENTS && room > 0; count++) {
        out[count] = iov[count];
        out[count].iov_len = min_u64(iov[count].iov_len, room);
        room -= out[count].iov_len;
        *length += out[count].iov_len;
    }
    return count;
}

static ssize_t blkdebug_readv(struct lam_io *io, const struct iovec *iov,
                              int iovcnt, uint64_t offset)
{
    struct blkdebug *b = blkdebug_of(io);
    struct iovec part[MAX_SEGMENTS];
    uint64_t length;
    int count = clip(b, iov, iovcnt, part, &length);
    int rc = blkdebug_judge(b, BLKDEBUG_READ, offset, length);

    return rc < 0 ? rc : b->inner->ops->readv(b->inner, part, count, offset);
}

static ssize_t write_inner(struct blkdebug *b, const struct iovec *iov,
                           int iovcnt, uint64_t offset)
{
    ssize_t n = b->inner->ops->writev(b->inner, iov, iovcnt, offset);

    if (n > 0)
        io_grown(b->inner, offset + (uint64_t)n);
    return n;
}

static ssize_t blkdebug_writev(struct lam_io *io, const struct iovec *iov,
                               int iovcnt, uint64_t offset)
{
    struct blkdebug *b = blkdebug_of(io);
    struct iovec part[MAX_SEGMENTS];
    uint64_t length;
    int count = clip(b, iov, iovcnt, part, &length);
    int rc = blkdebug_judge(b, BLKDEBUG_WRITE, offset, length);

    return rc < 0 ? rc : write_inner(b, part, count, offset);
}

static int blkdebug_flush(struct lam_io *io)
{
    struct blkdebug *b = blkdebug_of(io);
    int rc = blkdebug_judge(b, BLKDEBUG_FLUSH, 0, 0);

    return rc < 0 ? rc : b->inner->ops->flush(b->inner);
}

static int blkdebug_size(struct lam_io *io, uint64_t *size)
{
    struct lam_io *inner = blkdebug_of(io)->inner;
    return inner->ops->size(inner, size);
}

static int blkdebug_truncate(struct lam_io *io, uint64_t size)
{
    struct lam_io *inner = blkdebug_of(io)->inner;
    int rc = inner->ops->truncate ? inner->ops->truncate(inner, size)
                                  : -ENOTSUP;
    if (rc == 0)
        atomic_store(&inner->size, size);
    return rc;
}

/* ------------------------------------------------------------ zero, discard */

typedef int range_fn(struct lam_io *io, uint64_t offset, uint64_t length);

/* Units and pieces that the rules allow of a kind of request. */
struct shape { unsigned kind; uint64_t unit, max; };

static struct shape zero_shape(const struct blkdebug *b)
{
    return (struct shape){
        .kind = BLKDEBUG_WRITE_ZEROES,
        .unit = max_u64(b->options.opt_write_zero,
                        b->io.limits.request_alignment),
        .max = b->options.max_write_zero,
    };
}

/* Units need not be powers of two. */
static struct range_split split_units(uint64_t offset, uint64_t length,
                                      uint64_t unit)
{
    uint64_t end = offset + length;
    uint64_t first = min_u64(div_up(offset, unit) * unit, end);
    uint64_t last = max_u64(end - end % unit, first);

    return (struct range_split){
        range_make(offset, first - offset),
        range_make(first, last - first),
        range_make(last, end - last),
    };
}

/* Whole units of @body, at most so much at a time. */
static int call_pieces(struct blkdebug *b, range_fn *call, struct range body,
                       const struct shape *shape)
{
    uint64_t max = shape->max ? shape->max : UINT64_MAX;

    while (body.length > 0) {
        uint64_t piece = min_u64(body.length, max);
        int rc = blkdebug_judge(b, shape->kind, body.offset, piece);

        if (rc == 0)
            rc = call(b->inner, body.offset, piece);
        if (rc < 0)
            return rc;
        body = range_make(body.offset + piece, body.length - piece);
    }
    return 0;
}

/* The odd ends of a range of zeroes are written. */
static int write_zeroes(struct blkdebug *b, struct range r)
{
    static uint8_t zeroes[4096];

    while (r.length > 0) {
        struct iovec iov = { zeroes, min_u64(r.length, sizeof zeroes) };
        int rc = blkdebug_judge(b, BLKDEBUG_WRITE, r.offset, iov.iov_len);

        if (rc < 0)
            return rc;
        ssize_t n = write_inner(b, &iov, 1, r.offset);
        if (n <= 0)
            return n < 0 ? (int)n : -EIO;
        r = range_make(r.offset + (uint64_t)n, r.length - (uint64_t)n);
    }
    return 0;
}

static int zero(struct blkdebug *b, range_fn *call, uint64_t offset,
                uint64_t length)
{
    struct shape shape = zero_shape(b);
    struct range_split split = split_units(offset, length, shape.unit);
    int rc = call ? call_pieces(b, call, split.body, &shape) : -EOPNOTSUPP;

    if (rc == 0)
        rc = write_zeroes(b, split.head);
    return rc < 0 ? rc : write_zeroes(b, split.tail);
}

static int blkdebug_punch(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct blkdebug *b = blkdebug_of(io);
    return zero(b, b->inner->ops->punch, offset, length);
}

static int blkdebug_zero_range(struct lam_io *io, uint64_t offset,
                               uint64_t length)
{
    struct blkdebug *b = blkdebug_of(io);
    int rc = zero(b, b->inner->ops->zero_range, offset, length);

    if (rc == 0)
        io_grown(b->inner, offset + length);
    return rc;
}

/* The odd ends of what is discarded are requests of their own. */
static int blkdebug_discard(struct lam_io *io, uint64_t offset,
                            uint64_t length)
{
    struct blkdebug *b = blkdebug_of(io);
    range_fn *call = b->inner->ops->discard;
    struct shape shape = {
        .kind = BLKDEBUG_DISCARD,
        .unit = max_u64(b->options.opt_discard,
                        io->limits.request_alignment),
        .max = b->options.max_discard,
    };
    struct range all = split_units(offset, length,
                                   io->limits.request_alignment).body;
    struct range_split split = split_units(all.offset, all.length, shape.unit);

    if (!call)
        return -EOPNOTSUPP;
    int rc = call_pieces(b, call, split.head, &shape);
    if (rc == 0)
        rc = call_pieces(b, call, split.body, &shape);
    return rc < 0 ? rc : call_pieces(b, call, split.tail, &shape);
}

static int blkdebug_allocate(struct lam_io *io, uint64_t offset,
                             uint64_t length)
{
    struct lam_io *inner = blkdebug_of(io)->inner;
    int rc = inner->ops->allocate
        ? inner->ops->allocate(inner, offset, length) : -ENOTSUP;

    if (rc == 0)
        io_grown(inner, offset + length);
    return rc;
}

static int blkdebug_extent(struct lam_io *io, uint64_t offset, uint64_t length,
                           enum lam_io_state *state, uint64_t *run)
{
    struct blkdebug *b = blkdebug_of(io);
    int rc = blkdebug_judge(b, BLKDEBUG_BLOCK_STATUS, offset, length);

    return rc < 0 ? rc : lam_io_extent(b->inner, offset, length, state, run,
                                       NULL);
}

/* -------------------------------------------------------------- the object */

static void copy_limits(struct blkdebug *b)
{
    struct lam_io *io = &b->io;
    const struct lam_io *inner = b->inner;
    uint64_t align = max_u64(b->options.align,
                             inner->limits.request_alignment);

    io->limits = inner->limits;
    io->limits.request_alignment = (uint32_t)align;
    io->cache = inner->cache;
    io->writable = inner->writable;
    io->unmap = inner->unmap;
    io->eof_unit = inner->eof_unit;
}

static int blkdebug_set_writable(struct lam_io *io, bool writable,
                                 enum lam_io_locking locking,
                                 struct lam_error *err)
{
    struct blkdebug *b = blkdebug_of(io);
    uint64_t eof_unit = io->eof_unit;
    int rc = lam_io_set_writable(b->inner, writable, locking, err);

    if (rc == 0)
        copy_limits(b);
    io->eof_unit = eof_unit;
    return rc;
}

static int blkdebug_descriptor(const struct lam_io *io)
{
    return lam_io_fd(blkdebug_of(io)->inner);
}

static struct lam_io *blkdebug_inner(const struct lam_io *io)
{
    return blkdebug_of(io)->inner;
}

static void blkdebug_free(struct blkdebug *b)
{
    pthread_cond_destroy(&b->resumed);
    pthread_mutex_destroy(&b->lock);
    blkdebug_options_deinit(&b->options);
    free(b->rules);
    free(b);
}

static void blkdebug_close(struct lam_io *io)
{
    struct blkdebug *b = blkdebug_of(io);

    blkdebug_drop_breakpoints(b);
    lam_io_close(b->inner);
    lam_io_deinit(io);
    blkdebug_free(b);
}

static const struct lam_io_ops blkdebug_ops = {
    .name = "blkdebug",
    .readv = blkdebug_readv,
    .writev = blkdebug_writev,
    .flush = blkdebug_flush,
    .size = blkdebug_size,
    .truncate = blkdebug_truncate,
    .punch = blkdebug_punch,
    .zero_range = blkdebug_zero_range,
    .discard = blkdebug_discard,
    .allocate = blkdebug_allocate,
    .extent = blkdebug_extent,
    .set_writable = blkdebug_set_writable,
    .descriptor = blkdebug_descriptor,
    .event = blkdebug_event,
    .inner = blkdebug_inner,
    .close = blkdebug_close,
};

/* -------------------------------------------------------------------- birth */

/* -EINVAL unless each size is a multiple of what it has to be. */
static int check_sizes(const struct blkdebug_options *o, uint64_t inner,
                       struct lam_error *err)
{
    uint64_t align = max_u64(o->align, inner);
    uint64_t zero_unit = max_u64(o->opt_write_zero, align);
    uint64_t discard_unit = max_u64(o->opt_discard, align);
    const struct { const char *name; uint64_t value, unit; } sizes[] = {
        { "max-transfer", o->max_transfer, align },
        { "opt-write-zero", o->opt_write_zero, align },
        { "max-write-zero", o->max_write_zero, zero_unit },
        { "opt-discard", o->opt_discard, align },
        { "max-discard", o->max_discard, discard_unit },
    };

    if (o->align && (o->align >= INT_MAX || !is_power_of_two(o->align)))
        return lam_fail(err, EINVAL, "Cannot meet constraints with align %"
                        PRIu64, o->align);
    for (size_t i = 0; i < LAM_ARRAY_SIZE(sizes); i++)
        if (sizes[i].value >= INT_MAX || sizes[i].value % sizes[i].unit)
            return lam_fail(err, EINVAL, "Cannot meet constraints with %s %"
                            PRIu64, sizes[i].name, sizes[i].value);
    return 0;
}

static int fill(struct blkdebug *b, struct lam_io *inner,
                struct blkdebug_options *options, struct lam_error *err)
{
    int rc = check_sizes(options, inner->limits.request_alignment, err);

    if (rc < 0)
        return rc;
    b->rules = calloc(options->nb_rules + 1, sizeof *b->rules);
    if (!b->rules)
        return lam_fail(err, ENOMEM, "no memory for rules");
    rc = lam_io_init(&b->io, &blkdebug_ops, inner->name, err);
    if (rc < 0)
        return rc;
    b->options = *options;
    *options = (struct blkdebug_options){ 0 };
    b->inner = inner;
    copy_limits(b);
    atomic_store(&b->io.size, atomic_load(&inner->size));
    blkdebug_event(&b->io, IO_EVENT_NONE);
    return 0;
}

int lam_io_blkdebug_new(struct lam_io *inner, struct blkdebug_options *options,
                        struct lam_io **out, struct lam_error *err)
{
    struct blkdebug *b = calloc(1, sizeof *b);
    int rc = -ENOMEM;

    if (b) {
        pthread_mutex_init(&b->lock, NULL);
        pthread_cond_init(&b->resumed, NULL);
        b->state = 1;
        rc = fill(b, inner, options, err);
    } else {
        lam_fail(err, ENOMEM, "no memory for a host object that fails");
    }
    if (rc < 0) {
        blkdebug_options_deinit(options);
        lam_io_close(inner);
        if (b)
            blkdebug_free(b);
        return rc;
    }
    *out = &b->io;
    return 0;
}
