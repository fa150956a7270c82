/* SPDX-License-Identifier: MIT */
/*
 * passthrough.h - compressed clusters into a compressed target as they are.
 *
 * Where type and cluster size agree, nothing has to be inflated and deflated
 * again: the bytes move, the entry is made anew.  What the bytes hold is not
 * looked at, unless the end of the file cuts them.
 */
#ifndef LAM_JOB_PASSTHROUGH_H
#define LAM_JOB_PASSTHROUGH_H

#include "job/order.h"
#include "job/walk.h"
#include "job/zeroing.h"

struct passthrough {
    struct lam_image *target;
    struct zeroing *zeroing;
    unsigned kind;              /* of the target's payloads; 0: none pass */
    uint64_t cluster_size;
    bool detect;                /* a cluster of zeroes is not stored */
};

void passthrough_init(struct passthrough *p, struct lam_image *target,
                      bool detect);

/* A walk_kind_fn: WALK_PAYLOAD for what can go as it is. */
enum walk_kind passthrough_kind(const void *passthrough,
                                struct lam_image *image,
                                const struct lam_extent *e,
                                uint64_t target_offset);

/* Copy a chunk of such clusters.  @buf has room for its guest bytes, and holds
 * what is left in @order's batch to be written. */
int passthrough_chunk(struct passthrough *p, const struct walk_chunk *chunk,
                      uint8_t *buf, struct order *order,
                      uint64_t *bytes_written, struct lam_error *err);

#endif
