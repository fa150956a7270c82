/* SPDX-License-Identifier: MIT */
/*
 * salvage.c - reads what can be had of a chunk of which not all can be read.
 *
 * What fails is halved until it is one sector, so that a bad spot costs some
 * reads and its own sectors.  Ranges that are lost side by side are told as
 * one.
 */
#include "job/salvage.h"

#include <string.h>

#include "base/arith.h"
#include "base/cleanup.h"
#include "image/image.h"
#include "job/cancel.h"

/* A range that is lost, and may grow at its end. */
struct loss {
    struct salvage *salvage;
    struct lam_image *image;
    uint64_t offset, length;    /* in the target */
    struct lam_error err;       /* of its first sector */
};

void salvage_init(struct salvage *s, const struct lam_convert_options *convert)
{
    s->convert = convert;
    s->bytes_lost = 0;
    pthread_mutex_init(&s->lock, NULL);
}

void salvage_deinit(struct salvage *s)
{
    pthread_mutex_destroy(&s->lock);
}

bool salvage_applies(int rc)
{
    return rc < 0 && rc != -ENOMEM && rc != -ECANCELED;
}

static void loss_tell(struct loss *loss)
{
    struct salvage *s = loss->salvage;

    if (!loss->length)
        return;
    s->bytes_lost += loss->length;
    if (s->convert->unreadable) {
        LAM_LOCKED(&s->lock);
        s->convert->unreadable(s->convert->unreadable_opaque, loss->image,
                               loss->offset, loss->length, &loss->err);
    }
    loss->length = 0;
}

static void loss_add(struct loss *loss, uint64_t offset, uint64_t length,
                     const struct lam_error *err)
{
    if (loss->length && loss->offset + loss->length == offset) {
        loss->length += length;
        return;
    }
    loss_tell(loss);
    loss->offset = offset;
    loss->length = length;
    loss->err = *err;
}

/* Bytes of a segment: where they are in the image, the target, and memory. */
struct part {
    uint64_t offset, length, target_offset;
    uint8_t *buf;
};

/* The part's first or second half, cut at a sector. */
static struct part half(const struct part *p, bool second)
{
    uint64_t cut = align_up(p->offset + p->length / 2, SALVAGE_UNIT) -
                   p->offset;

    if (!second)
        return (struct part){ p->offset, cut, p->target_offset, p->buf };
    return (struct part){ p->offset + cut, p->length - cut,
                          p->target_offset + cut, p->buf + cut };
}

static bool lies_in_one_sector(const struct part *p)
{
    return p->offset / SALVAGE_UNIT ==
           (p->offset + p->length - 1) / SALVAGE_UNIT;
}

/* Deep as a chunk has powers of two. */
static int salvage_part(struct loss *loss, const struct part *p,
                        struct lam_error *err)
{
    const struct lam_convert_options *convert = loss->salvage->convert;
    struct lam_error why = LAM_ERROR_INIT;

    if (cancel_wanted(convert->cancel))
        return lam_fail(err, ECANCELED, "conversion was cancelled");
    int rc = lam_image_read(loss->image, p->buf, p->length, p->offset, &why);
    if (rc == 0)
        return 0;
    if (!salvage_applies(rc)) {
        if (err)
            *err = why;
        return rc;
    }
    if (lies_in_one_sector(p)) {
        memset(p->buf, 0, p->length);
        loss_add(loss, p->target_offset, p->length, &why);
        return 0;
    }
    for (int i = 0; i < 2; i++) {
        struct part part = half(p, i);
        rc = part.length ? salvage_part(loss, &part, err) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

int salvage_chunk(struct salvage *s, const struct walk_chunk *chunk,
                  uint8_t *buf, struct lam_error *err)
{
    int rc = 0;

    for (size_t i = 0; i < chunk->nb_segments && rc == 0; i++) {
        const struct walk_segment *segment = &chunk->segments[i];
        struct loss loss = { .salvage = s, .image = segment->image };
        const struct part all = {
            segment->offset, segment->length, segment->target_offset,
            buf + (segment->target_offset - chunk->offset),
        };
        rc = salvage_part(&loss, &all, err);
        loss_tell(&loss);
    }
    return rc;
}
