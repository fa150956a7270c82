/* SPDX-License-Identifier: MIT */
/*
 * amend.c - change what the top layer is: version, features, size.
 *
 * The format holds off whoever changes its mapping.  Writes in place change
 * none; they hold whole_units for reading, and none is under way here.
 */
#include "base/cleanup.h"
#include "image/graph.h"
#include "image/write.h"

/* Before anything changes. */
static int check_all(struct lam_image *image,
                     const struct lam_amend_options *options,
                     struct lam_error *err)
{
    int rc = lam_check_choice(options->lazy_refcounts, LAM_SETTING_ON,
                              "setting of lazy refcounts", err);

    if (rc == 0)
        rc = lam_check_choice(options->data_file_raw, LAM_SETTING_ON,
                              "setting of a raw data file", err);
    if (rc == 0 && options->size != LAM_SIZE_KEEP &&
        options->size != image->size)
        rc = image_check_size(image, options->size, LAM_PREALLOC_OFF,
                              LAM_TRUNCATE_SHRINK, err);
    if (rc < 0)
        return rc;
    image_lock_units(image);
    rc = image->ops->amend_check(image->format, options, err);
    pthread_rwlock_unlock(&image->whole_units);
    return rc;
}

static int amend_format(struct lam_image *image,
                        const struct lam_amend_options *options,
                        struct lam_error *err)
{
    image_lock_units(image);
    int rc = image->ops->amend(image->format, options, err);
    pthread_rwlock_unlock(&image->whole_units);
    return rc;
}

static int amend_size(struct lam_image *image, uint64_t size,
                      struct lam_error *err)
{
    if (size == LAM_SIZE_KEEP || size == image->size)
        return 0;
    int rc = image_resize(image, size, LAM_PREALLOC_OFF, LAM_TRUNCATE_SHRINK,
                          err);
    return rc < 0 ? rc : image_flush(image, err);
}

int lam_image_amend(struct lam_image *image,
                    const struct lam_amend_options *options,
                    struct lam_error *err)
{
    LAM_LOCKED(&image->resize_lock);
    IMAGE_INSIDE(image);
    int rc = image_check_writable(image, err);

    if (rc < 0)
        return rc;
    if (!image->ops->amend)
        return lam_fail(err, ENOTSUP, "Format driver '%s' does not support "
                        "option amendment", image->ops->name);
    /* Version 2 can do less when it comes to resizing. */
    bool size_first = options->version == 2;
    rc = check_all(image, options, err);
    if (rc == 0 && size_first)
        rc = amend_size(image, options->size, err);
    if (rc == 0)
        rc = amend_format(image, options, err);
    if (rc == 0 && !size_first)
        rc = amend_size(image, options->size, err);
    return rc < 0 ? rc : image_flush(image, err);
}
