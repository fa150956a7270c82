/* SPDX-License-Identifier: MIT */
/*
 * table.c - L2 tables for writing: ours alone, loaded, and checked.
 *
 * The COPIED bit says "one reference, write in place", and a wrong one destroys
 * a snapshot or another guest cluster.  So it is compared with the refcounts
 * once a slice, before the first write through it (format document 3.5): where
 * there are more references, as a snapshot leaves behind that failed half-way,
 * we copy; where there is none, we refuse.
 */
#include "format/qcow2/table.h"

#include <inttypes.h>
#include <string.h>

#include "format/qcow2/alloc.h"
#include "format/qcow2/release.h"

int l2_find(struct qcow2 *q, uint64_t offset, struct l2_place *out,
            struct lam_error *err)
{
    *out = (struct l2_place){ 0 };
    int rc = l1_lookup(q, offset, &out->table, &out->owned, err);
    if (rc < 0)
        return rc;
    if (l1_index(&q->g, offset) < q->l1_size &&
        (q->l1[l1_index(&q->g, offset)] & QCOW2_L1_RESERVED))
        return lam_fail(err, EUCLEAN, "L1 entry %" PRIu64 ": reserved bits "
                        "are set in %#" PRIx64, l1_index(&q->g, offset),
                        q->l1[l1_index(&q->g, offset)]);
    if (!out->table)
        return 0;
    out->host = l2_entry_host(q, out->table, offset);
    out->slice = cache_find(&q->l2, out->host);
    if (out->slice && !atomic_load_explicit(&out->slice->verified,
                                            memory_order_acquire))
        out->slice = NULL;
    return 0;
}

/* ------------------------------------------------------------------ checks */

enum { SNAPSHOT_HEADER = 40 };      /* bytes a snapshot has at least */

static bool overlaps_table(struct range host, uint64_t offset, uint64_t length)
{
    return length && range_overlaps(host, range_make(offset, length));
}

/* Header, L1, refcount table, snapshot table: what a guest cluster must never
 * lie on (format document 7.8, the constant checks). */
static bool on_metadata(const struct qcow2 *q, uint64_t host)
{
    const struct qcow2_header *h = &q->header;
    struct range r = range_make(host, q->g.cluster_size);

    return host < q->g.cluster_size ||
           overlaps_table(r, h->l1_offset, (uint64_t)h->l1_size * 8) ||
           overlaps_table(r, h->reft_offset,
                          (uint64_t)h->reft_clusters << q->g.cluster_bits) ||
           overlaps_table(r, h->snapshots_offset,
                          (uint64_t)h->nb_snapshots * SNAPSHOT_HEADER);
}

static int check_host(const struct qcow2 *q, uint64_t offset, uint64_t word,
                      struct lam_error *err)
{
    uint64_t host = entry_offset(word);

    if (!is_aligned(host, q->g.cluster_size))
        return lam_fail(err, EUCLEAN, "guest offset %#" PRIx64 ": host "
                        "offset %#" PRIx64 " is not a multiple of %" PRIu64,
                        offset, host, q->g.cluster_size);
    if (q->data_file && host != align_down(offset, q->g.cluster_size))
        return lam_fail(err, EUCLEAN, "guest offset %#" PRIx64 ": offset %#"
                        PRIx64 " in the data file is not the guest offset",
                        offset, host);
    if (!q->data_file && on_metadata(q, host))
        return lam_fail(err, EUCLEAN, "guest offset %#" PRIx64 ": host offset "
                        "%#" PRIx64 " lies in the image's own tables", offset,
                        host);
    return 0;
}

int l2_check_entry(const struct qcow2 *q, uint64_t offset,
                   struct qcow2_l2_entry e, struct lam_error *err)
{
    if (!e.word && !e.bitmap)
        return 0;
    if (e.word & QCOW2_COMPRESSED) {
        if (!q->data_file && !entry_copied(e.word))
            return 0;
        return lam_fail(err, EUCLEAN, "guest offset %#" PRIx64 ": compressed "
                        "entry %#" PRIx64 " with COPIED or a data file",
                        offset, e.word);
    }
    if (e.word & QCOW2_L2_RESERVED)
        return lam_fail(err, EUCLEAN, "guest offset %#" PRIx64 ": reserved "
                        "bits are set in L2 entry %#" PRIx64, offset, e.word);
    if ((e.word & QCOW2_ZERO) && q->header.version < 3)
        return lam_fail(err, EUCLEAN, "guest offset %#" PRIx64 ": L2 entry %#"
                        PRIx64 " has the zero bit in a version 2 image",
                        offset, e.word);
    enum qcow2_cluster_type type = entry_type(&q->g, e.word, q->data_file);
    if (q->g.extended_l2 && subclusters_invalid(e.bitmap,
                                                type == QCOW2_NORMAL))
        return lam_fail(err, EUCLEAN, "guest offset %#" PRIx64 ": invalid "
                        "subcluster bitmap %#" PRIx64, offset, e.bitmap);
    if (type == QCOW2_NORMAL || type == QCOW2_ZERO_ALLOC)
        return check_host(q, offset, e.word, err);
    return 0;
}

