/* SPDX-License-Identifier: MIT */
/* lamella/bitmap.h - persistent dirty bitmaps. */
#ifndef LAMELLA_BITMAP_H
#define LAMELLA_BITMAP_H

#include <lamella/error.h>

LAM_BEGIN_DECLS

struct lam_image;

/*
 * Persistent dirty bitmaps: which parts of the disk were written since the
 * bitmap was made or cleared, kept inside a qcow2 image of version 3 and listed
 * by lam_image_info() (format document 9).  @image is open for writing.
 *
 * Bitmaps that record are kept up to date by every write through this library,
 * and are stored when the image is closed: after a crash those are marked as in
 * use, and can only be removed.  A change by one of these functions is on disk
 * when it returns 0, but for the contents of a bitmap that records, or did so,
 * in an image that has been written to: they are at lam_image_close().
 *
 * Returns 0, or -EROFS; -ENOTSUP; -ENOENT if there is no bitmap @name; -EINVAL
 * if it was left in use by a program that did not close the image; -ENOSPC;
 * -EUCLEAN, -EIO, -ENOMEM.  Nothing has changed then, unless the disk failed in
 * the middle: the image takes no more writes after that.  A write that another
 * thread makes meanwhile waits.
 */

enum { LAM_BITMAP_DISABLED = 1 << 0 };

/*
 * Make a bitmap with nothing in it.  @name has 1 to 1,023 bytes and is new
 * (-EEXIST).  @granularity is the number of bytes that one bit stands for, a
 * power of two from 512 to 2 GiB; 0: the cluster size, but 4 KiB to 64 KiB.
 * @flags: with LAM_BITMAP_DISABLED it does not record.  -EFBIG beyond 65,535
 * bitmaps, or if the bits take more than 512 MiB.
 */
LAM_API int lam_image_bitmap_add(struct lam_image *image, const char *name,
                                 uint64_t granularity, unsigned flags,
                                 struct lam_error *err);

/* Also one that was left in use. */
LAM_API int lam_image_bitmap_remove(struct lam_image *image, const char *name,
                                    struct lam_error *err);

/* Nothing is dirty any more. */
LAM_API int lam_image_bitmap_clear(struct lam_image *image, const char *name,
                                   struct lam_error *err);

/* Begin or stop recording; the contents stay. */
LAM_API int lam_image_bitmap_enable(struct lam_image *image, const char *name,
                                    struct lam_error *err);
LAM_API int lam_image_bitmap_disable(struct lam_image *image, const char *name,
                                     struct lam_error *err);

/*
 * What is dirty in @source_name of @source (which may be @image, and may be
 * open read-only) becomes dirty in @name as well.  Granularities may differ,
 * virtual sizes must not (-EINVAL).
 */
LAM_API int lam_image_bitmap_merge(struct lam_image *image, const char *name,
                                   struct lam_image *source,
                                   const char *source_name,
                                   struct lam_error *err);

/*
 * The first dirty range at or after @offset, also of an image that is open
 * read-only: *@length is 0 and *@start the virtual size if there is none.
 */
LAM_API int lam_image_bitmap_next(struct lam_image *image, const char *name,
                                  uint64_t offset, uint64_t *start,
                                  uint64_t *length, struct lam_error *err);

LAM_END_DECLS

#endif
