/* SPDX-License-Identifier: MIT */
/*
 * cow.c - one piece of a write: what is copied around the guest's bytes, and
 * the bytes themselves, onto the host.
 *
 * The copy is an ordinary read of this very image, which until the piece is
 * finished shows what was there before.  Head, data and tail go out as one
 * write.  Where the data in the middle are few, the whole is read at once and
 * they are laid over it: one request to the disk instead of two.
 */
#include "image/cow.h"

#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "image/chain.h"
#include "image/encrypted.h"

/* Below this a write of zero bytes costs less than a call to zero them. */
static const uint64_t ZERO_CALL_MIN = 16 * LAM_KIB;

/* What is in the middle is mapped (and perhaps read) along up to here. */
static const uint64_t MIDDLE_MAX = 64 * LAM_KIB;

/* The head or the tail of a piece. */
struct side {
    struct range range;         /* guest; the end may lie past the disk's */
    bool zero;
    uint8_t *bytes;             /* NULL if empty, or zero */
};

struct cow {
    struct lam_image *image;
    const struct format_allocation *a;
    struct range whole;
    struct side head, tail;
    uint8_t *bytes;             /* of the whole, read at once; or NULL */
    uint64_t end;               /* guest: what lies behind it is zero */
    uint32_t depth;             /* layers that it shows through */
};

static void cow_deinit(struct cow *c)
{
    struct buffer_pool *pool = &c->image->buffers;

    buffer_pool_put(pool, c->head.bytes, c->head.range.length);
    buffer_pool_put(pool, c->tail.bytes, c->tail.range.length);
    buffer_pool_put(pool, c->bytes, c->whole.length);
}

static int take_buffer(struct cow *c, uint64_t length, uint8_t **out,
                       struct lam_error *err)
{
    *out = buffer_pool_get(&c->image->buffers, length);
    return *out ? 0 : lam_fail(err, ENOMEM, "no memory to copy %" PRIu64
                               " bytes", length);
}

/* What lies past the end of the disk is zero, so that nothing of a longer
 * backing file gets in. */
static struct range inside(const struct cow *c, struct range r)
{
    return range_intersect(r, range_make(0, c->end));
}

/* ----------------------------------------------------- what the guest reads */

static bool reads_zero(const struct cow *c, const struct lam_extents *extents,
                       struct range r)
{
    r = inside(c, r);
    for (size_t i = 0; i < extents->count; i++) {
        const struct lam_extent *e = &extents->items[i];

        if (!extent_reads_zero(e) &&
            range_overlaps(r, range_make(e->offset, e->length)))
            return false;
    }
    return true;
}

/* @r of the guest into *@bytes, a buffer of just its size, which may become
 * another; @extents cover what of it is on the disk. */
static int load(struct cow *c, const struct lam_extents *extents,
                struct range r, uint8_t **bytes, struct lam_error *err)
{
    struct range part = inside(c, r);

    lam_io_event(c->image->io, IO_EVENT_COW_READ);
    if (part.length == r.length &&
        cow_ahead_take(c->image, extents, r, bytes))
        return 0;
    memset(*bytes + part.length, 0, r.length - part.length);
    return image_read_extents(c->image, extents, *bytes, part.length,
                              part.offset, err);
}

static int map(struct cow *c, struct range r, struct lam_extents *out,
               struct lam_error *err)
{
    r = inside(c, r);
    return r.length ? chain_map(c->image, r.offset, r.length, c->depth, 0, out,
                                err) : 0;
}

static int load_side(struct cow *c, const struct lam_extents *extents,
                     struct side *side, struct lam_error *err)
{
    side->zero = reads_zero(c, extents, side->range);
    if (side->zero)
        return 0;
    int rc = take_buffer(c, side->range.length, &side->bytes, err);
    return rc < 0 ? rc : load(c, extents, side->range, &side->bytes, err);
}

/* One map for both sides, and if neither is zero one read. */
static int load_whole(struct cow *c, struct lam_error *err)
{
    struct lam_extents extents lam_cleanup(lam_extents_deinit) =
        LAM_EXTENTS_INIT;
    int rc = map(c, c->whole, &extents, err);

    if (rc < 0)
        return rc;
    if (!reads_zero(c, &extents, c->head.range) &&
        !reads_zero(c, &extents, c->tail.range)) {
        rc = take_buffer(c, c->whole.length, &c->bytes, err);
        return rc < 0 ? rc : load(c, &extents, c->whole, &c->bytes, err);
    }
    rc = load_side(c, &extents, &c->head, err);
    return rc < 0 ? rc : load_side(c, &extents, &c->tail, err);
}

static int load_alone(struct cow *c, struct side *side, struct lam_error *err)
{
    struct lam_extents extents lam_cleanup(lam_extents_deinit) =
        LAM_EXTENTS_INIT;

    side->zero = true;
    if (!side->range.length)
        return 0;
    int rc = map(c, side->range, &extents, err);
    return rc < 0 ? rc : load_side(c, &extents, side, err);
}

