/* SPDX-License-Identifier: MIT */
/*
 * buffer.h - page-aligned memory for I/O, which O_DIRECT demands.
 */
#ifndef LAM_BASE_BUFFER_H
#define LAM_BASE_BUFFER_H

#include <pthread.h>
#include <stddef.h>

/* Aligned to 4096 bytes, not cleared; NULL if there is no memory.  free(). */
void *buffer_new(size_t bytes);

/*
 * Buffers that are needed again at once.  What the allocator gives back to the
 * system between two requests costs more, in page faults, than many a request.
 * Keeps a few of one size, whichever was asked for last; any thread.
 */
struct buffer_pool {
    pthread_mutex_t lock;
    size_t bytes;               /* of each one kept */
    unsigned count;
    void *kept[16];
};

void buffer_pool_init(struct buffer_pool *pool);
void buffer_pool_deinit(struct buffer_pool *pool);

/* As buffer_new(); goes back by put with the same @bytes, or by free(). */
void *buffer_pool_get(struct buffer_pool *pool, size_t bytes);
void buffer_pool_put(struct buffer_pool *pool, void *buffer, size_t bytes);

#endif
