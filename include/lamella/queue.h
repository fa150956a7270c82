/* SPDX-License-Identifier: MIT */
/* lamella/queue.h - many requests under way at once, from few threads. */
#ifndef LAMELLA_QUEUE_H
#define LAMELLA_QUEUE_H

#include <stddef.h>

#include <lamella/error.h>

LAM_BEGIN_DECLS

struct lam_image;
struct lam_queue;

/* What is asked for; each does what the call of the same name does. */
enum lam_request_kind {
    LAM_REQUEST_READ,           /* lam_image_read() */
    LAM_REQUEST_WRITE,          /* lam_image_write() */
    LAM_REQUEST_ZERO,           /* lam_image_zero() */
    LAM_REQUEST_DISCARD,        /* lam_image_discard() */
    LAM_REQUEST_FLUSH,          /* lam_image_flush() */
};

struct lam_request {
    enum lam_request_kind kind;
    unsigned flags;             /* LAM_WRITE_..., LAM_ZERO_... as there */
    void *buf;                  /* read into, written from; else not used */
    uint64_t length, offset;    /* bytes of the guest's disk; not of a flush */
    void *cookie;               /* the caller's own, for the result */
    struct lam_error *err;      /* filled in if it fails; or NULL */
};

struct lam_result {
    void *cookie;               /* of the request */
    int rc;                     /* 0, or what the call would have returned */
};

enum {
    LAM_QUEUE_THREADS = 1 << 0, /* no io_uring, even where there is one */
    LAM_QUEUE_RING = 1 << 1,    /* no queue where there is no io_uring */
};

struct lam_queue_options {
    unsigned depth;             /* requests that may be under way or wait to be
                                   reaped; 0: 64; at most LAM_QUEUE_DEPTH_MAX */
    unsigned workers;           /* threads for what blocks; 0: as many as
                                   @depth, but not more than 64 */
    unsigned flags;             /* LAM_QUEUE_... */
};

#define LAM_QUEUE_DEPTH_MAX 65536

#define LAM_QUEUE_OPTIONS_INIT { 0, 0, 0 }

/*
 * lam_queue_new() - a queue of requests to @image, to be freed by the caller
 * before the image is closed.
 *
 * An image may have any number of queues, and takes the requests of all of them
 * beside ordinary ones, snapshots and jobs: what holds for a request on a
 * thread of its own holds for one in a queue.  @options may be NULL.
 *
 * A request that needs nothing but bytes of a file or device whose place is
 * known goes to the kernel's io_uring at once, if the file is open with
 * O_DIRECT (LAM_CACHE_NONE) or the request is a short read.  All others, and
 * all of them where the kernel or the build has no io_uring, are run by
 * threads, which are started as they are needed and stay.  Nothing else tells
 * the two apart.
 *
 * -EINVAL: a depth beyond the limit, flags that are not known or exclude each
 * other; -ENOMEM.  With LAM_QUEUE_RING, whatever the kernel says who has no
 * io_uring for us: -ENOSYS, -EPERM, -EMFILE and so on.
 */
LAM_API int lam_queue_new(struct lam_image *image,
                          const struct lam_queue_options *options,
                          struct lam_queue **out, struct lam_error *err);

/*
 * lam_queue_submit() - begin requests; returns how many, from the first on.
 *
 * Fewer than @count only if @depth of them are under way or have not been
 * reaped; then reap, and submit the rest.  Whatever is wrong with a request,
 * its result tells.  Does not wait for the disk, nor for other requests.
 *
 * The buffer and @err of a request belong to the queue until it is reaped; the
 * struct itself is copied.  Requests have no order among each other: where two
 * overlap, either may come first, and a flush brings to disk what was reaped
 * before the flush was submitted.  Safe from any thread.
 */
LAM_API size_t lam_queue_submit(struct lam_queue *queue,
                                const struct lam_request *requests,
                                size_t count);

/*
 * lam_queue_reap() - results of requests that have ended, in the order in which
 * they did; at most @max.  Returns how many.
 *
 * Waits until there are @min of them, or all that are under way have ended;
 * with @min 0 it does not wait.  Not longer than @timeout_ms milliseconds; a
 * negative number: as long as it takes.  Each result is given to one caller.
 * Safe from any thread, beside others that reap and submit.
 */
LAM_API size_t lam_queue_reap(struct lam_queue *queue,
                              struct lam_result *results, size_t max,
                              size_t min, int timeout_ms);

/*
 * lam_queue_fd() - a descriptor for poll() that can be read from while results
 * wait to be reaped.
 *
 * An eventfd that belongs to the queue; the caller only polls it, and then
 * reaps without waiting until there is nothing left.  It may have something to
 * read without a result.  Made when it is first asked for; -1 if it cannot be.
 */
LAM_API int lam_queue_fd(struct lam_queue *queue);

/*
 * lam_queue_free() - wait for what is under way, and free the queue.
 *
 * Results that were not reaped are lost.  No other thread may use the queue any
 * more.  NULL is allowed.
 */
LAM_API void lam_queue_free(struct lam_queue *queue);

LAM_END_DECLS

#endif
