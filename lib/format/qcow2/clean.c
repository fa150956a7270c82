/* SPDX-License-Identifier: MIT */
/*
 * clean.c - cached tables that nobody has used for a while give up their
 * memory.
 */
#include "format/qcow2/qcow2.h"

#include <time.h>

static uint64_t now(void)
{
    struct timespec at;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &at);
    return (uint64_t)at.tv_sec;
}

void cleaner_init(struct cleaner *cleaner, uint64_t interval)
{
    cleaner->interval = interval;
    atomic_store(&cleaner->due, interval ? now() + interval : UINT64_MAX);
}

void qcow2_clean(struct qcow2 *q)
{
    pthread_rwlock_wrlock(&q->lock);
    cache_clean(&q->l2);
    pthread_rwlock_unlock(&q->lock);
    inflated_clean(q);
    /* Whoever has it may be waiting for a disk: then it is next time's. */
    if (pthread_mutex_trylock(&q->alloc_lock) == 0) {
        cache_clean(&q->alloc.cache);
        pthread_mutex_unlock(&q->alloc_lock);
    }
}

void qcow2_clean_if_due(struct qcow2 *q)
{
    struct cleaner *c = &q->cleaner;

    if (!c->interval)
        return;
    uint64_t at = now(), due = atomic_load_explicit(&c->due,
                                                    memory_order_relaxed);
    if (at >= due &&
        atomic_compare_exchange_strong(&c->due, &due, at + c->interval))
        qcow2_clean(q);
}
