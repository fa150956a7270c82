/* SPDX-License-Identifier: MIT */
/*
 * turn.c - pieces of work that run side by side, and a part of each that is
 * done in their order.
 */
#include "base/turn.h"

#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

void turn_init(struct turn *turn)
{
    memset(turn, 0, sizeof *turn);
    pthread_mutex_init(&turn->lock, NULL);
    for (unsigned i = 0; i < TURN_SLOTS; i++)
        pthread_cond_init(&turn->moved[i], NULL);
}

void turn_deinit(struct turn *turn)
{
    for (unsigned i = 0; i < TURN_SLOTS; i++)
        pthread_cond_destroy(&turn->moved[i]);
    pthread_mutex_destroy(&turn->lock);
}

static int outcome(const struct turn *turn, struct lam_error *err)
{
    if (turn->rc < 0 && err)
        *err = turn->error;
    return turn->rc;
}

/* Until no more than @ahead numbers come before @number.  Under the lock. */
static int wait_until(struct turn *turn, uint64_t number, uint64_t ahead,
                      struct lam_error *err)
{
    while (!turn->rc && number > turn->next + ahead)
        pthread_cond_wait(&turn->moved[number % TURN_SLOTS], &turn->lock);
    return outcome(turn, err);
}

int turn_wait(struct turn *turn, uint64_t number, struct lam_error *err)
{
    LAM_LOCKED(&turn->lock);
    return wait_until(turn, number, 0, err);
}

/* Whoever waits in the slot of the number that has become next, or in that of
 * the one that may be passed from now on, which is the slot just left. */
static void advance(struct turn *turn)
{
    while (turn->passed[turn->next % TURN_SLOTS]) {
        turn->passed[turn->next % TURN_SLOTS] = false;
        pthread_cond_broadcast(&turn->moved[turn->next % TURN_SLOTS]);
        turn->next++;
    }
    pthread_cond_broadcast(&turn->moved[turn->next % TURN_SLOTS]);
}

int turn_pass(struct turn *turn, uint64_t number, struct lam_error *err)
{
    LAM_LOCKED(&turn->lock);
    int rc = wait_until(turn, number, TURN_SLOTS - 1, err);

    if (rc < 0)
        return rc;
    turn->passed[number % TURN_SLOTS] = true;
    if (number == turn->next)
        advance(turn);
    return 0;
}

void turn_abort(struct turn *turn, int rc, const struct lam_error *err)
{
    LAM_LOCKED(&turn->lock);
    if (turn->rc)
        return;
    turn->rc = rc;
    turn->error = *err;
    for (unsigned i = 0; i < TURN_SLOTS; i++)
        pthread_cond_broadcast(&turn->moved[i]);
}
