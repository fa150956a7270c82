/* SPDX-License-Identifier: MIT */
/*
 * descent.c - ask one layer after the other where guest bytes live.
 *
 * Each layer is asked only for what the layers above left open, in ascending
 * order and whole lists at a time.  What a layer answers is collected as it
 * comes, one ascending run a layer, and sorted once at the end: the cost is
 * that of the extents found, not of extents times depth.
 */
#include "image/descent.h"

#include <inttypes.h>
#include <stdlib.h>

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

void descent_deinit(struct descent *d)
{
    free(d->open.items);
    free(d->next.items);
    free(d->finds.items);
    lam_extents_deinit(&d->answer);
}

/* Sort part of a layer's answer into found and still open. */
static int take_extent(struct descent *d, struct lam_extent e, unsigned level,
                       struct lam_error *err)
{
    if (e.state == LAM_EXTENT_UNALLOCATED) {
        d->reserved |= (e.flags & LAM_EXTENT_HAS_HOST) != 0;
        return ranges_append(&d->next, range_make(e.offset, e.length), err);
    }
    e.depth = (uint16_t)(e.depth + level);
    return finds_append(&d->finds, &e, err);
}

/* What the answer says about the @open ranges; it may say more. */
static int take_answer(struct descent *d, const struct lam_extents *answer,
                       unsigned level, const struct range *open, size_t count,
                       struct lam_error *err)
{
    const struct lam_extent *e = answer->items;
    const struct lam_extent *end = e + answer->count;

    for (size_t i = 0; i < count && e < end; ) {
        struct range part = range_intersect(open[i], range_make(e->offset,
                                                                e->length));
        int rc = part.length
            ? take_extent(d, extent_clip(e, part.offset, part.length), level,
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

int descent_ask_layer(struct lam_image *layer, struct range r,
                      enum descent_question question, struct lam_extents *out,
                      struct lam_error *err)
{
    const struct format_ops *ops = layer->ops;
    int rc = question == DESCENT_ONCE && ops->map_once
        ? ops->map_once(layer->format, r.offset, r.length, out, err)
        : question != DESCENT_MAP && ops->map_for_read
        ? ops->map_for_read(layer->format, r.offset, r.length, out, err)
        : ops->map(layer->format, r.offset, r.length, out, err);
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
static int find_beyond(struct descent *d, const struct range *open,
                       size_t count, uint64_t end, unsigned level,
                       struct lam_error *err)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t start = max_u64(open[i].offset, end);
        if (start >= range_end(open[i]))
            continue;
        struct lam_extent e = {
            .offset = start,
            .length = range_end(open[i]) - start,
            .depth = (uint16_t)level,
            .state = LAM_EXTENT_ZERO,
            .flags = LAM_EXTENT_BEYOND_BACKING,
        };
        int rc = finds_append(&d->finds, &e, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Open ranges that are close to each other, in one question. */
static int ask_group(struct descent *d, struct lam_image *layer, unsigned level,
                     enum descent_question question, const struct range *open,
                     size_t count, struct lam_error *err)
{
    struct range hull = range_make(open[0].offset, range_end(open[count - 1])
                                                   - open[0].offset);
    struct range asked = range_intersect(hull, range_make(0, layer->size));
    if (asked.length) {
        int rc = descent_ask_layer(layer, asked, question, &d->answer, err);
        if (rc == 0)
            rc = take_answer(d, &d->answer, level, open, count, err);
        d->answer.count = 0;
        if (rc < 0)
            return rc;
    }
    return range_end(asked) < range_end(hull) || !asked.length
        ? find_beyond(d, open, count, layer->size, level, err) : 0;
}

int descent_take(struct descent *d, const struct lam_extents *answer,
                 unsigned level, struct lam_error *err)
{
    return take_answer(d, answer, level, d->open.items, d->open.count, err);
}

void descent_next(struct descent *d)
{
    struct ranges asked = d->open;

    d->open = d->next;
    d->next = asked;
    d->next.count = 0;
}

int descent_ask(struct descent *d, struct lam_image *layer, unsigned level,
                enum descent_question question, struct lam_error *err)
{
    const struct range *open = d->open.items;
    const uint64_t gap = worthwhile_gap(layer);
    int rc = 0;

    for (size_t i = 0, n; i < d->open.count && rc == 0; i += n) {
        n = 1;
        while (i + n < d->open.count
               && open[i + n].offset - range_end(open[i + n - 1]) <= gap)
            n++;
        rc = ask_group(d, layer, level, question, &open[i], n, err);
    }
    descent_next(d);
    return rc;
}

/* What is still open when no layer is left; @level was the last. */
static int close_open(struct descent *d, unsigned level, struct lam_error *err)
{
    for (size_t i = 0; i < d->open.count; i++) {
        struct lam_extent e = {
            .offset = d->open.items[i].offset,
            .length = d->open.items[i].length,
            .depth = (uint16_t)level,
            .state = LAM_EXTENT_UNALLOCATED,
        };
        int rc = finds_append(&d->finds, &e, err);
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

int descent_begin(struct descent *d, struct range r, struct lam_error *err)
{
    return ranges_append(&d->open, r, err);
}

int descent_end(struct descent *d, unsigned level, struct lam_error *err)
{
    struct finds *finds = &d->finds;
    int rc = close_open(d, level, err);

    if (rc == 0 && !is_sorted(finds))
        qsort(finds->items, finds->count, sizeof *finds->items, by_offset);
    return rc;
}
