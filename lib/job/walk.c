/* SPDX-License-Identifier: MIT */
/*
 * walk.c - cuts the concatenated sources of a copy into chunks.
 *
 * Invariants under walk->lock:
 * 1. pieces[first .. count) cover [offset, mapped_end) ascending, no gaps;
 *    the first of them may begin before offset.
 * 2. offset is a multiple of the unit, or the walk is at its end.
 */
#include "job/walk.h"

#include <string.h>

#include "base/arith.h"
#include "base/cleanup.h"
#include "image/image.h"
#include "extent/extent.h"

#define WINDOW_FIRST  (64 * LAM_MIB)
#define WINDOW_MAX    (64 * LAM_GIB)
#define WINDOW_MIN    (4 * LAM_MIB)
/* Pieces a window should have: fewer, and the next is larger. */
#define PIECES_FEW    64
#define PIECES_MANY   8192
/* Data extents from this length on are looked at for holes of the host. */
#define LONG_DATA     (256 * LAM_KIB)
/* What cannot be mapped is given up in pieces of this size. */
#define UNKNOWN_BYTES (64 * LAM_KIB)
/* An extent of the walk's own: the map could not be read here. */
enum { EXTENT_UNKNOWN = 1 << 7 };

int walk_init(struct walk *walk, const struct walk_options *options,
              const struct walk_source *sources, size_t nb_sources,
              struct lam_error *err)
{
    memset(walk, 0, sizeof *walk);
    walk->options = *options;
    walk->window = WINDOW_FIRST;
    pthread_mutex_init(&walk->lock, NULL);
    walk->sources = calloc(nb_sources + 1, sizeof *sources);
    if (!walk->sources)
        return lam_fail(err, ENOMEM, "no memory for %zu sources", nb_sources);
    if (nb_sources > 0)
        memcpy(walk->sources, sources, nb_sources * sizeof *sources);
    walk->nb_sources = nb_sources;
    for (size_t i = 0; i < nb_sources; i++)
        walk->total += sources[i].size;
    return 0;
}

void walk_deinit(struct walk *walk)
{
    free(walk->sources);
    free(walk->pieces);
    pthread_mutex_destroy(&walk->lock);
}

void walk_seek(struct walk *walk, uint64_t offset)
{
    assert(walk->sequence == 0 && offset <= walk->total);
    walk->offset = offset == walk->total
                       ? offset : align_down(offset, walk->options.unit);
    walk->mapped_end = walk->offset;
    while (walk->source + 1 < walk->nb_sources &&
           walk->sources[walk->source + 1].start <= walk->offset)
        walk->source++;
}

void walk_chunk_deinit(struct walk_chunk *chunk)
{
    free(chunk->segments);
    lam_extents_deinit(&chunk->extents);
    memset(chunk, 0, sizeof *chunk);
}

/* @items, moved to where there is room for one more than @count; NULL if there
 * is no memory, and then @items is still the array. */
static void *with_room(void *items, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return items;
    size_t wanted = *capacity ? 2 * *capacity : 16;
    items = reallocarray(items, wanted, size);
    if (items)
        *capacity = wanted;
    return items;
}

static int no_memory(size_t count, struct lam_error *err)
{
    return lam_fail(err, ENOMEM, "no memory for more than %zu extents", count);
}

static uint64_t piece_end(const struct walk_piece *piece)
{
    return piece->target_offset + piece->extent.length;
}

static enum walk_kind kind_of(const struct lam_extent *e, bool whole_chain)
{
    if (e->state == LAM_EXTENT_UNALLOCATED && !whole_chain)
        return WALK_SHARED;
    return extent_reads_zero(e) ? WALK_ZERO : WALK_DATA;
}

static void tune_window(struct walk *walk, size_t nb_extents)
{
    if (nb_extents < PIECES_FEW)
        walk->window = min_u64(2 * walk->window, WINDOW_MAX);
    else if (nb_extents > PIECES_MANY)
        walk->window = max_u64(walk->window / 2, WINDOW_MIN);
}

static int push_piece(struct walk *walk, const struct walk_source *source,
                      const struct lam_extent *e, bool whole_chain,
                      struct lam_error *err)
{
    struct walk_piece *pieces = with_room(walk->pieces, walk->count,
                                          &walk->capacity, sizeof *pieces);
    if (!pieces)
        return no_memory(walk->count, err);
    walk->pieces = pieces;
    walk->pieces[walk->count++] = (struct walk_piece){
        .image = source->image,
        .target_offset = source->start + (e->offset - source->skip),
        .kind = kind_of(e, whole_chain),
        .extent = *e,
    };
    struct walk_piece *piece = &walk->pieces[walk->count - 1];
    if (walk->kind_of_data && piece->kind == WALK_DATA &&
        !(e->flags & EXTENT_UNKNOWN))
        piece->kind = walk->kind_of_data(walk->kind_opaque, source->image, e,
                                         piece->target_offset);
    return 0;
}

/*
 * A long run of data clusters may lie over a hole of the host file: the image
 * was preallocated.  Asking about short ones costs more than reading them.
 */
