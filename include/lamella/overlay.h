/* SPDX-License-Identifier: MIT */
/* lamella/overlay.h - external snapshots: new overlays. */
#ifndef LAMELLA_OVERLAY_H
#define LAMELLA_OVERLAY_H

#include <lamella/error.h>
#include <lamella/encrypt.h>

LAM_BEGIN_DECLS

struct lam_image;

struct lam_overlay_options {
    const char *backing_name;   /* what the overlay's header calls the image;
                                   NULL: its path, seen from the overlay */
    uint64_t cluster_size;      /* bytes; 0: the default */
    bool lazy_refcounts, extended_l2;
    struct lam_encryption_options encryption;   /* of the overlay */
};

#define LAM_OVERLAY_OPTIONS_INIT                                            \
    { NULL, 0, false, false, LAM_ENCRYPTION_OPTIONS_INIT }

/*
 * lam_image_snapshot_external() - go on writing in a new overlay.
 *
 * Makes the qcow2 file @overlay, which must not be there yet, with @image's
 * size and @image as its backing file, its name and format recorded.  @image
 * stays the caller's handle and is the overlay from now on; what it was is
 * lam_image_backing(image) and takes no more writes: its locks are those of a
 * reader.  @options may be NULL.
 *
 * Safe beside all other requests but lam_image_close(): they wait for as long
 * as the requests under way take to end, and one after the other sees the
 * overlay.  Nothing of that waits for the disk.  The call itself returns when
 * all that was written before it is on disk; until then a flush sees to that.
 * Whenever power fails after the call began, @overlay, if it is there and
 * whole, is the image as it was flushed last; what it is made from alone lacks
 * what was written after the change.
 *
 * Returns 0, or negative: -EEXIST, -EROFS; -EINVAL if @image is not the top of
 * its chain, has no file name that a header could hold, or is encrypted and the
 * overlay would not be; -ENOSPC, -EACCES and so on: all is as it was, and there
 * is no file @overlay.  If the last of what was written before fails to reach
 * the disk, the change has been made, and each flush of the image fails.
 */
LAM_API int lam_image_snapshot_external(struct lam_image *image,
                                        const char *overlay,
                                        const struct lam_overlay_options
                                            *options,
                                        struct lam_error *err);

/*
 * lam_image_overlay_create() - make an overlay of an image that nobody writes
 * to.
 *
 * The same file as above, and @image, which is open read-only, stays as it is.
 * While @image is open, nobody else can open it for writing who looks at locks.
 * An existing file @overlay is -EEXIST, or replaced with @replace unless it is
 * in @image's own chain.
 *
 * -EAGAIN if somebody has @image open for writing; else as above.
 */
LAM_API int lam_image_overlay_create(struct lam_image *image,
                                     const char *overlay, bool replace,
                                     const struct lam_overlay_options *options,
                                     struct lam_error *err);

LAM_END_DECLS

#endif
