/* SPDX-License-Identifier: MIT */
/*
 * offload.h - copies that the host does alone, by sharing blocks or inside the
 * kernel.  Nobody looks for zeroes in what is copied so.
 */
#ifndef LAM_JOB_OFFLOAD_H
#define LAM_JOB_OFFLOAD_H

#include <stdatomic.h>

#include "job/walk.h"

struct offload {
    struct lam_image *target;
    atomic_bool works;          /* it has, once */
    atomic_bool refused;        /* it does not: nothing more is offered */
};

/* False: @target is not for that. */
bool offload_init(struct offload *o, struct lam_image *target);

/* A walk_kind_fn: WALK_OFFLOAD for what can be tried. */
enum walk_kind offload_kind(const void *offload, struct lam_image *image,
                            const struct lam_extent *e,
                            uint64_t target_offset);

/* Copy a chunk.  -ENOTSUP: it has to be read and written. */
int offload_chunk(struct offload *o, const struct walk_chunk *chunk,
                  struct lam_error *err);

#endif
