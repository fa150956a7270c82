/* SPDX-License-Identifier: MIT */
/*
 * extent.h - lists of extents: append and merge, clip, totals by state.
 *
 * struct lam_extent and struct lam_extents are public (lamella.h).
 */
#ifndef LAM_EXTENT_EXTENT_H
#define LAM_EXTENT_EXTENT_H

#include "base/error.h"
#include "lamella.h"

/*
 * Appends @e, which must start where the list ends (or the list is empty), and
 * merges it with the last one where both say the same: state, depth, flags,
 * and a host offset that goes on.  Compressed extents are never merged.
 * -ENOMEM leaves the list as it was.
 */
int extents_append(struct lam_extents *list, const struct lam_extent *e,
                   struct lam_error *err);

/* The same of an extent in @state, at @host if that is DATA. */
int extents_add(struct lam_extents *list, enum lam_extent_state state,
                uint64_t offset, uint64_t length, uint64_t host,
                struct lam_error *err);

/* @e cut to [offset, offset + length), which lies inside it; the host offset
 * moves along (not for a compressed one: its payload is whole or nothing). */
struct lam_extent extent_clip(const struct lam_extent *e, uint64_t offset,
                              uint64_t length);

/* Bytes of @list in @state. */
uint64_t extents_total(const struct lam_extents *list,
                       enum lam_extent_state state);

/* True if the bytes are known to be zero without reading them: zero,
 * unallocated (in a whole chain), or data over a host hole. */
bool extent_reads_zero(const struct lam_extent *e);

#endif
