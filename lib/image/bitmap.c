/* SPDX-License-Identifier: MIT */
/*
 * bitmap.c - persistent dirty bitmaps of the top layer.
 *
 * The format holds off whoever changes its mapping.  Writes in place change
 * none; they hold whole_units for reading, and none is under way while a
 * bitmap changes, so that each is recorded as a whole or not at all.
 */
#include "base/cleanup.h"
#include "image/graph.h"
#include "image/write.h"

/* One change at a time, inside the gate; until the end of the scope. */
#define CHANGING(image)                                                     \
    LAM_LOCKED(&(image)->resize_lock);                                      \
    IMAGE_INSIDE(image)

static int change_begin(struct lam_image *image, struct lam_error *err)
{
    int rc = image_check_writable(image, err);

    if (rc == 0)
        image_lock_units(image);
    return rc;
}

static int change_end(struct lam_image *image, int rc)
{
    pthread_rwlock_unlock(&image->whole_units);
    return rc;
}

static int not_found(const char *name, struct lam_error *err)
{
    return lam_fail(err, ENOENT, "Dirty bitmap '%s' not found", name);
}

int lam_image_bitmap_add(struct lam_image *image, const char *name,
                         uint64_t granularity, unsigned flags,
                         struct lam_error *err)
{
    CHANGING(image);
    const struct format_bitmap_ops *ops = image->ops->bitmaps;

    if (!ops)
        return lam_fail(err, ENOTSUP, "Can't store persistent bitmaps to '%s': "
                        "Operation not supported", image->name);
    int rc = lam_check_flags(flags, LAM_BITMAP_DISABLED, err);
    if (rc == 0)
        rc = change_begin(image, err);
    if (rc < 0)
        return rc;
    return change_end(image, ops->add(image->format, name, granularity,
                                      !(flags & LAM_BITMAP_DISABLED), err));
}

int lam_image_bitmap_remove(struct lam_image *image, const char *name,
                            struct lam_error *err)
{
    CHANGING(image);
    if (!image->ops->bitmaps)
        return not_found(name, err);
    int rc = change_begin(image, err);
    if (rc < 0)
        return rc;
    return change_end(image, image->ops->bitmaps->remove(image->format, name,
                                                         err));
}

int lam_image_bitmap_clear(struct lam_image *image, const char *name,
                           struct lam_error *err)
{
    CHANGING(image);
    if (!image->ops->bitmaps)
        return not_found(name, err);
    int rc = change_begin(image, err);
    if (rc < 0)
        return rc;
    return change_end(image, image->ops->bitmaps->clear(image->format, name,
                                                        err));
}

static int enable(struct lam_image *image, const char *name, bool recording,
                  struct lam_error *err)
{
    CHANGING(image);
    if (!image->ops->bitmaps)
        return not_found(name, err);
    int rc = change_begin(image, err);
    if (rc < 0)
        return rc;
    return change_end(image, image->ops->bitmaps->enable(image->format, name,
                                                         recording, err));
}

int lam_image_bitmap_enable(struct lam_image *image, const char *name,
                            struct lam_error *err)
{
    return enable(image, name, true, err);
}

int lam_image_bitmap_disable(struct lam_image *image, const char *name,
                             struct lam_error *err)
{
    return enable(image, name, false, err);
}

/* ------------------------------------------------------------------- merge */

struct source {
    struct format_bitmap_source base;   /* first */
    struct lam_image *image;
    const char *name;
};

static int next(struct lam_image *image, const char *name, uint64_t offset,
                struct range *run, struct lam_error *err)
{
    if (!image->ops->bitmaps)
        return not_found(name, err);
    return image->ops->bitmaps->next(image->format, name, offset, run, err);
}

static int source_next(struct format_bitmap_source *base, uint64_t offset,
                       struct range *run, struct lam_error *err)
{
    struct source *s = (struct source *)base;

    return next(s->image, s->name, offset, run, err);
}

static int merge(struct lam_image *image, const char *name,
                 struct lam_image *source, const char *source_name,
                 struct lam_error *err)
{
    struct source s = { { source_next }, source, source_name };
    struct range unused;

    if (!image->ops->bitmaps)
        return not_found(name, err);
    int rc = next(image, name, 0, &unused, err);
    if (rc == 0 || rc == 1)
        rc = next(source, source_name, 0, &unused, err);
    if (rc < 0)
        return rc;
    if (source->size != image->size)
        return lam_fail(err, EINVAL, "Bitmaps are of different sizes "
                        "(destination size is %llu, source size is %llu) and "
                        "can't be merged", (unsigned long long)image->size,
                        (unsigned long long)source->size);
    rc = change_begin(image, err);
    if (rc < 0)
        return rc;
    return change_end(image, image->ops->bitmaps->merge(image->format, name,
                                                        &s.base, err));
}

int lam_image_bitmap_merge(struct lam_image *image, const char *name,
                           struct lam_image *source, const char *source_name,
                           struct lam_error *err)
{
    CHANGING(image);
    if (source->graph == image->graph)
        return merge(image, name, source, source_name, err);
    IMAGE_INSIDE(source);
    return merge(image, name, source, source_name, err);
}

int lam_image_bitmap_next(struct lam_image *image, const char *name,
                          uint64_t offset, uint64_t *start, uint64_t *length,
                          struct lam_error *err)
{
    IMAGE_INSIDE(image);
    struct range run = { 0, 0 };
    int rc = next(image, name, offset, &run, err);

    if (rc < 0)
        return rc;
    *start = rc ? run.offset : image->size;
    *length = run.length;
    return 0;
}
