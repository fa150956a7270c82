/* SPDX-License-Identifier: MIT */
/*
 * overlay.c - lay an overlay's extents over its backing file's.
 */
#include "extent/overlay.h"

#include "base/arith.h"

/*
 * The top's word counts unless it has nothing and the one below has something.
 * If neither has, the top's stays: it may own preallocated space.
 */
static const struct lam_extent *upper(const struct lam_extent *top,
                                      const struct lam_extent *below)
{
    if (top->state != LAM_EXTENT_UNALLOCATED ||
        below->state == LAM_EXTENT_UNALLOCATED)
        return top;
    return below;
}

static uint64_t extent_end(const struct lam_extent *e)
{
    return e->offset + e->length;
}

static void assert_same_range(const struct lam_extents *a,
                              const struct lam_extents *b)
{
    assert(!a->count == !b->count);
    if (!a->count)
        return;
    assert(a->items[0].offset == b->items[0].offset);
    assert(extent_end(&a->items[a->count - 1]) ==
           extent_end(&b->items[b->count - 1]));
}

/* Appending can only add items and lengthen the last one. */
struct mark {
    size_t count;
    uint64_t last_length;
};

static struct mark mark_take(const struct lam_extents *list)
{
    uint64_t last = list->count ? list->items[list->count - 1].length : 0;
    return (struct mark){ list->count, last };
}

static void mark_restore(struct lam_extents *list, struct mark mark)
{
    list->count = mark.count;
    if (mark.count)
        list->items[mark.count - 1].length = mark.last_length;
}

int extents_overlay(const struct lam_extents *top,
                    const struct lam_extents *below, struct lam_extents *out,
                    struct lam_error *err)
{
    assert_same_range(top, below);
    struct mark mark = mark_take(out);
    size_t t = 0, b = 0;
    uint64_t offset = top->count ? top->items[0].offset : 0;
    while (t < top->count) {
        const struct lam_extent *a = &top->items[t], *c = &below->items[b];
        uint64_t end = min_u64(extent_end(a), extent_end(c));
        const struct lam_extent *from = upper(a, c);
        struct lam_extent piece = extent_clip(from, offset, end - offset);
        int rc = extents_append(out, &piece, err);
        if (rc < 0) {
            mark_restore(out, mark);
            return rc;
        }
        t += extent_end(a) == end;
        b += extent_end(c) == end;
        offset = end;
    }
    return 0;
}
