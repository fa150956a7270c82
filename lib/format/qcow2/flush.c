/* SPDX-License-Identifier: MIT */
/*
 * flush.c - the ordered write-back of metadata.
 *
 * One write-back at a time:
 *
 *   1. L2 slices and L1 entries that are dirty now are copied, under the lock.
 *      Data was written before its entry entered a slice.
 *   2. Refcount blocks are written (and new refcount table entries behind a
 *      barrier): they hold at least what the copies need.
 *   3. Barrier, for the data file too.
 *   4. The copies are written.  A new L2 table was written, as zeroes or as a
 *      copy, before its L1 entry existed, so L1 needs no barrier of its own.
 *   5. Barrier, if the caller wants durability.  Only now what the copies do
 *      not mention any more may lose its references.
 *
 * What changes meanwhile stays for the next one.  Flushes that arrive while
 * one runs share the next one.
 */
#include "format/qcow2/qcow2.h"

#include <string.h>

#include "base/bytes.h"
#include "base/buffer.h"
#include "format/qcow2/alloc.h"
#include "format/qcow2/release.h"

/* A copy of dirty bytes on its way to the disk. */
struct piece {
    struct slice *slice;            /* NULL: L1 */
    size_t from, to;                /* bytes of the slice; entries of L1 */
    uint64_t host;
    size_t length;
    uint8_t *data;                  /* in the round's memory */
};

struct round {
    struct piece *pieces;
    size_t count;
    uint8_t *memory;                /* one for all: they are small */
    size_t used;
    struct release_batch *releases;
};

static void round_deinit(struct round *r)
{
    free(r->memory);
    free(r->pieces);
}

/* ------------------------------------------------------------ 1: the copies */

static bool l1_is_dirty(const struct qcow2 *q)
{
    return q->l1_dirty_from != q->l1_dirty_to;
}

/* Dirty bytes are whole pages, so each begins on one; the L1 is the last. */
static void add_piece(struct round *r, struct piece p)
{
    p.data = r->memory + r->used;
    r->used += p.length;
    r->pieces[r->count++] = p;
}

static void copy_slice(struct round *r, const struct slice *s)
{
    struct piece p = {
        .slice = (struct slice *)s,
        .from = s->dirty_from,
        .to = s->dirty_to,
        .host = s->host + s->dirty_from,
        .length = s->dirty_to - s->dirty_from,
    };

    add_piece(r, p);
    memcpy(r->pieces[r->count - 1].data, s->data + p.from, p.length);
}

/* Whole sectors of the table, up to its end. */
static void copy_l1(const struct qcow2 *q, struct round *r)
{
    size_t from = (size_t)align_down(q->l1_dirty_from, 64);
    size_t to = min_u64(align_up(q->l1_dirty_to, 64), q->l1_size);
    struct piece p = {
        .from = q->l1_dirty_from,
        .to = q->l1_dirty_to,
        .host = q->header.l1_offset + from * sizeof(uint64_t),
        .length = (to - from) * sizeof(uint64_t),
    };

    add_piece(r, p);
    for (size_t i = from; i < to; i++)
        be64_put(r->pieces[r->count - 1].data + (i - from) * 8, q->l1[i]);
}

static bool make_copies(struct qcow2 *q, struct round *r)
{
    size_t n = l1_is_dirty(q), bytes = 0;

    for (const struct slice *s = q->l2.dirty; s; s = s->dirty_next) {
        bytes += s->dirty_to - s->dirty_from;
        n++;
    }
    if (!n)
        return true;
    if (l1_is_dirty(q))         /* rounded at both ends */
        bytes += (q->l1_dirty_to - q->l1_dirty_from + 128) * sizeof(uint64_t);
    r->pieces = malloc(n * sizeof *r->pieces);
    r->memory = buffer_new(bytes);
    if (!r->pieces || !r->memory)
        return false;
    for (const struct slice *s = q->l2.dirty; s; s = s->dirty_next)
        copy_slice(r, s);
    if (l1_is_dirty(q))
        copy_l1(q, r);
    return true;
}

static int collect(struct qcow2 *q, struct round *r, struct lam_error *err)
{
    pthread_rwlock_wrlock(&q->lock);
    bool ok = make_copies(q, r);
    if (ok) {
        for (size_t i = 0; i < r->count; i++)
            if (r->pieces[i].slice)
                cache_mark_writing(&q->l2, r->pieces[i].slice);
        q->l1_dirty_from = q->l1_dirty_to = 0;
        r->releases = lam_take(&q->pending);
        q->nb_pending = 0;
    }
    pthread_rwlock_unlock(&q->lock);
    return ok ? 0 : lam_fail(err, ENOMEM, "no memory to copy dirty L2 slices");
}

/* ------------------------------------------------------------- 2: refcounts */

