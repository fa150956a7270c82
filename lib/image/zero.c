/* SPDX-License-Identifier: MIT */
/*
 * zero.c - make a guest range read as zeroes.
 *
 * Whole units go to the format as metadata.  A unit that the range only touches
 * becomes zero as a whole if the rest of it reads as zero already, and gets
 * zero bytes written otherwise (format document 7.9).
 */
#include <inttypes.h>

#include "base/cleanup.h"
#include "image/chain.h"
#include "image/changes.h"
#include "image/graph.h"
#include "image/write.h"

static const uint64_t ZERO_CHUNK = 2 * LAM_MIB;

static int write_zeroes(struct lam_image *image, struct range r, unsigned flags,
                        struct lam_error *err)
{
    if (flags & LAM_ZERO_NO_FALLBACK)
        return lam_fail(err, ENOTSUP, "zeroes would have to be written");

    lam_autofree void *zeroes = calloc(1, min_u64(r.length, ZERO_CHUNK));
    if (!zeroes)
        return lam_fail(err, ENOMEM, "no memory for zeroes");
    while (r.length > 0) {
        /* Up to a multiple, so that clusters are written whole. */
        uint64_t end = align_down(r.offset + ZERO_CHUNK, ZERO_CHUNK);
        uint64_t n = min_u64(end - r.offset, r.length);
        int rc = image_write_pieces(image, zeroes, n, r.offset, err);
        if (rc < 0)
            return rc;
        r = range_make(r.offset + n, r.length - n);
    }
    return 0;
}

/* An amendment may take zero clusters away under our hands. */
static bool has_units_no_more(struct lam_image *image, int rc)
{
    return rc == -ENOTSUP && !image->ops->zero_unit(image->format);
}

/* @locked: with whole_units held for writing. */
static int zero_units(struct lam_image *image, struct range r, bool locked,
                      unsigned flags, struct lam_error *err)
{
    int rc = image->ops->zero(image->format, r.offset, r.length, flags, err);

    if (has_units_no_more(image, rc)) {
        if (!locked)
            image_lock_write(image, r.offset, r.length);
        rc = write_zeroes(image, r, flags, err);
        if (!locked)
            pthread_rwlock_unlock(&image->whole_units);
        return rc;
    }
    return lam_error_prefix(err, rc, "'%s': guest offset %" PRIu64,
                            image->name, r.offset);
}

static int rest_is_zero(struct lam_image *image, struct range unit,
                        struct range r, bool *zero, struct lam_error *err)
{
    bool before = true, after = true;
    uint64_t end = range_end(r);
    uint64_t token = image_enter(image);
    int rc = chain_reads_zero(image, unit.offset, r.offset - unit.offset,
                              &before, err);
    if (rc == 0)
        rc = chain_reads_zero(image, end, range_end(unit) - end, &after, err);
    image_leave(image, token);
    *zero = before && after;
    return rc;
}

/* @r lies inside one unit and does not cover it.  Nobody else may write into
 * the rest of the unit between the look and the deed.  Bitmaps record what was
 * asked for. */
static int zero_part(struct lam_image *image, struct range r, uint64_t unit,
                     unsigned flags, struct lam_error *err)
{
    struct range whole = range_intersect(range_widen(r, unit),
                                         range_make(0, image->size));
    bool zero;

    if (!r.length)
        return 0;
    image_lock_units(image);
    int rc = rest_is_zero(image, whole, r, &zero, err);
    if (rc == 0)
        rc = zero ? zero_units(image, image->ops->bitmaps ? r : whole, true,
                               flags, err)
                  : write_zeroes(image, r, flags, err);
    pthread_rwlock_unlock(&image->whole_units);
    return rc;
}

static int zero_range(struct lam_image *image, struct range r, unsigned flags,
                      struct lam_error *err)
{
    uint64_t unit = image->ops->zero_unit(image->format);

    if (unit == 0) {
        image_lock_write(image, r.offset, r.length);
        int rc = write_zeroes(image, r, flags, err);
        pthread_rwlock_unlock(&image->whole_units);
        return rc;
    }
    struct range_split s = range_split(r, unit);
    int rc = zero_part(image, s.head, unit, flags, err);
    if (rc == 0 && s.body.length)
        rc = zero_units(image, s.body, false, flags, err);
    return rc < 0 ? rc : zero_part(image, s.tail, unit, flags, err);
}

int image_zero(struct lam_image *image, uint64_t offset, uint64_t length,
               unsigned flags, struct lam_error *err)
{
    int rc = image_check_writable(image, err);
    if (rc == 0)
        rc = image_check_range(image, offset, length, err);
    if (rc < 0)
        return rc;

    unsigned zero_flags = flags & (LAM_ZERO_UNMAP | LAM_ZERO_NO_FALLBACK);
    if (!image->unmap)
        zero_flags &= ~(unsigned)LAM_ZERO_UNMAP;
    rc = zero_range(image, range_make(offset, length), zero_flags, err);
    return rc < 0 ? rc : image_end_write(image, flags, err);
}

int lam_image_zero(struct lam_image *image, uint64_t offset,
                   uint64_t length, unsigned flags, struct lam_error *err)
{
    IMAGE_INSIDE(image);
    int rc = lam_check_flags(flags, LAM_WRITE_FUA | LAM_ZERO_UNMAP |
                             LAM_ZERO_NO_FALLBACK, err);
    if (rc < 0)
        return rc;
    change_begin(image);
    lam_io_event(image->io, IO_EVENT_PWRITEV_ZERO);
    rc = image_zero(image, offset, length, flags, err);
    lam_io_event(image->io, IO_EVENT_PWRITEV_DONE);
    return change_end(image, offset, length, rc);
}
