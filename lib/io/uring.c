/* SPDX-License-Identifier: MIT */
/*
 * uring.c - transfers by the kernel's io_uring.  The only file that knows what
 * liburing does.
 *
 * 1. What is put into the submission queue is handed to the kernel before its
 *    lock is let go: nothing is ever left in there for the next.
 * 2. No more transfers are under way than the completion queue has room for, a
 *    few wakes included, so the kernel never keeps any back.
 */
#include "io/uring.h"

#include <stdlib.h>
#include <time.h>

#include "base/cleanup.h"
#include "io/liburing.h"

enum {
    MAX_ENTRIES = 1024,
    ROOM_FOR_WAKES = 64,
    AGAIN_TRIES = 1000,         /* of a millisecond */
    BROKEN_WAIT_MS = 10,        /* without wakes one has to look around */
};

struct uring {
    struct io_uring ring;
    pthread_mutex_t submit_lock;    /* the submission queue */
    atomic_bool broken;             /* takes nothing any more, no wake either */
    unsigned most;
    atomic_uint under_way;
    pthread_mutex_t collect_lock;   /* the completion queue */
};

int uring_new(unsigned depth, struct uring **out)
{
    const struct liburing *u = liburing();
    lam_autofree struct uring *r = calloc(1, sizeof *r);
    unsigned entries = (unsigned)min_u64(depth, MAX_ENTRIES - ROOM_FOR_WAKES);
    struct io_uring_params params = {
        .flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
        .cq_entries = 2 * entries + ROOM_FOR_WAKES,
    };

    *out = NULL;
    if (!r)
        return -ENOMEM;
    if (!u)
        return -ENOSYS;
    int rc = u->io_uring_queue_init_params(entries, &r->ring, &params);
    if (rc < 0)
        return rc;
    /* Waiting with a limit would go through the submission queue otherwise. */
    if (!(params.features & IORING_FEAT_EXT_ARG) ||
        params.cq_entries <= ROOM_FOR_WAKES) {
        u->io_uring_queue_exit(&r->ring);
        return -ENOSYS;
    }
    r->most = params.cq_entries - ROOM_FOR_WAKES;
    pthread_mutex_init(&r->submit_lock, NULL);
    pthread_mutex_init(&r->collect_lock, NULL);
    *out = lam_take(&r);
    return 0;
}

void uring_free(struct uring *r)
{
    if (!r)
        return;
    assert(!atomic_load(&r->under_way));
    liburing()->io_uring_queue_exit(&r->ring);
    pthread_mutex_destroy(&r->collect_lock);
    pthread_mutex_destroy(&r->submit_lock);
    free(r);
}

/* --------------------------------------------------------------- submitting */

/* Hands over the @count that are in the submission queue; how many it took.
 * With fewer than that the ring is not used any more.  Under submit_lock. */
static unsigned hand_over(struct uring *r, unsigned count)
{
    const struct timespec moment = { .tv_nsec = 1000000 };
    unsigned done = 0;

    for (int tries = 0; done < count && tries < AGAIN_TRIES; ) {
        int n = liburing()->io_uring_submit(&r->ring);

        if (n > 0) {
            done += (unsigned)n;
        } else if (n == -EAGAIN || n == -EBUSY || n == 0) {
            tries++;
            nanosleep(&moment, NULL);
        } else if (n != -EINTR) {
            break;
        }
    }
    if (done < count)
        atomic_store(&r->broken, true);
    return done;
}

static void prepare(struct io_uring_sqe *sqe, struct io_async *a)
{
    if (a->write)
        io_uring_prep_write(sqe, a->fd, a->buf, (unsigned)a->length,
                            a->offset);
    else
        io_uring_prep_read(sqe, a->fd, a->buf, (unsigned)a->length, a->offset);
    io_uring_sqe_set_data(sqe, a);
}

/* As many as there is room for in the submission queue. */
static size_t submit_some(struct uring *r, struct io_async *const *transfers,
                          size_t count)
{
    struct io_uring_sqe *sqe;
    unsigned n = 0;

    while (n < count && (sqe = io_uring_get_sqe(&r->ring)))
        prepare(sqe, transfers[n++]);
    return hand_over(r, n);
}

size_t uring_submit(struct uring *r, struct io_async *const *transfers,
                    size_t count)
{
    LAM_LOCKED(&r->submit_lock);
    unsigned under_way = atomic_load(&r->under_way);
    size_t done = 0;

    /* Others only make them fewer. */
    count = (size_t)min_u64(count, r->most - under_way);
    atomic_fetch_add(&r->under_way, (unsigned)count);
    while (done < count && !atomic_load(&r->broken))
        done += submit_some(r, transfers + done, count - done);
    atomic_fetch_sub(&r->under_way, (unsigned)(count - done));
    return done;
}

/* --------------------------------------------------------------- collecting */

unsigned uring_collect(struct uring *r, struct uring_result *out,
                       unsigned max)
{
    struct io_uring_cqe *cqe;
    unsigned head, seen = 0, n = 0;

    LAM_LOCKED(&r->collect_lock);
    io_uring_for_each_cqe(&r->ring, head, cqe) {
        if (n == max)
            break;
        seen++;
        /* A wake has no transfer. */
        if (io_uring_cqe_get_data(cqe))
            out[n++] = (struct uring_result){ io_uring_cqe_get_data(cqe),
                                              cqe->res };
    }
    io_uring_cq_advance(&r->ring, seen);
    atomic_fetch_sub(&r->under_way, n);
    return n;
}

void uring_wait(struct uring *r, int timeout_ms)
{
    if (atomic_load(&r->broken) && (timeout_ms < 0 ||
                                    timeout_ms > BROKEN_WAIT_MS))
        timeout_ms = BROKEN_WAIT_MS;
    struct __kernel_timespec limit = {
        .tv_sec = timeout_ms / 1000,
        .tv_nsec = timeout_ms % 1000 * 1000000LL,
    };
    struct io_uring_getevents_arg arg = {
        .ts = timeout_ms < 0 ? 0 : (uintptr_t)&limit,
    };

    liburing()->io_uring_enter2((unsigned)r->ring.ring_fd, 0, 1,
                                IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG,
                                (sigset_t *)&arg, sizeof arg);
}

void uring_wake(struct uring *r)
{
    LAM_LOCKED(&r->submit_lock);
    struct io_uring_sqe *sqe;

    if (atomic_load(&r->broken) || !(sqe = io_uring_get_sqe(&r->ring)))
        return;
    io_uring_prep_nop(sqe);
    io_uring_sqe_set_data(sqe, NULL);
    hand_over(r, 1);
}

int uring_set_eventfd(struct uring *r, int eventfd)
{
    return liburing()->io_uring_register_eventfd(&r->ring, eventfd);
}
