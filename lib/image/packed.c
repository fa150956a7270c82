/* SPDX-License-Identifier: MIT */
/*
 * packed.c - the extents of a region of the disk in 16 bytes each, to be found
 * in a few steps.
 */
#include "image/packed.h"

#include <stdlib.h>

#include "base/cleanup.h"

/* Offsets in a region count in sectors: no format has a smaller unit. */
enum { SECTOR_BITS = 9 };

/* A part of a region has this many extents on average, or fewer. */
enum { ITEMS_A_PART = 4 };

struct packed {
    uint32_t start;             /* sectors from the region's start */
    uint16_t depth;
    uint8_t state_flags;        /* state in the upper two bits */
    uint8_t sectors_high;       /* of a compressed payload */
    uint64_t host;              /* ... whose offset has 56 bits: the upper 8
                                   are the lower ones of its sectors */
};

_Static_assert(sizeof(struct packed) == PACKED_BYTES, "no padding");

/* ------------------------------------------------------------- one extent */

static const uint64_t HOST56 = (UINT64_C(1) << 56) - 1;

static uint32_t payload_sectors(const struct lam_extent *e)
{
    return (uint32_t)((e->host_length + (e->host_offset & 511)) >> SECTOR_BITS);
}

/* False for what no honest image has: a payload that does not end with a
 * sector, or lies too far out. */
static bool pack(const struct lam_extent *e, uint64_t region_start,
                 struct packed *out)
{
    *out = (struct packed){
        .start = (uint32_t)((e->offset - region_start) >> SECTOR_BITS),
        .depth = e->depth,
        .state_flags = (uint8_t)(e->state << 6 | (e->flags & 63)),
        .host = e->host_offset,
    };
    if (e->flags > 63 || !is_aligned(e->offset, 1 << SECTOR_BITS))
        return false;
    if (e->state != LAM_EXTENT_COMPRESSED)
        return true;
    uint32_t sectors = payload_sectors(e);
    if (e->host_offset > HOST56 || sectors > UINT16_MAX ||
        ((e->host_offset + e->host_length) & 511))
        return false;
    out->host |= (uint64_t)(sectors & 255) << 56;
    out->sectors_high = (uint8_t)(sectors >> 8);
    return true;
}

static bool has_host(const struct lam_extent *e)
{
    return e->state == LAM_EXTENT_DATA || (e->flags & LAM_EXTENT_HAS_HOST);
}

/* The part of @p in @r, where @p begins at @start. */
static struct lam_extent unpack(const struct packed *p, uint64_t start,
                                struct range r, unsigned depth)
{
    struct lam_extent e = {
        .offset = r.offset,
        .length = r.length,
        .host_offset = p->host,
        .depth = (uint16_t)(p->depth + depth),
        .state = p->state_flags >> 6,
        .flags = p->state_flags & 63,
    };

    if (e.state == LAM_EXTENT_COMPRESSED) {
        uint64_t sectors = p->host >> 56 | (uint64_t)p->sectors_high << 8;
        e.host_offset = p->host & HOST56;
        e.host_length = (uint32_t)((sectors << SECTOR_BITS) -
                                   (e.host_offset & 511));
    } else if (has_host(&e)) {
        e.host_offset += r.offset - start;
    }
    return e;
}

/* ----------------------------------------------------------------- building */

static bool goes_on(const struct lam_extent *last, const struct lam_extent *e)
{
    return last->state == e->state && last->depth == e->depth &&
           last->flags == e->flags && e->state != LAM_EXTENT_COMPRESSED &&
           (!has_host(e) ||
            last->host_offset + last->length == e->host_offset);
}

static int pack_all(struct packed_map *map, const struct lam_extent *extents,
                    size_t count)
{
    size_t packed = 0;

    map->items = malloc(max_u64(count, 1) * sizeof *map->items);
    if (!map->items)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        if (i && goes_on(&extents[i - 1], &extents[i]))
            continue;
        if (!pack(&extents[i], map->region.offset, &map->items[packed++]))
            return -ERANGE;
    }
    map->count = (uint32_t)packed;
    struct packed *fit = realloc(map->items,
                                 max_u64(packed, 1) * sizeof *fit);
    map->items = fit ? fit : map->items;
    return 0;
}

static size_t parts_of(const struct packed_map *map)
{
    return (size_t)(map->region.length >> map->part_bits);
}

static uint32_t sector_of(const struct packed_map *map, uint64_t offset)
{
    return (uint32_t)((offset - map->region.offset) >> SECTOR_BITS);
}

/* Searching all the items would cost more than all else that a read of a known
 * place takes.  Without memory for the index it has to do. */
static void make_index(struct packed_map *map)
{
    uint64_t part = map->region.length;
    uint32_t item = 0;

    while (part > 1 << SECTOR_BITS &&
           map->region.length / part * ITEMS_A_PART < map->count)
        part /= 2;
    map->part_bits = (unsigned)__builtin_ctzll(part);
    size_t parts = parts_of(map);
    map->index = parts > 1 ? malloc((parts + 1) * sizeof *map->index) : NULL;
    if (!map->index)
        return;
    for (size_t i = 0; i < parts; i++) {
        uint32_t first = sector_of(map, map->region.offset + i * part);
        while (item + 1 < map->count && map->items[item + 1].start <= first)
            item++;
        map->index[i] = item;
    }
    map->index[parts] = map->count - 1;
}

int packed_build(struct packed_map *map, const struct lam_extent *extents,
                 size_t count)
{
    int rc = pack_all(map, extents, count);

    if (rc == 0)
        make_index(map);
    return rc;
}

void packed_deinit(struct packed_map *map)
{
    free(map->index);
    free(map->items);
    map->index = NULL;
    map->items = NULL;
}

uint64_t packed_bytes(const struct packed_map *map)
{
    uint64_t bytes = map->count * sizeof *map->items;

    return map->index ? bytes + (parts_of(map) + 1) * sizeof *map->index
                      : bytes;
}

/* ------------------------------------------------------------------- asking */

/* The last item that starts at or before @offset; there is one. */
static size_t find_item(const struct packed_map *map, uint64_t offset)
{
    uint64_t from_start = offset - map->region.offset;
    const uint32_t *part = map->index
        ? &map->index[from_start >> map->part_bits] : NULL;
    size_t low = part ? part[0] : 0, high = part ? part[1] + 1 : map->count;

    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (map->items[middle].start <= from_start >> SECTOR_BITS)
            low = middle;
        else
            high = middle;
    }
    return low;
}

int packed_copy(const struct packed_map *map, struct range wanted,
                unsigned depth, struct lam_extents *out, struct lam_error *err)
{
    uint64_t start = map->region.offset;
    int rc = 0;

    for (size_t i = find_item(map, wanted.offset); i < map->count && rc == 0;
         i++) {
        const struct packed *item = &map->items[i];
        uint64_t at = start + ((uint64_t)item->start << SECTOR_BITS);
        uint64_t end = i + 1 < map->count
            ? start + ((uint64_t)item[1].start << SECTOR_BITS)
            : range_end(map->region);
        struct range part = range_intersect(range_make(at, end - at), wanted);
        if (!part.length)
            break;
        struct lam_extent e = unpack(item, at, part, depth);
        rc = extents_append(out, &e, err);
    }
    return rc;
}
