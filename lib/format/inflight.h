/* SPDX-License-Identifier: MIT */
/*
 * inflight.h - who is changing the mapping of which guest clusters.
 *
 * A claim is taken while the mapping that it is based on is locked (shared is
 * enough, since nobody else can change it then), and dropped when the new
 * mapping stands.  Two claims never overlap.
 *
 * A thread may hold several, of ascending ranges.  Whoever waits for everything
 * lets those go on that hold a claim already: it is them that he waits for.
 */
#ifndef LAM_FORMAT_INFLIGHT_H
#define LAM_FORMAT_INFLIGHT_H

#include <pthread.h>

#include "extent/range.h"

/* A guest range whose mapping one thread is changing. */
struct claim {
    struct range range;         /* whole clusters */
    pthread_t owner;
    bool waiting;               /* for everything: not granted yet */
    struct claim *next, *prev;
};

struct inflight {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct claim *first;
};

void inflight_init(struct inflight *f);
void inflight_deinit(struct inflight *f);

/* Claims c->range, cut short where another claim begins inside it.  False:
 * another one covers its start; drop the lock and claim_wait(). */
bool claim_try(struct inflight *f, struct claim *c);

/* Until no claim covers @offset. */
void claim_wait(struct inflight *f, uint64_t offset);

/* Claim everything: waits until the others are dropped, and lets no new one
 * begin meanwhile.  The caller holds none. */
void claim_all(struct inflight *f, struct claim *c);

void claim_shorten(struct inflight *f, struct claim *c, uint64_t length);
void claim_drop(struct inflight *f, struct claim *c);

#endif
