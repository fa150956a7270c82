/* SPDX-License-Identifier: MIT */
/*
 * payload.h - compressed clusters of an image as they are (to write: batch.h).
 */
#ifndef LAM_IMAGE_PAYLOAD_H
#define LAM_IMAGE_PAYLOAD_H

#include "image/image.h"

/* Images of the same kind and cluster size understand each other's payloads;
 * 0: this one's are nobody else's. */
unsigned image_payload_kind(const struct lam_image *image);

/* See struct format_payload_ops; @layer is the one that holds the clusters of
 * @run, and nobody writes to it. */
int image_read_payloads(struct lam_image *layer, const struct lam_extent *run,
                        size_t count, void *buf, struct lam_error *err);

#endif
