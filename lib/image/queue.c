/* SPDX-License-Identifier: MIT */
/*
 * queue.c - many requests under way at once, from few threads.
 *
 * What is ready (ready.h) goes to the ring, all else to threads that make the
 * ordinary calls.  So does what comes back from the ring in part or with an
 * error, for they know what that means.
 *
 * The kernel tells of what has ended to whoever looks into the ring: that is
 * the thread that reaps and waits there, one at a time, the leader.  Those who
 * reap at the same time wait for a signal, and so does the leader's place.
 *
 * 1. A request of the ring holds the gate, its place, its clusters until
 *    somebody has looked.  Others may wait for these, among them the thread
 *    that would reap: so if nobody looks for a while, the watcher does.
 * 2. Where results wait and nobody is about to take them, those who wait for
 *    results have been woken, and the eventfd has been added to.
 */
#include "image/queue.h"

#include <string.h>
#include <sys/eventfd.h>
#include <time.h>

#include "base/cleanup.h"
#include "image/ready.h"
#include "io/uring.h"

enum {
    DEFAULT_DEPTH = 64,
    MAX_WORKERS = 64,
    BATCH = 64,                 /* transfers handed to the ring at once */
    WATCH_MS = 5,
    WATCH_IDLE = 200,           /* looks in vain, and the watcher sleeps */
};

struct request {
    struct request *next;
    struct lam_request asked;
    int rc;
    struct ready ready;         /* in the ring */
    atomic_uint left;           /* parts */
    atomic_bool again;          /* by a thread */
};

struct list { struct request *first, **last; };

struct lam_queue {
    struct lam_image *image;
    struct uring *ring;         /* or NULL */
    struct request *requests;   /* as many as the queue is deep */

    pthread_mutex_t lock;       /* all below */
    struct list free;
    struct list waiting;        /* for a worker */
    struct list ended;
    size_t under_way;           /* neither free nor ended */
    size_t in_ring;             /* transfers */
    int event;                  /* eventfd; -1: nobody has asked for it */
    bool stop;

    pthread_cond_t work;
    pthread_t *workers;
    unsigned nb_workers, most_workers, idle;

    pthread_cond_t done;        /* for who reaps and does not lead */
    unsigned followers;
    bool leader, leader_woken;

    pthread_cond_t watch;
    pthread_t watcher;
    bool has_watcher, watcher_sleeps;
    uint64_t submitted;         /* to the ring, ever */
    struct queue_statistics statistics;
};

static void list_init(struct list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

static void list_put(struct list *list, struct request *r)
{
    r->next = NULL;
    *list->last = r;
    list->last = &r->next;
}

static struct request *list_take(struct list *list)
{
    struct request *r = list->first;

    if (r && !(list->first = r->next))
        list->last = &list->first;
    return r;
}

static void list_append(struct list *list, struct list *more)
{
    if (!more->first)
        return;
    *list->last = more->first;
    list->last = more->last;
    list_init(more);
}

static size_t list_count(const struct list *list)
{
    size_t n = 0;

    for (const struct request *r = list->first; r; r = r->next)
        n++;
    return n;
}

/* --------------------------------------------------------- telling of results */

/* Results have come, or nothing is under way any more.  Under the lock. */
static void wake_reapers(struct lam_queue *q)
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
static void put_ended(struct lam_queue *q, struct list *ended)
{
    q->under_way -= list_count(ended);
    list_append(&q->ended, ended);
}

/* ------------------------------------------------------------------- workers */

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
    struct request *r = list_take(&q->waiting);
    struct list ended;

    if (!r)
        return false;
    list_init(&ended);
    pthread_mutex_unlock(&q->lock);
    r->rc = perform(q->image, &r->asked);
    pthread_mutex_lock(&q->lock);
    list_put(&ended, r);
    put_ended(q, &ended);
    wake_reapers(q);
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
        if (pthread_create(&q->workers[q->nb_workers], NULL, run_worker, q))
            break;
        q->nb_workers++;
    }
}

/* Under the lock.  Without any thread the caller is the one. */
static void put_waiting(struct lam_queue *q, struct list *list)
{
    size_t more = list_count(list), all;

    if (!more)
        return;
    list_append(&q->waiting, list);
    q->statistics.by_worker += more;
    all = list_count(&q->waiting);
    if (all > q->idle)
        start_workers(q, all - q->idle);
    while (more-- > 0)
        pthread_cond_signal(&q->work);
    while (!q->nb_workers && perform_one(q))
        ;
}

/* ------------------------------------------------------------------ the ring */

/* @got bytes, or -errno.  With its last part the request has ended, or has to
 * be done by a worker. */
static void end_part(struct io_async *a, int64_t got, struct list *ended,
                     struct list *waiting)
{
    struct request *r = a->owner;

    if (got < 0 || (uint64_t)got != a->length)
        atomic_store(&r->again, true);
    if (atomic_fetch_sub(&r->left, 1) > 1)
        return;
    ready_end(&r->ready);
    r->rc = 0;
    list_put(atomic_load(&r->again) ? waiting : ended, r);
}

/* Looks into the ring; what has ended is not told yet. */
static void collect(struct lam_queue *q)
{
    struct uring_result results[BATCH];
    unsigned n;

    do {
        struct list ended, waiting;

        n = uring_collect(q->ring, results, BATCH);
        if (!n)
            return;
        list_init(&ended);
        list_init(&waiting);
        pthread_mutex_lock(&q->lock);
        q->in_ring -= n;
        pthread_mutex_unlock(&q->lock);
        for (unsigned i = 0; i < n; i++)
            end_part(results[i].transfer, results[i].got, &ended, &waiting);
        pthread_mutex_lock(&q->lock);
        put_ended(q, &ended);
        put_waiting(q, &waiting);
        pthread_mutex_unlock(&q->lock);
    } while (n == BATCH);
}

