/* SPDX-License-Identifier: MIT */
/*
 * release.c - host space that entries have dropped, on its way to be free.
 *
 * Requests are counted in two generations.  When a list of batches becomes
 * durable while none is draining, the generations change places: everything
 * that began before counts in the old one, and once that is empty nobody can
 * hold on to what the list has dropped.
 */
#include "format/qcow2/release.h"

#include "format/qcow2/alloc.h"
#include "format/qcow2/trim.h"

/* Ranges, and so many bytes count as one more: what waits to be freed takes
 * memory here and space on the host. */
enum { MAX_PENDING = 1 << 16, PENDING_BYTES = 1 << 14 };

void epoch_init(struct epoch *e)
{
    *e = (struct epoch){ .current = 0 };
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->ended, NULL);
}

void epoch_deinit(struct epoch *e)
{
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->ended);
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
    if (--e->active[token] == 0)
        pthread_cond_broadcast(&e->ended);
}

static bool epoch_old_ended(struct epoch *e)
{
    LAM_LOCKED(&e->lock);
    return e->active[!e->current] == 0;
}

static void epoch_turn(struct epoch *e)
{
    LAM_LOCKED(&e->lock);
    assert(e->active[!e->current] == 0);
    e->current = !e->current;
}

void epoch_drain(struct epoch *e)
{
    LAM_LOCKED(&e->lock);
    while (e->active[!e->current])
        pthread_cond_wait(&e->ended, &e->lock);
    e->current = !e->current;
    while (e->active[!e->current])
        pthread_cond_wait(&e->ended, &e->lock);
}

void epoch_wait_old(struct epoch *e)
{
    LAM_LOCKED(&e->lock);
    while (e->active[!e->current])
        pthread_cond_wait(&e->ended, &e->lock);
}

/* ----------------------------------------------------------------- batches */

struct release_batch *release_new(size_t capacity)
{
    struct release_batch *b = malloc(sizeof *b +
                                     capacity * sizeof b->items[0]);

    if (b) {
        b->next = NULL;
        b->count = 0;
    }
    return b;
}

void release_add_entry(const struct qcow2 *q, struct release_batch *batch,
                       struct qcow2_l2_entry e, bool discard)
{
    struct release r = { .discard = discard };

    if (e.word & QCOW2_COMPRESSED) {
        r.offset = compressed_offset(&q->g, e.word);
        r.length = compressed_length(&q->g, e.word);
        batch->items[batch->count++] = r;   /* never joined: counts differ */
        return;
    }
    r.offset = entry_offset(e.word);
    r.length = q->g.cluster_size;
    if (!r.offset || q->data_file)
        return;
    struct release *last = batch->count ? &batch->items[batch->count - 1]
                                        : NULL;
    if (last && last->offset + last->length == r.offset &&
        is_aligned(last->offset | last->length, q->g.cluster_size))
        last->length += r.length;
    else
        batch->items[batch->count++] = r;
}

void release_pend(struct qcow2 *q, struct release_batch *batch)
{
    if (!batch)
        return;
    if (!batch->count) {
        free(batch);
        return;
    }
    uint64_t bytes = 0;
    for (size_t i = 0; i < batch->count; i++)
        bytes += batch->items[i].length;
    q->nb_pending += batch->count + bytes / PENDING_BYTES;
    batch->next = q->pending;
    q->pending = batch;
}

bool release_is_crowded(struct qcow2 *q)
{
    return atomic_load_explicit(&q->nb_pending, memory_order_relaxed) >
           MAX_PENDING;
}

void release_join(struct release_batch **list, struct release_batch *batches)
{
    struct release_batch **end = &batches;

    while (*end)
        end = &(*end)->next;
    *end = *list;
    *list = batches;
}

void release_free_list(struct release_batch *list)
{
    while (list) {
        struct release_batch *next = list->next;

        free(list);
        list = next;
    }
}

/* -------------------------------------------------------------------- reap */

static void freed(struct qcow2 *q, uint64_t host, uint64_t length,
                  const void *opaque)
{
    const struct release *r = opaque;

    if (r->table) {
        pthread_rwlock_wrlock(&q->lock);
        cache_forget(&q->l2, host, length);
        pthread_rwlock_unlock(&q->lock);
    }
    if (r->discard)
        lam_io_discard(q->io, host, length, NULL);
}

static void drop_list(struct qcow2 *q, struct release_batch *list)
{
    struct release_batch *later = NULL;

    for (const struct release_batch *b = list; b; b = b->next)
        for (size_t i = 0; i < b->count; i++) {
            if (b->items[i].kept)
                trim_now(q, &b->items[i], &later);
            else
                alloc_drop(q, b->items[i].offset, b->items[i].length, freed,
                           &b->items[i]);
        }
    release_free_list(list);
    release_join(&q->written, later);
}

void release_reap(struct qcow2 *q)
{
    while (q->draining || q->durable) {
        if (!epoch_old_ended(&q->epoch))
            return;
        drop_list(q, lam_take(&q->draining));
        if (q->durable) {
            q->draining = lam_take(&q->durable);
            epoch_turn(&q->epoch);
        }
    }
}

static bool anything_to_free(struct qcow2 *q)
{
    LAM_LOCKED(&q->alloc_lock);
    return atomic_load(&q->nb_pending) || q->written || q->durable ||
           q->draining;
}

static void tell_host(struct qcow2 *q, uint64_t host, uint64_t length,
                      const void *opaque)
{
    (void)opaque;
    lam_io_discard(q->io, host, length, NULL);
}

void release_table(struct qcow2 *q, uint64_t host, uint64_t length)
{
    alloc_drop(q, host, length, q->pass_other ? tell_host : NULL, NULL);
}

int qcow2_reclaim(void *format, struct lam_error *err)
{
    struct qcow2 *q = format;

    if (!anything_to_free(q))
        return -ENOSPC;
    int rc = qcow2_write_back(q, true, err);
    if (rc < 0)
        return rc;
    /* What is draining, and what has become durable meanwhile. */
    for (int i = 0; i < 2; i++) {
        epoch_wait_old(&q->epoch);
        LAM_LOCKED(&q->alloc_lock);
        release_reap(q);
    }
    return 0;
}
