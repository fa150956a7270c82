/* SPDX-License-Identifier: MIT */
/*
 * encrypted.h - guest data on their way to and from an encrypted layer.
 */
#ifndef LAM_IMAGE_ENCRYPTED_H
#define LAM_IMAGE_ENCRYPTED_H

#include "image/image.h"

/* The bytes of @e, a data extent of @layer, decrypted. */
int encrypted_read(struct lam_image *layer, struct lam_io *io,
                   const struct lam_extent *e, uint8_t *buf,
                   struct lam_error *err);

/* One stretch of bytes out of several buffers. */
int encrypted_write(struct lam_image *image, struct lam_io *io,
                    const struct iovec *iov, int iovcnt, uint64_t guest,
                    uint64_t host, struct lam_error *err);

/* True if a write of the range has to read sectors that it does not cover:
 * then nobody else may write meanwhile (struct lam_image.whole_units). */
static inline bool encrypted_is_partial(const struct lam_image *image,
                                        uint64_t offset, uint64_t length)
{
    return image->crypt && !is_aligned(offset | length, CRYPT_SECTOR);
}

/* The range as whole sectors through @write, which takes such. */
typedef int encrypted_write_fn(struct lam_image *image, const void *buf,
                               uint64_t length, uint64_t offset,
                               struct lam_error *err);
int encrypted_write_partial(struct lam_image *image, encrypted_write_fn *write,
                            const void *buf, uint64_t length, uint64_t offset,
                            struct lam_error *err);

#endif
