/* SPDX-License-Identifier: MIT */
/*
 * stream.c - writes a walk as raw bytes, in order, into a file descriptor.
 *
 * Chunks are numbered.  A worker reads its chunk, waits until all that comes
 * before has been written, writes, and passes the turn on.  So reading and
 * inflating run in parallel, and at most one chunk a worker is in memory.
 */
#include "job/stream.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/arith.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/workers.h"

/* How long a full pipe may keep us from seeing a cancel. */
enum { POLL_MS = 200 };

struct stream_worker {
    struct walk_chunk chunk;
    uint8_t *buf;
    uint64_t bytes_read;
};

struct stream {
    struct walk *walk;
    int fd;
    const struct copy_options *options;
    struct stream_worker *workers;
    uint8_t *zeroes;
    struct progress progress;
    uint64_t bytes_written;     /* under the turn */

    pthread_mutex_t lock;
    pthread_cond_t moved;
    uint64_t turn;              /* sequence that may write now */
    bool failed;                /* some worker will not pass its turn on */
};

static int wait_writable(struct stream *s, struct lam_error *err)
{
    struct pollfd p = { .fd = s->fd, .events = POLLOUT };
    int rc = 0;

    while (rc == 0) {
        rc = copy_cancelled(s->options->convert, err);
        if (rc < 0)
            return rc;
        rc = poll(&p, 1, POLL_MS);
        if (rc < 0 && errno == EINTR)
            rc = 0;
    }
    return rc < 0 ? lam_fail_errno(err, errno, "could not wait for the "
                                   "output") : 0;
}

static int write_all(struct stream *s, const uint8_t *p, uint64_t length,
                     struct lam_error *err)
{
    while (length > 0) {
        int rc = wait_writable(s, err);
        if (rc < 0)
            return rc;
        /* A pipe takes as much as it has room for only if it does not block:
         * up to PIPE_BUF bytes are taken whole after POLLOUT, more may wait,
         * which a signal ends. */
        ssize_t n = write(s->fd, p, length);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n < 0)
            return lam_fail_errno(err, errno, "error while writing at byte %"
                                  PRIu64, s->bytes_written);
        p += n;
        length -= (uint64_t)n;
        s->bytes_written += (uint64_t)n;
    }
    return 0;
}

/* 1 when it is @sequence's turn, 0 if that will never come. */
static int wait_turn(struct stream *s, uint64_t sequence)
{
    LAM_LOCKED(&s->lock);
    while (s->turn != sequence && !s->failed)
        pthread_cond_wait(&s->moved, &s->lock);
    return s->failed ? 0 : 1;
}

static void pass_turn(struct stream *s, bool failed)
{
    LAM_LOCKED(&s->lock);
    s->turn++;
    s->failed |= failed;
    pthread_cond_broadcast(&s->moved);
}

static int write_chunk(struct stream *s, struct stream_worker *w,
                       struct lam_error *err)
{
    uint64_t left = w->chunk.length;
    bool zero = w->chunk.kind != WALK_DATA;

    while (left > 0) {
        uint64_t n = zero ? min_u64(left, ZEROING_PIECE) : left;
        int rc = write_all(s, zero ? s->zeroes : w->buf, n, err);
        if (rc < 0)
            return rc;
        left -= n;
    }
    return 0;
}

static int read_chunk(struct stream *s, struct stream_worker *w,
                      struct lam_error *err)
{
    const struct copy_options *o = s->options;

    if (w->chunk.kind != WALK_DATA)
        return 0;
    if (o->rate &&
        rate_take(o->rate, w->chunk.length, o->convert->cancel) < 0)
        return copy_cancelled(o->convert, err);
    return copy_read_chunk(&w->chunk, o->salvage, w->buf, &w->bytes_read, err);
}

/* What another worker failed at keeps everybody from his turn. */
static int fail(struct stream *s, int rc, const struct lam_error *err)
{
    pass_turn(s, true);
    if (s->options->digest)
        digest_abort(s->options->digest, rc, err);
    return rc;
}

static int stream_step(void *job, unsigned worker, struct lam_error *err)
{
    struct stream *s = job;
    struct stream_worker *w = &s->workers[worker];

    int rc = copy_cancelled(s->options->convert, err);
    if (rc == 0)
        rc = walk_next(s->walk, &w->chunk, err);
    if (rc == 0)
        return 0;
    if (rc > 0)
        rc = read_chunk(s, w, err);
    if (rc < 0)
        return fail(s, rc, err);
    if (!wait_turn(s, w->chunk.sequence))
        return 0;       /* whoever failed says why */
    rc = write_chunk(s, w, err);
    if (rc < 0)
        return fail(s, rc, err);
    pass_turn(s, false);
    if (s->options->digest)
        rc = digest_put(s->options->digest, w->chunk.sequence,
                        w->chunk.offset, w->chunk.length,
                        w->chunk.kind == WALK_DATA ? &w->buf : NULL, err);
    if (rc < 0)
        return fail(s, rc, err);
    progress_add(&s->progress, w->chunk.length);
    return 1;
}

static int buffers_new(struct stream *s, unsigned n, struct lam_error *err)
{
    size_t bytes = s->walk->options.data_max;

    s->zeroes = buffer_new(ZEROING_PIECE);
    s->workers = calloc(n, sizeof *s->workers);
    if (!s->zeroes || !s->workers)
        return lam_fail(err, ENOMEM, "no memory for %u workers", n);
    memset(s->zeroes, 0, ZEROING_PIECE);
    for (unsigned i = 0; i < n; i++) {
        s->workers[i].buf = buffer_new(bytes);
        if (!s->workers[i].buf)
            return lam_fail(err, ENOMEM, "no memory for %zu bytes", bytes);
    }
    return 0;
}

static void buffers_free(struct stream *s, unsigned n,
                         struct copy_counts *counts)
{
    for (unsigned i = 0; s->workers && i < n; i++) {
        counts->bytes_read += s->workers[i].bytes_read;
        walk_chunk_deinit(&s->workers[i].chunk);
        free(s->workers[i].buf);
    }
    free(s->workers);
    free(s->zeroes);
}

int stream_run(struct walk *walk, int fd, const struct copy_options *options,
               struct copy_counts *counts, struct lam_error *err)
{
    struct stream s = { .walk = walk, .fd = fd, .options = options };
    unsigned workers = options->workers;

    pthread_mutex_init(&s.lock, NULL);
    pthread_cond_init(&s.moved, NULL);
    progress_init(&s.progress, walk->total, options->convert->progress,
                  options->convert->progress_opaque);
    int rc = buffers_new(&s, workers, err);
    if (rc == 0)
        rc = workers_run(workers, stream_step, &s, err);
    buffers_free(&s, workers, counts);
    counts->bytes_written += s.bytes_written;
    progress_deinit(&s.progress);
    pthread_cond_destroy(&s.moved);
    pthread_mutex_destroy(&s.lock);
    return rc;
}
