/* SPDX-License-Identifier: MIT */
/*
 * window.c - how much of a disk to map at once.
 *
 * Who walks over a whole disk asks in windows, so that the answer fits into
 * memory however fragmented it is.  A disk may have exbibytes and nearly
 * nothing in them: windows reach over what is certain to be empty.
 */
#include "image/graph.h"
#include "image/image-io.h"

/* How far from the start of @r on every one of the @nb_layers has one extent
 * that is not data, or nothing. */
static uint64_t empty_run(struct lam_image *image, struct range r,
                          unsigned nb_layers)
{
    for (unsigned i = 0; i < nb_layers && r.length; i++) {
        const struct lam_image *layer = image_layer(image, i);
        bool blank = false;

        if (r.offset >= layer->size || !layer->ops->long_run)
            return r.offset >= layer->size ? r.length : 0;
        r = range_intersect(r, range_make(0, layer->size));
        r.length = layer->ops->long_run(layer->format, r.offset, r.length,
                                        &blank);
        if (!blank)
            break;
    }
    return r.length;
}

/* Windows that end where a run does cut no cluster either. */
static const uint64_t UNIT = 2 * LAM_MIB;

uint64_t image_map_window(struct lam_image *image, uint64_t offset,
                          uint32_t depth, uint64_t window)
{
    IMAGE_INSIDE(image);
    uint64_t size = image->size;
    if (offset >= size)
        return 0;

    struct range rest = range_make(offset, size - offset);
    unsigned nb_layers = (unsigned)min_u64(depth, image_depth(image));
    uint64_t token = image_enter(image);
    uint64_t run = rest.length > window ? empty_run(image, rest, nb_layers) : 0;
    image_leave(image, token);

    uint64_t end = offset + run;
    if (run < rest.length)
        end = max_u64(align_down(end, UNIT), offset);
    return min_u64(max_u64(end - offset, window), rest.length);
}

uint64_t lam_image_map_window(struct lam_image *image, uint64_t offset,
                              uint32_t depth, uint64_t window)
{
    return image_map_window(image_through(image), offset, depth, window);
}
