/* SPDX-License-Identifier: MIT */
/*
 * queue-run.c - how the requests of a queue are done: by workers, and by the
 * ring and who watches it.
 */
#include "image/queue.h"

#include <sys/eventfd.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/thread.h"
#include "io/uring.h"

enum {
    BATCH = 64,                 /* transfers handed to the ring at once */
    WATCH_MS = 5,
    WATCH_IDLE = 200,           /* looks in vain, and the watcher sleeps */
};

void queue_after(struct timespec *at, int ms)
{
    clock_gettime(CLOCK_MONOTONIC, at);
    at->tv_sec += ms / 1000;
    at->tv_nsec += ms % 1000 * 1000000L;
    if (at->tv_nsec >= 1000000000L) {
        at->tv_sec++;
        at->tv_nsec -= 1000000000L;
    }
}

/* ------------------------------------------------------- telling of results */

/* Results have come, or nothing is under way any more.  Under the lock. */
void queue_wake_reapers(struct lam_queue *q)
{
    if (q->event >= 0 && q->ended.first)
        eventfd_write(q->event, 1);
    if (q->leader && !q->leader_woken) {
        q->leader_woken = true;
        uring_wake(q->ring);
    }
    if (q->followers)
        pthread_cond_broadcast(&q->done);
}

/* Under the lock. */
void queue_put_ended(struct lam_queue *q, struct requests *ended)
{
    q->under_way -= requests_count(ended);
    requests_append(&q->ended, ended);
}

/* ------------------------------------------------------------------ workers */

static int perform(struct lam_image *image, const struct lam_request *a)
{
    switch (a->kind) {
    case LAM_REQUEST_READ:
        return a->flags ? lam_check_flags(a->flags, 0, a->err)
                        : lam_image_read(image, a->buf, a->length, a->offset,
                                         a->err);
    case LAM_REQUEST_WRITE:
        return lam_image_write(image, a->buf, a->length, a->offset, a->flags,
                               a->err);
    case LAM_REQUEST_ZERO:
        return lam_image_zero(image, a->offset, a->length, a->flags, a->err);
    case LAM_REQUEST_DISCARD:
        return a->flags ? lam_check_flags(a->flags, 0, a->err)
                        : lam_image_discard(image, a->offset, a->length,
                                            a->err);
    case LAM_REQUEST_FLUSH:
        return a->flags ? lam_check_flags(a->flags, 0, a->err)
                        : lam_image_flush(image, a->err);
    }
    return lam_fail(a->err, EINVAL, "unknown kind of request: %d",
                    (int)a->kind);
}

/* Under the lock, which is let go meanwhile.  False: there is none. */
static bool perform_one(struct lam_queue *q)
{
    struct request *r = requests_take(&q->waiting);
    struct requests ended;

    if (!r)
        return false;
    requests_init(&ended);
    pthread_mutex_unlock(&q->lock);
    r->rc = perform(q->image, &r->asked);
    pthread_mutex_lock(&q->lock);
    requests_put(&ended, r);
    queue_put_ended(q, &ended);
    queue_wake_reapers(q);
    return true;
}

static void *run_worker(void *opaque)
{
    struct lam_queue *q = opaque;

    LAM_LOCKED(&q->lock);
    for (;;) {
        while (perform_one(q))
            ;
        if (q->stop)
            return NULL;
        q->idle++;
        pthread_cond_wait(&q->work, &q->lock);
        q->idle--;
    }
}

/* Under the lock.  If there can be no more, there are fewer. */
static void start_workers(struct lam_queue *q, size_t wanted)
{
    for (; wanted > 0 && q->nb_workers < q->most_workers; wanted--) {
        if (thread_start(&q->workers[q->nb_workers], run_worker, q))
            break;
        q->nb_workers++;
    }
}

/* Under the lock.  Without any thread the caller is the one. */
void queue_put_waiting(struct lam_queue *q, struct requests *list)
{
    size_t more = requests_count(list), all;

    if (!more)
        return;
    requests_append(&q->waiting, list);
    q->statistics.by_worker += more;
    all = requests_count(&q->waiting);
    if (all > q->idle)
        start_workers(q, all - q->idle);
    while (more-- > 0)
        pthread_cond_signal(&q->work);
    while (!q->nb_workers && perform_one(q))
        ;
}

/* ----------------------------------------------------------------- the ring */

/* @got bytes, or -errno.  With its last part the request has ended, or has to
 * be done by a worker. */
static void end_part(struct io_async *a, int64_t got, struct requests *ended,
                     struct requests *waiting)
{
    struct request *r = a->owner;

