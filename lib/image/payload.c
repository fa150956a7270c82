/* SPDX-License-Identifier: MIT */
/*
 * payload.c - compressed clusters from image to image as they are.
 */
#include "image/payload.h"

#include <inttypes.h>

#include "image/graph.h"
#include "image/write.h"

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

int image_write_payloads(struct lam_image *image,
                         const struct format_payload *items, size_t count,
                         const uint8_t *buf, struct lam_error *err)
{
    IMAGE_INSIDE(image);
    bool tried = false;
    int rc = image_check_writable(image, err);

    assert(count > 0);
    if (rc < 0)
        return rc;
    image_lock_write(image, 0, 0);
    do {
        uint64_t token = image_enter(image);
        rc = image->ops->payloads->write(image->format, items, count, buf,
                                         false, err);
        image_leave(image, token);
    } while (image_reclaim(image, rc, &tried, err));
    pthread_rwlock_unlock(&image->whole_units);
    if (rc < 0)
        return lam_error_prefix(err, rc, "'%s': guest offset %" PRIu64,
                                image->name, items[0].guest);
    return image_end_write(image, 0, err);
}
