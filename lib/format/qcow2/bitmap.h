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

#endif
