/* SPDX-License-Identifier: MIT */
/*
 * image.c - what an open image is made of, and taking it apart again.
 */
#include "image/image.h"

#include <inttypes.h>

#include "base/cleanup.h"
#include "image/graph.h"
#include "image/image-io.h"
#include "image/view.h"
#include "image/write.h"

uint64_t lam_image_size(const struct lam_image *image)
{
    return image->size;
}

const char *lam_image_format(const struct lam_image *image)
{
    IMAGE_INSIDE(image);
    return image->driver ? image->driver : image->ops->name;
}

const char *lam_image_name(const struct lam_image *image)
{
    IMAGE_INSIDE(image);
    return image->name;
}

uint64_t lam_image_cluster_size(const struct lam_image *image)
{
    IMAGE_INSIDE(image);
    return image->ops->cluster_size(image->format);
}

void image_links(const struct lam_image *image, struct format_links *links)
{
    *links = (struct format_links){ 0 };
    if (image->ops->links)
        image->ops->links(image->format, links);
}

bool image_same_object(const struct lam_image *a, const struct lam_image *b)
{
    return lam_io_same_object(a->io, b->io);
}

struct lam_image *lam_image_backing(const struct lam_image *image)
{
    IMAGE_INSIDE(image);
    return image->driver ? image_through((struct lam_image *)image)->backing
                         : image->backing;
}

struct lam_image *image_layer(struct lam_image *image, unsigned depth)
{
    assert(depth < image_depth(image));
    return image->layers[image->level + depth];
}

unsigned image_depth(const struct lam_image *image)
{
    return image->nb_layers - image->level;
}

static int close_layer(struct lam_image *image, struct lam_error *err)
{
    int rc = 0;

    if (image->format)
        rc = image->ops->close(image->format, err);
    lam_io_close(image->data);
    lam_io_close(image->header);
    lam_io_close(image->io);
    pthread_cond_destroy(&image->afloat.none);
    pthread_mutex_destroy(&image->afloat.lock);
    pthread_rwlock_destroy(&image->whole_units);
    cow_ahead_deinit(&image->ahead, &image->buffers);
    buffer_pool_deinit(&image->buffers);
    pthread_mutex_destroy(&image->resize_lock);
    free(image->name);
    free(image->path);
    free(image->shown);
    view_free(image->view);
    free(image);
    return rc;
}

/* One after the other, not by recursion: chains may be long.  The first error
 * is the one told; a layer below is read-only and has none of its own. */
static int close_chain(struct lam_image *image, struct lam_error *err)
{
    int rc = 0;

    if (image && image->level == 0) {
        cow_ahead_stop(&image->ahead);
        free(image->layers);
        graph_free(image->graph);
    }
    while (image) {
        struct lam_image *below = image->backing;
        int closed = close_layer(image, rc < 0 ? NULL : err);
        if (rc == 0)
            rc = closed;
        image = below;
    }
    return rc;
}

void image_free(struct lam_image *image)
{
    close_chain(image, NULL);
}

int lam_image_close(struct lam_image *image, struct lam_error *err)
{
    if (!image)
        return 0;
    if (!image->writable || image->metadata_only)
        return close_chain(image, err);

    int flushed = image_flush(image, err);
    int closed = close_chain(image, flushed < 0 ? NULL : err);
    return flushed < 0 ? flushed : closed;
}

bool image_compresses_all(const struct lam_image *image)
{
    return image->ops->compresses_all &&
           image->ops->compresses_all(image->format);
}

int image_check_range(struct lam_image *image, uint64_t offset, uint64_t length,
                      struct lam_error *err)
{
    uint64_t size = image->size;

    if (image->metadata_only)
        return lam_fail(err, EINVAL, "'%s' was opened for its header only",
                        image->name);
    if (!range_fits(offset, length, size))
        return lam_fail(err, EINVAL, "range of %" PRIu64 " bytes at offset %"
                        PRIu64 " ends beyond the image's size of %" PRIu64,
                        length, offset, size);
    return 0;
}

static uint64_t enter(struct lam_image *image)
{
    return image && image->writable && image->ops->enter
        ? image->ops->enter(image->format) : 0;
}

static void leave(struct lam_image *image, uint64_t token)
{
    if (image && image->writable && image->ops->leave)
        image->ops->leave(image->format, token);
}

/* The layer below @image that a job writes to, or NULL. */
static struct lam_image *written_below(const struct lam_image *image)
{
    struct lam_image *layer = image->layers[0]->written;

    return layer && layer->level > image->level ? layer : NULL;
}

/* A format's tokens are small numbers: there is room for two. */
uint64_t image_enter(struct lam_image *image)
{
    uint64_t own = enter(image);
    uint64_t below = enter(written_below(image));

    assert(own <= UINT32_MAX && below <= UINT32_MAX);
    return own | below << 32;
}

void image_leave(struct lam_image *image, uint64_t token)
{
    leave(written_below(image), token >> 32);
    leave(image, token & UINT32_MAX);
}

struct lam_io *image_extent_io(struct lam_image *image,
                               const struct lam_extent *e)
{
    struct lam_image *layer = image_layer(image, e->depth);
    if (layer->ops->extent_io)
        return layer->ops->extent_io(layer->format, e);
    return e->flags & LAM_EXTENT_DATA_FILE ? layer->data : layer->io;
}

const char *lam_image_extent_file(struct lam_image *image,
                                  const struct lam_extent *extent)
{
    IMAGE_INSIDE(image);
    struct lam_image *inner = image_through(image);

    if (inner != image)
        return lam_image_extent_file(inner, extent);
    struct lam_image *layer = image;
    /* A map from before a change of the chain may know more layers. */
    for (unsigned i = 0; layer && i < extent->depth; i++)
        layer = layer->backing;
    if (!layer)
        return NULL;
    struct lam_io *io = image_extent_io(image, extent);

    if (io != layer->io)
        return io->name;
    return layer->view ? view_data_name(layer->view) : NULL;
}

int lam_image_key_slot(struct lam_image *image,
                       const struct lam_key_slot_options *options,
                       struct lam_error *err)
{
    IMAGE_INSIDE(image);
    int rc = image_check_writable(image, err);
    if (rc < 0)
        return rc;
    if (!image->ops->key_slot)
        return lam_fail(err, ENOTSUP, "'%s' has no key slots", image->name);
    return image->ops->key_slot(image->format, options, err);
}

int lam_image_check(struct lam_image *image, lam_finding_fn *finding,
                    void *opaque, struct lam_check_result *out,
                    struct lam_error *err)
{
    IMAGE_INSIDE(image);
    if (!image->ops->check)
        return lam_fail(err, ENOTSUP,
                        "This image format does not support checks");
    *out = (struct lam_check_result){ 0 };
    return image->ops->check(image->format, finding, opaque, out, err);
}

int lam_image_repair(struct lam_image *image, unsigned what,
                     lam_finding_fn *finding, void *opaque,
                     struct lam_check_result *out, struct lam_error *err)
{
    IMAGE_INSIDE(image);
    if (!image->ops->repair)
        return lam_fail(err, ENOTSUP,
                        "This image format does not support checks");
    if (!image->writable || !image->for_check)
        return lam_fail(err, EROFS, "the image is not open for repair");
    int rc = lam_check_flags(what, LAM_REPAIR_ALL, err);
    if (rc < 0)
        return rc;
    *out = (struct lam_check_result){ 0 };
    return image->ops->repair(image->format, what, finding, opaque, out, err);
}
