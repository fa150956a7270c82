/* SPDX-License-Identifier: MIT */
/*
 * bench-threads.c - the requests of `bench` by threads, which draw the next
 * request's offset one after another.
 *
 * With O_DIRECT there are as many threads as requests may be under way.  What
 * the page cache takes or has is done when the call returns: more threads than
 * find work to do side by side only wait for each other, so there are few at
 * first, and one more, up to the depth, whenever one of them had to wait for
 * the disk or computes itself.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

#include "bench.h"

/* ------------------------------------------------------------- the requests */

/* Under the lock, which is let go meanwhile. */
static void flush(struct bench *b)
{
    struct lam_error err = LAM_ERROR_INIT;

    b->flushed = b->left;
    b->flushing = true;
    pthread_mutex_unlock(&b->lock);
    int rc = lam_image_flush(b->image, &err);
    pthread_mutex_lock(&b->lock);
    b->flushing = false;
    bench_note(b, rc, &err);
    pthread_cond_broadcast(&b->changed);
}

static void wait_turn(struct bench *b)
{
    const struct bench_args *args = b->args;
    bool drain = !args->no_drain;

    while (args->interval && b->left && b->rc == 0) {
        if (b->flushing && drain)
            pthread_cond_wait(&b->changed, &b->lock);
        else if (b->left % args->interval || b->left == b->flushed)
            return;
        else if (b->running && drain)
            pthread_cond_wait(&b->changed, &b->lock);
        else
            flush(b);
    }
}

/* False: there is none left. */
static bool begin(struct bench *b, uint64_t *offset)
{
    pthread_mutex_lock(&b->lock);
    wait_turn(b);
    bool more = b->left && b->rc == 0;
    if (more) {
        b->left--;
        b->running++;
        *offset = b->offset;
        b->offset = bench_wrapped(b, b->offset + b->args->step);
    }
    pthread_mutex_unlock(&b->lock);
    return more;
}

static void end(struct bench *b, int rc, const struct lam_error *err)
{
    pthread_mutex_lock(&b->lock);
    b->running--;
    bench_note(b, rc, err);
    if (b->args->interval)
        pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

/* ------------------------------------------------------------- the threads */

enum { LOOK_AROUND = 16 };

static void *run_thread(void *opaque);

static uint64_t threads_started(struct bench *b)
{
    pthread_mutex_lock(&b->lock);
    uint64_t n = b->started;
    pthread_mutex_unlock(&b->lock);
    return n;
}

/* Under the lock.  If there can be no more, there are fewer. */
static void start_thread(struct bench *b)
{
    if (b->started < b->most &&
        pthread_create(&b->threads[b->started], NULL, run_thread, b) == 0)
        b->started++;
}

/* The thread's times come from samples of some milliseconds: before there are
 * a few of them they say nothing. */
static bool computes(const struct rusage *total)
{
    const struct timeval enough = { 0, 50000 };

    return timercmp(&total->ru_utime, &enough, >) &&
           timercmp(&total->ru_utime, &total->ru_stime, >);
}

/*
 * Every so many requests of a thread: is there work for another one?  Writers
 * wait for each other as well, so only what came from the disk tells there.
 */
static void look_around(struct bench *b, struct rusage *last)
{
    struct rusage now;

    if (threads_started(b) == b->most || getrusage(RUSAGE_THREAD, &now) < 0)
        return;
    long waits = b->args->write ? now.ru_inblock - last->ru_inblock
                                : now.ru_nvcsw - last->ru_nvcsw;
    pthread_mutex_lock(&b->lock);
    if (waits >= LOOK_AROUND / 4 ||
        (b->started + 1 < b->cores && computes(&now)))
        start_thread(b);
    pthread_mutex_unlock(&b->lock);
    *last = now;
}

static void run_requests(struct bench *b, void *buf)
{
    const struct bench_args *args = b->args;
    struct lam_error err = LAM_ERROR_INIT;
    struct rusage last = { 0 };
    uint64_t offset, n = 0;

    getrusage(RUSAGE_THREAD, &last);
    while (begin(b, &offset)) {
        int rc = args->write
               ? lam_image_write(b->image, buf, args->size, offset, 0, &err)
               : lam_image_read(b->image, buf, args->size, offset, &err);
        end(b, rc, &err);
        if (++n % LOOK_AROUND == 0)
            look_around(b, &last);
    }
}

static void note_no_memory(struct bench *b)
{
    struct lam_error err = LAM_ERROR_INIT;

    pthread_mutex_lock(&b->lock);
    bench_note(b, option_fail(&err, ENOMEM, "no memory for a buffer"), &err);
    pthread_mutex_unlock(&b->lock);
}

static void *run_thread(void *opaque)
{
    struct bench *b = opaque;

    if (b->pattern) {
        run_requests(b, b->pattern);
        return NULL;
    }
    void *buf = bench_buffer(b->args->size, false);
    if (buf) {
        memset(buf, 0, b->args->size);
        run_requests(b, buf);
        free(buf);
    } else {
        note_no_memory(b);
    }
    return NULL;
}

/* This thread is one of them. */
int bench_run_threads(struct bench *b)
{
    const struct bench_args *args = b->args;
    bool direct = bench_is_direct(args);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t most = args->depth < args->count ? args->depth : args->count;

    b->cores = cores > 0 ? (uint64_t)cores : 1;
    b->threads = calloc(most, sizeof *b->threads);
    b->most = b->threads ? most - 1 : 0;
    uint64_t first = direct ? most : args->write ? 1 : b->cores;
    pthread_mutex_lock(&b->lock);
    for (uint64_t i = 1; i < first && i < most; i++)
        start_thread(b);
    pthread_mutex_unlock(&b->lock);
    run_thread(b);
    /* Whoever starts another one is still running. */
    for (uint64_t i = 0; i < threads_started(b); i++)
        pthread_join(b->threads[i], NULL);
    free(b->threads);
    return b->rc;
}
