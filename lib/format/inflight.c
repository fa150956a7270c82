/* SPDX-License-Identifier: MIT */
/*
 * inflight.c - who is changing the mapping of which guest clusters.
 */
#include "format/inflight.h"

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

void inflight_init(struct inflight *f)
{
    *f = (struct inflight){ .first = NULL };
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, NULL);
}

void inflight_deinit(struct inflight *f)
{
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->changed);
}

static bool covers(const struct claim *c, uint64_t offset)
{
    return offset >= c->range.offset && offset < range_end(c->range);
}

static bool holds_another(const struct inflight *f, const struct claim *c)
{
    for (const struct claim *o = f->first; o; o = o->next)
        if (o != c && pthread_equal(o->owner, pthread_self()))
            return true;
    return false;
}

/* Does @o let the calling thread pass? */
static bool yields(const struct inflight *f, const struct claim *o)
{
    return o->waiting && holds_another(f, o);
}

static void insert(struct inflight *f, struct claim *c)
{
    c->owner = pthread_self();
    c->prev = NULL;
    c->next = f->first;
    if (f->first)
        f->first->prev = c;
    f->first = c;
}

bool claim_try(struct inflight *f, struct claim *c)
{
    LAM_LOCKED(&f->lock);
    for (const struct claim *o = f->first; o; o = o->next) {
        if (!range_overlaps(o->range, c->range) || yields(f, o))
            continue;
        if (covers(o, c->range.offset))
            return false;
        c->range.length = o->range.offset - c->range.offset;
    }
    c->waiting = false;
    insert(f, c);
    return true;
}

static bool is_claimed(const struct inflight *f, uint64_t offset)
{
    for (const struct claim *o = f->first; o; o = o->next)
        if (covers(o, offset) && !yields(f, o))
            return true;
    return false;
}

void claim_wait(struct inflight *f, uint64_t offset)
{
    LAM_LOCKED(&f->lock);
    while (is_claimed(f, offset))
        pthread_cond_wait(&f->changed, &f->lock);
}

void claim_all(struct inflight *f, struct claim *c)
{
    LAM_LOCKED(&f->lock);
    c->range = range_make(0, INT64_MAX);
    c->waiting = true;
    insert(f, c);
    while (f->first != c || c->next)
        pthread_cond_wait(&f->changed, &f->lock);
    c->waiting = false;
}

void claim_shorten(struct inflight *f, struct claim *c, uint64_t length)
{
    LAM_LOCKED(&f->lock);
    assert(length > 0 && length <= c->range.length);
    c->range.length = length;
    pthread_cond_broadcast(&f->changed);
}

void claim_drop(struct inflight *f, struct claim *c)
{
    LAM_LOCKED(&f->lock);
    if (c->next)
        c->next->prev = c->prev;
    if (c->prev)
        c->prev->next = c->next;
    else
        f->first = c->next;
    pthread_cond_broadcast(&f->changed);
}
