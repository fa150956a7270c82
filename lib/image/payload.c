/* SPDX-License-Identifier: MIT */
/*
 * payload.c - compressed clusters of an image as they are.
 */
#include "image/payload.h"

#include <inttypes.h>

unsigned image_payload_kind(const struct lam_image *image)
{
    const struct format_payload_ops *ops = image->ops->payloads;

    return ops && !image->crypt ? ops->kind(image->format) : 0;
}

int image_read_payloads(struct lam_image *layer, const struct lam_extent *run,
                        size_t count, void *buf, struct lam_error *err)
{
    int rc = layer->ops->payloads->read(layer->format, run, count, buf, err);

    return lam_error_prefix(err, rc, "'%s': guest offset %" PRIu64,
                            layer->name, run->offset);
}
