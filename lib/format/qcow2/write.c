/* SPDX-License-Identifier: MIT */
/*
 * write.c - begin, finish and cancel a write (format document 7.1).
 *
 * The L2 entry decides.  In place: nothing but the guest's data is written, no
 * claim, no token.  Otherwise the guest clusters are claimed until finish or
 * cancel, so what the plan was made from stays true; the table is made ours,
 * its slice pinned, host clusters reserved, what the old entries held noted
 * down: nothing is left for finish that could fail.
 */
#include "format/qcow2/qcow2.h"

#include <inttypes.h>

#include "format/inflight.h"
#include "format/qcow2/alloc.h"
#include "format/qcow2/release.h"
#include "format/qcow2/table.h"

enum write_kind {
    WRITE_IN_PLACE,     /* ours alone, and plain data */
    WRITE_UPDATE,       /* ours alone, but the entry has to change after */
    WRITE_ALLOCATE,     /* into new host clusters */
};

struct write_plan {
    enum write_kind kind;
    uint64_t length;        /* of the guest's bytes, from the asked offset */
    uint64_t host;          /* of the first cluster, unless new */
    struct range cow;       /* the guest's bytes and what is copied around */
    size_t nb_old;          /* entries that hold something to release */
};

struct write_token {
    struct claim claim;
    struct slice *slice;    /* pinned */
    enum write_kind kind;
    uint64_t host;          /* of the claim's first cluster */
    struct range cow;
    struct release_batch *releases;
};

/* --------------------------------------------------------------- the plan */

/* Subclusters that [from, to) touches, bytes within a cluster, as a mask. */
static uint64_t subcluster_mask(const struct qcow2_geometry *g, uint64_t from,
                                uint64_t to)
{
    uint64_t first = from / g->subcluster_size;
    uint64_t end = div_up(to, g->subcluster_size);

    return ((UINT64_C(1) << (end - first)) - 1) << first;
}

/* The part of @r inside the guest cluster at @cluster, relative to it. */
static struct range part_in_cluster(const struct qcow2_geometry *g,
                                    uint64_t cluster, struct range r)
{
    struct range part = range_intersect(r, range_make(cluster,
                                                      g->cluster_size));

    return range_make(part.offset - cluster, part.length);
}

static uint64_t touched_subclusters(const struct qcow2_geometry *g,
                                    uint64_t cluster, struct range r)
{
    struct range part = part_in_cluster(g, cluster, r);

    return subcluster_mask(g, part.offset, range_end(part));
}

/* What a write of @guest needs in the cluster at @cluster. */
static enum write_kind classify(const struct qcow2 *q,
                                struct qcow2_l2_entry e, uint64_t cluster,
                                struct range guest)
{
    enum qcow2_cluster_type type = entry_type(&q->g, e.word, q->data_file);

    if (type != QCOW2_NORMAL && type != QCOW2_ZERO_ALLOC)
        return WRITE_ALLOCATE;
    if (!entry_copied(e.word) && !q->data_file)
        return WRITE_ALLOCATE;
    if (!q->g.extended_l2)
        return type == QCOW2_NORMAL ? WRITE_IN_PLACE : WRITE_UPDATE;
    uint64_t touched = touched_subclusters(&q->g, cluster, guest);
    return (e.bitmap & touched) == touched ? WRITE_IN_PLACE : WRITE_UPDATE;
}

/* Entries from the asked cluster on; all UNALLOCATED if there is no table. */
struct entries {
    const struct qcow2 *q;
    const uint8_t *slice;       /* of a table that is ours; or NULL */
};

static struct qcow2_l2_entry entry_at(const struct entries *t, uint64_t guest)
{
    if (!t->slice)
        return (struct qcow2_l2_entry){ 0, 0 };
    return l2_get(&t->q->g, t->slice, l2_slice_byte(t->q, guest) /
                                      t->q->g.l2_entry_size);
}

