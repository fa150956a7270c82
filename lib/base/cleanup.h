/* SPDX-License-Identifier: MIT */
/*
 * cleanup.h - cleanup bound to scope.
 *
 * Declare with NULL, return early, hand over with lam_take():
 *
 *     lam_autofree uint8_t *table = malloc(bytes);
 *     ...
 *     q->l1 = lam_take(&table);
 */
#ifndef LAM_BASE_CLEANUP_H
#define LAM_BASE_CLEANUP_H

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static inline void lam_cleanup_free(void *p)
{
    free(*(void **)p);
}

static inline void lam_cleanup_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

static inline void lam_cleanup_unlock(pthread_mutex_t **mutex)
{
    if (*mutex)
        pthread_mutex_unlock(*mutex);
}

static inline void lam_cleanup_rw_unlock(pthread_rwlock_t **lock)
{
    if (*lock)
        pthread_rwlock_unlock(*lock);
}

static inline pthread_mutex_t *lam_mutex_lock(pthread_mutex_t *mutex)
{
    pthread_mutex_lock(mutex);
    return mutex;
}

/* Else a stream of readers would starve the one who waits to be alone. */
static inline void lam_rwlock_init_writers_first(pthread_rwlock_t *lock)
{
    pthread_rwlockattr_t attr;

    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr,
        PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(lock, &attr);
    pthread_rwlockattr_destroy(&attr);
}

#define lam_cleanup(fn) __attribute__((cleanup(fn)))
#define lam_autofree    lam_cleanup(lam_cleanup_free)
#define lam_autoclose   lam_cleanup(lam_cleanup_close)

/* Holds @mutex until the end of the enclosing scope. */
#define LAM_CONCAT_(a, b) a##b
#define LAM_CONCAT(a, b)  LAM_CONCAT_(a, b)
#define LAM_LOCKED(mutex)                                                   \
    pthread_mutex_t *LAM_CONCAT(lam_locked_, __LINE__)                      \
        lam_cleanup(lam_cleanup_unlock) __attribute__((unused)) =           \
            lam_mutex_lock(mutex)

/* The value of *@p; *@p becomes NULL, so the cleanup frees nothing. */
#define lam_take(p)                                                         \
    (__extension__({                                                        \
        __typeof__(*(p)) lam_taken_ = *(p);                                 \
        *(p) = NULL;                                                        \
        lam_taken_;                                                         \
    }))

#endif
