/* SPDX-License-Identifier: MIT */
/*
 * blkdebug-internal.h - the object that fails and waits, for its own files.
 *
 * Invariants, under the lock:
 *  1. A rule is active at most once, and one that was used up (once) never
 *     again.
 *  2. A breakpoint is in one of two lists: set, or with somebody who waits at
 *     it.  Whoever waits owns those in the second.
 */
#ifndef LAM_IO_BLKDEBUG_INTERNAL_H
#define LAM_IO_BLKDEBUG_INTERNAL_H

#include "io/blkdebug.h"

struct breakpoint {
    struct breakpoint *next;
    enum io_event event;
    char *tag;
    lam_stopped_fn *told;
    void *opaque;
    bool resumed;               /* by whoever took it off the list */
};

/* What of a rule changes. */
struct rule_state { bool active, used_up; };

struct blkdebug {
    struct lam_io io;
    struct lam_io *inner;
    struct blkdebug_options options;

    pthread_mutex_t lock;
    pthread_cond_t resumed;
    uint32_t state;
    struct rule_state *rules;   /* one for each of options.rules */
    struct breakpoint *set, *waiting;       /* the latest first */
};

static inline struct blkdebug *blkdebug_of(const struct lam_io *io)
{
    return (struct blkdebug *)io;
}

/* -------------------------------------------------------- blkdebug-event.c */

/* The op. */
void blkdebug_event(struct lam_io *io, enum io_event event);

/* What a request of this kind has to answer by the rules that are active now,
 * or 0. */
int blkdebug_judge(struct blkdebug *b, unsigned kind, uint64_t offset,
                   uint64_t length);

/* Nobody waits. */
void blkdebug_drop_breakpoints(struct blkdebug *b);

#endif
