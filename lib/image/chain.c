/* SPDX-License-Identifier: MIT */
/*
 * chain.c - map down the backing chain: one function answers for everybody.
 *
 * Layers that nobody writes to answer together, from the merged map.  The
 * others, that is the one on top and those that a job writes to, are asked one
 * after the other, each for what those above it left open.
 */
#include "image/chain.h"

#include <inttypes.h>

#include "base/cleanup.h"
#include "image/descent.h"
#include "image/graph.h"
#include "image/image-io.h"
#include "image/merged.h"

/*
 * Past the end of a host object there is a hole to look at and nothing to
 * read: bytes that were cut off must not turn into zeroes.  Only the rest of a
 * unit that is partly present counts as zero (lam_io.eof_unit).
 */
static bool hole_is_readable(const struct lam_io *io, uint64_t host_offset,
                             uint64_t *run)
{
    uint64_t size = atomic_load(&io->size);

    if (host_offset < size || io->eof_unit == UINT64_MAX)
        return true;
    uint64_t end = align_up(size, io->eof_unit);
    if (host_offset >= end)
        return false;
    *run = min_u64(*run, end - host_offset);
    return true;
}

/* A data extent split where its host object knows of holes. */
static int append_with_holes(struct lam_image *image,
                             const struct lam_extent *e,
                             struct lam_extents *out, struct lam_error *err)
{
    struct lam_io *io = image_extent_io(image, e);
    uint64_t done = 0;

    while (done < e->length) {
        enum lam_io_state state;
        uint64_t run;
        int rc = lam_io_extent(io, e->host_offset + done, e->length - done,
                               &state, &run, err);
        if (rc < 0)
            return rc;
        run = min_u64(run, e->length - done);
        bool zero = state == LAM_IO_HOLE &&
                    hole_is_readable(io, e->host_offset + done, &run);
        struct lam_extent part = extent_clip(e, e->offset + done, run);
        if (zero)
            part.flags |= LAM_EXTENT_HOST_HOLE;
        else if (state == LAM_IO_ABSENT)
            part.flags |= LAM_EXTENT_ABSENT;
        rc = extents_append(out, &part, err);
        if (rc < 0)
            return rc;
        done += run;
    }
    return 0;
}

static bool is_beyond(const struct lam_extent *e)
{
    return e->flags & LAM_EXTENT_BEYOND_BACKING;
}

static bool is_absent(const struct lam_extent *e)
{
    return e->state == LAM_EXTENT_UNALLOCATED || is_beyond(e);
}

/*
 * What no layer has belongs to none, but for a preallocated subcluster that got
 * no data: it has a place on the host, told of the last layer that reaches it.
 */
static int append_absent(struct descent *d, struct lam_image *image,
                         const struct lam_extent *e, struct lam_extents *out,
                         struct lam_error *err)
{
    unsigned last = is_beyond(e) ? e->depth - 1u : e->depth;
    struct lam_extent part = *e;
    int rc = 0;

    part.depth = 0;
    if (!d->reserved)
        return extents_append(out, &part, err);
    d->answer.count = 0;
    rc = descent_ask_layer(image_layer(image, last),
                           range_make(e->offset, e->length), DESCENT_MAP,
                           &d->answer, err);
    for (size_t i = 0; i < d->answer.count && rc == 0; i++) {
        const struct lam_extent *found = &d->answer.items[i];
        bool place = found->state == LAM_EXTENT_UNALLOCATED
            && found->flags & LAM_EXTENT_HAS_HOST;
        part = *found;
        part.state = e->state;
        part.flags = e->flags | (place ? found->flags : 0);
        part.depth = place ? (uint16_t)last : 0;
        rc = extents_append(out, &part, err);
    }
    return rc;
}

static int hand_out(struct descent *d, struct lam_image *image, unsigned flags,
                    struct lam_extents *out, struct lam_error *err)
{
    int rc = 0;

    for (size_t i = 0; i < d->finds.count && rc == 0; i++) {
        const struct lam_extent *e = &d->finds.items[i];
        if (is_absent(e))
            rc = append_absent(d, image, e, out, err);
        else if (flags & LAM_MAP_HOST_HOLES && e->state == LAM_EXTENT_DATA
                 && !(e->flags & LAM_EXTENT_ENCRYPTED))
            rc = append_with_holes(image, e, out, err);
        else
            rc = extents_append(out, e, err);
    }
    return rc;
}

