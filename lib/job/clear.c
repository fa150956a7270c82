/* SPDX-License-Identifier: MIT */
/*
 * clear.c - frees a block device at the start of a conversion onto it.
 */
#include "job/clear.h"

#include <time.h>

#include "base/arith.h"
#include "job/copy.h"

/* Pieces begin with the first and become longer as long as the device is
 * quick, shorter when it is not: some free a terabyte in a moment, some have to
 * write it.  No longer than what lam_io_zero() asks for at once. */
#define PIECE_FIRST (64 * LAM_MIB)
#define PIECE_MIN   (4 * LAM_MIB)
#define PIECE_MAX   LAM_GIB
/* A clear ends at a multiple of this: the rest is zeroed like any range. */
#define CLEAR_UNIT  4096
enum { QUICK_MS = 50, SLOW_MS = 400 };

/* Where on its device a raw image begins. */
static int device_offset(struct lam_image *target, uint64_t *offset,
                         struct lam_error *err)
{
    struct lam_extents map = LAM_EXTENTS_INIT;
    int rc = 0;

    *offset = 0;
    if (lam_image_size(target) > 0)
        rc = image_map(target, 0, 1, 1, 0, &map, err);
    if (rc == 0 && map.count > 0)
        *offset = map.items[0].host_offset;
    lam_extents_deinit(&map);
    return rc;
}

uint64_t clear_granule(const struct lam_io_limits *limits)
{
    return max_u64(limits->discard_granularity,
                   max_u64(limits->logical_sector, 1));
}

/*
 * The longest request that is worth while.  The kernel cuts longer ones where
 * its limit is, and where that is inside a granule, none of both requests frees
 * it.
 */
static uint64_t request_max(const struct lam_io_limits *limits,
                            enum clear_how how)
{
    uint64_t granule = clear_granule(limits);
    uint64_t most = how == CLEAR_BY_PUNCH ? limits->zero_max
                                          : limits->discard_max;

    bool cut_between = most % granule == 0 && limits->discard_alignment == 0;
    if (granule <= limits->logical_sector || cut_between || most < 4 * granule)
        return PIECE_MAX;
    return align_down(most, limits->logical_sector);
}

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

static int clear_range(struct lam_io *io, struct range r, enum clear_how how,
                       struct lam_error *err)
{
    int rc;

    if (how == CLEAR_BY_PUNCH)
        rc = lam_io_zero(io, r.offset, r.length,
                         LAM_ZERO_UNMAP | LAM_ZERO_NO_FALLBACK, err);
    else
        rc = lam_io_free(io, r.offset, r.length, err);
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

/* What to ask for when all below @at has been: a granule of that again, since
 * one may lie across. */
static struct range piece_at(uint64_t at, uint64_t end, uint64_t length,
                             uint64_t granule)
{
    uint64_t from = at > granule ? at - granule : 0;

    return range_make(from, min_u64(end - from, max_u64(length, 2 * granule)));
}

int clear_device(struct lam_image *target, uint64_t total, enum clear_how how,
                 const struct lam_convert_options *options,
                 struct lam_error *err)
{
    struct lam_io *io = target->io;
    uint64_t offset, piece = PIECE_FIRST, end = clear_end(total);
    uint64_t most = request_max(&io->limits, how);
    int rc = device_offset(target, &offset, err);

    for (uint64_t at = 0; at < end && rc == 0; ) {
        rc = copy_cancelled(options, err);
        if (rc < 0)
            break;
        if (options->progress)
            options->progress(options->progress_opaque, 0, total);
        struct range r = piece_at(at, end, min_u64(piece, most),
                                  clear_granule(&io->limits));
        uint64_t started = now_ms();
        at = range_end(r);
        rc = clear_range(io, range_make(offset + r.offset, r.length), how,
                         err);
        piece = next_piece(piece, now_ms() - started);
    }
    if (rc == -ENOTSUP)
        atomic_store(how == CLEAR_BY_PUNCH ? &io->no_punch : &io->no_discard,
                     true);
    return rc;
}

int clear_start(struct lam_image *target, uint64_t length,
                struct lam_error *err)
{
    uint64_t offset;
    int rc = device_offset(target, &offset, err);

    if (rc == 0)
        rc = clear_range(target->io, range_make(offset, length),
                         CLEAR_BY_PUNCH, err);
    if (rc == -ENOTSUP)
        atomic_store(&target->io->no_punch, true);
    return rc;
}