/* Is the one reference that COPIED claims the only one? */
static int check_copied(struct qcow2 *q, uint64_t offset, uint64_t host,
                        const char *what, bool *shared, struct lam_error *err)
{
    uint64_t value;
    int rc = refcount_read(q, host_cluster(&q->g, host), &value, err);

    if (rc < 0)
        return rc;
    *shared = value > 1;
    if (value)
        return 0;
    return lam_fail(err, EUCLEAN, "guest offset %#" PRIx64 ": the %s at host "
                    "offset %#" PRIx64 " has refcount 0; writing could "
                    "destroy data, check the image", offset, what, host);
}

/* Takes the COPIED bit off entries in @copy that do not deserve it.  The first
 * one is guest @offset's.  Under alloc_lock. */
static int verify_entries(struct qcow2 *q, uint8_t *copy, uint64_t offset,
                          struct lam_error *err)
{
    uint64_t n = q->l2.slice_size / q->g.l2_entry_size;

    for (uint64_t i = 0; i < n && !q->data_file; i++) {
        struct qcow2_l2_entry e = l2_get(&q->g, copy, i);
        uint64_t host = entry_offset(e.word);
        bool shared;

        if (!entry_copied(e.word) || !host || (e.word & QCOW2_COMPRESSED))
            continue;
        /* Written to in place from now on. */
        int rc = overlap_check(q, 0, align_down(host, q->g.cluster_size),
                               q->g.cluster_size, err);
        if (rc < 0)
            return rc;
        rc = check_copied(q, offset + (i << q->g.cluster_bits), host,
                              "cluster", &shared, err);
        if (rc < 0)
            return rc;
        e.word &= shared ? ~QCOW2_COPIED : ~UINT64_C(0);
        l2_put(&q->g, copy, i, e);
    }
    return 0;
}

static int verify_table(struct qcow2 *q, uint64_t offset, uint64_t table,
                        struct lam_error *err)
{
    uint64_t *l1 = &q->l1[l1_index(&q->g, offset)];
    bool shared = false;

    if (entry_offset(*l1) != table || !entry_copied(*l1))
        return 0;
    int rc = overlap_check(q, OVERLAP_ACTIVE_L2, table, q->g.cluster_size,
                           err);
    if (rc == 0)
        rc = check_copied(q, offset, table, "L2 table", &shared, err);
    if (rc < 0 || !shared)
        return rc;
    pthread_rwlock_wrlock(&q->lock);
    *l1 &= ~QCOW2_COPIED;           /* in memory: l2_own_table() copies it */
    pthread_rwlock_unlock(&q->lock);
    return 0;
}

/* Nobody changes an unverified slice, and L1 changes under alloc_lock only. */
static int verify_slice(struct qcow2 *q, struct slice *s, uint64_t offset,
                        struct lam_error *err)
{
    uint64_t first = align_down(offset, l2_slice_cover(q));

    LAM_LOCKED(&q->alloc_lock);
    if (atomic_load(&s->verified))
        return 0;
    lam_autofree uint8_t *copy = malloc(q->l2.slice_size);
    if (!copy)
        return lam_fail(err, ENOMEM, "no memory for an L2 slice");
    memcpy(copy, s->data, q->l2.slice_size);
    int rc = verify_table(q, first, align_down(s->host, q->g.cluster_size),
                          err);
    if (rc == 0)
        rc = verify_entries(q, copy, first, err);
    if (rc < 0)
        return rc;
    pthread_rwlock_wrlock(&q->lock);
    memcpy(s->data, copy, q->l2.slice_size);
    pthread_rwlock_unlock(&q->lock);
    atomic_store_explicit(&s->verified, true, memory_order_release);
    return 0;
}

int l2_load_verified(struct qcow2 *q, uint64_t host, uint64_t offset,
                     struct slice **out, struct lam_error *err)
{
    int rc = l2_load(q, host, false, out, err);

    if (rc < 0 || atomic_load_explicit(&(*out)->verified,
                                       memory_order_acquire))
        return rc;
    rc = verify_slice(q, *out, offset, err);
    if (rc < 0) {
        slice_unpin(*out);
        *out = NULL;
    }
    return rc;
}

/* -------------------------------------------------------------- own tables */

/* The copy is ours alone, but what it points to may be shared: COPIED follows
 * the refcounts.  What a table that is @shared points to is shared, even where
 * it has been counted once: nothing of it is written in place.  Under
 * alloc_lock. */
