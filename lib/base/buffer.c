/* SPDX-License-Identifier: MIT */
/*
 * buffer.c - page-aligned memory for I/O, and a pool of it.
 */
#include "base/buffer.h"

#include <stdlib.h>

#include "base/arith.h"
#include "base/cleanup.h"

enum {
    BUFFER_ALIGNMENT = 4096,
    POOL_UNIT = 64 << 10,       /* sizes are rounded up, so that fewer differ */
    POOL_BYTES = 2 << 20,       /* kept in all */
};

void *buffer_new(size_t bytes)
{
    void *p = NULL;
    /* One byte at least: NULL means that there is no memory. */
    if (posix_memalign(&p, BUFFER_ALIGNMENT, bytes ? bytes : 1))
        return NULL;
    return p;
}

/* ---------------------------------------------------------------- the pool */

void buffer_pool_init(struct buffer_pool *pool)
{
    *pool = (struct buffer_pool){ 0 };
    pthread_mutex_init(&pool->lock, NULL);
}

static void empty(struct buffer_pool *pool)
{
    while (pool->count)
        free(pool->kept[--pool->count]);
}

void buffer_pool_deinit(struct buffer_pool *pool)
{
    empty(pool);
    pthread_mutex_destroy(&pool->lock);
}

void *buffer_pool_get(struct buffer_pool *pool, size_t bytes)
{
    size_t size = (size_t)align_up(bytes, POOL_UNIT);

    if (size > POOL_BYTES)
        return buffer_new(bytes);
    {
        LAM_LOCKED(&pool->lock);
        if (pool->bytes != size)
            empty(pool);
        pool->bytes = size;
        if (pool->count)
            return pool->kept[--pool->count];
    }
    return buffer_new(size);
}

void buffer_pool_put(struct buffer_pool *pool, void *buffer, size_t bytes)
{
    size_t size = (size_t)align_up(bytes, POOL_UNIT);

    if (buffer && size <= POOL_BYTES) {
        LAM_LOCKED(&pool->lock);
        if (pool->bytes == size && pool->count < LAM_ARRAY_SIZE(pool->kept) &&
            (pool->count + 1) * size <= POOL_BYTES) {
            pool->kept[pool->count++] = buffer;
            return;
        }
    }
    free(buffer);
}
