/* SPDX-License-Identifier: MIT */
/*
 * extent.c - lists of extents: append and merge, clip, totals by state.
 */
#include "extent/extent.h"

#include <stdlib.h>

#include "base/arith.h"

enum { FIRST_CAPACITY = 16 };

static bool has_host(const struct lam_extent *e)
{
    return e->state == LAM_EXTENT_DATA || (e->flags & LAM_EXTENT_HAS_HOST);
}

static bool continues(const struct lam_extent *last, const struct lam_extent *e)
{
    if (last->state == LAM_EXTENT_COMPRESSED || last->state != e->state ||
        last->depth != e->depth || last->flags != e->flags)
        return false;
    return !has_host(e) || last->host_offset + last->length == e->host_offset;
}

static int make_room(struct lam_extents *list, struct lam_error *err)
{
    if (list->count < list->capacity)
        return 0;
    size_t capacity = list->capacity ? list->capacity : FIRST_CAPACITY;
    if (list->count == capacity &&
        __builtin_mul_overflow(capacity, 2, &capacity))
        return lam_fail(err, ENOMEM, "too many extents");
    struct lam_extent *items =
        reallocarray(list->items, capacity, sizeof *items);
    if (!items)
        return lam_fail(err, ENOMEM, "no memory for %zu extents", capacity);
    list->items = items;
    list->capacity = capacity;
    return 0;
}

int extents_append(struct lam_extents *list, const struct lam_extent *e,
                   struct lam_error *err)
{
    assert(e->length > 0);
    if (list->count) {
        struct lam_extent *last = &list->items[list->count - 1];
        assert(last->offset + last->length == e->offset);
        if (continues(last, e)) {
            last->length += e->length;
            return 0;
        }
    }
    int rc = make_room(list, err);
    if (rc < 0)
        return rc;
    list->items[list->count++] = *e;
    return 0;
}

int extents_add(struct lam_extents *list, enum lam_extent_state state,
                uint64_t offset, uint64_t length, uint64_t host,
                struct lam_error *err)
{
    bool has_host = state == LAM_EXTENT_DATA;
    const struct lam_extent e = {
        .offset = offset,
        .length = length,
        .host_offset = has_host ? host : 0,
        .state = (uint8_t)state,
        .flags = has_host ? LAM_EXTENT_HAS_HOST : 0,
    };
    return extents_append(list, &e, err);
}

struct lam_extent extent_clip(const struct lam_extent *e, uint64_t offset,
                              uint64_t length)
{
    assert(offset >= e->offset && length > 0 && length <= e->length &&
           offset - e->offset <= e->length - length);
    struct lam_extent cut = *e;
    cut.offset = offset;
    cut.length = length;
    if (e->state != LAM_EXTENT_COMPRESSED && has_host(e))
        cut.host_offset += offset - e->offset;
    return cut;
}

uint64_t extents_total(const struct lam_extents *list,
                       enum lam_extent_state state)
{
    uint64_t total = 0;
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].state == state)
            total += list->items[i].length;
    return total;
}

bool extent_reads_zero(const struct lam_extent *e)
{
    return e->state == LAM_EXTENT_ZERO || e->state == LAM_EXTENT_UNALLOCATED ||
           (e->state == LAM_EXTENT_DATA && (e->flags & LAM_EXTENT_HOST_HOLE));
}

void lam_extents_deinit(struct lam_extents *extents)
{
    free(extents->items);
    *extents = (struct lam_extents)LAM_EXTENTS_INIT;
}