/* A run ends where the kind changes, where the host goes on elsewhere, and
 * with one cluster where subclusters are updated, since each has its own. */
static int plan_run(const struct entries *t, struct range guest,
                    struct write_plan *p, struct lam_error *err)
{
    const struct qcow2 *q = t->q;
    uint64_t cs = q->g.cluster_size;
    uint64_t first = align_down(guest.offset, cs);

    for (uint64_t at = first; at < range_end(guest); at += cs) {
        struct qcow2_l2_entry e = entry_at(t, at);
        int rc = l2_check_entry(q, at, e, at == first ? err : NULL);

        if (rc < 0 && at == first)
            return rc;
        enum write_kind kind = classify(q, e, at, guest);
        if (at == first) {
            p->kind = kind;
            p->host = entry_offset(e.word);
        } else if (rc < 0 || kind != p->kind ||
                   (kind == WRITE_UPDATE && q->g.extended_l2) ||
                   (kind != WRITE_ALLOCATE &&
                    entry_offset(e.word) != p->host + (at - first))) {
            break;
        }
        if (kind == WRITE_ALLOCATE && e.word)
            p->nb_old++;
        p->length = min_u64(at + cs, range_end(guest)) - guest.offset;
    }
    return 0;
}

/* With subclusters a new cluster takes what the old one had allocated, and all
 * between that and the write (format document 7.1). */
static uint64_t copied_with(struct qcow2_l2_entry old)
{
    if (old.word & QCOW2_COMPRESSED)
        return QCOW2_ALL_ALLOCATED;
    return entry_offset(old.word) ? old.bitmap & QCOW2_ALL_ALLOCATED : 0;
}

static uint64_t allocate_start(const struct entries *t, struct range guest)
{
    const struct qcow2_geometry *g = &t->q->g;
    uint64_t cluster = align_down(guest.offset, g->cluster_size);
    uint64_t copied = copied_with(entry_at(t, cluster));
    uint64_t start = align_down(guest.offset, g->subcluster_size);

    if (copied)
        start = min_u64(start, cluster + (uint64_t)__builtin_ctzll(copied) *
                                         g->subcluster_size);
    return start;
}

static uint64_t allocate_end(const struct entries *t, struct range guest)
{
    const struct qcow2_geometry *g = &t->q->g;
    uint64_t cluster = align_down(range_end(guest) - 1, g->cluster_size);
    uint64_t copied = copied_with(entry_at(t, cluster));
    uint64_t end = align_up(range_end(guest), g->subcluster_size);

    if (copied)
        end = max_u64(end, cluster + (uint64_t)(64 - __builtin_clzll(copied)) *
                                     g->subcluster_size);
    return end;
}

/* Where a subcluster is plain data already, others may be writing to the rest
 * of it in place: it must not be copied. */
static struct range update_cow(const struct entries *t, struct range guest)
{
    const struct qcow2_geometry *g = &t->q->g;
    uint64_t cluster = align_down(guest.offset, g->cluster_size);
    uint64_t bitmap = entry_at(t, cluster).bitmap;
    struct range wide = range_widen(guest, g->subcluster_size);
    uint64_t start = wide.offset, end = range_end(wide);

    if (bitmap >> ((start - cluster) / g->subcluster_size) & 1)
        start = guest.offset;
    if (bitmap >> ((end - 1 - cluster) / g->subcluster_size) & 1)
        end = range_end(guest);
    return range_make(start, end - start);
}

static void plan_cow(const struct entries *t, uint64_t offset,
                     struct write_plan *p)
{
    const struct qcow2_geometry *g = &t->q->g;
    struct range guest = range_make(offset, p->length);

    if (!g->extended_l2) {
        p->cow = range_widen(guest, g->cluster_size);
    } else if (p->kind == WRITE_UPDATE) {
        p->cow = update_cow(t, guest);
    } else {
        uint64_t start = allocate_start(t, guest);

        p->cow = range_make(start, allocate_end(t, guest) - start);
    }
}

