/* SPDX-License-Identifier: MIT */
/*
 * cache.c - tables in memory: a hash table of slices and a clock for eviction.
 */
#include "format/qcow2/cache.h"

#include <stdlib.h>

#include "base/cleanup.h"

enum { MIN_SLICES = 8, SLICE_SMALL = 4096 };

static size_t hash_of(const struct cache *c, uint64_t host)
{
    uint64_t n = host / c->slice_size;

    return (size_t)((n * UINT64_C(0x9e3779b97f4a7c15)) >> 24) & c->hash_mask;
}

int cache_init(struct cache *c, size_t slice_size, uint64_t budget,
               struct lam_error *err)
{
    size_t buckets = MIN_SLICES;

    assert(is_power_of_two(slice_size));
    *c = (struct cache){ .slice_size = slice_size };
    c->capacity = (size_t)max_u64(budget / slice_size, MIN_SLICES);
    while (buckets < c->capacity)
        buckets *= 2;
    c->hash = calloc(buckets, sizeof *c->hash);
    if (!c->hash)
        return lam_fail(err, ENOMEM, "no memory for a cache of %zu slices",
                        c->capacity);
    c->hash_mask = buckets - 1;
    pthread_mutex_init(&c->wait_lock, NULL);
    pthread_cond_init(&c->loaded, NULL);
    return 0;
}

static void slice_free(struct slice *s)
{
    free(s->data);
    free(s);
}

void slice_pin(struct slice *s)
{
    atomic_fetch_add(&s->pins, 1);
}

void slice_unpin(struct slice *s)
{
    if (atomic_fetch_sub(&s->pins, 1) == 1)
        slice_free(s);
}

void cache_deinit(struct cache *c)
{
    if (!c->hash)
        return;
    for (size_t i = 0; i < c->count; i++)
        slice_free(c->slots[i]);
    free(c->slots);
    free(c->hash);
    c->hash = NULL;
    pthread_mutex_destroy(&c->wait_lock);
    pthread_cond_destroy(&c->loaded);
}

static struct slice *lookup(const struct cache *c, uint64_t host)
{
    struct slice *s = c->hash[hash_of(c, host)];

    while (s && s->host != host)
        s = s->hash_next;
    return s;
}

struct slice *cache_find(struct cache *c, uint64_t host)
{
    struct slice *s = lookup(c, cache_slice_start(c, host));

    if (!s || atomic_load_explicit(&s->state, memory_order_acquire) !=
                  SLICE_VALID)
        return NULL;
    if (!atomic_load_explicit(&s->used, memory_order_relaxed))
        atomic_store_explicit(&s->used, true, memory_order_relaxed);
    return s;
}

static bool is_dirty(const struct slice *s)
{
    return s->dirty_from != s->dirty_to;
}

static void hash_remove(struct cache *c, struct slice *s)
{
    struct slice **p = &c->hash[hash_of(c, s->host)];

    while (*p != s)
        p = &(*p)->hash_next;
    *p = s->hash_next;
}

static void dirty_remove(struct cache *c, struct slice *s)
{
    if (!is_dirty(s))
        return;
    if (s->dirty_prev)
        s->dirty_prev->dirty_next = s->dirty_next;
    else
        c->dirty = s->dirty_next;
    if (s->dirty_next)
        s->dirty_next->dirty_prev = s->dirty_prev;
    s->dirty_next = s->dirty_prev = NULL;
    s->dirty_from = s->dirty_to = 0;
}

/* Out of all lists; it is freed with its last pin, perhaps at once. */
static void detach(struct cache *c, struct slice *s)
{
    hash_remove(c, s);
    dirty_remove(c, s);
    c->slots[s->slot] = c->slots[--c->count];
    c->slots[s->slot]->slot = s->slot;
    slice_unpin(s);
}

static bool can_evict(const struct slice *s)
{
    return !is_dirty(s) && !s->writing && atomic_load(&s->pins) == 1 &&
           atomic_load(&s->state) == SLICE_VALID;
}

/* A slice to evict, or NULL.  Two rounds: the first may only clear marks. */
static struct slice *find_victim(struct cache *c)
{
    for (size_t i = 0; i < 2 * c->count; i++) {
        struct slice *s = c->slots[c->hand++ % c->count];

        if (!can_evict(s))
            continue;
        if (!atomic_exchange(&s->used, false))
            return s;
    }
    return NULL;
}

