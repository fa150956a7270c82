/* SPDX-License-Identifier: MIT */
/*
 * merged.h - one map for many layers that nobody writes to.
 *
 * The layers below the top do not change.  What they say together about a
 * region of the disk is found out once, when it is first asked for, packed, and
 * kept within a budget for the whole chain: reading through a thousand layers
 * costs what reading through one costs, and their own caches stay empty.
 *
 * A change of the chain (graph.h) forgets everything.
 */
#ifndef LAM_IMAGE_MERGED_H
#define LAM_IMAGE_MERGED_H

#include "image/image.h"

enum { MERGED_DEFAULT_BUDGET = 32 << 20 };

struct merged;

int merged_new(struct merged **out, struct lam_error *err);
void merged_free(struct merged *m);

/* Forget all, and look which layers of @top's chain are read only.  @budget in
 * bytes, 0: as before.  No request is under way. */
void merged_reset(struct merged *m, struct lam_image *top, uint64_t budget);

/* The layers [first, end) that are merged, counted from the chain's top; none
 * if equal.  Inside the gate. */
unsigned merged_first(const struct merged *m);
unsigned merged_end(const struct merged *m);

/*
 * Appends to @out what the merged layers say about [offset, offset + length).
 * Depth is @depth for layer merged_first(), and so on; behind the end of a
 * layer it is that layer's.  Data of formats that know more than where bytes
 * lie (map_for_read) are called data.  *@reserved is set if some layer has, or
 * may have, a place without data.
 *
 * Inside the gate of the chain, which @layer (merged_first()) is of.
 */
int merged_map(struct merged *m, struct lam_image *layer, struct range r,
               unsigned depth, struct lam_extents *out, bool *reserved,
               struct lam_error *err);

/* The same of what is there already, for plain reads; -EAGAIN: it is not. */
int merged_map_cached(struct merged *m, struct range r, unsigned depth,
                      struct lam_extents *out);

/* For tests and for whoever wants to know: regions built so far, and bytes
 * held now. */
struct merged_statistics {
    uint64_t built, bytes;
};
void merged_statistics(struct merged *m, struct merged_statistics *out);

#endif
