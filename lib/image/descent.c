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
#include <string.h>

static int ranges_reserve(struct ranges *ranges, size_t more,
                          struct lam_error *err)
{
    size_t wanted = ranges->count + more;

    if (wanted <= ranges->capacity)
        return 0;
    size_t capacity = (size_t)max_u64(max_u64(2 * ranges->capacity, 16),
                                      wanted);
    struct range *items = realloc(ranges->items, capacity * sizeof *items);
    if (!items)
        return lam_fail(err, ENOMEM, "no memory for %zu ranges", capacity);
    ranges->items = items;
    ranges->capacity = capacity;
    return 0;
}

static int ranges_append(struct ranges *ranges, struct range r,
                         struct lam_error *err)
{
    int rc = ranges_reserve(ranges, 1, err);

    if (rc == 0 && r.length)
        ranges->items[ranges->count++] = r;
    return rc;
}

static int ranges_append_all(struct ranges *ranges, const struct range *from,
                             size_t count, struct lam_error *err)
{
    int rc = ranges_reserve(ranges, count, err);

    if (rc < 0 || !count)
        return rc;
    memcpy(ranges->items + ranges->count, from, count * sizeof *from);
    ranges->count += count;
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

/* What a layer is asked, and how far its answer has been taken: what of the
 * open ranges lies before is found, or open for the next layer. */
struct taking {
    struct descent *d;
    const struct range *open, *end;
    struct range rest;              /* of the first of them */
    unsigned level;
};

static struct taking begin_taking(struct descent *d, const struct range *open,
                                  size_t count, unsigned level)
{
    return (struct taking){ d, open, open + count, open[0], level };
}

/* The first range after t->open that ends behind @offset.  Answers come in
 * order, so it is mostly near. */
static const struct range *seek(const struct taking *t, uint64_t offset)
{
    const struct range *low = t->open + 1;
    size_t step = 1;

    while ((size_t)(t->end - low) > step &&
           range_end(low[step - 1]) <= offset) {
        low += step;
        step *= 2;
    }
    size_t left = (size_t)min_u64(step, (uint64_t)(t->end - low));
    while (left > 0) {
        size_t half = left / 2;
        if (range_end(low[half]) <= offset) {
            low += half + 1;
            left -= half + 1;
        } else {
            left = half;
        }
    }
    return low;
}

/* Whatever ends before @offset stays open. */
static int leave_open(struct taking *t, uint64_t offset, struct lam_error *err)
{
    if (t->open == t->end || range_end(t->rest) > offset)
        return 0;
    const struct range *next = seek(t, offset);
    int rc = ranges_append(&t->d->next, t->rest, err);
    if (rc == 0)
        rc = ranges_append_all(&t->d->next, t->open + 1,
                               (size_t)(next - t->open) - 1, err);
    t->open = next;
    if (next < t->end)
        t->rest = *next;
    return rc;
}

/* An extent that settles what is open in it. */
static int take_found(struct taking *t, const struct lam_extent *e,
                      struct lam_error *err)
{
    const struct range all = range_make(e->offset, e->length);
    int rc = leave_open(t, e->offset, err);

    while (rc == 0 && t->open < t->end && t->rest.offset < range_end(all)) {
        struct range part = range_intersect(t->rest, all);
        struct lam_extent found = extent_clip(e, part.offset, part.length);
        found.depth = (uint16_t)(found.depth + t->level);
        rc = finds_append(&t->d->finds, &found, err);
        if (rc == 0)
            rc = ranges_append(&t->d->next,
                               range_make(t->rest.offset,
                                          part.offset - t->rest.offset), err);
        t->rest = range_make(range_end(part),
                             range_end(t->rest) - range_end(part));
        if (t->rest.length)
            break;
        if (++t->open < t->end)
            t->rest = *t->open;
    }
    return rc;
}

/* What lies behind the end of the answer is not ours. */
static int end_taking(struct taking *t, const struct lam_extents *answer,
                      struct lam_error *err)
{
    const struct lam_extent *last = &answer->items[answer->count - 1];
    uint64_t end = last->offset + last->length;
    int rc = leave_open(t, end, err);

    if (rc < 0 || t->open == t->end || t->rest.offset >= end)
        return rc;
    return ranges_append(&t->d->next,
                         range_make(t->rest.offset, end - t->rest.offset), err);
}

static bool is_reserved(const struct lam_extent *e)
{
    return e->state == LAM_EXTENT_UNALLOCATED &&
           (e->flags & LAM_EXTENT_HAS_HOST);
}

/* What the answer says about the @open ranges; it may say more. */
static int take_answer(struct descent *d, const struct lam_extents *answer,
                       unsigned level, const struct range *open, size_t count,
                       struct lam_error *err)
{
    struct taking t = begin_taking(d, open, count, level);
    int rc = 0;

    for (size_t i = 0; i < answer->count && rc == 0; i++) {
        const struct lam_extent *e = &answer->items[i];
        if (e->state != LAM_EXTENT_UNALLOCATED)
            rc = take_found(&t, e, err);
        else if (is_reserved(e) && (rc = leave_open(&t, e->offset, err)) == 0)
            d->reserved |= t.open < t.end &&
                           t.rest.offset < e->offset + e->length;
    }
    return rc < 0 || !answer->count ? rc : end_taking(&t, answer, err);
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

/* The end of the ascending run that begins at @from. */
static size_t run_end(const struct finds *finds, size_t from)
{
    size_t i = from + 1;

    while (i < finds->count &&
           finds->items[i - 1].offset < finds->items[i].offset)
        i++;
    return (size_t)min_u64(i, finds->count);
}

static void merge_runs(const struct lam_extent *a, const struct lam_extent *b,
                       const struct lam_extent *end, struct lam_extent *out)
{
    const struct lam_extent *middle = b;

    while (a < middle && b < end)
        *out++ = a->offset < b->offset ? *a++ : *b++;
    memcpy(out, a, (size_t)(middle - a) * sizeof *a);
    out += middle - a;
    memcpy(out, b, (size_t)(end - b) * sizeof *b);
}

/* Pairs of neighbouring runs become one each; how many runs there are then. */
static size_t merge_pairs(const struct finds *finds, struct lam_extent *out)
{
    size_t runs = 0;

    for (size_t at = 0, end; at < finds->count; at = end, runs++) {
        size_t middle = run_end(finds, at);
        end = middle < finds->count ? run_end(finds, middle) : middle;
        merge_runs(finds->items + at, finds->items + middle,
                   finds->items + end, out + at);
    }
    return runs;
}

/* What one layer found ascends: few long runs are merged, nothing is sorted. */
static int put_in_order(struct finds *finds, struct lam_error *err)
{
    if (finds->count == 0 || run_end(finds, 0) == finds->count)
        return 0;
    struct lam_extent *spare = malloc(finds->capacity * sizeof *spare);
    if (!spare)
        return lam_fail(err, ENOMEM, "no memory for %zu extents",
                        finds->capacity);
    size_t runs;
    do {
        struct lam_extent *merged = spare;
        runs = merge_pairs(finds, merged);
        spare = finds->items;
        finds->items = merged;
    } while (runs > 1);
    free(spare);
    return 0;
}

int descent_begin(struct descent *d, struct range r, struct lam_error *err)
{
    return ranges_append(&d->open, r, err);
}

int descent_end(struct descent *d, unsigned level, struct lam_error *err)
{
    int rc = close_open(d, level, err);

    return rc < 0 ? rc : put_in_order(&d->finds, err);
}
