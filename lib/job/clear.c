/* SPDX-License-Identifier: MIT */
/*
 * clear.c - frees a block device at the start of a conversion onto it.
 */
#include "job/clear.h"

#include <time.h>

#include "base/arith.h"
#include "job/copy.h"

/* Pieces begin with the first and become longer as long as the device is
 * quick, shorter when it is not: some zero a terabyte in a moment, some have to
 * write it. */
#define PIECE_FIRST (64 * LAM_MIB)
#define PIECE_MIN   (4 * LAM_MIB)
#define PIECE_MAX   (16 * LAM_GIB)
/* A clear ends at a multiple of this: the rest is zeroed like any range. */
#define CLEAR_UNIT  4096
enum { QUICK_MS = 50, SLOW_MS = 400 };

/* ----------------------------------------------------------- granules */

struct granules granules_of(const struct lam_io_limits *limits, uint64_t base)
{
    uint64_t size = max_u64(limits->discard_granularity,
                            max_u64(limits->logical_sector, 1));
    uint64_t start = limits->discard_alignment % size;

    return (struct granules){
        .size = size,
        .first = (start + size - base % size) % size,
    };
}

uint64_t granule_floor(const struct granules *g, uint64_t offset)
{
    if (offset < g->first)
        return 0;
    return offset - (offset - g->first) % g->size;
}

uint64_t granule_ceil(const struct granules *g, uint64_t offset)
{
    if (offset <= g->first)
        return g->first;
    uint64_t into = (offset - g->first) % g->size;
    return into ? offset + (g->size - into) : offset;
}

int clear_base(struct lam_image *target, uint64_t *base, struct lam_error *err)
{
    struct lam_extents map = LAM_EXTENTS_INIT;
    int rc = 0;

    *base = 0;
    if (lam_image_size(target) > 0)
        rc = lam_image_map(target, 0, 1, 1, 0, &map, err);
    if (rc == 0 && map.count > 0)
        *base = map.items[0].host_offset;
    lam_extents_deinit(&map);
    return rc;
}

/* ----------------------------------------------------------- clearing */

uint64_t clear_end(uint64_t total)
{
    return align_down(total, CLEAR_UNIT);
}

static uint64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* What devices answer that take the request and then do not know it: bridges
 * before disks do.  Whatever else is wrong, the writes will tell. */
static bool refused(int rc)
{
    return rc == -EIO || rc == -EREMOTEIO || rc == -EINVAL;
}

static int clear_piece(struct lam_image *target, uint64_t base, uint64_t at,
                       uint64_t length, enum clear_how how,
                       struct lam_error *err)
{
    struct lam_io *io = target->io;
    int rc;

    if (how == CLEAR_BY_PUNCH)
        rc = lam_io_zero(io, base + at, length,
                         LAM_ZERO_UNMAP | LAM_ZERO_NO_FALLBACK, err);
    else
        rc = lam_io_free(io, base + at, length, err);
    /* Zeroed by other means, it would stay allocated. */
    if (how == CLEAR_BY_PUNCH && atomic_load(&io->no_punch))
        return -ENOTSUP;
    return refused(rc) ? -ENOTSUP : rc;
}

static uint64_t next_piece(uint64_t piece, uint64_t ms)
{
    if (ms < QUICK_MS)
        return min_u64(piece * 2, PIECE_MAX);
    return ms > SLOW_MS ? max_u64(piece / 2, PIECE_MIN) : piece;
}

/* Where the piece at @at ends. */
static uint64_t piece_end(const struct granules *granules, uint64_t at,
                          uint64_t piece, uint64_t end)
{
    uint64_t stop = granule_floor(granules, at + piece);

    return min_u64(end, stop > at ? stop : granule_ceil(granules, at + 1));
}

int clear_device(struct lam_image *target, uint64_t total, enum clear_how how,
                 const struct lam_convert_options *options,
                 struct lam_error *err)
{
    uint64_t base, piece = PIECE_FIRST, end = clear_end(total);
    int rc = clear_base(target, &base, err);
    struct granules granules = granules_of(&target->io->limits, base);

    for (uint64_t at = 0, stop; at < end && rc == 0; at = stop) {
        rc = copy_cancelled(options, err);
        if (rc < 0)
            break;
        if (options->progress)
            options->progress(options->progress_opaque, 0, total);
        uint64_t started = now_ms();
        stop = piece_end(&granules, at, piece, end);
        rc = clear_piece(target, base, at, stop - at, how, err);
        piece = next_piece(piece, now_ms() - started);
    }
    if (rc == -ENOTSUP)
        atomic_store(how == CLEAR_BY_PUNCH ? &target->io->no_punch
                                           : &target->io->no_discard, true);
    return rc;
}
