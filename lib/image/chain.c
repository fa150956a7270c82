/* SPDX-License-Identifier: MIT */
/*
 * chain.c - map down the backing chain: one function answers for everybody.
 *
 * Each layer is asked only for what the layers above left open, in ascending
 * order and whole lists at a time.  What a layer answers is collected as it
 * comes, one ascending run a layer, and sorted once at the end: the cost is
 * that of the extents found, not of extents times depth.
 */
#include "image/chain.h"

#include <inttypes.h>

#include "base/cleanup.h"
#include "image/graph.h"

struct ranges {
    struct range *items;
    size_t count, capacity;
};

static int ranges_append(struct ranges *ranges, struct range r,
                         struct lam_error *err)
{
    struct range *last = ranges->count ? &ranges->items[ranges->count - 1]
                                       : NULL;
    if (last && range_end(*last) == r.offset) {
        last->length += r.length;
        return 0;
    }
    if (ranges->count == ranges->capacity) {
        size_t capacity = ranges->capacity ? 2 * ranges->capacity : 16;
        struct range *items = realloc(ranges->items, capacity * sizeof *items);
        if (!items)
            return lam_fail(err, ENOMEM, "no memory for %zu ranges", capacity);
        ranges->items = items;
        ranges->capacity = capacity;
    }
    ranges->items[ranges->count++] = r;
    return 0;
}

/* Extents in the order in which they were found; not a lam_extents list, which
 * has no gaps and ascends. */
struct finds {
    struct lam_extent *items;
    size_t count, capacity;
};

static int finds_append(struct finds *finds, const struct lam_extent *e,
                        struct lam_error *err)
{
    if (finds->count == finds->capacity) {
        size_t capacity = finds->capacity ? 2 * finds->capacity : 64;
        struct lam_extent *items = realloc(finds->items,
                                           capacity * sizeof *items);
        if (!items)
            return lam_fail(err, ENOMEM, "no memory for %zu extents", capacity);
        finds->items = items;
        finds->capacity = capacity;
    }
    finds->items[finds->count++] = *e;
    return 0;
}

struct walk {
    struct ranges open, next;   /* what this layer is asked, what the next */
    struct finds finds;
    struct lam_extents answer;  /* of one layer for one range */
    bool reserved;              /* some layer has a place without data */
};

static void walk_deinit(struct walk *w)
{
    free(w->open.items);
    free(w->next.items);
    free(w->finds.items);
    lam_extents_deinit(&w->answer);
}

/* Sort part of a layer's answer into found and still open. */
static int take_extent(struct walk *w, struct lam_extent e, unsigned level,
                       struct lam_error *err)
{
    if (e.state == LAM_EXTENT_UNALLOCATED) {
        w->reserved |= (e.flags & LAM_EXTENT_HAS_HOST) != 0;
        return ranges_append(&w->next, range_make(e.offset, e.length), err);
    }
    e.depth = (uint16_t)level;
    return finds_append(&w->finds, &e, err);
}

/* What the answer says about the @open ranges; it may say more. */
static int take_answer(struct walk *w, unsigned level, const struct range *open,
                       size_t count, struct lam_error *err)
{
    const struct lam_extent *e = w->answer.items;
    const struct lam_extent *end = e + w->answer.count;

    for (size_t i = 0; i < count && e < end; ) {
        struct range part = range_intersect(open[i], range_make(e->offset,
                                                                e->length));
        int rc = part.length
            ? take_extent(w, extent_clip(e, part.offset, part.length), level,
                          err)
            : 0;
        if (rc < 0)
            return rc;
        if (e->offset + e->length < range_end(open[i]))
            e++;
        else
            i++;
    }
    return 0;
}

static int ask_format(struct lam_image *layer, struct range r, unsigned flags,
                      struct lam_extents *out, struct lam_error *err)
{
    int rc = flags & CHAIN_MAP_FOR_READ && layer->ops->map_for_read
        ? layer->ops->map_for_read(layer->format, r.offset, r.length, out, err)
        : layer->ops->map(layer->format, r.offset, r.length, out, err);
    return lam_error_prefix(err, rc, "'%s': guest offset %" PRIu64,
                            layer->name, r.offset);
}

/*
 * Asking costs as much as some dozens of extents in an answer.  So what is open
 * with little between is asked for at once, and the answer cut down after.
 */
static uint64_t worthwhile_gap(const struct lam_image *layer)
{
    return 64 * layer->ops->cluster_size(layer->format);
}