    if (got < 0 || (uint64_t)got != a->length)
        atomic_store(&r->again, true);
    if (atomic_fetch_sub(&r->left, 1) > 1)
        return;
    ready_end(&r->ready);
    r->rc = 0;
    requests_put(atomic_load(&r->again) ? waiting : ended, r);
}

/* Looks into the ring; what has ended is not told yet. */
void queue_collect(struct lam_queue *q)
{
    struct uring_result results[BATCH];
    unsigned n;

    do {
        struct requests ended, waiting;

        n = uring_collect(q->ring, results, BATCH);
        if (!n)
            return;
        requests_init(&ended);
        requests_init(&waiting);
        pthread_mutex_lock(&q->lock);
        q->in_ring -= n;
        pthread_mutex_unlock(&q->lock);
        for (unsigned i = 0; i < n; i++)
            end_part(results[i].transfer, results[i].got, &ended, &waiting);
        pthread_mutex_lock(&q->lock);
        queue_put_ended(q, &ended);
        queue_put_waiting(q, &waiting);
        pthread_mutex_unlock(&q->lock);
    } while (n == BATCH);
}

/* Under the lock: a moment, or until there is something to watch again. */
static void watcher_wait(struct lam_queue *q, bool sleep)
{
    struct timespec until;

    if (!sleep) {
        queue_after(&until, WATCH_MS);
        pthread_cond_timedwait(&q->watch, &q->lock, &until);
        return;
    }
    q->watcher_sleeps = true;
    while (q->watcher_sleeps && !q->stop)
        pthread_cond_wait(&q->watch, &q->lock);
}

static void *run_watcher(void *opaque)
{
    struct lam_queue *q = opaque;
    uint64_t last = 0;
    unsigned in_vain = 0;

    LAM_LOCKED(&q->lock);
    while (!q->stop) {
        in_vain = q->in_ring || q->submitted != last ? 0 : in_vain + 1;
        last = q->submitted;
        watcher_wait(q, in_vain > WATCH_IDLE);
        if (!q->in_ring || q->leader)
            continue;
        pthread_mutex_unlock(&q->lock);
        queue_collect(q);
        pthread_mutex_lock(&q->lock);
        if (q->ended.first)
            queue_wake_reapers(q);
    }
    return NULL;
}

/* Without somebody to watch it nothing goes to the ring. */
bool queue_has_ring(struct lam_queue *q)
{
    if (!q->ring)
        return false;
    LAM_LOCKED(&q->lock);
    if (!q->has_watcher)
        q->has_watcher = !thread_start(&q->watcher, run_watcher, q);
    return q->has_watcher;
}

/* The parts of whole requests, as many as fit. */
static size_t take_parts(struct requests *list, struct io_async **parts)
{
    size_t n = 0;

    while (list->first && n + list->first->ready.nb_parts <= BATCH) {
        struct request *r = requests_take(list);

        atomic_store(&r->left, r->ready.nb_parts);
        atomic_store(&r->again, false);
        for (unsigned i = 0; i < r->ready.nb_parts; i++)
            parts[n++] = &r->ready.parts[i];
    }
    return n;
}

/* What the ring does not take is for a worker. */
void queue_submit_to_ring(struct lam_queue *q, struct requests *list,
                           struct requests *ended, struct requests *waiting)
{
    struct io_async *parts[BATCH];

    while (list->first) {
        size_t n = take_parts(list, parts), taken;

        pthread_mutex_lock(&q->lock);
        q->in_ring += n;
        q->submitted++;
        q->statistics.by_ring += n;
        if (q->watcher_sleeps) {
            q->watcher_sleeps = false;
            pthread_cond_signal(&q->watch);
        }
        if (q->followers && !q->leader)
            pthread_cond_signal(&q->done);
        pthread_mutex_unlock(&q->lock);
        taken = uring_submit(q->ring, parts, n);
        if (taken == n)
            continue;
        pthread_mutex_lock(&q->lock);
        q->in_ring -= n - taken;
        pthread_mutex_unlock(&q->lock);
        for (size_t i = taken; i < n; i++)
            end_part(parts[i], -EAGAIN, ended, waiting);
    }
}

/* ------------------------------------------------------------------ the end */

void queue_stop_threads(struct lam_queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->stop = true;
    pthread_cond_broadcast(&q->work);
    pthread_cond_broadcast(&q->watch);
    pthread_mutex_unlock(&q->lock);
    for (unsigned i = 0; i < q->nb_workers; i++)
        pthread_join(q->workers[i], NULL);
    if (q->has_watcher)
        pthread_join(q->watcher, NULL);
}
