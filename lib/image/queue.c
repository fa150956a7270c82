/* SPDX-License-Identifier: MIT */
/*
 * queue.c - many requests under way at once, from few threads.
 */
#include "image/queue.h"

#include <sys/eventfd.h>
#include <time.h>

#include "base/cleanup.h"
#include "io/uring.h"

enum { DEFAULT_DEPTH = 64, MAX_WORKERS = 64, BATCH = 64 };

/* --------------------------------------------------------------- submitting */

static size_t take_free(struct lam_queue *q,
                        const struct lam_request *requests, size_t count,
                        struct requests *out)
{
    size_t n = 0;

    LAM_LOCKED(&q->lock);
    for (; n < count && q->free.first; n++) {
        struct request *r = requests_take(&q->free);

        r->asked = requests[n];
        requests_put(out, r);
    }
    q->under_way += n;
    return n;
}

size_t lam_queue_submit(struct lam_queue *q,
                        const struct lam_request *requests, size_t count)
{
    struct requests taken, ring, ended, waiting;
    struct request *r;

    requests_init(&taken);
    requests_init(&ring);
    requests_init(&ended);
    requests_init(&waiting);
    bool has = queue_has_ring(q);
    size_t n = take_free(q, requests, count, &taken);
    while ((r = requests_take(&taken))) {
        r->rc = 0;
        if (!has || !ready_begin(q->image, &r->asked, r, &r->ready)) {
            requests_put(&waiting, r);
        } else if (r->ready.nb_parts) {
            requests_put(&ring, r);
        } else {
            ready_end(&r->ready);
            requests_put(&ended, r);
        }
    }
    queue_submit_to_ring(q, &ring, &ended, &waiting);
    if (ended.first || waiting.first) {
        LAM_LOCKED(&q->lock);
        queue_put_ended(q, &ended);
        queue_put_waiting(q, &waiting);
        if (q->ended.first)
            queue_wake_reapers(q);
    }
    return n;
}

/* ------------------------------------------------------------------ reaping */

static int left_until(const struct timespec *end, int timeout_ms)
{
    struct timespec now;

    if (timeout_ms <= 0)
        return timeout_ms;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t ms = (int64_t)(end->tv_sec - now.tv_sec) * 1000 +
                 (end->tv_nsec - now.tv_nsec + 999999) / 1000000;
    return ms > 0 ? (int)ms : 0;
}

/* Under the lock, which is let go meanwhile. */
static void wait_for_results(struct lam_queue *q, const struct timespec *end,
                             int left)
{
    if (q->in_ring && !q->leader) {
        q->leader = true;
        q->leader_woken = false;
        pthread_mutex_unlock(&q->lock);
        uring_wait(q->ring, left);
        pthread_mutex_lock(&q->lock);
        q->leader = false;
        if (q->followers)
            pthread_cond_signal(&q->done);
        return;
    }
    q->followers++;
    if (left < 0)
        pthread_cond_wait(&q->done, &q->lock);
    else
        pthread_cond_timedwait(&q->done, &q->lock, end);
    q->followers--;
}

static size_t take_ended(struct lam_queue *q, struct lam_result *results,
                         size_t max)
{
    struct request *r;
    size_t n = 0;

    for (; n < max && (r = requests_take(&q->ended)); n++) {
        results[n] = (struct lam_result){ r->asked.cookie, r->rc };
        requests_put(&q->free, r);
    }
    return n;
}

size_t lam_queue_reap(struct lam_queue *q, struct lam_result *results,
                      size_t max, size_t min, int timeout_ms)
{
    struct timespec end = { 0 };
    size_t n = 0;
    eventfd_t ignored;

    if (timeout_ms > 0)
        queue_after(&end, timeout_ms);
    LAM_LOCKED(&q->lock);
    for (;;) {
        if (q->event >= 0)
            eventfd_read(q->event, &ignored);
        if (q->in_ring) {
            pthread_mutex_unlock(&q->lock);
            queue_collect(q);
            pthread_mutex_lock(&q->lock);
        }
        n += take_ended(q, results + n, max - n);
        int left = left_until(&end, timeout_ms);
        if (n >= min || n == max || !q->under_way || !left)
            break;
        wait_for_results(q, &end, left);
    }
    /* For others: the rest, and that there is nothing to wait for. */
    if (q->ended.first || !q->under_way)
        queue_wake_reapers(q);
    return n;
}

