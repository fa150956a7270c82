/* SPDX-License-Identifier: MIT */
/*
 * bulk.c - a change of many references that one write of the header makes.
 */
#include "format/qcow2/bulk.h"

#include <errno.h>

#include "format/inflight.h"
#include "format/qcow2/alloc.h"
#include "format/qcow2/release.h"

/* What the tables in memory say is in the file after this, and stays there:
 * whoever could change it holds a claim.  And counters count just that: what
 * entries have dropped is not left to drop later, when COPIED bits have been
 * made from it. */
static int settle(struct qcow2 *q, struct lam_error *err)
{
    int rc = qcow2_before_change(q, err);

    if (rc == 0)
        rc = qcow2_write_back(q, false, err);
    if (rc < 0)
        return rc;
    rc = qcow2_reclaim(q, err);
    return rc == -ENOSPC ? 0 : rc;      /* there is nothing to drop */
}

static void take_state(struct bulk *b)
{
    const struct qcow2_header *h = &b->q->header;

    b->size = h->size;
    b->l1_offset = h->l1_offset;
    b->l1_size = b->q->l1_size;
    b->snapshots_offset = h->snapshots_offset;
    b->nb_snapshots = h->nb_snapshots;
}

int bulk_begin(struct bulk *b, struct qcow2 *q, struct lam_error *err)
{
    *b = (struct bulk){ .q = q };
    claim_all(&q->inflight, &b->claim);
    int rc = settle(q, err);
    flusher_stop(q);
    pthread_mutex_lock(&q->alloc_lock);
    if (rc == 0)
        rc = qcow2_check_writable(q, err);
    if (rc == 0)
        rc = lam_io_size(q->io, &b->file_length, err);
    if (rc < 0)
        return rc;
    assert(!q->l2.dirty && q->l1_dirty_from == q->l1_dirty_to);
    /* Readers, which bulk_commit() waits for, may be waiting for a turn. */
    flusher_declare_idle(q);
    take_state(b);
    return shadow_init(&b->refs, q, err);
}

/* What was written beyond the old end, and is not referred to, is cut off. */
static void give_back_tail(struct bulk *b)
{
    struct lam_io *io = b->q->io;

    if (!b->switched && b->file_length && io->limits.can_grow &&
        atomic_load(&io->size) > b->file_length)
        lam_io_truncate(io, b->file_length, NULL);
}

void bulk_end(struct bulk *b)
{
    give_back_tail(b);
    shadow_deinit(&b->refs);
    free(b->l1);
    free(b->dropped_l1);
    pthread_mutex_unlock(&b->q->alloc_lock);
    flusher_resume(b->q);
    claim_drop(&b->q->inflight, &b->claim);
}

/* ------------------------------------------------------------------ commit */

int bulk_barrier(struct bulk *b, struct lam_error *err)
{
    struct qcow2 *q = b->q;
    struct lam_error local = LAM_ERROR_INIT;
    int rc = lam_io_flush(q->io, &local);

    if (rc < 0) {
        qcow2_fail(q, &local);  /* the kernel has forgotten what it lost */
        if (err)
            *err = local;
    }
    return rc;
}

static int switch_header(struct bulk *b, struct lam_error *err)
{
    struct qcow2_header *h = &b->q->header;

    b->switched = true;
    h->size = b->size;
    h->l1_offset = b->l1_offset;
    h->l1_size = (uint32_t)b->l1_size;
    h->reft_offset = b->refs.table_place;
    h->reft_clusters = (uint32_t)b->refs.table_clusters;
    h->nb_snapshots = b->nb_snapshots;
    h->snapshots_offset = b->snapshots_offset;
    return qcow2_switch_header(b->q, QH_SIZE, QH_V2_LENGTH, err);
}

/* Slices of tables that nobody has any more.  Requests that found these tables
 * have ended, so nobody is loading one. */
static void forget_tables(struct bulk *b, const uint64_t *l1, size_t entries)
{
    struct qcow2 *q = b->q;

    for (size_t i = 0; i < entries; i++) {
        uint64_t table = entry_offset(l1[i]), count;

        if (table && shadow_get(&b->refs, host_cluster(&q->g, table), &count,
                                NULL) == 0 && !count) {
            /* Not around all: counters may have to be read. */
            pthread_rwlock_wrlock(&q->lock);
            cache_forget(&q->l2, table, q->g.cluster_size);
            pthread_rwlock_unlock(&q->lock);
        }
    }
}

static void replace_l1(struct bulk *b)
{
    struct qcow2 *q = b->q;
    uint64_t *old = q->l1;
    size_t old_size = q->l1_size;

    pthread_rwlock_wrlock(&q->lock);
    q->l1 = lam_take(&b->l1);
    q->l1_size = b->l1_size;
    atomic_store(&q->size, align_down(b->size, QCOW2_SECTOR));
    pthread_rwlock_unlock(&q->lock);
    epoch_drain(&q->epoch);
    forget_tables(b, old, old_size);
    free(old);
}

/* The tables in memory follow.  Requests that use the old ones end before
 * anybody can be given their clusters, since we hold alloc_lock. */
static void install(struct bulk *b)
{
    struct qcow2 *q = b->q;

    if (b->l1)
        replace_l1(b);
    forget_tables(b, b->dropped_l1, b->dropped_l1_size);
    shadow_discard(&b->refs);
    shadow_install(&b->refs);
    overlap_reload(q);
}

int bulk_commit(struct bulk *b, struct lam_error *err)
{
    int rc = shadow_place(&b->refs, err);

    if (rc == 0)
        rc = shadow_write(&b->refs, err);
    if (rc == 0)
        rc = bulk_barrier(b, err);
    if (rc == 0)
        rc = switch_header(b, err);
    if (rc == 0)
        install(b);
    return rc;
}