/*
 * Other readers want the last sector of a payload to exist.  Nobody has been
 * given what lies behind the last payload in its cluster, nor can be while we
 * hold alloc_lock.
 */
static int complete_sector(struct qcow2 *q, struct lam_error *err)
{
    uint64_t end = align_up(q->alloc.payload_end, QCOW2_SECTOR);

    if (end == q->alloc.payload_end || end <= atomic_load(&q->io->size) ||
        !q->io->limits.can_grow)
        return 0;
    return lam_io_write(q->io, "", 1, end - 1, err);
}

static int write_refcounts(struct qcow2 *q, bool needed, struct lam_error *err)
{
    LAM_LOCKED(&q->alloc_lock);
    int rc = complete_sector(q, err);
    if (rc < 0)
        return rc;
    if (!q->lazy)
        return alloc_write_back(q, err);
    return needed ? qcow2_set_dirty_bit(q, true, err) : 0;
}

/* --------------------------------------------------------------- 3, 5: sync */

/* The kernel has forgotten what it could not write: nothing can make up for
 * it, whatever the reason was. */
static int failed_sync(struct qcow2 *q, int rc, const struct lam_error *err)
{
    qcow2_fail(q, err);
    return rc;
}

static int barrier(struct qcow2 *q, struct lam_error *err)
{
    int rc = lam_io_flush(q->io, err);

    if (rc == 0 && q->data_io != q->io)
        rc = lam_io_flush(q->data_io, err);
    if (rc < 0)
        return failed_sync(q, rc, err);
    LAM_LOCKED(&q->alloc_lock);
    release_join(&q->durable, lam_take(&q->written));
    return 0;
}

/* ---------------------------------------------------------------- 4: tables */

static int by_host(const void *a, const void *b)
{
    uint64_t x = ((const struct piece *)a)->host;
    uint64_t y = ((const struct piece *)b)->host;

    return (x > y) - (x < y);
}

static int write_pieces(struct qcow2 *q, struct round *r,
                        struct lam_error *err)
{
    if (r->count)
        qsort(r->pieces, r->count, sizeof *r->pieces, by_host);
    for (size_t i = 0; i < r->count; i++) {
        const struct piece *p = &r->pieces[i];
        int rc = lam_io_write(q->io, p->data, p->length, p->host, err);

        if (rc < 0)
            return lam_error_prefix(err, rc, "Could not write %s table",
                                    p->slice ? "L2" : "L1");
    }
    return 0;
}

static void mark_l1_dirty_again(struct qcow2 *q, const struct piece *p)
{
    if (l1_is_dirty(q)) {
        q->l1_dirty_from = min_u64(q->l1_dirty_from, p->from);
        q->l1_dirty_to = max_u64(q->l1_dirty_to, p->to);
    } else {
        q->l1_dirty_from = p->from;
        q->l1_dirty_to = p->to;
    }
}

/* The copies have been written, or (@rc) are dirty again. */
static void settle(struct qcow2 *q, struct round *r, int rc)
{
    pthread_rwlock_wrlock(&q->lock);
    for (size_t i = 0; i < r->count; i++) {
        const struct piece *p = &r->pieces[i];

        if (p->slice)
            p->slice->writing = false;
        if (rc < 0 && p->slice)
            cache_mark_dirty(&q->l2, p->slice, p->from, p->to);
        else if (rc < 0)
            mark_l1_dirty_again(q, p);
    }
    if (rc < 0)
        release_join(&q->pending, lam_take(&r->releases));
    pthread_rwlock_unlock(&q->lock);
    if (!r->releases)
        return;
    LAM_LOCKED(&q->alloc_lock);
    release_join(&q->written, lam_take(&r->releases));
}

/* ------------------------------------------------------------------ a round */

/* A full disk may be freed, and all is still dirty: the image goes on.  Any
 * other failure leaves the disk in a state that we do not know. */
static void judge_failure(struct qcow2 *q, int rc, const struct lam_error *err)
{
    if (rc == -ENOSPC || rc == -EDQUOT || rc == -ENOMEM)
        return;
    qcow2_fail(q, err);
}

static int write_round(struct qcow2 *q, bool durable, struct lam_error *err)
{
    struct round r = { 0 };
    int rc = collect(q, &r, err);

    if (rc == 0)
        rc = write_refcounts(q, r.count > 0, err);
    if (rc == 0 && r.count)
        rc = barrier(q, err);
    if (rc == 0)
        rc = write_pieces(q, &r, err);
    settle(q, &r, rc);
    if (rc == 0 && durable)
        rc = barrier(q, err);
    round_deinit(&r);
    if (rc < 0)
        return rc;
    LAM_LOCKED(&q->alloc_lock);
    release_reap(q);
    return 0;
}

