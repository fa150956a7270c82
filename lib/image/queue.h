/* SPDX-License-Identifier: MIT */
/*
 * queue.h - the inside of a queue of requests.
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
#ifndef LAM_IMAGE_QUEUE_H
#define LAM_IMAGE_QUEUE_H

#include "image/ready.h"

struct uring;

/* Which way requests went, for tests. */
struct queue_statistics {
    bool has_ring;
    uint64_t by_ring;           /* transfers */
    uint64_t by_worker;         /* requests */
};

struct request {
    struct request *next;
    struct lam_request asked;
    int rc;
    struct ready ready;         /* in the ring */
    atomic_uint left;           /* parts */
    atomic_bool again;          /* by a thread */
};

struct requests { struct request *first, **last; };

struct lam_queue {
    struct lam_image *image;
    struct uring *ring;         /* or NULL */
    struct request *requests;   /* as many as the queue is deep */

    pthread_mutex_t lock;       /* all below */
    struct requests free;
    struct requests waiting;        /* for a worker */
    struct requests ended;
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

static inline void requests_init(struct requests *list)
{
    list->first = NULL;
    list->last = &list->first;
}

static inline void requests_put(struct requests *list, struct request *r)
{
    r->next = NULL;
    *list->last = r;
    list->last = &r->next;
}

static inline struct request *requests_take(struct requests *list)
{
    struct request *r = list->first;

    if (r && !(list->first = r->next))
        list->last = &list->first;
    return r;
}

static inline void requests_append(struct requests *list, struct requests *more)
{
    if (!more->first)
        return;
    *list->last = more->first;
    list->last = more->last;
    requests_init(more);
}

static inline size_t requests_count(const struct requests *list)
{
    size_t n = 0;

    for (const struct request *r = list->first; r; r = r->next)
        n++;
    return n;
}

/* -------------------------------------------------------------- queue-run.c */

/* Results have come, or nothing is under way any more.  Under the lock. */
void queue_wake_reapers(struct lam_queue *q);

/* What has ended, and what a worker is to do.  Under the lock; without any
 * thread the caller is the worker, and lets go of it meanwhile. */
void queue_put_ended(struct lam_queue *q, struct requests *ended);
void queue_put_waiting(struct lam_queue *q, struct requests *waiting);

/* Is there a ring, and somebody to watch it?  No lock held, as below. */
bool queue_has_ring(struct lam_queue *q);

/* Requests that have begun (ready.h).  What the ring does not take is for a
 * worker. */
void queue_submit_to_ring(struct lam_queue *q, struct requests *list,
                          struct requests *ended, struct requests *waiting);

/* Looks into the ring; what has ended is not told yet. */
void queue_collect(struct lam_queue *q);

/* What CLOCK_MONOTONIC will say in @ms milliseconds. */
void queue_after(struct timespec *at, int ms);

/* When nothing is under way any more. */
void queue_stop_threads(struct lam_queue *q);

/* ------------------------------------------------------------------ queue.c */

void queue_statistics(struct lam_queue *q, struct queue_statistics *out);

#endif
