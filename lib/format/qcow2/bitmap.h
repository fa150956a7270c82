/* SPDX-License-Identifier: MIT */
/*
 * bitmap.h - persistent dirty bitmaps: the directory (format document 9).
 */
#ifndef LAM_QCOW2_BITMAP_H
#define LAM_QCOW2_BITMAP_H

#include "format/qcow2/header.h"
#include "io/io.h"

/* Lists the directory into @info->bitmaps without loading a bitmap. */
int bitmaps_info(struct lam_io *io, const struct qcow2_header *h,
                 struct lam_image_info *info, struct lam_error *err);

/*
 * Calls @area for each range of the file that the bitmaps occupy: directory,
 * tables, data.  Tables are read as far as the file has them.  -EUCLEAN if
 * something cannot be parsed; what @area returns if it is negative.
 */
typedef int bitmap_area_fn(void *opaque, uint64_t offset, uint64_t length,
                           struct lam_error *err);
int bitmaps_areas(struct lam_io *io, const struct qcow2_header *h,
                  uint64_t file_length, bitmap_area_fn *area, void *opaque,
                  struct lam_error *err);

#endif