static int push_long(struct walk *walk, const struct walk_source *source,
                     const struct lam_extent *e, bool whole_chain,
                     struct lam_error *err)
{
    struct lam_extents map = LAM_EXTENTS_INIT;

    int rc = image_map(source->image, e->offset, e->length,
                           whole_chain ? LAM_DEPTH_ALL : source->depth,
                           LAM_MAP_HOST_HOLES, &map, err);
    for (size_t i = 0; i < map.count && rc >= 0; i++)
        rc = push_piece(walk, source, &map.items[i], whole_chain, err);
    lam_extents_deinit(&map);
    return rc;
}

static int push_extents(struct walk *walk, const struct walk_source *source,
                        const struct lam_extents *map, bool whole_chain,
                        struct lam_error *err)
{
    int rc = 0;

    for (size_t i = 0; i < map->count && rc >= 0; i++) {
        const struct lam_extent *e = &map->items[i];
        bool is_long = e->state == LAM_EXTENT_DATA && e->length >= LONG_DATA;
        rc = is_long ? push_long(walk, source, e, whole_chain, err)
                     : push_piece(walk, source, e, whole_chain, err);
    }
    return rc;
}

/*
 * The map of the next @length bytes cannot be read.  If that is to be survived:
 * look at less, down to a piece that is handed out unseen.
 */
static int map_less(struct walk *walk, const struct walk_source *source,
                    uint64_t offset, uint64_t length, int rc,
                    struct lam_error *err)
{
    struct lam_extent unknown = {
        .offset = offset, .length = length, .state = LAM_EXTENT_DATA,
        .flags = EXTENT_UNKNOWN,
    };

    if (!walk->options.salvage || rc == -ENOMEM)
        return rc;
    if (length > UNKNOWN_BYTES) {
        walk->window = max_u64(align_down(length / 2, UNKNOWN_BYTES),
                               UNKNOWN_BYTES);
        return 0;
    }
    rc = push_piece(walk, source, &unknown, true, err);
    if (rc == 0)
        walk->mapped_end += length;
    return rc;
}

/* Append the pieces of the next window of the source that is at hand. */
static int map_window(struct walk *walk, struct lam_error *err)
{
    const struct walk_source *s = &walk->sources[walk->source];
    uint64_t offset = walk->mapped_end - s->start + s->skip;
    bool whole_chain = s->depth == LAM_DEPTH_ALL || offset >= s->shared_end;
    uint64_t end = s->skip + s->size;
    if (!whole_chain)
        end = min_u64(s->shared_end, end);
    uint32_t depth = whole_chain ? LAM_DEPTH_ALL : s->depth;
    uint64_t length = min_u64(end - offset,
                              image_map_window(s->image, offset, depth,
                                               walk->window));
    struct lam_extents map = LAM_EXTENTS_INIT;

    int rc = image_map(s->image, offset, length, depth, 0, &map, err);
    size_t before = walk->count;
    if (rc >= 0)
        rc = push_extents(walk, s, &map, whole_chain, err);
    tune_window(walk, map.count);
    lam_extents_deinit(&map);
    if (rc < 0) {
        walk->count = before;
        return map_less(walk, s, offset, length, rc, err);
    }
    walk->mapped_end += length;
    return rc;
}

/* What is used up goes, before more is appended. */
static void drop_used(struct walk *walk)
{
    walk->count -= walk->first;
    memmove(walk->pieces, walk->pieces + walk->first,
            walk->count * sizeof *walk->pieces);
    walk->first = 0;
}

