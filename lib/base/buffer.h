/* SPDX-License-Identifier: MIT */
/*
 * buffer.h - page-aligned memory for I/O, which O_DIRECT demands.
 */
#ifndef LAM_BASE_BUFFER_H
#define LAM_BASE_BUFFER_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* Aligned to 4096 bytes, not cleared; NULL if there is no memory.  free(). */
void *buffer_new(size_t bytes);

/*
 * The same, in as few pieces of physical memory as can be: what of a request is
 * in more pieces than a device takes becomes a request of its own, and 1 MiB of
 * small pages is 256.  Costs up to 2 MiB more.
 */
void *buffer_new_contiguous(size_t bytes);

/*
 * Buffers that are needed again at once.  What the allocator gives back to the
 * system between two requests costs more, in page faults, than many a request.
 * After the first few they come from one large page where the system has any:
 * in one piece for the disk as well, which takes 64 KiB of small pages as 16.
 * Any thread.
 */
struct buffer_pool {
    pthread_mutex_t lock;
    unsigned asked;             /* up to when it is worth a page */
    unsigned char *page;        /* owned; NULL: none yet */
    uint32_t taken;             /* a bit for each 32nd part of it */
};

void buffer_pool_init(struct buffer_pool *pool);
void buffer_pool_deinit(struct buffer_pool *pool);

/* As buffer_new(), but that it goes back by put, with the same @bytes. */
void *buffer_pool_get(struct buffer_pool *pool, size_t bytes);
void buffer_pool_put(struct buffer_pool *pool, void *buffer, size_t bytes);

#endif
