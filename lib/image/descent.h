/* SPDX-License-Identifier: MIT */
/*
 * descent.h - ask one layer after the other where guest bytes live.
 */
#ifndef LAM_IMAGE_DESCENT_H
#define LAM_IMAGE_DESCENT_H

#include "image/image.h"

struct ranges {
    struct range *items;
    size_t count, capacity;
};

/* Extents in the order in which they were found; not a lam_extents list, which
 * has no gaps and ascends. */
struct finds {
    struct lam_extent *items;
    size_t count, capacity;
};

/*
 * What has been found so far, with the level that it was found at as depth, and
 * what is still open.  What lies behind the end of a layer is found there, as
 * ZERO with LAM_EXTENT_BEYOND_BACKING.
 */
struct descent {
    struct ranges open, next;   /* what this layer is asked, what the next */
    struct finds finds;
    struct lam_extents answer;  /* of one layer for one range */
    bool reserved;              /* some layer has a place without data */
};

#define DESCENT_INIT { { NULL, 0, 0 }, { NULL, 0, 0 }, { NULL, 0, 0 },      \
                       LAM_EXTENTS_INIT, false }

int descent_begin(struct descent *d, struct range r, struct lam_error *err);
void descent_deinit(struct descent *d);

/* How much a layer is to find out. */
enum descent_question {
    DESCENT_MAP,                /* all that there is to know */
    DESCENT_FOR_READ,           /* where bytes are, not whether the host happens
                                   to know that they are zero */
    DESCENT_ONCE,               /* the same, of a layer that is not asked for
                                   this range again soon: past its cache */
};

/* Ask @layer, at @level, for all that is open. */
int descent_ask(struct descent *d, struct lam_image *layer, unsigned level,
                enum descent_question question, struct lam_error *err);

/* Several layers, from @level on, have answered: @answer, whose depth counts
 * from there, covers all that is open, and may say more.  Then descent_next():
 * the layers below are asked for the rest. */
int descent_take(struct descent *d, const struct lam_extents *answer,
                 unsigned level, struct lam_error *err);
void descent_next(struct descent *d);

/* What is still open is UNALLOCATED, at @level, the last one asked; and all
 * that was found is in order. */
int descent_end(struct descent *d, unsigned level, struct lam_error *err);

/* One layer's answer; the message names the layer. */
int descent_ask_layer(struct lam_image *layer, struct range r,
                      enum descent_question question, struct lam_extents *out,
                      struct lam_error *err);

#endif
