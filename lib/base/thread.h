/* SPDX-License-Identifier: MIT */
/*
 * thread.h - the library's own threads.
 */
#ifndef LAM_BASE_THREAD_H
#define LAM_BASE_THREAD_H

#include <pthread.h>

/*
 * pthread_create() of a thread that lets no signal in: they are the program's
 * business, and its handlers run on its own threads.  0, or an errno value.
 */
int thread_start(pthread_t *out, void *(*run)(void *opaque), void *opaque);

#endif
