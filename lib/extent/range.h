/* SPDX-License-Identifier: MIT */
/*
 * range.h - half-open ranges: clip, intersect, split into head, body and tail.
 *
 * This is the only place where an unaligned request is taken apart.
 */
#ifndef LAM_EXTENT_RANGE_H
#define LAM_EXTENT_RANGE_H

#include "base/arith.h"

struct range {
    uint64_t offset;
    uint64_t length;
};

static inline struct range range_make(uint64_t offset, uint64_t length)
{
    return (struct range){ offset, length };
}

static inline uint64_t range_end(struct range r)
{
    return r.offset + r.length;
}

/* The part of @a inside @b; length 0 if they do not meet. */
static inline struct range range_intersect(struct range a, struct range b)
{
    uint64_t start = max_u64(a.offset, b.offset);
    uint64_t end = min_u64(range_end(a), range_end(b));
    return range_make(start, end > start ? end - start : 0);
}

static inline bool range_overlaps(struct range a, struct range b)
{
    return a.offset < range_end(b) && b.offset < range_end(a);
}

/* True if [offset, offset + length) lies inside [0, size), without wrapping. */
static inline bool range_fits(uint64_t offset, uint64_t length, uint64_t size)
{
    return length <= size && offset <= size - length;
}

/* Grown on both sides to multiples of @unit (a power of two). */
static inline struct range range_widen(struct range r, uint64_t unit)
{
    uint64_t start = align_down(r.offset, unit);
    return range_make(start, align_up(range_end(r), unit) - start);
}

/*
 * @r cut at multiples of @unit: a head before the first multiple, a body of
 * whole units, a tail after the last.  Parts may be empty; a range inside one
 * unit that covers it not is all head.
 */
struct range_split {
    struct range head, body, tail;
};

static inline struct range_split range_split(struct range r, uint64_t unit)
{
    uint64_t end = range_end(r);
    uint64_t first = min_u64(align_up(r.offset, unit), end);
    uint64_t last = max_u64(align_down(end, unit), first);
    return (struct range_split){
        range_make(r.offset, first - r.offset),
        range_make(first, last - first),
        range_make(last, end - last),
    };
}

#endif
