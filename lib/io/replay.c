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

static size_t behind_last_flush(const struct record_event *events, size_t n,
                                unsigned object)
{
    while (n && (events[n - 1].kind != RECORD_FLUSH ||
                 events[n - 1].object != object))
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

/* How likely it is that an event was synced: few, about half or most were. */
static uint64_t chance(uint64_t *state)
{
    static const unsigned odds[] = { 2, 8, 8, 14 };
    return odds[next_random(state) % LAM_ARRAY_SIZE(odds)];
}

static int replay(struct lam_io *disk, const struct lam_io *io, size_t count,
                  struct record_pick pick, struct lam_error *err)
{
    size_t all;
    const struct record_event *events = lam_io_record_events(io, &all);
    unsigned object = lam_io_record_object(io);
    uint64_t state = pick.value + object * UINT64_C(0xd1342543de82ef95);
    size_t unsynced = behind_last_flush(events, count, object);
    uint64_t of_16 = chance(&state);
    int rc = 0;

    for (size_t i = 0; i < count && rc == 0; i++) {
        if (events[i].object != object)
            continue;
        if (pick.how == RECORD_SEEDED && i >= unsynced)
            rc = happens(&state, of_16)
               ? apply_unsynced(disk, &events[i], &state, err) : 0;
        else if (pick.how == RECORD_ALL || i < unsynced ||
                 (pick.how == RECORD_ONLY) == (i == pick.value))
            rc = apply(disk, &events[i], err);
    }
    return rc;
}

int lam_io_record_rebuild(const struct lam_io *io, size_t nb_events,
                          struct record_pick pick, const void *base,
                          uint64_t base_length, struct lam_io **out,
                          struct lam_error *err)
{
    struct lam_io *disk;
    int rc = lam_io_memory_new(base, base_length, &disk, err);
    if (rc < 0)
        return rc;
    rc = replay(disk, io, nb_events, pick, err);
    if (rc < 0) {
        lam_io_close(disk);
        return rc;
    }
    *out = disk;
    return 0;
}

int lam_io_record_replay(const struct lam_io *io, size_t nb_events,
                         uint64_t seed, const void *base, uint64_t base_length,
                         struct lam_io **out, struct lam_error *err)
{
    struct record_pick pick = { seed ? RECORD_SEEDED : RECORD_ALL, seed };
    return lam_io_record_rebuild(io, nb_events, pick, base, base_length, out,
                                 err);
}
