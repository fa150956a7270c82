/* SPDX-License-Identifier: MIT */
/*
 * write.h - what the ways of changing an image share.
 */
#ifndef LAM_IMAGE_WRITE_H
#define LAM_IMAGE_WRITE_H

#include "image/image.h"

/* -EROFS, or -EINVAL for an image opened for its header only. */
int image_check_writable(struct lam_image *image, struct lam_error *err);

/* The lock for writing to the range, to be unlocked with image->whole_units:
 * shared, unless sectors have to be filled up before they are encrypted. */
void image_lock_write(struct lam_image *image, uint64_t offset,
                      uint64_t length);

/* No write is under way, and none begins until image->whole_units is unlocked:
 * it is held for writing. */
void image_lock_units(struct lam_image *image);

/* -ENOTSUP, or -EINVAL for what is not whole clusters up to the end. */
int image_check_compressed(const struct lam_image *image, uint64_t offset,
                           uint64_t length, struct lam_error *err);

/* @length bytes, and zeroes up to a whole cluster; to be freed.  NULL: there is
 * no memory. */
uint8_t *image_pad_cluster(const struct lam_image *image, const void *data,
                           uint64_t length, struct lam_error *err);

/* lam_image_write() without checks, flags and the lock, which the caller
 * holds. */
int image_write_pieces(struct lam_image *image, const void *buf,
                       uint64_t length, uint64_t offset, struct lam_error *err);

/* Once for each request (*@tried), after @rc -ENOSPC: what has been dropped and
 * waits for the next flush is free; true: try again.  Outside image_enter(). */
bool image_reclaim(struct lam_image *image, int rc, bool *tried,
                   struct lam_error *err);

/* The flush that the flags of a request or the cache mode ask for. */
int image_end_write(struct lam_image *image, unsigned flags,
                    struct lam_error *err);

/* Whether the image could have that size, as far as it is not for its format to
 * say. */
int image_check_size(const struct lam_image *image, uint64_t size,
                     enum lam_preallocation preallocation, unsigned flags,
                     struct lam_error *err);

/* lam_image_resize() without the flush; under resize_lock, inside the gate. */
int image_resize(struct lam_image *image, uint64_t size,
                 enum lam_preallocation preallocation, unsigned flags,
                 struct lam_error *err);

#endif
