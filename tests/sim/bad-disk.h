/* SPDX-License-Identifier: MIT */
/*
 * bad-disk.h - a host object one of whose operations fails: the n-th read,
 * write, flush, truncate, zeroing or discard, once or from then on; a write
 * may have gone half-way before.
 */
#ifndef TEST_SIM_BAD_DISK_H
#define TEST_SIM_BAD_DISK_H

#include "sim.h"

struct bad_mode {
    const char *name;
    int errnum;
    bool sticky, torn;          /* goes on failing; half is written before */
    bool reads;                 /* reads count and fail, too */
};

enum { BAD_MODES = 7 };
extern const struct bad_mode bad_modes[BAD_MODES];

/* Outlives the disks that suffer from it, which count together. */
struct trouble {
    const struct bad_mode *mode;
    uint64_t count;             /* operations so far */
    uint64_t fail_at;           /* UINT64_MAX: never */
    bool half_done;             /* the next write is the rest of a torn one */
};

static inline bool trouble_has_come(const struct trouble *t)
{
    return t->count > t->fail_at;
}

/* Nothing fails from here on and nothing counts, until it is given back. */
static inline struct trouble trouble_spare(struct trouble *t)
{
    struct trouble saved = *t;

    t->fail_at = UINT64_MAX;
    t->half_done = false;
    return saved;
}

/* @inner stays the caller's. */
struct lam_io *bad_disk_new(struct lam_io *inner, struct trouble *t);
/* Takes @inner over. */
struct lam_io *bad_disk_over(struct lam_io *inner, struct trouble *t);

#endif
