/* SPDX-License-Identifier: MIT */
/*
 * batch.h - writes to one image whose host space is given out at once, and
 * whose data go out later.
 *
 * A job with several threads fills a batch, has its clusters placed when it is
 * its turn, and stores the data beside the others: so the order in which host
 * space is given out does not depend on who is first.
 *
 *     batch_data(), batch_compress() ...      nothing is changed yet
 *     batch_place()                           in turn
 *     batch_store()                           the data; the batch is empty
 *
 * Between the last two the thread is inside the chain's gate, and holds the
 * clusters: it calls nothing else on this image.
 */
#ifndef LAM_IMAGE_BATCH_H
#define LAM_IMAGE_BATCH_H

#include "image/graph.h"

struct batch_item;
struct batch_place;

struct batch {
    struct lam_image *image;
    bool absent;                /* only where the image has nothing */
    struct batch_item *items;   /* what is asked for; owned */
    size_t nb_items, max_items;
    struct format_payload *payloads;    /* of the items; owned */
    size_t nb_payloads, max_payloads;
    uint8_t *packed;            /* those that were compressed here; owned */
    uint64_t packed_used, packed_size;

    /* From place to store. */
    struct graph_inside inside;
    uint64_t token;
    struct batch_place *places; /* that were given out; owned */
    size_t nb_places, max_places, nb_stored;
    uint64_t held_end;          /* guest: clusters before may be held */
    bool reclaimed;             /* once for each batch */
    bool named;                 /* the message names the place already */
    uint64_t failed;            /* guest offset of what failed */
};

/* Nothing is allocated before it is used. */
void batch_init(struct batch *b, struct lam_image *image, bool absent);
void batch_deinit(struct batch *b);

/*
 * Ranges ascend and do not overlap.  Buffers stay the caller's, and as they
 * are, until the batch is stored.
 */
int batch_data(struct batch *b, const void *buf, uint64_t length,
               uint64_t offset, struct lam_error *err);

/* LAM_ZERO_UNMAP or 0; of what is absent, whole units that the format zeroes by
 * itself. */
int batch_zero(struct batch *b, uint64_t length, uint64_t offset,
               unsigned flags, struct lam_error *err);

/* Whole clusters, or up to the end of the disk, are compressed at once; what
 * does not shrink is data. */
int batch_compress(struct batch *b, const void *buf, uint64_t length,
                   uint64_t offset, struct lam_error *err);

/* Payloads as they are (format.h) in @buf; @items is copied. */
int batch_payloads(struct batch *b, const struct format_payload *items,
                   size_t count, const uint8_t *buf, struct lam_error *err);

static inline bool batch_is_empty(const struct batch *b)
{
    return !b->nb_items;
}

/* True if batch_compress() compresses: else lam_image_write() has to. */
bool batch_can_compress(const struct lam_image *image);

/* Give out host space, in order, and carry out the zero writes.  After a
 * failure, b->failed tells of where, nothing is placed and the batch is empty;
 * what had to be stored on the way is. */
int batch_place(struct batch *b, struct lam_error *err);

/* Needs no order.  The batch is empty whatever the result. */
int batch_store(struct batch *b, struct lam_error *err);

#endif
