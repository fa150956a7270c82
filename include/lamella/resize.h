/* SPDX-License-Identifier: MIT */
/* lamella/resize.h - changing the virtual size. */
#ifndef LAMELLA_RESIZE_H
#define LAMELLA_RESIZE_H

#include <lamella/error.h>

LAM_BEGIN_DECLS

struct lam_image;

/* What is stored for an area that nobody has written to yet. */
enum lam_preallocation {
    LAM_PREALLOC_OFF,           /* nothing */
    LAM_PREALLOC_METADATA,      /* its place in the image; the host file has a
                                   hole there (qcow2) */
    LAM_PREALLOC_FALLOC,        /* ... host space reserved */
    LAM_PREALLOC_FULL,          /* ... zeroes written */
};

enum { LAM_TRUNCATE_SHRINK = 1 << 0 };

/*
 * lam_image_resize() - change the virtual size (format document 13).
 *
 * @size is in bytes, a multiple of 512 unless the image is raw, and smaller
 * than now only with LAM_TRUNCATE_SHRINK in @flags: what lies behind the new
 * end is gone.  A new area reads as zeroes, whatever a longer backing file has
 * there and whatever the image held before it was shrunk; @preallocation says
 * what is stored for it and must be LAM_PREALLOC_OFF when shrinking.
 *
 * The size changes in one step: after a crash it is the old one or the new
 * one, and so is the disk.  What is left over of clusters costs space only.
 * Durable when it returns 0.
 *
 * Returns 0, or negative: -EINVAL, -ENOTSUP (version 2 with internal snapshots,
 * an object that cannot be resized), -EFBIG (beyond the format's limits),
 * -ENOSPC, -EROFS, -EIO, -EUCLEAN.  Safe beside other requests; those to an
 * area that is cut off may still reach it.
 */
LAM_API int lam_image_resize(struct lam_image *image, uint64_t size,
                             enum lam_preallocation preallocation,
                             unsigned flags, struct lam_error *err);

/* The same without preallocation. */
LAM_API int lam_image_truncate(struct lam_image *image, uint64_t size,
                               unsigned flags, struct lam_error *err);

LAM_END_DECLS

#endif