static int load_sides(struct cow *c, struct lam_error *err)
{
    if (c->head.range.length && c->tail.range.length &&
        c->a->length <= MIDDLE_MAX)
        return load_whole(c, err);
    int rc = load_alone(c, &c->head, err);
    return rc < 0 ? rc : load_alone(c, &c->tail, err);
}

/* ---------------------------------------------------------------- the write */

static int write_out(struct cow *c, const struct iovec *iov, int count,
                     uint64_t before, struct lam_error *err)
{
    const struct format_allocation *a = c->a;

    if (c->bytes || c->head.bytes || c->tail.bytes)
        lam_io_event(c->image->io, IO_EVENT_COW_WRITE);
    lam_io_event(a->io, IO_EVENT_WRITE_AIO);
    return c->image->crypt
        ? encrypted_write(c->image, a->io, iov, count, a->offset - before,
                          a->host_offset - before, err)
        : lam_io_writev(a->io, iov, count, a->host_offset - before, err);
}

static int write_over_whole(struct cow *c, const void *data,
                            struct lam_error *err)
{
    struct iovec iov = { c->bytes, c->whole.length };

    memcpy(c->bytes + c->head.range.length, data, c->a->length);
    return write_out(c, &iov, 1, c->head.range.length, err);
}

static int write_parts(struct cow *c, const void *data, struct lam_error *err)
{
    struct iovec iov[3];
    int count = 0;

    if (c->head.bytes)
        iov[count++] = (struct iovec){ c->head.bytes, c->head.range.length };
    iov[count++] = (struct iovec){ (void *)data, c->a->length };
    if (c->tail.bytes)
        iov[count++] = (struct iovec){ c->tail.bytes, c->tail.range.length };
    return write_out(c, iov, count, c->head.bytes ? c->head.range.length : 0,
                     err);
}

/* The whole range zeroed by one call, then the data into the middle. */
static int write_over_zeroes(struct cow *c, const void *data,
                             struct lam_error *err)
{
    const struct format_allocation *a = c->a;
    int rc = lam_io_zero(a->io, a->host_offset - c->head.range.length,
                         c->whole.length, LAM_ZERO_NO_FALLBACK, err);

    if (rc < 0)
        return rc;
    lam_io_event(a->io, IO_EVENT_WRITE_AIO);
    return lam_io_write(a->io, data, a->length, a->host_offset, err);
}

/* A side that has to be written as zeroes. */
static int make_zeroes(struct cow *c, struct side *side, struct lam_error *err)
{
    if (!side->range.length || side->bytes)
        return 0;
    int rc = take_buffer(c, side->range.length, &side->bytes, err);
    if (rc == 0)
        memset(side->bytes, 0, side->range.length);
    return rc;
}

static int write_sides(struct cow *c, const void *data, struct lam_error *err)
{
    uint64_t copied = c->whole.length - c->a->length;
    int rc;

    if (copied && c->head.zero && c->tail.zero) {
        lam_io_event(c->image->io, IO_EVENT_CLUSTER_ALLOC_SPACE);
        lam_io_event(c->image->io, IO_EVENT_PWRITEV_ZERO);
    }
    /* Zeroes on the host are not zeroes to the guest where it is encrypted. */
    if (c->a->host_is_zero && !c->image->crypt)
        return write_parts(c, data, err);
    if (c->head.zero && c->tail.zero && copied >= ZERO_CALL_MIN &&
        !c->image->crypt) {
        rc = write_over_zeroes(c, data, err);
        if (rc != -ENOTSUP)
            return rc;
    }
    rc = make_zeroes(c, &c->head, err);
    if (rc == 0)
        rc = make_zeroes(c, &c->tail, err);
    return rc < 0 ? rc : write_parts(c, data, err);
}

int cow_write(struct lam_image *image, const struct format_allocation *a,
              const void *data, struct lam_error *err)
{
    uint64_t end = a->offset + a->length, size = image->size;
    bool vm_state = a->offset >= size;
    struct cow c lam_cleanup(cow_deinit) = {
        .image = image,
        .a = a,
        .whole = range_make(a->cow_start, a->cow_end - a->cow_start),
        .head = { .range = range_make(a->cow_start,
                                      a->offset - a->cow_start) },
        .tail = { .range = range_make(end, a->cow_end - end) },
        .end = vm_state ? UINT64_MAX : size,
        .depth = vm_state ? 1 : LAM_DEPTH_ALL,
    };

    assert(a->cow_start <= a->offset && a->cow_end >= end);
    int rc = load_sides(&c, err);
    if (rc < 0)
        return rc;
    return c.bytes ? write_over_whole(&c, data, err)
                   : write_sides(&c, data, err);
}