static int checked_round(struct qcow2 *q, bool durable, struct lam_error *err)
{
    struct lam_error local = LAM_ERROR_INIT;
    int rc = qcow2_check_writable(q, &local);

    if (rc == 0) {
        rc = write_round(q, durable, &local);
        if (rc < 0)
            judge_failure(q, rc, &local);
    }
    if (rc < 0 && err)
        *err = local;
    return rc;
}

/* --------------------------------------------------------- whose turn it is */

void flusher_stop(struct qcow2 *q)
{
    LAM_LOCKED(&q->flusher.lock);
    while (q->flusher.busy)
        pthread_cond_wait(&q->flusher.changed, &q->flusher.lock);
    q->flusher.busy = true;
}

void flusher_resume(struct qcow2 *q)
{
    LAM_LOCKED(&q->flusher.lock);
    q->flusher.busy = q->flusher.idle = false;
    pthread_cond_broadcast(&q->flusher.changed);
}

void flusher_declare_idle(struct qcow2 *q)
{
    LAM_LOCKED(&q->flusher.lock);
    assert(q->flusher.busy);
    q->flusher.idle = true;
    pthread_cond_broadcast(&q->flusher.changed);
}

/* True: this thread runs the write-back.  False: a flush that began after the
 * call has ended, or none is needed; its result is in *@rc. */
static bool take_turn(struct flusher *f, bool durable, int *rc,
                      struct lam_error *err)
{
    LAM_LOCKED(&f->lock);
    uint64_t ticket = f->started + 1;

    while (f->busy && f->done < ticket && (durable || !f->idle))
        pthread_cond_wait(&f->changed, &f->lock);
    if (durable && f->done >= ticket) {
        *rc = f->result;
        if (*rc < 0 && err && f->error)
            *err = *f->error;
        else if (*rc < 0)
            lam_fail_errno(err, -*rc, "Could not write metadata");
        return false;
    }
    while (f->busy && (durable || !f->idle))
        pthread_cond_wait(&f->changed, &f->lock);
    if (f->busy) {
        *rc = 0;                    /* there is nothing to make clean */
        return false;
    }
    f->busy = true;
    if (durable)
        f->started++;
    return true;
}

static void end_turn(struct flusher *f, bool durable, int rc,
                     const struct lam_error *error)
{
    LAM_LOCKED(&f->lock);
    f->busy = false;
    if (durable) {
        f->done = f->started;
        f->result = rc;
        if (rc < 0)
            qcow2_keep_error(&f->error, error);
    }
    pthread_cond_broadcast(&f->changed);
}

int qcow2_write_back(struct qcow2 *q, bool durable, struct lam_error *err)
{
    struct lam_error local = LAM_ERROR_INIT;
    int rc;

    if (!take_turn(&q->flusher, durable, &rc, err))
        return rc;
    rc = checked_round(q, durable, &local);
    end_turn(&q->flusher, durable, rc, &local);
    if (rc < 0 && err)
        *err = local;
    return rc;
}

int qcow2_flush(void *format, struct lam_error *err)
{
    struct qcow2 *q = format;

    if (atomic_load(&q->state) == QCOW2_READ_ONLY)
        return 0;
    qcow2_clean_if_due(q);
    return qcow2_write_back(q, true, err);
}

/* Nobody writes any more: all releases are due, once those who read while they
 * came about have ended.  (What is durable begins to drain in the first round.)
 */
static void release_all(struct qcow2 *q)
{
    for (int i = 0; i < 2; i++) {
        epoch_wait_old(&q->epoch);
        LAM_LOCKED(&q->alloc_lock);
        release_reap(q);
    }
}

static int write_refcounts_last(struct qcow2 *q, struct lam_error *err)
{
    release_all(q);
    LAM_LOCKED(&q->alloc_lock);
    bool dirty = q->header.incompatible & QCOW2_INCOMPAT_DIRTY;
    if (!alloc_is_dirty(q) && !dirty)
        return 0;
    int rc = alloc_write_back(q, err);
    if (rc == 0)
        rc = lam_io_flush(q->io, err);
    if (rc == 0 && dirty)
        rc = qcow2_set_dirty_bit(q, false, err);
    return rc;
}

/* Other readers want the last sector of a payload to exist. */
static int pad_file(struct qcow2 *q, struct lam_error *err)
{
    uint64_t size = atomic_load(&q->io->size);

    if (is_aligned(size, QCOW2_SECTOR) || !q->wrote_payload ||
        !q->io->limits.can_grow)
        return 0;
    return lam_io_truncate(q->io, align_up(size, QCOW2_SECTOR), err);
}

int qcow2_write_back_last(struct qcow2 *q, struct lam_error *err)
{
    if (atomic_load(&q->state) == QCOW2_READ_ONLY)
        return 0;
    int rc = pad_file(q, err);
    if (rc == 0)
        rc = qcow2_write_back(q, true, err);
    if (rc == 0)
        rc = bitmaps_store_last(q, err);
    return rc < 0 ? rc : write_refcounts_last(q, err);
}