/* Past the end of a layer nothing is stored, there or below. */
static int find_beyond(struct walk *w, const struct range *open, size_t count,
                       uint64_t end, unsigned level, struct lam_error *err)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t start = max_u64(open[i].offset, end);
        if (start >= range_end(open[i]))
            continue;
        struct lam_extent e = {
            .offset = start,
            .length = range_end(open[i]) - start,
            .depth = (uint16_t)(level - 1),     /* the last that reaches it */
            .state = LAM_EXTENT_ZERO,
            .flags = LAM_EXTENT_BEYOND_BACKING,
        };
        int rc = finds_append(&w->finds, &e, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Open ranges that are close to each other, in one question. */
static int ask_group(struct walk *w, struct lam_image *layer, unsigned level,
                     unsigned flags, const struct range *open, size_t count,
                     struct lam_error *err)
{
    struct range hull = range_make(open[0].offset, range_end(open[count - 1])
                                                   - open[0].offset);
    struct range asked = range_intersect(hull, range_make(0, layer->size));
    if (asked.length) {
        int rc = ask_format(layer, asked, flags, &w->answer, err);
        if (rc == 0)
            rc = take_answer(w, level, open, count, err);
        w->answer.count = 0;
        if (rc < 0)
            return rc;
    }
    return range_end(asked) < range_end(hull) || !asked.length
        ? find_beyond(w, open, count, layer->size, level, err) : 0;
}

static int ask_layer(struct walk *w, struct lam_image *layer, unsigned level,
                     unsigned flags, struct lam_error *err)
{
    const struct range *open = w->open.items;
    const uint64_t gap = worthwhile_gap(layer);
    int rc = 0;

    for (size_t i = 0, n; i < w->open.count && rc == 0; i += n) {
        n = 1;
        while (i + n < w->open.count
               && open[i + n].offset - range_end(open[i + n - 1]) <= gap)
            n++;
        rc = ask_group(w, layer, level, flags, &open[i], n, err);
    }
    return rc;
}

/* What is still open when no layer is left; @level was the last. */
static int close_open(struct walk *w, unsigned level, struct lam_error *err)
{
    for (size_t i = 0; i < w->open.count; i++) {
        struct lam_extent e = {
            .offset = w->open.items[i].offset,
            .length = w->open.items[i].length,
            .depth = (uint16_t)level,
            .state = LAM_EXTENT_UNALLOCATED,
        };
        int rc = finds_append(&w->finds, &e, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int by_offset(const void *a, const void *b)
{
    const struct lam_extent *x = a, *y = b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static bool is_sorted(const struct finds *finds)
{
    for (size_t i = 1; i < finds->count; i++)
        if (finds->items[i - 1].offset > finds->items[i].offset)
            return false;
    return true;
}

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
        rc = extents_append(out, &part, err);
        if (rc < 0)
            return rc;
        done += run;
    }
    return 0;
}

/*
 * What no layer has belongs to none, but for a preallocated subcluster that got
 * no data: it has a place on the host, told of the last layer that reaches it.
 */
static int append_absent(struct walk *w, struct lam_image *image,
                         const struct lam_extent *e, struct lam_extents *out,
                         struct lam_error *err)
{
    struct lam_extent part = *e;
    int rc = 0;

    part.depth = 0;
    if (!w->reserved)
        return extents_append(out, &part, err);
    w->answer.count = 0;
    rc = ask_format(image_layer(image, e->depth),
                    range_make(e->offset, e->length), 0, &w->answer, err);
    for (size_t i = 0; i < w->answer.count && rc == 0; i++) {
        const struct lam_extent *found = &w->answer.items[i];
        bool place = found->state == LAM_EXTENT_UNALLOCATED
            && found->flags & LAM_EXTENT_HAS_HOST;
        part = *found;
        part.state = e->state;
        part.flags = e->flags | (place ? LAM_EXTENT_HAS_HOST : 0);
        part.depth = place ? e->depth : 0;
        rc = extents_append(out, &part, err);
    }
    return rc;
}

static bool is_absent(const struct lam_extent *e)
{
    return e->state == LAM_EXTENT_UNALLOCATED
        || e->flags & LAM_EXTENT_BEYOND_BACKING;
}

static int hand_out(struct walk *w, struct lam_image *image, unsigned flags,
                    struct lam_extents *out, struct lam_error *err)
{
    struct finds *finds = &w->finds;
    int rc = 0;

    if (!is_sorted(finds))
        qsort(finds->items, finds->count, sizeof *finds->items, by_offset);
    for (size_t i = 0; i < finds->count && rc == 0; i++) {
        const struct lam_extent *e = &finds->items[i];
        if (is_absent(e))
            rc = append_absent(w, image, e, out, err);
        else if (flags & LAM_MAP_HOST_HOLES && e->state == LAM_EXTENT_DATA
                 && !(e->flags & LAM_EXTENT_ENCRYPTED))
            rc = append_with_holes(image, e, out, err);
        else
            rc = extents_append(out, e, err);
    }
    return rc;
}

static int walk_layers(struct walk *w, struct lam_image *image, uint32_t depth,
                       unsigned flags, struct lam_error *err)
{
    unsigned nb_layers = (unsigned)min_u64(depth, image_depth(image));

    for (unsigned level = 0; level < nb_layers && w->open.count; level++) {
        int rc = ask_layer(w, image_layer(image, level), level, flags, err);
        if (rc < 0)
            return rc;
        struct ranges asked = w->open;
        w->open = w->next;
        w->next = asked;
        w->next.count = 0;
    }
    return close_open(w, nb_layers - 1, err);
}

static int map_chain(struct lam_image *image, struct range r, uint32_t depth,
                     unsigned flags, struct lam_extents *out,
                     struct lam_error *err)
{
    struct walk w lam_cleanup(walk_deinit) = { 0 };
    int rc = ranges_append(&w.open, r, err);

    if (rc == 0)
        rc = walk_layers(&w, image, depth, flags, err);
    return rc < 0 ? rc : hand_out(&w, image, flags, out, err);
}

int chain_map(struct lam_image *image, uint64_t offset, uint64_t length,
              uint32_t depth, unsigned flags, struct lam_extents *out,
              struct lam_error *err)
{
    const struct range r = range_make(offset, length);
    const bool alone = min_u64(depth, image_depth(image)) == 1;

    if (length == 0)
        return 0;
    /* extents_append() merges into the last item, so undoing takes its copy. */
    size_t count = out->count;
    struct lam_extent last = { 0 };
    if (count)
        last = out->items[count - 1];

    /* What one layer says is the answer: spare the lists in between. */
    int rc = alone && !(flags & LAM_MAP_HOST_HOLES)
        ? ask_format(image, r, flags, out, err)
        : map_chain(image, r, depth, flags, out, err);
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

int lam_image_map(struct lam_image *image, uint64_t offset, uint64_t length,
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
