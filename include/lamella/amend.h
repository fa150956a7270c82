/* SPDX-License-Identifier: MIT */
/* lamella/amend.h - changing what an image is. */
#ifndef LAMELLA_AMEND_H
#define LAMELLA_AMEND_H

#include <lamella/error.h>
#include <lamella/job.h>

LAM_BEGIN_DECLS

struct lam_image;

enum lam_setting { LAM_SETTING_KEEP, LAM_SETTING_OFF, LAM_SETTING_ON };

#define LAM_SIZE_KEEP UINT64_MAX

struct lam_amend_options {
    unsigned version;           /* qcow2 version 2 or 3; 0: as it is */
    unsigned refcount_bits;     /* 1 .. 64, a power of two; 0: as it is */
    enum lam_setting lazy_refcounts;
    enum lam_setting data_file_raw;     /* ON is refused unless it is on: nobody
                                           knows whether the data file is a raw
                                           image now */
    const char *data_file;      /* what the header calls the external data
                                   file; "": nothing; NULL: as it is */
    uint64_t size;              /* bytes, up or down; LAM_SIZE_KEEP */
    lam_progress_fn *progress;  /* of the longest step; or NULL */
    void *progress_opaque;
};

#define LAM_AMEND_OPTIONS_INIT                                              \
    { 0, 0, LAM_SETTING_KEEP, LAM_SETTING_KEEP, NULL, LAM_SIZE_KEEP, NULL,  \
      NULL }

/*
 * lam_image_amend() - change what an image is without changing the disk (but
 * for its size, if that is asked for; format document 17 "Version change",
 * 5.4).
 *
 * All that is asked for is checked before anything changes.  Each step (up to
 * version 3 and other features of the header; refcounts of another width; size;
 * down to version 2) is made by one write of the header: killed at any point,
 * the image is what it was before a step or what it is after it, and the disk
 * is the same.  Durable when it returns 0.
 *
 * For version 2, zero clusters become unallocated ones, or over a backing file
 * normal ones that share a cluster of zeroes.
 *
 * Returns 0, or negative: -EINVAL for values that do not go together, or if a
 * refcount does not fit the new width; -ENOTSUP if the format has nothing to
 * amend, or version 2 cannot hold the image (external data file, extended L2,
 * persistent bitmaps, zstd clusters, snapshots of another size); and as
 * lam_image_resize().  -EROFS, -ENOSPC, -EIO, -EUCLEAN, -ENOMEM.  Safe beside
 * other requests; writes wait.
 */
LAM_API int lam_image_amend(struct lam_image *image,
                            const struct lam_amend_options *options,
                            struct lam_error *err);

LAM_END_DECLS

#endif
