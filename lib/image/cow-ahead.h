/* SPDX-License-Identifier: MIT */
/*
 * cow-ahead.h - what the next copy on write will read, read beforehand.
 *
 * A guest that writes along its disk, or with an equal stride, into an overlay
 * waits at each cluster for two transfers, one after the other: the old bytes
 * from below, and the new cluster.  Where the page cache is passed by nobody
 * else reads ahead, so this does: while one cluster is being written a thread
 * reads what the next copy will ask for, if the guest goes on as before.
 *
 * Only bytes of layers below the top are kept, which nobody changes; each is
 * known by its place on the host, so the copy that uses them has looked at the
 * map itself.  What was read before a change of the chain (graph.h) is not used
 * after it, and while a job writes to a lower layer nothing is read at all.
 *
 * Errors are forgotten: the copy then reads for itself, and tells of them.
 */
#ifndef LAM_IMAGE_COW_AHEAD_H
#define LAM_IMAGE_COW_AHEAD_H

#include <pthread.h>
#include <stdbool.h>

#include "base/buffer.h"
#include "extent/extent.h"
#include "extent/range.h"

struct lam_image;
struct lam_io;

enum cow_ahead_state {
    COW_AHEAD_NOTHING,
    COW_AHEAD_ASKED,            /* the thread has not begun */
    COW_AHEAD_READING,          /* what is asked for stays as it is */
    COW_AHEAD_READY,
};

struct cow_ahead {
    pthread_mutex_t lock;       /* all below */
    pthread_cond_t asked, ended;
    pthread_t thread;
    bool has_thread, stop;

    /* The copies so far. */
    struct range last;          /* guest */
    uint64_t stride;            /* bytes from the one before, modulo 2^64 */
    unsigned in_row;            /* strides that were the same */
    unsigned in_vain;           /* guesses in a row that were of no use */

    /* What comes next. */
    enum cow_ahead_state state;
    struct range range;         /* guest */
    struct lam_io *io;          /* where it is */
    uint64_t host_offset;
    uint64_t changes;           /* of the chain, when it was mapped */
    uint8_t *bytes;             /* of the image's pool; or NULL */
    uint64_t capacity;          /* of these */
    uint64_t used;              /* how often it was right, for tests */
};

void cow_ahead_init(struct cow_ahead *a);

/* No request is under way any more; before the chain is taken apart. */
void cow_ahead_stop(struct cow_ahead *a);

/* After that; @pool: the image's. */
void cow_ahead_deinit(struct cow_ahead *a, struct buffer_pool *pool);

/*
 * A copy wants the bytes of @r, which @extents map.  True: *@bytes, a buffer of
 * @image's pool for just so many, has been exchanged for one that has them.
 * False: the caller reads.  Either way the next copy's may be on their way.
 * Inside the gate.
 */
bool cow_ahead_take(struct lam_image *image, const struct lam_extents *extents,
                    struct range r, uint8_t **bytes);

#endif
