/* SPDX-License-Identifier: MIT */
/*
 * progress.c - what many threads have done, told to one callback.
 */
#include "job/progress.h"

#include "base/arith.h"

void progress_init(struct progress *p, uint64_t total, lam_progress_fn *fn,
                   void *opaque)
{
    *p = (struct progress){ .fn = fn, .opaque = opaque, .total = total };
    pthread_mutex_init(&p->telling, NULL);
}

void progress_deinit(struct progress *p)
{
    pthread_mutex_destroy(&p->telling);
}

/*
 * Nobody waits for a callback: who finds it busy leaves the telling to the one
 * who is in it, and that one looks again once the next could have come in.
 */
void progress_add(struct progress *p, uint64_t bytes)
{
    uint64_t told;

    atomic_fetch_add(&p->done, bytes);
    if (!p->fn)
        return;
    do {
        if (pthread_mutex_trylock(&p->telling) != 0)
            return;
        told = atomic_load(&p->done);
        p->fn(p->opaque, min_u64(told, p->total), p->total);
        pthread_mutex_unlock(&p->telling);
    } while (told != atomic_load(&p->done));
}