/* -EAGAIN: the slice at at->host is wanted, or a table of our own: the plan is
 * made from what others find, too, who write in place without a claim. */
static int make_plan(struct qcow2 *q, struct range guest, struct l2_place *at,
                     struct write_plan *p, struct lam_error *err)
{
    uint64_t cover = l2_slice_cover(q);
    int rc = l2_find(q, guest.offset, at, err);

    if (rc < 0)
        return rc;
    if (at->table && (!at->owned || !at->slice))
        return -EAGAIN;
    struct entries t = { q, at->slice ? at->slice->data : NULL };
    guest.length = min_u64(guest.length,
                           cover - (guest.offset & (cover - 1)));
    *p = (struct write_plan){ 0 };
    rc = plan_run(&t, guest, p, err);
    if (rc == 0 && p->kind != WRITE_IN_PLACE)
        plan_cow(&t, guest.offset, p);
    return rc;
}

/* -------------------------------------------------------------------- begin */

/* A plan, and unless it is in place the claim that keeps it true.  1: wait and
 * look again. */
static int plan_and_claim(struct qcow2 *q, struct range guest,
                          struct l2_place *at, struct write_plan *p,
                          struct claim *claim, struct lam_error *err)
{
    pthread_rwlock_rdlock(&q->lock);
    int rc = make_plan(q, guest, at, p, err);
    if (rc == 0 && p->kind != WRITE_IN_PLACE) {
        guest.length = p->length;
        claim->range = range_widen(guest, q->g.cluster_size);
        uint64_t length = claim->range.length;
        if (!claim_try(&q->inflight, claim))
            rc = 1;
        else if (claim->range.length < length)
            p->length = range_end(claim->range) - guest.offset;
    }
    pthread_rwlock_unlock(&q->lock);
    return rc;
}

static int begin_plan(struct qcow2 *q, struct range guest,
                      struct write_plan *p, struct claim *claim,
                      struct lam_error *err)
{
    struct slice *pinned = NULL;
    int rc;

    for (;;) {
        struct l2_place at;

        rc = plan_and_claim(q, guest, &at, p, claim, err);
        if (pinned)
            slice_unpin(pinned);
        pinned = NULL;
        if (rc == 1) {
            claim_wait(&q->inflight, guest.offset);
            continue;
        }
        if (rc != -EAGAIN)
            return rc;
        if (at.owned)
            lam_io_event(q->io, IO_EVENT_L2_LOAD);
        rc = at.owned
           ? l2_load_verified(q, at.host, guest.offset, &pinned, err)
           : l2_own_table(q, guest.offset, err);
        if (rc < 0)
            return rc;
    }
}

/* What the entries of the claim hold now; they stay as they are. */
static void note_releases(struct qcow2 *q, struct write_token *t)
{
    uint64_t i = l2_slice_byte(q, t->claim.range.offset) / q->g.l2_entry_size;
    uint64_t n = t->claim.range.length >> q->g.cluster_bits;

    if (!t->releases)
        return;
    pthread_rwlock_rdlock(&q->lock);
    for (uint64_t end = i + n; i < end; i++) {
        struct qcow2_l2_entry e = l2_get(&q->g, t->slice->data, i);

        if (e.word)
            release_add_entry(q, t->releases, e, false);
    }
    pthread_rwlock_unlock(&q->lock);
}

/* Host clusters for the claim, which is cut to as many as are contiguous. */
static int reserve_clusters(struct qcow2 *q, struct write_token *t,
                            bool *fresh, struct lam_error *err)
{
    uint64_t got, want = t->claim.range.length >> q->g.cluster_bits;
    uint64_t touched;

    *fresh = false;
    if (q->data_file) {
        t->host = t->claim.range.offset;
        return 0;
    }
    {
        LAM_LOCKED(&q->alloc_lock);
        release_reap(q);
        touched = q->alloc.touched;
        int rc = alloc_clusters(q, want, &t->host, &got, err);
        if (rc < 0)
            return rc;
    }
    if (got < want)
        claim_shorten(&q->inflight, &t->claim, got << q->g.cluster_bits);
    *fresh = q->io->limits.can_grow && !q->io->limits.is_block_device &&
             host_cluster(&q->g, t->host) >= touched &&
             t->host >= atomic_load(&q->io->size);
    return 0;
}

