/* SPDX-License-Identifier: MIT */
/*
 * replay.c - what a disk may hold after power failed during a recording.
 *
 * All up to the last flush is there.  Of the rest each event is there or not,
 * as a write-back cache would have it; a write may be there in part, for only
 * a sector is written as a whole; and what was discarded may read as anything.
 */
#include <string.h>

#include "io/record.h"

enum { SECTOR = 512 };

/* splitmix64: any seed will do, and small ones differ at once. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static bool happens(uint64_t *state, uint64_t of_16)
{
    return next_random(state) % 16 < of_16;
}

static size_t behind_last_flush(const struct record_event *events, size_t n)
{
    while (n && events[n - 1].kind != RECORD_FLUSH)
        n--;
    return n;
}

static int apply_write(struct lam_io *disk, const struct record_event *e,
                       struct range r, struct lam_error *err)
{
    return lam_io_write(disk, e->data + (r.offset - e->offset), r.length,
                        r.offset, err);
}

/* The part before a sector, the part behind it, or a pick of sectors. */
static int apply_torn(struct lam_io *disk, const struct record_event *e,
                      uint64_t *state, struct lam_error *err)
{
    uint64_t first = align_down(e->offset, SECTOR);
    uint64_t end = e->offset + e->length;
    uint64_t sectors = div_up(end - first, SECTOR);
    uint64_t cut = next_random(state) % sectors;
    uint64_t how = next_random(state) % 3;
    for (uint64_t s = 0; s < sectors; s++) {
        bool there = how == 0 ? s < cut
                     : how == 1 ? s >= cut : happens(state, 8);
        struct range r =
            range_intersect(range_make(first + s * SECTOR, SECTOR),
                            range_make(e->offset, e->length));
        int rc = there ? apply_write(disk, e, r, err) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int apply_garbage(struct lam_io *disk, const struct record_event *e,
                         uint64_t *state, struct lam_error *err)
{
    uint8_t junk[SECTOR];
    uint64_t size = atomic_load(&disk->size);
    struct range left = range_intersect(range_make(e->offset, e->length),
                                        range_make(0, size));
    memset(junk, (int)(next_random(state) & 0xff), sizeof junk);
    while (left.length) {
        uint64_t n = min_u64(left.length, SECTOR);
        int rc = lam_io_write(disk, junk, n, left.offset, err);
        if (rc < 0)
            return rc;
        left = range_make(left.offset + n, left.length - n);
    }
    return 0;
}

static int apply_punch(struct lam_io *disk, const struct record_event *e,
                       struct lam_error *err)
{
    /* Unlike a zeroing, it does not move the end. */
    struct range r =
        range_intersect(range_make(e->offset, e->length),
                        range_make(0, atomic_load(&disk->size)));
    return lam_io_zero(disk, r.offset, r.length, 0, err);
}

static int apply(struct lam_io *disk, const struct record_event *e,
                 struct lam_error *err)
{
    switch (e->kind) {
    case RECORD_WRITE:
        return apply_write(disk, e, range_make(e->offset, e->length), err);
    case RECORD_TRUNCATE:
        return lam_io_truncate(disk, e->offset, err);
    case RECORD_ZERO:
        return lam_io_zero(disk, e->offset, e->length, 0, err);
    case RECORD_PUNCH:
    case RECORD_DISCARD:
        return apply_punch(disk, e, err);
    case RECORD_FLUSH:
        return 0;
    }
    return 0;
}

static int apply_unsynced(struct lam_io *disk, const struct record_event *e,
                          uint64_t *state, struct lam_error *err)
{
    if (e->kind == RECORD_WRITE && happens(state, 4))
        return apply_torn(disk, e, state, err);
    if (e->kind == RECORD_DISCARD && happens(state, 8))
        return apply_garbage(disk, e, state, err);
    return apply(disk, e, err);
}

static int replay(struct lam_io *disk, const struct record_event *events,
                  size_t count, uint64_t seed, struct lam_error *err)
{
    uint64_t state = seed;
    size_t unsynced = behind_last_flush(events, count);
    /* Few, about half or most of the unsynced ones made it. */
    static const unsigned odds[] = { 2, 8, 8, 14 };
    unsigned chance = odds[next_random(&state) % LAM_ARRAY_SIZE(odds)];
    for (size_t i = 0; i < count; i++) {
        int rc = 0;
        if (!seed || i < unsynced)
            rc = apply(disk, &events[i], err);
        else if (happens(&state, chance))
            rc = apply_unsynced(disk, &events[i], &state, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int lam_io_record_replay(const struct lam_io *io, size_t nb_events,
                         uint64_t seed, const void *base, uint64_t base_length,
                         struct lam_io **out, struct lam_error *err)
{
    size_t count;
    const struct record_event *events = lam_io_record_events(io, &count);
    assert(nb_events <= count);
    struct lam_io *disk;
    int rc = lam_io_memory_new(base, base_length, &disk, err);
    if (rc < 0)
        return rc;
    rc = replay(disk, events, nb_events, seed, err);
    if (rc < 0) {
        lam_io_close(disk);
        return rc;
    }
    *out = disk;
    return 0;
}
