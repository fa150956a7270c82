/* SPDX-License-Identifier: MIT */
/*
 * overlay.h - lay an overlay's extents over its backing file's.
 */
#ifndef LAM_EXTENT_OVERLAY_H
#define LAM_EXTENT_OVERLAY_H

#include "extent/extent.h"

/*
 * Both lists cover the same range.  Appends to @out what @top has and, where
 * @top is unallocated, what @below has.  @out is unchanged after -ENOMEM.
 * Linear in the two lists.
 */
int extents_overlay(const struct lam_extents *top,
                    const struct lam_extents *below, struct lam_extents *out,
                    struct lam_error *err);

#endif