/* ------------------------------------------------------------------- layers */

/* How many layers from @level on, of the @nb_layers that @image is asked to
 * look through, the merged map answers for: all that it has, or none. */
static unsigned merged_layers(const struct lam_image *image, unsigned level,
                              unsigned nb_layers)
{
    const struct merged *m = image_merged(image);
    unsigned first = merged_first(m), end = merged_end(m);

    return first == image->level + level && end <= image->level + nb_layers
        ? end - first : 0;
}

/* What the map calls data of a layer that knows more: ask it. */
static int refine(struct lam_image *image, const struct lam_extents *found,
                  struct lam_extents *out, struct lam_error *err)
{
    struct lam_extents answer lam_cleanup(lam_extents_deinit) =
        LAM_EXTENTS_INIT;
    int rc = 0;

    for (size_t i = 0; i < found->count && rc == 0; i++) {
        const struct lam_extent *e = &found->items[i];
        struct lam_image *layer = image_layer(image, e->depth);
        if (e->state != LAM_EXTENT_DATA || !layer->ops->map_for_read) {
            rc = extents_append(out, e, err);
            continue;
        }
        answer.count = 0;
        rc = descent_ask_layer(layer, range_make(e->offset, e->length),
                               DESCENT_MAP, &answer, err);
        for (size_t k = 0; k < answer.count && rc == 0; k++) {
            answer.items[k].depth = e->depth;
            rc = extents_append(out, &answer.items[k], err);
        }
    }
    return rc;
}

static void make_relative(struct lam_extents *extents, unsigned level)
{
    for (size_t i = 0; i < extents->count; i++)
        extents->items[i].depth = (uint16_t)(extents->items[i].depth - level);
}

/* One open range after the other: what lies between is not asked for. */
static int ask_merged(struct descent *d, struct lam_image *image,
                      unsigned level, unsigned flags, struct lam_error *err)
{
    struct lam_extents found lam_cleanup(lam_extents_deinit) = LAM_EXTENTS_INIT;
    struct lam_extents fine lam_cleanup(lam_extents_deinit) = LAM_EXTENTS_INIT;
    struct ranges asked = d->open;
    int rc = 0;

    for (size_t i = 0; i < asked.count && rc == 0; i++) {
        found.count = fine.count = 0;
        rc = merged_map(image_merged(image), image_layer(image, level),
                        asked.items[i], level, &found, &d->reserved, err);
        if (rc == 0 && !(flags & CHAIN_MAP_FOR_READ))
            rc = refine(image, &found, &fine, err);
        struct lam_extents *answer = flags & CHAIN_MAP_FOR_READ ? &found
                                                                : &fine;
        make_relative(answer, level);
        d->open = (struct ranges){ &asked.items[i], 1, 1 };
        if (rc == 0)
            rc = descent_take(d, answer, level, err);
    }
    d->open = asked;
    descent_next(d);
    return rc;
}

/*
 * Guests read here and there, and again.  Jobs and commands walk a lower layer
 * from one end to the other: that there are a thousand of them must not fill a
 * thousand caches.  Of a layer that knows more than a read has to, ask for all.
 */
static enum descent_question question_for(const struct lam_image *layer,
                                          unsigned flags)
{
    if (flags & CHAIN_MAP_FOR_READ)
        return DESCENT_FOR_READ;
    return layer->level && !layer->ops->map_for_read ? DESCENT_ONCE
                                                     : DESCENT_MAP;
}

static int ask_layers(struct descent *d, struct lam_image *image,
                      uint32_t depth, unsigned flags, struct lam_error *err)
{
    unsigned nb_layers = (unsigned)min_u64(depth, image_depth(image));
    int rc = 0;

    for (unsigned level = 0; level < nb_layers && d->open.count && rc == 0; ) {
        unsigned merged = merged_layers(image, level, nb_layers);
        struct lam_image *layer = image_layer(image, level);
        rc = merged ? ask_merged(d, image, level, flags, err)
                    : descent_ask(d, layer, level, question_for(layer, flags),
                                  err);
        level += merged ? merged : 1;
    }
    return rc < 0 ? rc : descent_end(d, nb_layers - 1, err);
}

