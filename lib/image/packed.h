/* SPDX-License-Identifier: MIT */
/*
 * packed.h - the extents of a region of the disk in 16 bytes each, to be found
 * in a few steps.
 */
#ifndef LAM_IMAGE_PACKED_H
#define LAM_IMAGE_PACKED_H

#include "extent/extent.h"
#include "extent/range.h"

/* One extent of a map. */
struct packed;
enum { PACKED_BYTES = 16 };

/* Zeroed but for @region, it is empty. */
struct packed_map {
    struct range region;        /* a power of two long, and so aligned */
    uint32_t count;
    struct packed *items;       /* the end of one is the start of the next */
    /* For each part of the region the item that its first sector lies in, and
     * one more; NULL where there is little to search. */
    uint32_t *index;
    unsigned part_bits;         /* of a part's bytes */
};

/* From a map of the region, ascending and without gaps.  -ERANGE: some of it is
 * what no honest image has, and cannot be packed; -ENOMEM. */
int packed_build(struct packed_map *map, const struct lam_extent *extents,
                 size_t count);
void packed_deinit(struct packed_map *map);

/* Memory taken, without the struct. */
uint64_t packed_bytes(const struct packed_map *map);

/* Appends to @out what the map says about @wanted, inside the region; @depth is
 * added to the depths. */
int packed_copy(const struct packed_map *map, struct range wanted,
                unsigned depth, struct lam_extents *out,
                struct lam_error *err);

#endif