/* The claim has become shorter than the plan: a cut at the end of a cluster
 * that is written whole has no tail. */
static void cut_plan(const struct write_token *t, uint64_t offset,
                     struct write_plan *p)
{
    uint64_t end = range_end(t->claim.range);

    if (range_end(p->cow) <= end)
        return;
    p->cow.length = end - p->cow.offset;
    p->length = end - offset;
}

static int begin_change(struct qcow2 *q, struct range guest,
                        struct write_plan *p, struct write_token *t,
                        bool *fresh, struct lam_error *err)
{
    *fresh = false;
    t->kind = p->kind;
    t->host = p->host;
    int rc = l2_open_for_change(q, guest.offset, &t->slice, err);
    if (rc < 0)
        return rc;
    if (p->kind == WRITE_ALLOCATE) {
        if (p->nb_old) {
            t->releases = release_new(p->nb_old);
            if (!t->releases)
                return lam_fail(err, ENOMEM, "no memory for %zu old clusters",
                                p->nb_old);
        }
        rc = reserve_clusters(q, t, fresh, err);
        if (rc < 0)
            return rc;
        note_releases(q, t);
    }
    cut_plan(t, guest.offset, p);
    t->cow = p->cow;
    return 0;
}

static void token_free(struct qcow2 *q, struct write_token *t)
{
    claim_drop(&q->inflight, &t->claim);
    if (t->slice)
        slice_unpin(t->slice);
    free(t->releases);
    free(t);
}

static void answer(const struct qcow2 *q, struct range guest,
                   const struct write_plan *p, struct format_allocation *a)
{
    *a = (struct format_allocation){
        .offset = guest.offset,
        .length = p->length,
        .cow_start = guest.offset,
        .cow_end = guest.offset + p->length,
        .host_offset = p->host + in_cluster(&q->g, guest.offset),
        .io = q->data_io,
    };
}

/* A data file is not longer than the disk: some read it as a raw image. */
static uint64_t cow_end(const struct qcow2 *q, const struct write_plan *p,
                        const struct format_allocation *a)
{
    uint64_t end = range_end(p->cow);

    return q->data_file ? min_u64(end, max_u64(q->size, a->cow_end)) : end;
}

int qcow2_write_begin(void *format, uint64_t offset, uint64_t length,
                      struct format_allocation *a, struct lam_error *err)
{
    struct qcow2 *q = format;
    struct range guest = range_make(offset, length);
    struct write_plan p = { 0 };

    qcow2_clean_if_due(q);
    int rc = qcow2_before_change(q, err);
    /* The VM state behind the disk is no part of it. */
    if (rc == 0 && offset < l1_needed(&q->g, q->size) * q->g.l2_cover)
        rc = bitmaps_mark(q, offset, length, err);
    if (rc < 0)
        return rc;
    struct write_token *t = calloc(1, sizeof *t);
    if (!t)
        return lam_fail(err, ENOMEM, "no memory for a write");
    rc = begin_plan(q, guest, &p, &t->claim, err);
    if (rc < 0 || p.kind == WRITE_IN_PLACE) {
        free(t);
        if (rc == 0)
            answer(q, guest, &p, a);
        return rc;
    }
    bool fresh;
    rc = begin_change(q, guest, &p, t, &fresh, err);
    if (rc < 0) {
        token_free(q, t);
        return rc;
    }
    /* What fails now fails the write, whose entries are not there yet. */
    lam_io_event(q->io, IO_EVENT_L2_UPDATE);
    p.host = t->host;
    answer(q, guest, &p, a);
    a->cow_start = p.cow.offset;
    a->cow_end = cow_end(q, &p, a);
    a->host_is_zero = fresh;
    a->token = t;
    return 0;
}