static int map_chain(struct lam_image *image, struct range r, uint32_t depth,
                     unsigned flags, struct lam_extents *out,
                     struct lam_error *err)
{
    struct descent d lam_cleanup(descent_deinit) = DESCENT_INIT;
    int rc = descent_begin(&d, r, err);

    if (rc == 0)
        rc = ask_layers(&d, image, depth, flags, err);
    return rc < 0 ? rc : hand_out(&d, image, flags, out, err);
}

/* ------------------------------------------------------------- plain reads */

static int append_merged(struct lam_image *image, unsigned level,
                         struct range r, struct lam_extents *out,
                         struct lam_error *err)
{
    bool reserved = false;

    return merged_map(image_merged(image), image_layer(image, level), r, level,
                      out, &reserved, err);
}

/* The top layer, and the merged map for all below it. */
static int read_top_and_merged(struct lam_image *image, struct range r,
                               struct lam_extents *out, struct lam_error *err)
{
    struct lam_extents answer lam_cleanup(lam_extents_deinit) =
        LAM_EXTENTS_INIT;
    int rc = descent_ask_layer(image, r, DESCENT_FOR_READ, &answer, err);

    for (size_t i = 0; i < answer.count && rc == 0; i++) {
        const struct lam_extent *e = &answer.items[i];
        rc = e->state == LAM_EXTENT_UNALLOCATED
            ? append_merged(image, 1, range_make(e->offset, e->length), out,
                            err)
            : extents_append(out, e, err);
    }
    return rc;
}

/* Whether, for a plain read, all layers from @level on are merged. */
static bool rest_is_merged(const struct lam_image *image, unsigned level)
{
    unsigned nb_layers = image_depth(image);

    return level < nb_layers &&
           merged_layers(image, level, nb_layers) == nb_layers - level;
}

/* A read wants no absent places and has no use for where the ends are, so most
 * need no lists but the answer. */
static int map_for_read(struct lam_image *image, struct range r,
                        struct lam_extents *out, struct lam_error *err)
{
    if (rest_is_merged(image, 0))
        return append_merged(image, 0, r, out, err);
    if (rest_is_merged(image, 1))
        return read_top_and_merged(image, r, out, err);
    return map_chain(image, r, LAM_DEPTH_ALL, CHAIN_MAP_FOR_READ, out, err);
}

/* So many layers that are not merged are asked one after the other; most chains
 * have two at most, and who has more can wait. */
enum { CACHED_LEVELS = 4 };

static int map_cached_from(struct lam_image *image, unsigned level,
                           struct range r, struct lam_extents *out);

/* What layer @level says of @r, inside it, and those below of the rest. */
static int map_cached_layer(struct lam_image *image, unsigned level,
                            struct range r, struct lam_extents *out)
{
    struct lam_extents answer lam_cleanup(lam_extents_deinit) =
        LAM_EXTENTS_INIT;
    struct lam_image *layer = image_layer(image, level);
    int rc = layer->ops->map_cached
        ? layer->ops->map_cached(layer->format, r.offset, r.length, &answer)
        : -EAGAIN;

    for (size_t i = 0; i < answer.count && rc == 0; i++) {
        struct lam_extent *e = &answer.items[i];
        e->depth = (uint16_t)level;
        rc = e->state == LAM_EXTENT_UNALLOCATED && layer->backing
            ? map_cached_from(image, level + 1,
                              range_make(e->offset, e->length), out)
            : extents_append(out, e, NULL);
    }
    return rc;
}

static int map_cached_from(struct lam_image *image, unsigned level,
                           struct range r, struct lam_extents *out)
{
    if (rest_is_merged(image, level))
        return merged_map_cached(image_merged(image), r, level, out);
    if (level == CACHED_LEVELS)
        return -EAGAIN;
    struct range inside =
        range_intersect(r, range_make(0, image_layer(image, level)->size));
    struct lam_extent beyond = {
        .offset = r.offset + inside.length, .length = r.length - inside.length,
        .state = LAM_EXTENT_ZERO,
    };
    int rc = inside.length ? map_cached_layer(image, level, inside, out) : 0;

