/* SPDX-License-Identifier: MIT */
/*
 * offload.c - host bytes that become guest data without passing through us.
 */
#include "image/graph.h"
#include "image/offload.h"
#include "image/write.h"

bool image_can_offload(const struct lam_image *image)
{
    return image->writable && !image->crypt && !image->guessed &&
           image->detect_zeroes == LAM_DETECT_ZEROES_OFF;
}

static int copy_piece(struct lam_image *image, uint64_t offset,
                      uint64_t length, const struct lam_io *from,
                      uint64_t host_offset, uint64_t *done,
                      struct lam_error *err)
{
    const struct format_ops *ops = image->ops;
    struct format_allocation a;
    int rc = ops->write_begin(image->format, offset, length, &a, err);

    if (rc < 0)
        return rc;
    *done = a.length;
    /* What has to be copied around it comes from elsewhere. */
    if (a.cow_start < offset || a.cow_end > offset + a.length)
        rc = lam_fail(err, ENOTSUP, "part of a cluster");
    else
        rc = lam_io_copy_range(a.io, a.host_offset, from, host_offset,
                               a.length, err);
    if (!a.token)
        return rc;
    if (rc == 0)
        return ops->write_finish(image->format, &a, err);
    ops->write_cancel(image->format, &a);
    return rc;
}

int image_offload(struct lam_image *image, uint64_t offset, uint64_t length,
                  const struct lam_io *from, uint64_t host_offset,
                  struct lam_error *err)
{
    IMAGE_INSIDE(image);
    int rc = image_check_range(image, offset, length, err);

    image_lock_write(image, 0, 0);
    while (rc == 0 && length > 0) {
        uint64_t done = 0;
        uint64_t token = image_enter(image);
        rc = copy_piece(image, offset, length, from, host_offset, &done, err);
        image_leave(image, token);
        offset += done;
        host_offset += done;
        length -= done;
    }
    pthread_rwlock_unlock(&image->whole_units);
    return rc < 0 ? rc : image_end_write(image, 0, err);
}