/* The first change of all, and what bitmaps record, may have to be written. */
int qcow2_write_in_place(void *format, uint64_t offset, uint64_t length,
                         struct format_allocation *a)
{
    struct qcow2 *q = format;
    struct range guest = range_make(offset, length);
    struct write_plan p;
    struct l2_place at;

    if (qcow2_check_writable(q, NULL) < 0 || !atomic_load(&q->changed) ||
        atomic_load(&q->bitmaps.recording))
        return -EAGAIN;
    qcow2_clean_if_due(q);
    pthread_rwlock_rdlock(&q->lock);
    int rc = make_plan(q, guest, &at, &p, NULL);
    pthread_rwlock_unlock(&q->lock);
    if (rc < 0 || p.kind != WRITE_IN_PLACE)
        return -EAGAIN;
    answer(q, guest, &p, a);
    return 0;
}

/* ----------------------------------------------------------- finish, cancel */

static struct qcow2_l2_entry new_entry(const struct qcow2 *q,
                                       const struct write_token *t,
                                       uint64_t cluster,
                                       struct qcow2_l2_entry old)
{
    uint64_t host = t->host + (cluster - t->claim.range.offset);
    struct qcow2_l2_entry e = { .word = host | QCOW2_COPIED };

    if (!q->g.extended_l2)
        return e;
    uint64_t written = touched_subclusters(&q->g, cluster, t->cow);
    uint64_t keep = QCOW2_ALL_ZERO;         /* a new cluster has nothing yet */
    if (t->kind == WRITE_UPDATE)
        keep |= QCOW2_ALL_ALLOCATED;
    if (old.word & QCOW2_COMPRESSED)
        keep = 0;
    e.bitmap = ((old.bitmap & keep) | written) & ~(written << 32);
    return e;
}

/* Puts the new entries into the slice.  Under lock, exclusive. */
static void link_entries(struct qcow2 *q, const struct write_token *t)
{
    struct range r = t->claim.range;
    size_t byte = l2_slice_byte(q, r.offset);
    uint64_t i = byte / q->g.l2_entry_size;

    for (uint64_t at = r.offset; at < range_end(r);
         at += q->g.cluster_size, i++) {
        struct qcow2_l2_entry old = l2_get(&q->g, t->slice->data, i);

        l2_put(&q->g, t->slice->data, i, new_entry(q, t, at, old));
    }
    cache_mark_dirty(&q->l2, t->slice, byte, (size_t)i * q->g.l2_entry_size);
}

int qcow2_write_finish(void *format, struct format_allocation *a,
                       struct lam_error *err)
{
    struct qcow2 *q = format;
    struct write_token *t = a->token;

    if (!t)
        return 0;
    int rc = qcow2_check_writable(q, err);
    if (rc < 0) {
        qcow2_write_cancel(q, a);
        return rc;
    }
    pthread_rwlock_wrlock(&q->lock);
    link_entries(q, t);
    release_pend(q, lam_take(&t->releases));
    pthread_rwlock_unlock(&q->lock);
    token_free(q, t);
    a->token = NULL;
    return release_is_crowded(q) ? qcow2_write_back(q, true, err) : 0;
}

void qcow2_write_cancel(void *format, struct format_allocation *a)
{
    struct qcow2 *q = format;
    struct write_token *t = a->token;

    if (!t)
        return;
    if (t->kind == WRITE_ALLOCATE && !q->data_file) {
        LAM_LOCKED(&q->alloc_lock);
        alloc_drop(q, t->host, t->claim.range.length, NULL, NULL);
    }
    token_free(q, t);
    a->token = NULL;
}
