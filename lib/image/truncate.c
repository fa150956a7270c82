/* SPDX-License-Identifier: MIT */
/*
 * truncate.c - change the virtual size.
 */
#include <inttypes.h>

#include "base/cleanup.h"
#include "image/chain.h"
#include "image/graph.h"
#include "image/write.h"

int image_check_size(const struct lam_image *image, uint64_t size,
                     enum lam_preallocation preallocation, unsigned flags,
                     struct lam_error *err)
{
    int rc = lam_check_choice(preallocation, LAM_PREALLOC_FULL,
                              "preallocation mode", err);
    if (rc == 0)
        rc = lam_check_flags(flags, LAM_TRUNCATE_SHRINK, err);
    if (rc < 0)
        return rc;
    if (size > INT64_MAX - 511)
        return lam_fail(err, EFBIG, "size %" PRIu64 " is beyond the limit of "
                        "2^63", size);
    if (image->ops != &format_raw && image->ops != &format_luks && size % 512)
        return lam_fail(err, EINVAL, "The new size must be a multiple of 512");
    if (size < image->size && !(flags & LAM_TRUNCATE_SHRINK))
        return lam_fail(err, EINVAL, "Use the --shrink option to perform a "
                        "shrink operation: size %" PRIu64 ", now %" PRIu64,
                        size, (uint64_t)image->size);
    if (size < image->size && preallocation != LAM_PREALLOC_OFF)
        return lam_fail(err, EINVAL, "%s", image->ops == &format_qcow2 ?
                        "Preallocation can't be used for shrinking an image" :
                        "Cannot use preallocation for shrinking files");
    return 0;
}

/* True if more of the cluster may be stored than the disk shows, or if a longer
 * backing file would show there.  A cluster that is zero as a @whole is zero
 * behind the end as well. */
static bool hides_something(const struct lam_extent *last, bool below_shows,
                            bool whole)
{
    if (last->state == LAM_EXTENT_ZERO && whole)
        return false;
    return last->state == LAM_EXTENT_DATA ||
           last->state == LAM_EXTENT_COMPRESSED ||
           (last->flags & LAM_EXTENT_HAS_HOST) ||
           (last->state == LAM_EXTENT_UNALLOCATED && below_shows);
}

/*
 * Growing from the middle of a cluster uncovers the rest of it: what a longer
 * backing file has there, or a larger disk had before it was shrunk.  Writing
 * the last bytes once more stores the cluster as ours alone, and such a copy
 * has zeroes for what lies past the end, while that is still past the end.
 * Where a subcluster begins there the format hides what is below.
 */
static int cover_last_cluster(struct lam_image *image, uint64_t cluster,
                              bool below, struct lam_error *err)
{
    uint64_t size = image->size;
    uint64_t start = align_down(size, cluster);
    struct lam_extents extents lam_cleanup(lam_extents_deinit) =
        LAM_EXTENTS_INIT;
    int rc = chain_map(image, start, size - start, 1, 0, &extents, err);
    if (rc < 0)
        return rc;

    uint64_t n = min_u64(512, size - start);
    uint64_t unit = image->ops->zero_unit ?
                    image->ops->zero_unit(image->format) : 0;
    uint8_t bytes[512];
    if (unit && is_aligned(size, unit))
        below = false;
    if (!hides_something(&extents.items[extents.count - 1], below,
                         unit == cluster))
        return 0;
    rc = image_read(image, bytes, n, size - n, err);
    return rc < 0 ? rc : image_write_pieces(image, bytes, n, size - n, err);
}

/* No guest write may come between the read and the write. */
static int cover_alone(struct lam_image *image, uint64_t cluster, bool below,
                       struct lam_error *err)
{
    image_lock_units(image);
    int rc = cover_last_cluster(image, cluster, below, err);
    pthread_rwlock_unlock(&image->whole_units);
    return rc < 0 ? rc : image_flush(image, err);
}

/* An image may have been shrunk before: what its last cluster still holds past
 * its end does not come back (format document 13.1).  Holes hold nothing. */