static int renew_copied(struct qcow2 *q, uint8_t *table, bool shared,
                        struct lam_error *err)
{
    for (uint64_t i = 0; i < q->g.l2_entries && !q->data_file; i++) {
        struct qcow2_l2_entry e = l2_get(&q->g, table, i);
        uint64_t host = entry_offset(e.word), value;

        if (!host || (e.word & QCOW2_COMPRESSED))
            continue;
        int rc = refcount_read(q, host_cluster(&q->g, host), &value, err);
        if (rc < 0)
            return rc;
        e.word &= ~QCOW2_COPIED;
        if (value == 1 && !shared)
            e.word |= QCOW2_COPIED;
        l2_put(&q->g, table, i, e);
    }
    return 0;
}

/* Contents of the new table.  A table that is not ours is never dirty, so the
 * file has all of it. */
static int fill_table(struct qcow2 *q, uint64_t old, uint8_t *table,
                      struct lam_error *err)
{
    uint64_t references;

    if (!old)
        return 0;
    int rc = refcount_read(q, host_cluster(&q->g, old), &references, err);
    if (rc < 0)
        return rc;
    lam_io_event(q->io, IO_EVENT_L2_ALLOC_COW_READ);
    rc = lam_io_read(q->io, table, q->g.cluster_size, old, err);
    return rc < 0 ? rc : renew_copied(q, table, references > 1, err);
}

static int write_new_table(struct qcow2 *q, uint64_t old, uint64_t *host,
                           struct lam_error *err)
{
    uint64_t got;
    lam_autofree uint8_t *table = calloc(1, q->g.cluster_size);

    if (!table)
        return lam_fail(err, ENOMEM, "no memory for an L2 table");
    int rc = fill_table(q, old, table, err);
    if (rc == 0)
        rc = alloc_clusters(q, 1, host, &got, err);
    if (rc < 0)
        return rc;
    lam_io_event(q->io, IO_EVENT_L2_ALLOC_WRITE);
    rc = lam_io_write(q->io, table, q->g.cluster_size, *host, err);
    if (rc < 0)
        alloc_drop(q, *host, q->g.cluster_size, NULL, NULL);
    return lam_error_prefix(err, rc, "Could not write new L2 table");
}

void l1_mark_dirty(struct qcow2 *q, uint64_t i)
{
    if (q->l1_dirty_from == q->l1_dirty_to) {
        q->l1_dirty_from = i;
        q->l1_dirty_to = i + 1;
    } else {
        q->l1_dirty_from = min_u64(q->l1_dirty_from, i);
        q->l1_dirty_to = max_u64(q->l1_dirty_to, i + 1);
    }
}

void l2_link_table(struct qcow2 *q, uint64_t i, uint64_t table,
                   struct release_batch *old)
{
    overlap_add(q, table);
    pthread_rwlock_wrlock(&q->lock);
    q->l1[i] = table | QCOW2_COPIED;
    l1_mark_dirty(q, i);
    release_pend(q, old);
    pthread_rwlock_unlock(&q->lock);
}

int l2_own_table(struct qcow2 *q, uint64_t offset, struct lam_error *err)
{
    struct l2_place at;
    uint64_t new;

    LAM_LOCKED(&q->alloc_lock);
    pthread_rwlock_rdlock(&q->lock);
    int rc = l2_find(q, offset, &at, err);
    pthread_rwlock_unlock(&q->lock);
    if (rc < 0 || (at.table && at.owned))
        return rc;
    lam_autofree struct release_batch *old = release_new(1);
    if (!old)
        return lam_fail(err, ENOMEM, "no memory for an L2 table");
    if (at.table)
        old->items[old->count++] = (struct release){
            .offset = at.table, .length = q->g.cluster_size,
            .discard = q->pass_other, .table = true };
    rc = write_new_table(q, at.table, &new, err);
    if (rc < 0)
        return rc;
    l2_link_table(q, l1_index(&q->g, offset), new, lam_take(&old));
    lam_io_event(q->io, IO_EVENT_L1_UPDATE);
    return 0;
}

/* Verifying may find that the table is not ours after all, hence the loop. */
int l2_open_for_change(struct qcow2 *q, uint64_t offset, struct slice **out,
                       struct lam_error *err)
{
    struct slice *pinned = NULL;
    bool made = false;

    for (;;) {
        struct l2_place at;

        pthread_rwlock_rdlock(&q->lock);
        int rc = l2_find(q, offset, &at, err);
        bool ready = rc == 0 && at.owned && at.slice;
        if (ready)
            slice_pin(at.slice);
        pthread_rwlock_unlock(&q->lock);
        if (pinned)
            slice_unpin(pinned);
        pinned = NULL;
        if (ready) {
            *out = at.slice;
            return 0;
        }
        bool load = at.table && at.owned;
        if (rc == 0 && load && !made)
            lam_io_event(q->io, IO_EVENT_L2_LOAD);
        if (rc == 0)
            rc = load ? l2_load_verified(q, at.host, offset, &pinned, err)
                      : l2_own_table(q, offset, err);
        if (rc < 0)
            return rc;
        made |= !load;
    }
}