/* Room for one more; 1 if it may be had by going past the capacity only. */
static int make_room(struct cache *c)
{
    while (c->count >= c->capacity) {
        struct slice *victim = find_victim(c);

        if (!victim)
            return c->dirty ? -EBUSY : 1;
        detach(c, victim);
    }
    return 0;
}

static int grow_slots(struct cache *c)
{
    if (c->count < c->allocated)
        return 0;
    size_t n = c->allocated ? c->allocated * 2 : MIN_SLICES;
    struct slice **slots = realloc(c->slots, n * sizeof *slots);

    if (!slots)
        return -ENOMEM;
    c->slots = slots;
    c->allocated = n;
    return 0;
}

static struct slice *slice_new(size_t bytes)
{
    struct slice *s = calloc(1, sizeof *s);

    if (!s)
        return NULL;
    /* Alignment lets whole slices go out under O_DIRECT as they are; aligned
     * to pages, small ones would take twice their size. */
    if (posix_memalign((void **)&s->data, bytes > SLICE_SMALL ? 4096 : 512,
                       bytes)) {
        free(s);
        return NULL;
    }
    atomic_init(&s->pins, 2);
    atomic_init(&s->state, SLICE_LOADING);
    atomic_init(&s->used, true);
    return s;
}

int cache_take(struct cache *c, uint64_t host, bool force, struct slice **out)
{
    host = cache_slice_start(c, host);
    struct slice *s = lookup(c, host);

    if (s) {
        slice_pin(s);
        *out = s;
        return 0;
    }
    int rc = make_room(c);
    if (rc < 0 && !force)
        return rc;
    if (grow_slots(c) < 0)
        return -ENOMEM;
    s = slice_new(c->slice_size);
    if (!s)
        return -ENOMEM;
    s->host = host;
    s->slot = c->count;
    c->slots[c->count++] = s;
    s->hash_next = c->hash[hash_of(c, host)];
    c->hash[hash_of(c, host)] = s;
    *out = s;
    return 1;
}

void cache_loaded(struct cache *c, struct slice *s, bool ok)
{
    if (!ok)
        detach(c, s);
    LAM_LOCKED(&c->wait_lock);
    atomic_store_explicit(&s->state, ok ? SLICE_VALID : SLICE_DETACHED,
                          memory_order_release);
    pthread_cond_broadcast(&c->loaded);
}

bool slice_wait(struct cache *c, struct slice *s)
{
    int state = atomic_load_explicit(&s->state, memory_order_acquire);

    if (state == SLICE_LOADING) {
        LAM_LOCKED(&c->wait_lock);
        while ((state = atomic_load(&s->state)) == SLICE_LOADING)
            pthread_cond_wait(&c->loaded, &c->wait_lock);
    }
    return state == SLICE_VALID;
}

void cache_mark_dirty(struct cache *c, struct slice *s, size_t from, size_t to)
{
    /* Whole pages, so that O_DIRECT needs no read-modify-write. */
    size_t unit = (size_t)min_u64(4096, c->slice_size);

    assert(from < to && to <= c->slice_size);
    from = (size_t)align_down(from, unit);
    to = (size_t)align_up(to, unit);
    if (is_dirty(s)) {
        s->dirty_from = (uint32_t)min_u64(s->dirty_from, from);
        s->dirty_to = (uint32_t)max_u64(s->dirty_to, to);
        return;
    }
    s->dirty_from = (uint32_t)from;
    s->dirty_to = (uint32_t)to;
    s->dirty_prev = NULL;
    s->dirty_next = c->dirty;
    if (c->dirty)
        c->dirty->dirty_prev = s;
    c->dirty = s;
}

void cache_mark_writing(struct cache *c, struct slice *s)
{
    dirty_remove(c, s);
    s->writing = true;
}

void cache_forget(struct cache *c, uint64_t host, uint64_t length)
{
    for (uint64_t at = cache_slice_start(c, host); at < host + length;
         at += c->slice_size) {
        struct slice *s = lookup(c, at);

        if (!s)
            continue;
        atomic_store(&s->state, SLICE_DETACHED);
        detach(c, s);
    }
}

void cache_clean(struct cache *c)
{
    /* Detaching puts the last one into the gap. */
    for (size_t i = c->count; i-- > 0;) {
        struct slice *s = c->slots[i];

        if (!atomic_exchange(&s->used, false) && can_evict(s))
            detach(c, s);
    }
}
