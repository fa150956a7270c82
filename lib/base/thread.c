/* SPDX-License-Identifier: MIT */
/*
 * thread.c - the library's own threads.
 */
#include "base/thread.h"

#include <signal.h>

/* It begins with the mask of who makes it. */
int thread_start(pthread_t *out, void *(*run)(void *opaque), void *opaque)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(out, NULL, run, opaque);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}