static void after(struct timespec *at, int ms)
{
    clock_gettime(CLOCK_MONOTONIC, at);
    at->tv_sec += ms / 1000;
    at->tv_nsec += ms % 1000 * 1000000L;
    if (at->tv_nsec >= 1000000000L) {
        at->tv_sec++;
        at->tv_nsec -= 1000000000L;
    }
}

/* Under the lock: a moment, or until there is something to watch again. */
static void watcher_wait(struct lam_queue *q, bool sleep)
{
    struct timespec until;

    if (!sleep) {
        after(&until, WATCH_MS);
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
        collect(q);
        pthread_mutex_lock(&q->lock);
        if (q->ended.first)
            wake_reapers(q);
    }
    return NULL;
}

/* Without somebody to watch it nothing goes to the ring. */
static bool has_ring(struct lam_queue *q)
{
    if (!q->ring)
        return false;
    LAM_LOCKED(&q->lock);
    if (!q->has_watcher)
        q->has_watcher = !pthread_create(&q->watcher, NULL, run_watcher, q);
    return q->has_watcher;
}

/* The parts of whole requests, as many as fit. */
static size_t take_parts(struct list *list, struct io_async **parts)
{
    size_t n = 0;

    while (list->first && n + list->first->ready.nb_parts <= BATCH) {
        struct request *r = list_take(list);

        atomic_store(&r->left, r->ready.nb_parts);
        atomic_store(&r->again, false);
        for (unsigned i = 0; i < r->ready.nb_parts; i++)
            parts[n++] = &r->ready.parts[i];
    }
    return n;
}

/* What the ring does not take is for a worker. */
static void submit_to_ring(struct lam_queue *q, struct list *list,
                           struct list *ended, struct list *waiting)
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

/* ---------------------------------------------------------------- submitting */

static size_t take_free(struct lam_queue *q,
                        const struct lam_request *requests, size_t count,
                        struct list *out)
{
    size_t n = 0;

    LAM_LOCKED(&q->lock);
    for (; n < count && q->free.first; n++) {
        struct request *r = list_take(&q->free);

        r->asked = requests[n];
        list_put(out, r);
    }
    q->under_way += n;
    return n;
}

size_t lam_queue_submit(struct lam_queue *q,
                        const struct lam_request *requests, size_t count)
{
    struct list taken, ring, ended, waiting;
    struct request *r;

    list_init(&taken);
    list_init(&ring);
    list_init(&ended);
    list_init(&waiting);
    bool has = has_ring(q);
    size_t n = take_free(q, requests, count, &taken);
    while ((r = list_take(&taken))) {
        r->rc = 0;
        if (!has || !ready_begin(q->image, &r->asked, r, &r->ready)) {
            list_put(&waiting, r);
        } else if (r->ready.nb_parts) {
            list_put(&ring, r);
        } else {
            ready_end(&r->ready);
            list_put(&ended, r);
        }
    }
    submit_to_ring(q, &ring, &ended, &waiting);
    if (ended.first || waiting.first) {
        LAM_LOCKED(&q->lock);
        put_ended(q, &ended);
        put_waiting(q, &waiting);
        if (q->ended.first)
            wake_reapers(q);
    }
    return n;
}

/* ------------------------------------------------------------------- reaping */

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

    for (; n < max && (r = list_take(&q->ended)); n++) {
        results[n] = (struct lam_result){ r->asked.cookie, r->rc };
        list_put(&q->free, r);
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
        after(&end, timeout_ms);
    LAM_LOCKED(&q->lock);
    for (;;) {
        if (q->event >= 0)
            eventfd_read(q->event, &ignored);
        if (q->in_ring) {
            pthread_mutex_unlock(&q->lock);
            collect(q);
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
        wake_reapers(q);
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
    int rc = lam_check_flags(o->flags, LAM_QUEUE_THREADS, err);

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
    lam_autofree struct lam_queue *q = calloc(1, sizeof *q);
    if (!q)
        return lam_fail(err, ENOMEM, "no memory for a queue");
    q->image = image;
    q->event = -1;
    q->most_workers = o->workers ? o->workers
                                 : (unsigned)min_u64(depth, MAX_WORKERS);
    q->workers = calloc(q->most_workers, sizeof *q->workers);
    q->requests = calloc(depth, sizeof *q->requests);
    if (!q->workers || !q->requests) {
        free(q->workers);
        free(q->requests);
        return lam_fail(err, ENOMEM, "no memory for a queue of %u requests",
                        depth);
    }
    init_locks(q);
    list_init(&q->free);
    list_init(&q->waiting);
    list_init(&q->ended);
    for (unsigned i = 0; i < depth; i++)
        list_put(&q->free, &q->requests[i]);
    /* Whatever the reason why there is none, threads do as well. */
    if (!(o->flags & LAM_QUEUE_THREADS))
        uring_new(depth, &q->ring);
    *out = lam_take(&q);
    return 0;
}

static void drain(struct lam_queue *q)
{
    struct lam_result results[BATCH];

    while (lam_queue_reap(q, results, BATCH, 1, -1) > 0)
        ;
}

static void stop_threads(struct lam_queue *q)
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

void lam_queue_free(struct lam_queue *q)
{
    if (!q)
        return;
    drain(q);
    stop_threads(q);
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

void queue_statistics(struct lam_queue *q, struct queue_statistics *out)
{
    LAM_LOCKED(&q->lock);
    *out = q->statistics;
    out->has_ring = q->ring;
}
