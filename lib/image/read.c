/* SPDX-License-Identifier: MIT */
/*
 * read.c - extents → bytes.
 *
 * Data goes from the host object straight into the caller's buffer, one call an
 * extent; the map has merged what is contiguous.  Of a part of a compressed
 * cluster the format keeps the rest for the next who asks.
 */
#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/chain.h"
#include "image/encrypted.h"
#include "image/graph.h"

/* Extents of a fragmented image take 40 bytes each: bound the list. */
static const uint64_t READ_WINDOW = 32 * LAM_MIB;

/* @e lies inside one cluster. */
static int read_compressed(struct lam_image *image, const struct lam_extent *e,
                           uint8_t *buf, struct lam_error *err)
{
    struct lam_image *layer = image_layer(image, e->depth);

    return e->length == layer->ops->cluster_size(layer->format)
        ? layer->ops->read_compressed(layer->format, e, buf, err)
        : layer->ops->read_compressed_part(layer->format, e, buf, err);
}

static int read_data(struct lam_image *image, const struct lam_extent *e,
                     uint8_t *buf, struct lam_error *err)
{
    struct lam_io *io = image_extent_io(image, e);

    if (e->depth > 0)
        lam_io_event(image->io, IO_EVENT_READ_BACKING_AIO);
    lam_io_event(io, IO_EVENT_READ_AIO);
    return e->flags & LAM_EXTENT_ENCRYPTED
        ? encrypted_read(image_layer(image, e->depth), io, e, buf, err)
        : lam_io_read(io, buf, e->length, e->host_offset, err);
}

static int read_extent(struct lam_image *image, const struct lam_extent *e,
                       uint8_t *buf, struct lam_error *err)
{
    int rc = 0;

    switch ((enum lam_extent_state)e->state) {
    case LAM_EXTENT_UNALLOCATED:
    case LAM_EXTENT_ZERO:
        memset(buf, 0, e->length);
        return 0;
    case LAM_EXTENT_DATA:
        if (e->flags & LAM_EXTENT_HOST_HOLE) {
            memset(buf, 0, e->length);
            return 0;
        }
        rc = read_data(image, e, buf, err);
        break;
    case LAM_EXTENT_COMPRESSED:
        rc = read_compressed(image, e, buf, err);
        break;
    }
    return lam_error_prefix(err, rc, "'%s': guest offset %" PRIu64,
                            image_layer(image, e->depth)->name, e->offset);
}

int image_read_extents(struct lam_image *image,
                       const struct lam_extents *extents, void *buf,
                       uint64_t length, uint64_t offset,
                       struct lam_error *err)
{
    const struct range wanted = range_make(offset, length);

    for (size_t i = 0; i < extents->count; i++) {
        const struct lam_extent *e = &extents->items[i];
        struct range part = range_intersect(range_make(e->offset, e->length),
                                            wanted);
        if (!part.length)
            continue;
        struct lam_extent clipped = extent_clip(e, part.offset, part.length);
        int rc = read_extent(image, &clipped,
                             (uint8_t *)buf + (part.offset - offset), err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_window(struct lam_image *image, void *buf, uint64_t length,
                       uint64_t offset, struct lam_error *err)
{
    struct lam_extents extents lam_cleanup(lam_extents_deinit) =
        LAM_EXTENTS_INIT;
    uint64_t token = image_enter(image);
    int rc = chain_map(image, offset, length, LAM_DEPTH_ALL,
                       CHAIN_MAP_FOR_READ, &extents, err);
    if (rc == 0)
        rc = image_read_extents(image, &extents, buf, length, offset, err);
    image_leave(image, token);
    return rc;
}

int image_read(struct lam_image *image, void *buf, uint64_t length,
               uint64_t offset, struct lam_error *err)
{
    int rc = image_check_range(image, offset, length, err);

    while (rc == 0 && length > 0) {
        uint64_t window = min_u64(length, READ_WINDOW);
        rc = read_window(image, buf, window, offset, err);
        buf = (uint8_t *)buf + window;
        offset += window;
        length -= window;
    }
    return rc;
}

int lam_image_read(struct lam_image *image, void *buf, uint64_t length,
                   uint64_t offset, struct lam_error *err)
{
    IMAGE_INSIDE(image);
    return image_read(image, buf, length, offset, err);
}