static int clear_uncovered(struct lam_image *image, uint64_t old,
                           uint64_t cluster, struct lam_error *err)
{
    uint64_t end = min_u64(align_up(old, cluster), image->size);
    struct lam_extents extents lam_cleanup(lam_extents_deinit) =
        LAM_EXTENTS_INIT;
    int rc = chain_map(image, old, end - old, LAM_DEPTH_ALL,
                       LAM_MAP_HOST_HOLES, &extents, err);

    for (size_t i = 0; rc == 0 && i < extents.count; i++) {
        const struct lam_extent *e = &extents.items[i];

        if (!extent_reads_zero(e))
            rc = image_zero(image, e->offset, e->length, 0, err);
    }
    return rc;
}

/* What the last cluster reads as, up to the end, for a format that gives it a
 * place; NULL where that is not needed. */
static int read_tail(struct lam_image *image, uint64_t cluster,
                     enum lam_preallocation preallocation, uint8_t **tail,
                     struct lam_error *err)
{
    uint64_t unit = image->ops->zero_unit ?
                    image->ops->zero_unit(image->format) : 0;
    uint64_t length = image->size % cluster;

    *tail = NULL;
    if (preallocation == LAM_PREALLOC_OFF || !image->backing ||
        (unit && unit < cluster))
        return 0;
    *tail = malloc(length);
    if (!*tail)
        return lam_fail(err, ENOMEM, "no memory for a cluster");
    return image_read(image, *tail, length, image->size - length, err);
}

static int resize(struct lam_image *image, const struct format_resize *to,
                  struct lam_error *err)
{
    int rc = image->ops->truncate(image->format, to, err);
    /* Shrinking may fail after the size has changed. */
    image->size = image->ops->size(image->format);
    return rc;
}

static int grow(struct lam_image *image, uint64_t size,
                enum lam_preallocation preallocation, unsigned flags,
                struct lam_error *err)
{
    uint64_t old = image->size;
    uint64_t cluster = image->ops->cluster_size(image->format);
    uint64_t below_end = image->backing ? image->backing->size : 0;
    bool partial = cluster && !is_aligned(old, cluster);
    lam_autofree uint8_t *tail = NULL;
    int rc = 0;

    if (partial)
        rc = read_tail(image, cluster, preallocation, &tail, err);
    if (rc == 0 && partial)
        rc = cover_alone(image, cluster, below_end > old && !tail, err);
    if (rc == 0)
        rc = resize(image, &(struct format_resize){
            .size = size, .below_end = below_end, .flags = flags,
            .preallocation = preallocation, .tail = tail }, err);
    if (rc < 0)
        return rc;
    return partial ? clear_uncovered(image, old, cluster, err) : 0;
}

/* A format that looks at all of itself before holds off whoever changes its
 * mapping, and waits for those who have begun: nobody may be in between. */
static int shrink(struct lam_image *image, uint64_t size, unsigned flags,
                  struct lam_error *err)
{
    image_lock_units(image);
    int rc = resize(image, &(struct format_resize){ .size = size,
                                                    .flags = flags }, err);
    pthread_rwlock_unlock(&image->whole_units);
    return rc;
}

int image_resize(struct lam_image *image, uint64_t size,
                 enum lam_preallocation preallocation, unsigned flags,
                 struct lam_error *err)
{
    if (!image->ops->truncate)
        return lam_fail(err, ENOTSUP, "Image format driver does not support "
                        "resize");
    int rc = image_check_size(image, size, preallocation, flags, err);
    if (rc < 0)
        return rc;
    if (size > image->size)
        return grow(image, size, preallocation, flags, err);
    return shrink(image, size, flags, err);
}

int lam_image_resize(struct lam_image *image, uint64_t size,
                     enum lam_preallocation preallocation, unsigned flags,
                     struct lam_error *err)
{
    LAM_LOCKED(&image->resize_lock);
    IMAGE_INSIDE(image);
    int rc = image_check_writable(image, err);
    if (rc == 0 && image->driver && !image->io->ops->truncate)
        rc = lam_fail(err, ENOTSUP, "Image format driver does not support "
                      "resize");
    if (rc == 0)
        rc = image_resize(image, size, preallocation, flags, err);
    return rc < 0 ? rc : image_flush(image, err);
}

int lam_image_truncate(struct lam_image *image, uint64_t size, unsigned flags,
                       struct lam_error *err)
{
    return lam_image_resize(image, size, LAM_PREALLOC_OFF, flags, err);
}