/* Make the pieces reach at least @end (clipped to the total). */
static int map_up_to(struct walk *walk, uint64_t end, struct lam_error *err)
{
    end = min_u64(end, walk->total);
    if (walk->mapped_end < end && walk->first)
        drop_used(walk);
    while (walk->mapped_end < end) {
        const struct walk_source *s = &walk->sources[walk->source];
        if (walk->mapped_end == s->start + s->size) {
            walk->source++;
            continue;
        }
        int rc = map_window(walk, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Where the run of one kind that holds @walk->offset ends, as far as mapped. */
static uint64_t run_end(const struct walk *walk, size_t i)
{
    enum walk_kind kind = walk->pieces[i].kind;
    while (i + 1 < walk->count && walk->pieces[i + 1].kind == kind)
        i++;
    return piece_end(&walk->pieces[i]);
}

/* @end cut to whole units, unless everything ends there. */
static uint64_t whole_units(const struct walk *walk, uint64_t end)
{
    return end == walk->total ? end : align_down(end, walk->options.unit);
}

/*
 * A data chunk ends at the latest at a multiple of data_max; before that where
 * a run begins that is worth a chunk of its own.
 */
static uint64_t data_end(const struct walk *walk)
{
    const struct walk_options *o = &walk->options;
    uint64_t limit = align_down(walk->offset, o->data_max) + o->data_max;
    limit = min_u64(limit, walk->total);

    for (size_t i = walk->first; i < walk->count; i++) {
        const struct walk_piece *piece = &walk->pieces[i];
        uint64_t start = max_u64(piece->target_offset, walk->offset);
        if (start >= limit)
            break;
        start = align_up(start, o->unit);
        if (piece->kind == WALK_DATA || start <= walk->offset)
            continue;
        uint64_t end = whole_units(walk, run_end(walk, i));
        uint64_t worth = piece->kind == WALK_ZERO ? o->split_min : o->unit;
        if (end >= limit || (end > start && end - start >= worth))
            return min_u64(start, limit);
    }
    return limit;
}

static int push_segment(struct walk_chunk *chunk,
                        const struct walk_segment *segment,
                        struct lam_error *err)
{
    struct walk_segment *segments =
        with_room(chunk->segments, chunk->nb_segments, &chunk->max_segments,
                  sizeof *segments);
    if (!segments)
        return no_memory(chunk->nb_segments, err);
    chunk->segments = segments;
    chunk->segments[chunk->nb_segments++] = *segment;
    return 0;
}

static int push_extent(struct lam_extents *list, const struct lam_extent *e,
                       struct lam_error *err)
{
    struct lam_extent *items = with_room(list->items, list->count,
                                         &list->capacity, sizeof *items);
    if (!items)
        return no_memory(list->count, err);
    list->items = items;
    list->items[list->count++] = *e;
    return 0;
}

/* The part [from, to) of @piece becomes the end of @chunk. */
static int push_part(struct walk_chunk *chunk, const struct walk_piece *piece,
                     uint64_t from, uint64_t to, struct lam_error *err)
{
    struct lam_extent part = extent_clip(
        &piece->extent, piece->extent.offset + (from - piece->target_offset),
        to - from);
    struct walk_segment *last =
        chunk->nb_segments ? &chunk->segments[chunk->nb_segments - 1] : NULL;
    bool shared = piece->kind == WALK_SHARED ||
                  piece->extent.flags & EXTENT_UNKNOWN;

    int rc = push_extent(&chunk->extents, &part, err);
    if (rc < 0)
        return rc;
    if (last && last->image == piece->image && last->shared == shared &&
        last->offset + last->length == part.offset) {
        last->length += part.length;
        last->count++;
        return 0;
    }
    struct walk_segment segment = {
        .image = piece->image,
        .target_offset = from,
        .offset = part.offset,
        .length = part.length,
        .shared = shared,
        .first = chunk->extents.count - 1,
        .count = 1,
    };
    return push_segment(chunk, &segment, err);
}

/* Copy what lies in @chunk out of the pieces; drop what is used up. */
static int take_pieces(struct walk *walk, struct walk_chunk *chunk,
                       struct lam_error *err)
{
    uint64_t end = chunk->offset + chunk->length;

    chunk->nb_segments = 0;
    chunk->extents.count = 0;
    while (walk->first < walk->count) {
        const struct walk_piece *piece = &walk->pieces[walk->first];
        if (piece->target_offset >= end)
            break;
        if (chunk->kind != WALK_ZERO) {
            uint64_t from = max_u64(piece->target_offset, chunk->offset);
            uint64_t to = min_u64(piece_end(piece), end);
            int rc = push_part(chunk, piece, from, to, err);
            if (rc < 0)
                return rc;
        }
        if (piece_end(piece) > end)
            break;
        walk->first++;
    }
    return 0;
}

/* Bytes of a chunk of @kind, which is not data. */
static uint64_t bare_max(const struct walk *walk, enum walk_kind kind)
{
    uint64_t max = kind == WALK_ZERO ? walk->zero_max
                 : kind == WALK_SHARED ? walk->shared_max : 0;

    return max ? max : walk->options.bare_max;
}

static int next_chunk(struct walk *walk, struct walk_chunk *chunk,
                      struct lam_error *err)
{
    const struct walk_options *o = &walk->options;
    uint64_t horizon = align_down(walk->offset, o->data_max) + o->data_max;
    int rc = map_up_to(walk, horizon, err);
    if (rc < 0)
        return rc;

    chunk->offset = walk->offset;
    chunk->kind = walk->pieces[walk->first].kind;
    uint64_t end = 0, max = walk->offset + bare_max(walk, chunk->kind);
    if (chunk->kind == WALK_PAYLOAD)
        max = horizon;
    if (chunk->kind != WALK_DATA)
        end = whole_units(walk, min_u64(run_end(walk, walk->first), max));
    /* What is less than a cluster is nothing for the host. */
    if (chunk->kind == WALK_OFFLOAD)
        end = align_down(end, o->unit);
    if (end <= walk->offset) {
        chunk->kind = WALK_DATA;
        end = data_end(walk);
    }
    chunk->length = end - walk->offset;
    chunk->sequence = walk->sequence++;
    rc = take_pieces(walk, chunk, err);
    walk->offset = end;
    return rc < 0 ? rc : 1;
}

int walk_next(struct walk *walk, struct walk_chunk *chunk,
              struct lam_error *err)
{
    LAM_LOCKED(&walk->lock);
    if (walk->offset == walk->total)
        return 0;
    return next_chunk(walk, chunk, err);
}