int lam_queue_fd(struct lam_queue *q)
{
    LAM_LOCKED(&q->lock);
    if (q->event >= 0)
        return q->event;
    lam_autoclose int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event < 0 || (q->ring && uring_set_eventfd(q->ring, event) < 0))
        return -1;
    q->event = event;
    event = -1;
    /* Whatever has ended before. */
    eventfd_write(q->event, 1);
    return q->event;
}

/* ------------------------------------------------------------- birth, death */

static int check_options(const struct lam_queue_options *o,
                         struct lam_error *err)
{
    const unsigned both = LAM_QUEUE_THREADS | LAM_QUEUE_RING;
    int rc = lam_check_flags(o->flags, both, err);

    if (rc == 0 && o->flags == both)
        rc = lam_fail(err, EINVAL, "a queue by threads alone has no io_uring");
    if (rc == 0 && o->depth > LAM_QUEUE_DEPTH_MAX)
        rc = lam_fail(err, EINVAL, "a queue of %u requests is beyond the limit "
                      "of %d", o->depth, LAM_QUEUE_DEPTH_MAX);
    if (rc == 0 && o->workers > LAM_QUEUE_DEPTH_MAX)
        rc = lam_fail(err, EINVAL, "a queue of %u threads is beyond the limit "
                      "of %d", o->workers, LAM_QUEUE_DEPTH_MAX);
    return rc;
}

static void init_locks(struct lam_queue *q)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->work, NULL);
    pthread_cond_init(&q->done, &attr);
    pthread_cond_init(&q->watch, &attr);
    pthread_condattr_destroy(&attr);
}

static int allocate(struct lam_queue *q, unsigned depth,
                    struct lam_error *err)
{
    q->workers = calloc(q->most_workers, sizeof *q->workers);
    q->requests = calloc(depth, sizeof *q->requests);
    if (!q->workers || !q->requests)
        return lam_fail(err, ENOMEM, "no memory for a queue of %u requests",
                        depth);
    requests_init(&q->free);
    requests_init(&q->waiting);
    requests_init(&q->ended);
    for (unsigned i = 0; i < depth; i++)
        requests_put(&q->free, &q->requests[i]);
    return 0;
}

/* Whatever the reason why there is none, threads do as well, unless somebody
 * wants to know. */
static int make_ring(struct lam_queue *q, unsigned depth, unsigned flags,
                     struct lam_error *err)
{
    int rc = flags & LAM_QUEUE_THREADS ? 0 : uring_new(depth, &q->ring);

    if (rc < 0 && flags & LAM_QUEUE_RING)
        return lam_fail_errno(err, -rc, "failed to init linux io_uring ring");
    return 0;
}

static void free_queue(struct lam_queue *q)
{
    uring_free(q->ring);
    if (q->event >= 0)
        close(q->event);
    pthread_cond_destroy(&q->watch);
    pthread_cond_destroy(&q->done);
    pthread_cond_destroy(&q->work);
    pthread_mutex_destroy(&q->lock);
    free(q->workers);
    free(q->requests);
    free(q);
}

int lam_queue_new(struct lam_image *image,
                  const struct lam_queue_options *options,
                  struct lam_queue **out, struct lam_error *err)
{
    static const struct lam_queue_options defaults = LAM_QUEUE_OPTIONS_INIT;
    const struct lam_queue_options *o = options ? options : &defaults;
    unsigned depth = o->depth ? o->depth : DEFAULT_DEPTH;
    int rc = check_options(o, err);

    if (rc < 0)
        return rc;
    struct lam_queue *q = calloc(1, sizeof *q);
    if (!q)
        return lam_fail(err, ENOMEM, "no memory for a queue");
    q->image = image;
    q->event = -1;
    q->most_workers = o->workers ? o->workers
                                 : (unsigned)min_u64(depth, MAX_WORKERS);
    init_locks(q);
    rc = allocate(q, depth, err);
    if (rc == 0)
        rc = make_ring(q, depth, o->flags, err);
    if (rc < 0)
        free_queue(q);
    else
        *out = q;
    return rc;
}

static void drain(struct lam_queue *q)
{
    struct lam_result results[BATCH];

    while (lam_queue_reap(q, results, BATCH, 1, -1) > 0)
        ;
}

void lam_queue_free(struct lam_queue *q)
{
    if (!q)
        return;
    drain(q);
    queue_stop_threads(q);
    free_queue(q);
}

void queue_statistics(struct lam_queue *q, struct queue_statistics *out)
{
    LAM_LOCKED(&q->lock);
    *out = q->statistics;
    out->has_ring = q->ring;
}
