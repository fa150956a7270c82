/* SPDX-License-Identifier: MIT */
/*
 * cow.h - one piece of a write: what is copied around the guest's bytes, and
 * the bytes themselves, onto the host.
 */
#ifndef LAM_IMAGE_COW_H
#define LAM_IMAGE_COW_H

#include "image/image.h"

/*
 * Write what @a asks for: @data (a->length guest bytes) and, before and behind
 * it, what the guest reads there now.  The mapping does not change: finishing
 * or cancelling @a is the caller's.
 */
int cow_write(struct lam_image *image, const struct format_allocation *a,
              const void *data, struct lam_error *err);

#endif
