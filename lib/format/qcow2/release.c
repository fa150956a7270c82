/* SPDX-License-Identifier: MIT */
/*
 * release.c - host space that entries have dropped, on its way to be free.
 */
#include "format/qcow2/release.h"

void epoch_init(struct epoch *e)
{
    *e = (struct epoch){ .current = 0 };
    pthread_mutex_init(&e->lock, NULL);
}

void epoch_deinit(struct epoch *e)
{
    pthread_mutex_destroy(&e->lock);
}

uint64_t epoch_enter(struct epoch *e)
{
    LAM_LOCKED(&e->lock);
    e->active[e->current]++;
    return e->current;
}

void epoch_leave(struct epoch *e, uint64_t token)
{
    LAM_LOCKED(&e->lock);
    assert(token < 2 && e->active[token] > 0);
    e->active[token]--;
}
