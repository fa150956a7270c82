/* SPDX-License-Identifier: MIT */
/*
 * turn.h - pieces of work that run side by side, and a part of each that is
 * done in their order.
 *
 * The pieces are numbered from 0 on.  Who has taken a number waits for his
 * turn where the order counts, does that part, and passes the turn on; or
 * passes it on without having waited, when there is nothing to be done in it.
 * Each number is passed once, unless all is given up.  Nobody may wait for
 * anything else that somebody with a higher number has.
 */
#ifndef LAM_BASE_TURN_H
#define LAM_BASE_TURN_H

#include <pthread.h>
#include <stdint.h>

#include "lamella.h"

enum { TURN_SLOTS = 64 };

struct turn {
    pthread_mutex_t lock;       /* all below */
    uint64_t next;              /* whose turn it is */
    bool passed[TURN_SLOTS];    /* of [next, next + TURN_SLOTS): need none */
    pthread_cond_t moved[TURN_SLOTS];   /* one a number, and its like */
    int rc;                     /* why all was given up; or 0 */
    struct lam_error error;
};

void turn_init(struct turn *turn);
void turn_deinit(struct turn *turn);

/* Until it is @number's turn.  Negative: all was given up, for that reason. */
int turn_wait(struct turn *turn, uint64_t number, struct lam_error *err);

/* @number needs no turn any more.  Waits for those far behind, if it was not
 * its turn yet; as turn_wait(). */
int turn_pass(struct turn *turn, uint64_t number, struct lam_error *err);

/* Nobody's turn comes any more; the first reason counts. */
void turn_abort(struct turn *turn, int rc, const struct lam_error *err);

#endif