    return rc < 0 || !beyond.length ? rc : extents_append(out, &beyond, NULL);
}

int chain_map_cached(struct lam_image *image, uint64_t offset, uint64_t length,
                     struct lam_extents *out)
{
    return map_cached_from(image, 0, range_make(offset, length), out);
}

static int map_whole(struct lam_image *image, struct range r, uint32_t depth,
                     unsigned flags, struct lam_extents *out,
                     struct lam_error *err)
{
    unsigned nb_layers = image_depth(image);

    /* What one layer says is the answer: spare the lists in between. */
    if (min_u64(depth, nb_layers) == 1 && !(flags & LAM_MAP_HOST_HOLES))
        return descent_ask_layer(image, r, question_for(image, flags), out,
                                 err);
    if (flags == CHAIN_MAP_FOR_READ && depth >= nb_layers)
        return map_for_read(image, r, out, err);
    return map_chain(image, r, depth, flags, out, err);
}

int chain_map(struct lam_image *image, uint64_t offset, uint64_t length,
              uint32_t depth, unsigned flags, struct lam_extents *out,
              struct lam_error *err)
{
    const struct range r = range_make(offset, length);
    if (length == 0)
        return 0;
    /* extents_append() merges into the last item, so undoing takes its copy. */
    size_t count = out->count;
    struct lam_extent last = { 0 };
    if (count)
        last = out->items[count - 1];

    int rc = map_whole(image, r, depth, flags, out, err);
    if (rc < 0) {
        out->count = count;
        if (count)
            out->items[count - 1] = last;
    }
    return rc;
}

int chain_reads_zero(struct lam_image *image, uint64_t offset, uint64_t length,
                     bool *zero, struct lam_error *err)
{
    struct lam_extents extents lam_cleanup(lam_extents_deinit) =
        LAM_EXTENTS_INIT;
    int rc = chain_map(image, offset, length, LAM_DEPTH_ALL, 0, &extents, err);

    *zero = true;
    for (size_t i = 0; i < extents.count; i++)
        *zero &= extent_reads_zero(&extents.items[i]);
    return rc;
}

int chain_first_run(struct lam_image *image, struct range r, uint64_t *run,
                    bool *absent, struct lam_error *err)
{
    struct lam_extents map lam_cleanup(lam_extents_deinit) = LAM_EXTENTS_INIT;
    int rc = chain_map(image, r.offset, r.length, 1, 0, &map, err);

    if (rc < 0)
        return rc;
    *absent = map.items[0].state == LAM_EXTENT_UNALLOCATED;
    *run = 0;
    for (size_t i = 0; i < map.count; i++) {
        if ((map.items[i].state == LAM_EXTENT_UNALLOCATED) != *absent)
            break;
        *run += map.items[i].length;
    }
    return 0;
}

int image_map(struct lam_image *image, uint64_t offset, uint64_t length,
              uint32_t depth, unsigned flags, struct lam_extents *out,
              struct lam_error *err)
{
    IMAGE_INSIDE(image);
    int rc = image_check_range(image, offset, length, err);
    if (rc < 0)
        return rc;

    uint64_t token = image_enter(image);
    rc = chain_map(image, offset, length, depth, flags, out, err);
    image_leave(image, token);
    return rc;
}

/* What several objects hold together has no place in any of them. */
static void forget_places(const struct lam_image *image,
                          struct lam_extents *extents, size_t from)
{
    if (!image->driver || !image->io->limits.several)
        return;
    for (size_t i = from; i < extents->count; i++)
        extents->items[i].flags &= ~LAM_EXTENT_HAS_HOST;
}

int lam_image_map(struct lam_image *image, uint64_t offset, uint64_t length,
                  uint32_t depth, unsigned flags, struct lam_extents *out,
                  struct lam_error *err)
{
    size_t before = out->count;
    int rc = lam_check_flags(flags, LAM_MAP_HOST_HOLES, err);

    if (rc == 0 && !depth)
        rc = lam_fail(err, EINVAL, "depth 0: at least one layer is asked");
    if (rc < 0)
        return rc;
    image = image_through(image);
    rc = image_map(image, offset, length, depth, flags, out, err);
    if (rc == 0)
        forget_places(image, out, before);
    return rc;
}
