/* SPDX-License-Identifier: MIT */
/*
 * chain.h - map down the backing chain.
 */
#ifndef LAM_IMAGE_CHAIN_H
#define LAM_IMAGE_CHAIN_H

#include "image/image.h"

/* Internal to the library, beside LAM_MAP_...: a plain read wants to know where
 * bytes are, not whether the host happens to know that they are zero. */
enum { CHAIN_MAP_FOR_READ = 1 << 16 };

/*
 * lam_image_map() without its checks.  What no layer has is UNALLOCATED with
 * depth 0; past the end of a shorter backing file it is ZERO with
 * LAM_EXTENT_BEYOND_BACKING, depth 0 as well.  Where the last layer that
 * reaches it has reserved a place for it, LAM_EXTENT_HAS_HOST and its depth.
 */
int chain_map(struct lam_image *image, uint64_t offset, uint64_t length,
              uint32_t depth, unsigned flags, struct lam_extents *out,
              struct lam_error *err);

/* Where the bytes are, of the whole chain and for a plain read, from what is in
 * memory; -EAGAIN if that is not enough.  Waits for nothing that takes long. */
int chain_map_cached(struct lam_image *image, uint64_t offset, uint64_t length,
                     struct lam_extents *out);

/* *@zero: the range reads as zero, by the map alone. */
int chain_reads_zero(struct lam_image *image, uint64_t offset, uint64_t length,
                     bool *zero, struct lam_error *err);

/* *@run: how many bytes of the range, from its beginning, the top layer has
 * nothing of (*@absent), or has something of. */
int chain_first_run(struct lam_image *image, struct range r, uint64_t *run,
                    bool *absent, struct lam_error *err);

#endif
