/* SPDX-License-Identifier: MIT */
/*
 * populate.c - data into the top layer only where it has nothing.
 *
 * A write that the format has begun has claimed its clusters: what is absent
 * then is so until it is finished, or given up where it is not.
 */
#include "image/populate.h"

#include <inttypes.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "image/chain.h"
#include "image/cow.h"
#include "image/graph.h"
#include "image/write.h"

/* A prefix of the range; *@done is its length, 0: look again at no more than
 * *@limit. */
static int populate_piece(struct lam_image *image, const void *data,
                          uint64_t offset, uint64_t *limit, uint64_t *done,
                          struct lam_error *err)
{
    const struct format_ops *ops = image->ops;
    struct format_allocation a;
    uint64_t run;
    bool absent;
    int rc = ops->write_begin(image->format, offset, *limit, &a, err);

    if (rc < 0)
        return rc;
    *done = a.length;
    if (!a.token)
        return 0;               /* it has been written to */
    rc = chain_first_run(image, range_make(offset, a.length), &run, &absent,
                         err);
    if (rc == 0 && absent && run == a.length) {
        rc = cow_write(image, &a, data, err);
        if (rc == 0)
            return ops->write_finish(image->format, &a, err);
    } else if (rc == 0) {
        *done = absent ? 0 : run;
        *limit = run;
    }
    ops->write_cancel(image->format, &a);
    return rc;
}

static int populate(struct lam_image *image, const uint8_t *buf,
                    uint64_t length, uint64_t offset, struct lam_error *err)
{
    uint64_t limit = length;
    bool tried = false;

    while (length > 0) {
        uint64_t done = 0;
        uint64_t token = image_enter(image);
        int rc = populate_piece(image, buf, offset, &limit, &done, err);
        image_leave(image, token);
        if (image_reclaim(image, rc, &tried, err))
            continue;
        if (rc < 0)
            return lam_error_prefix(err, rc, "'%s': guest offset %" PRIu64,
                                    image->name, offset);
        buf += done;
        offset += done;
        length -= done;
        if (done)
            limit = length;
    }
    return 0;
}

int image_populate(struct lam_image *image, const void *buf, uint64_t length,
                   uint64_t offset, struct lam_error *err)
{
    IMAGE_INSIDE(image);
    int rc = image_check_writable(image, err);
    if (rc == 0)
        rc = image_check_range(image, offset, length, err);
    if (rc < 0)
        return rc;
    image_lock_write(image, offset, length);
    rc = populate(image, buf, length, offset, err);
    pthread_rwlock_unlock(&image->whole_units);
    return rc;
}
