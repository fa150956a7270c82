/* SPDX-License-Identifier: MIT */
/*
 * snapshot.c - internal snapshots of the top layer.
 *
 * The format holds off whoever changes its mapping.  Writes in place change
 * none; they hold whole_units for reading, and none is under way here.
 */
#include "base/cleanup.h"
#include "image/graph.h"
#include "image/image-io.h"
#include "image/write.h"

typedef int change_fn(void *format, const char *name, struct lam_error *err);

static int change(struct lam_image *image, change_fn *fn, const char *name,
                  struct lam_error *err)
{
    image_lock_units(image);
    int rc = fn(image->format, name, err);
    if (rc == 0)
        image->size = image->ops->size(image->format);
    pthread_rwlock_unlock(&image->whole_units);
    return rc;
}

/* @missing is what is said of a format without snapshots. */
static int check_change(struct lam_image *image, int code, const char *missing,
                        struct lam_error *err)
{
    int rc = image_check_writable(image, err);

    return rc < 0 || image->ops->snapshots ? rc
                                           : lam_fail(err, code, "%s", missing);
}

int lam_image_snapshot_create(struct lam_image *image, const char *name,
                              struct lam_error *err)
{
    image = image_through(image);
    LAM_LOCKED(&image->resize_lock);
    IMAGE_INSIDE(image);
    int rc = check_change(image, ENOTSUP, "Operation not supported", err);

    return rc < 0 ? rc : change(image, image->ops->snapshots->create, name,
                                err);
}

int lam_image_snapshot_apply(struct lam_image *image, const char *id_or_name,
                             struct lam_error *err)
{
    image = image_through(image);
    LAM_LOCKED(&image->resize_lock);
    IMAGE_INSIDE(image);
    int rc = check_change(image, ENOTSUP,
                          "Block driver does not support snapshots", err);

    return rc < 0 ? rc : change(image, image->ops->snapshots->apply, id_or_name,
                                err);
}

int lam_image_snapshot_delete(struct lam_image *image, const char *name,
                              struct lam_error *err)
{
    image = image_through(image);
    LAM_LOCKED(&image->resize_lock);
    IMAGE_INSIDE(image);
    int rc = check_change(image, ENOENT, "snapshot not found", err);

    return rc < 0 ? rc : change(image, image->ops->snapshots->remove, name,
                                err);
}
