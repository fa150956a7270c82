/* SPDX-License-Identifier: MIT */
/*
 * change.c - who is changing which part of a host object.
 *
 * The list is as long as there are changes in flight, a few dozen at most, and
 * each of them costs a trip to a device: a plain list will do.
 */
#include "io/change.h"

#include "base/cleanup.h"

static bool needed(const struct lam_io *io)
{
    return io->limits.request_alignment > 1;
}

static bool conflicts(const struct lam_io *io, const struct io_change *change)
{
    for (const struct io_change *c = io->changes; c; c = c->next)
        if ((c->exclusive || change->exclusive) &&
            range_overlaps(c->range, change->range))
            return true;
    return false;
}

static void add(struct lam_io *io, struct io_change *change)
{
    change->next = io->changes;
    io->changes = change;
}

void io_change_begin(struct lam_io *io, struct io_change *change)
{
    if (!needed(io))
        return;
    LAM_LOCKED(&io->change_lock);
    while (conflicts(io, change))
        pthread_cond_wait(&io->change_ended, &io->change_lock);
    add(io, change);
}

bool io_change_try(struct lam_io *io, struct io_change *change)
{
    if (!needed(io))
        return true;
    LAM_LOCKED(&io->change_lock);
    if (conflicts(io, change))
        return false;
    add(io, change);
    return true;
}

void io_change_end(struct lam_io *io, struct io_change *change)
{
    if (!needed(io))
        return;
    LAM_LOCKED(&io->change_lock);
    struct io_change **link = &io->changes;
    while (*link != change)
        link = &(*link)->next;
    *link = change->next;
    pthread_cond_broadcast(&io->change_ended);
}
