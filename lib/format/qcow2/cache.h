/* SPDX-License-Identifier: MIT */
/*
 * cache.h - tables in memory, by slices: find, load, pin, mark dirty, evict.
 *
 * A slice is an aligned piece of an L2 table or a refcount block, named by its
 * host offset.  The cache moves no bytes and takes no lock: who may call what
 * is written at each function.  "shared" and "exclusive" mean the lock that
 * guards this cache (struct qcow2 says which).
 *
 *  1. A slice is in the hash table from the moment somebody starts to load it,
 *     so that nobody reads the same place twice, or a place that another
 *     thread is changing.
 *  2. A slice with pins, dirty, or with a copy on its way to the disk is never
 *     evicted.
 *  3. Contents change under the exclusive lock only.
 */
#ifndef LAM_QCOW2_CACHE_H
#define LAM_QCOW2_CACHE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/arith.h"
#include "base/error.h"

enum slice_state {
    SLICE_LOADING,      /* one thread reads it; others wait */
    SLICE_VALID,
    SLICE_DETACHED,     /* out of the cache; freed with its last pin */
};

struct slice {
    uint64_t host;                  /* host offset of the first byte */
    uint8_t *data;                  /* slice_size bytes */
    atomic_uint pins;               /* one is the cache's own */
    atomic_int state;               /* enum slice_state */
    atomic_bool used;               /* since the clock's hand passed */
    atomic_bool verified;           /* the owner has checked its entries */
    bool writing;                   /* a copy is on its way to the disk */
    uint32_t dirty_from, dirty_to;  /* bytes; equal: clean */
    size_t slot;
    struct slice *hash_next;
    struct slice *dirty_next, *dirty_prev;
};

struct cache {
    size_t slice_size;
    size_t capacity;                /* slices; may be passed when all are
                                       pinned */
    struct slice **slots;
    size_t count, allocated;        /* slots in use, slots there */
    size_t hand;
    struct slice **hash;
    size_t hash_mask;
    struct slice *dirty;            /* all dirty slices */
    pthread_mutex_t wait_lock;
    pthread_cond_t loaded;
};

/* At least 8 slices, whatever the budget (bytes). */
int cache_init(struct cache *c, size_t slice_size, uint64_t budget,
               struct lam_error *err);
void cache_deinit(struct cache *c);

/* Host offset of the slice that holds @host. */
static inline uint64_t cache_slice_start(const struct cache *c, uint64_t host)
{
    return align_down(host, c->slice_size);
}

/* The valid slice that holds @host, or NULL.  Shared. */
struct slice *cache_find(struct cache *c, uint64_t host);

/*
 * Take hold of the slice that holds @host; *@out is pinned.  Exclusive.
 * 0: it is there, perhaps still loading (slice_wait()).  1: it is new; the
 * caller fills @data without any lock and calls cache_loaded().  -EBUSY: no
 * room before dirty slices are written; with @force room is made all the same.
 * -ENOMEM.
 */
int cache_take(struct cache *c, uint64_t host, bool force,
               struct slice **out);

/* The end of a load: valid, or (@ok false; exclusive) out of the cache. */
void cache_loaded(struct cache *c, struct slice *s, bool ok);

/* Wait while somebody else loads; false if that failed.  No lock held. */
bool slice_wait(struct cache *c, struct slice *s);

/* A pin may be taken under the shared lock, and dropped under none. */
void slice_pin(struct slice *s);
void slice_unpin(struct slice *s);

/* Bytes [from, to) of @s have changed.  Exclusive. */
void cache_mark_dirty(struct cache *c, struct slice *s, size_t from,
                      size_t to);

/* What is dirty is taken to be on its way to the disk.  Exclusive. */
void cache_mark_writing(struct cache *c, struct slice *s);

/* Throw away what nobody has used since the last call, unless it has to stay.
 * Exclusive. */
void cache_clean(struct cache *c);

/* Throw away what is cached of [host, host + length): it is free.
 * Exclusive. */
void cache_forget(struct cache *c, uint64_t host, uint64_t length);

#endif
