/* SPDX-License-Identifier: MIT */
/*
 * buffer.c - page-aligned memory for I/O, and a pool of it.
 */
#include "base/buffer.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/cleanup.h"

enum {
    BUFFER_ALIGNMENT = 4096,
    PAGE = 2 << 20,             /* a large one */
    CONTIGUOUS_MIN = 512 << 10, /* less is no request too large */
    PARTS = 32,
    PART = PAGE / PARTS,        /* sizes are rounded up to so many */
    FEW = 16,                   /* buffers for which no page is taken */
};

void *buffer_new(size_t bytes)
{
    void *p = NULL;
    /* One byte at least: NULL means that there is no memory. */
    if (posix_memalign(&p, BUFFER_ALIGNMENT, bytes ? bytes : 1))
        return NULL;
    return p;
}

/* Small pages are right as well: the system need not have a large one. */
static void *large_pages(size_t bytes)
{
    void *p = NULL;

    if (posix_memalign(&p, PAGE, bytes))
        return NULL;
    madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

void *buffer_new_contiguous(size_t bytes)
{
    if (bytes < CONTIGUOUS_MIN)
        return buffer_new(bytes);
    return large_pages((bytes + PAGE - 1) / PAGE * PAGE);
}

/* ---------------------------------------------------------------- the pool */

void buffer_pool_init(struct buffer_pool *pool)
{
    *pool = (struct buffer_pool){ 0 };
    pthread_mutex_init(&pool->lock, NULL);
}

void buffer_pool_deinit(struct buffer_pool *pool)
{
    assert(!pool->taken);
    free(pool->page);
    pthread_mutex_destroy(&pool->lock);
}

static bool make_page(struct buffer_pool *pool)
{
    if (pool->page)
        return true;
    if (pool->asked < FEW) {
        pool->asked++;
        return false;
    }
    pool->page = large_pages(PAGE);
    return pool->page != NULL;
}

/* As many bits as @bytes take parts, the lowest ones; at least one. */
static uint32_t parts_of(size_t bytes)
{
    size_t parts = bytes ? (bytes + PART - 1) / PART : 1;

    return UINT32_MAX >> (PARTS - parts);
}

static void *take_parts(struct buffer_pool *pool, size_t bytes)
{
    const uint32_t parts = parts_of(bytes);

    LAM_LOCKED(&pool->lock);
    if (!make_page(pool))
        return NULL;
    for (unsigned i = 0; i < PARTS && parts << i >> i == parts; i++) {
        if (pool->taken & parts << i)
            continue;
        pool->taken |= parts << i;
        return pool->page + (size_t)i * PART;
    }
    return NULL;
}

void *buffer_pool_get(struct buffer_pool *pool, size_t bytes)
{
    void *buffer = bytes <= PAGE ? take_parts(pool, bytes) : NULL;

    return buffer ? buffer : buffer_new(bytes);
}

/* False: it is none of the page's. */
static bool give_back(struct buffer_pool *pool, const void *buffer,
                      size_t bytes)
{
    LAM_LOCKED(&pool->lock);
    size_t at = (uintptr_t)buffer - (uintptr_t)pool->page;
    if (!pool->page || at >= PAGE)
        return false;
    assert((pool->taken >> at / PART & parts_of(bytes)) == parts_of(bytes));
    pool->taken &= ~(parts_of(bytes) << at / PART);
    return true;
}

void buffer_pool_put(struct buffer_pool *pool, void *buffer, size_t bytes)
{
    if (buffer && !give_back(pool, buffer, bytes))
        free(buffer);
}
