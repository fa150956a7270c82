/* SPDX-License-Identifier: MIT */
/*
 * zero.c - zero and discard in metadata (format document 7.9, 7.10).
 *
 * The range is taken a slice at a time: claim it, look whether anything would
 * change (an absent table is not made for nothing), then change the entries at
 * once under the lock.
 */
#include "format/qcow2/qcow2.h"

#include <inttypes.h>
#include <string.h>

#include "format/inflight.h"
#include "format/qcow2/encrypt.h"
#include "format/qcow2/release.h"
#include "format/qcow2/table.h"
#include "format/qcow2/trim.h"

enum zero_kind {
    ZERO_KEEP,          /* host clusters of ours stay reserved */
    ZERO_UNMAP,         /* ... are released, unless discard-no-unref is on */
    ZERO_DISCARD,       /* the guest does not need it any more */
    ZERO_ABSENT,        /* only what is unallocated, for a job: the guest sees
                           no change */
    ZERO_FORGET,        /* as if it had never been written (whole clusters) */
};

/* Bits of the subclusters in [from, to), bytes within a cluster. */
static uint64_t subclusters_of(const struct qcow2 *q, uint64_t from,
                               uint64_t to)
{
    uint64_t first = from / q->g.subcluster_size;
    uint64_t end = div_up(to, q->g.subcluster_size);

    return ((UINT64_C(1) << (end - first)) - 1) << first;
}

/* A part of a cluster is zero from now on; its host cluster stays. */
static struct qcow2_l2_entry zero_subclusters(struct qcow2_l2_entry e,
                                              uint64_t mask)
{
    e.bitmap = (e.bitmap | mask << 32) & ~mask;
    return e;
}

static struct qcow2_l2_entry zero_plain(const struct qcow2 *q)
{
    struct qcow2_l2_entry e = { 0, 0 };

    if (q->g.extended_l2)
        e.bitmap = QCOW2_ALL_ZERO;
    else if (q->header.version >= 3)
        e.word = QCOW2_ZERO;
    return e;                   /* version 2, no backing file: unallocated */
}

static struct qcow2_l2_entry zero_alloc(const struct qcow2 *q,
                                        struct qcow2_l2_entry e)
{
    if (q->g.extended_l2)
        e.bitmap = QCOW2_ALL_ZERO;
    else
        e.word |= QCOW2_ZERO;
    return e;
}

/* The tables of the format document, row by row, for a whole cluster. */
static struct qcow2_l2_entry zero_cluster(const struct qcow2 *q,
                                          enum zero_kind kind,
                                          struct qcow2_l2_entry e)
{
    enum qcow2_cluster_type type = entry_type(&q->g, e.word, q->data_file);
    bool ours = entry_copied(e.word) || q->data_file;
    bool keep = kind == ZERO_KEEP || q->no_unref;

    switch (type) {
    case QCOW2_UNALLOCATED:
        if (kind == ZERO_DISCARD && !q->has_backing)
            return e;
        return zero_plain(q);
    case QCOW2_NORMAL:
    case QCOW2_ZERO_ALLOC:
        if (keep && ours && q->header.version >= 3)
            return zero_alloc(q, e);
        return zero_plain(q);
    default:
        return zero_plain(q);
    }
}

static struct qcow2_l2_entry zero_absent(const struct qcow2 *q,
                                         struct qcow2_l2_entry e,
                                         uint64_t mask)
{
    if (entry_type(&q->g, e.word, q->data_file) == QCOW2_COMPRESSED_CLUSTER)
        return e;
    if (q->g.extended_l2)
        e.bitmap |= (mask & ~e.bitmap & ~(e.bitmap >> 32)) << 32;
    else if (entry_type(&q->g, e.word, q->data_file) == QCOW2_UNALLOCATED)
        e = zero_plain(q);
    return e;
}

/* Entry @e of the cluster at @cluster after zeroing @r. */
static struct qcow2_l2_entry zeroed_entry(const struct qcow2 *q,
                                          enum zero_kind kind,
                                          struct qcow2_l2_entry e,
                                          uint64_t cluster, struct range r)
{
    struct range part = range_intersect(r, range_make(cluster,
                                                      q->g.cluster_size));

    if (kind == ZERO_FORGET)
        return (struct qcow2_l2_entry){ 0, 0 };
    if (part.length == q->g.cluster_size && kind != ZERO_ABSENT)
        return zero_cluster(q, kind, e);
    uint64_t mask = subclusters_of(q, part.offset - cluster,
                                   range_end(part) - cluster);
    return kind == ZERO_ABSENT ? zero_absent(q, e, mask)
                               : zero_subclusters(e, mask);
}

/* ----------------------------------------------------------- look, change */

static struct qcow2_l2_entry entry_of(const struct qcow2 *q,
                                      const struct slice *s, uint64_t guest)
{
    if (!s)
        return (struct qcow2_l2_entry){ 0, 0 };
    return l2_get(&q->g, s->data, l2_slice_byte(q, guest) /
                                  q->g.l2_entry_size);
}

static bool is_partial(const struct qcow2 *q, struct range r)
{
    return !is_aligned(r.offset | r.length, q->g.cluster_size);
}

enum look_result { LOOK_NOTHING, LOOK_CHANGE, LOOK_INFLATE };

/* What zeroing @r would do.  -EAGAIN: at->host is wanted.  Under lock. */
static int look(struct qcow2 *q, enum zero_kind kind, struct range r,
                struct l2_place *at, struct lam_error *err)
{
    uint64_t cs = q->g.cluster_size;
    int result = LOOK_NOTHING;
    int rc = l2_find(q, r.offset, at, err);

    if (rc < 0)
        return rc;
    if (at->table && !at->slice)
        return -EAGAIN;
    for (uint64_t c = align_down(r.offset, cs); c < range_end(r); c += cs) {
        struct qcow2_l2_entry e = entry_of(q, at->slice, c);

        rc = l2_check_entry(q, c, e, err);
        if (rc < 0)
            return rc;
        if ((e.word & QCOW2_COMPRESSED) && is_partial(q, r) &&
            kind != ZERO_ABSENT)
            return LOOK_INFLATE;
        struct qcow2_l2_entry new = zeroed_entry(q, kind, e, c, r);
        if (new.word != e.word || new.bitmap != e.bitmap)
            result = LOOK_CHANGE;
    }
    return result;
}

static int look_and_load(struct qcow2 *q, enum zero_kind kind, struct range r,
                         struct lam_error *err)
{
    struct slice *pinned = NULL;

    for (;;) {
        struct l2_place at;

        pthread_rwlock_rdlock(&q->lock);
        int rc = look(q, kind, r, &at, err);
        pthread_rwlock_unlock(&q->lock);
        if (pinned)
            slice_unpin(pinned);
        pinned = NULL;
        if (rc != -EAGAIN)
            return rc;
        lam_io_event(q->io, IO_EVENT_L2_LOAD);
        rc = l2_load_verified(q, at.host, r.offset, &pinned, err);
        if (rc < 0)
            return rc;
    }
}

/* The host is told of what the guest gives up, and of what lies behind a new
 * end always. */
static bool is_told(const struct qcow2 *q, enum zero_kind kind)
{
    if (kind == ZERO_FORGET)
        return true;
    return kind != ZERO_KEEP && q->pass_request;
}

/* What entry @e of the cluster at @guest had and @new has not. */
static void note_old(const struct qcow2 *q, enum zero_kind kind,
                     uint64_t guest, struct qcow2_l2_entry e,
                     struct qcow2_l2_entry new, struct release_batch *old)
{
    bool told = is_told(q, kind);

    if (kind == ZERO_ABSENT)
        return;
    if ((e.word & QCOW2_COMPRESSED) ||
        (!q->data_file && entry_offset(e.word) && !entry_offset(new.word)))
        release_add_entry(q, old, e, told || q->pass_request);
    else if (told && kind != ZERO_FORGET && trim_is_due(q, e, new))
        trim_add(q, old, guest, e);
}

static void change_entries(struct qcow2 *q, enum zero_kind kind,
                           struct range r, struct slice *s,
                           struct release_batch *old)
{
    uint64_t cs = q->g.cluster_size;
    uint64_t first = align_down(r.offset, cs);
    size_t byte = l2_slice_byte(q, first);
    uint64_t i = byte / q->g.l2_entry_size;

    pthread_rwlock_wrlock(&q->lock);
    for (uint64_t c = first; c < range_end(r); c += cs, i++) {
        struct qcow2_l2_entry e = l2_get(&q->g, s->data, i);
        struct qcow2_l2_entry new = zeroed_entry(q, kind, e, c, r);

        note_old(q, kind, c, e, new, old);
        l2_put(&q->g, s->data, i, new);
    }
    cache_mark_dirty(&q->l2, s, byte, (size_t)i * q->g.l2_entry_size);
    release_pend(q, old);
    pthread_rwlock_unlock(&q->lock);
}

/* Readers of a raw data file must see the zeroes (format document 12), and see
 * them first.  Others lose what they hold when the entries are on disk. */
static int zero_data_file(struct qcow2 *q, enum zero_kind kind,
                          struct range r, struct lam_error *err)
{
    uint64_t end = min_u64(range_end(r), q->size);

    if (!trim_zeroes_data(q) || end <= r.offset || kind >= ZERO_ABSENT)
        return 0;
    return lam_io_zero(q->data_io, r.offset, end - r.offset,
                       kind == ZERO_UNMAP || is_told(q, kind) ? LAM_ZERO_UNMAP
                                                              : 0, err);
}

/* @r is claimed and lies in one slice. */
static int zero_claimed(struct qcow2 *q, enum zero_kind kind, struct range r,
                        struct lam_error *err)
{
    struct slice *s;
    int rc = look_and_load(q, kind, r, err);

    if (rc != LOOK_CHANGE)
        return rc;
    uint64_t clusters = range_widen(r, q->g.cluster_size).length >>
                        q->g.cluster_bits;
    lam_autofree struct release_batch *old = release_new(clusters);
    if (!old)
        return lam_fail(err, ENOMEM, "no memory for %" PRIu64 " clusters to "
                        "release", clusters);
    rc = zero_data_file(q, kind, r, err);
    if (rc == 0)
        rc = l2_open_for_change(q, r.offset, &s, err);
    if (rc < 0)
        return rc;
    change_entries(q, kind, r, s, lam_take(&old));
    slice_unpin(s);
    return LOOK_CHANGE;
}

/* ------------------------------------------- a part of a compressed cluster */

/* One whole cluster, compressed before, becomes a normal one in which @r is
 * zero.  0 too if it is not compressed any more: the caller looks again. */
static int inflate_and_zero(struct qcow2 *q, struct range r,
                            struct lam_error *err)
{
    uint64_t cluster = align_down(r.offset, q->g.cluster_size);
    struct lam_extents extents = LAM_EXTENTS_INIT;
    struct format_allocation a;
    lam_autofree uint8_t *data = malloc(q->g.cluster_size);

    if (!data)
        return lam_fail(err, ENOMEM, "no memory for a cluster");
    int rc = qcow2_write_begin(q, r.offset, r.length, &a, err);
    if (rc < 0)
        return rc;
    struct format_allocation whole = a;     /* a copy-on-write around @r */
    whole.offset = cluster;
    whole.length = q->g.cluster_size;
    whole.host_offset -= r.offset - cluster;
    /* Claimed: what is compressed now stays until finish. */
    rc = qcow2_map(q, cluster, q->g.cluster_size, &extents, err);
    bool wanted = rc == 0 && extents.items[0].state == LAM_EXTENT_COMPRESSED;
    if (wanted)
        rc = qcow2_read_compressed(q, &extents.items[0], data, err);
    if (wanted && rc == 0) {
        memset(data + (r.offset - cluster), 0, r.length);
        rc = qcow2_write_data(q, &whole, data, err);
    }
    lam_extents_deinit(&extents);
    if (wanted && rc == 0)
        return qcow2_write_finish(q, &a, err);
    qcow2_write_cancel(q, &a);
    return rc;
}

/* --------------------------------------------------------------- the ranges */

/* Whether nothing says zero there, since a backing file would show through an
 * unallocated cluster.  An amendment may change that, unless there is a claim:
 * looked at without one, it saves the work. */
static bool has_no_zero(struct qcow2 *q, enum zero_kind kind)
{
    return kind != ZERO_FORGET && q->has_backing && qcow2_version(q) < 3;
}

static int refuse_zero(enum zero_kind kind, struct lam_error *err)
{
    if (kind == ZERO_DISCARD)
        return 0;
    return lam_fail(err, ENOTSUP, "version 2 with a backing file has no zero "
                    "clusters");
}

/* @asked: what bitmaps record of it. */
static int zero_part(struct qcow2 *q, enum zero_kind kind, struct range r,
                     struct range asked, struct lam_error *err)
{
    if (has_no_zero(q, kind))
        return refuse_zero(kind, err);
    /* A table that is being replaced must not be reused under our hands.
     * Whoever waits for all requests to end has all claims first. */
    uint64_t token = epoch_enter(&q->epoch);
    int rc = 0;
    asked = range_intersect(r, asked);
    if (kind < ZERO_ABSENT)
        rc = bitmaps_mark(q, asked.offset, asked.length, err);
    if (rc == 0)
        rc = zero_claimed(q, kind, r, err);
    epoch_leave(&q->epoch, token);
    return rc;
}

/* A prefix of @r, as far as one claim and one slice reach. */
static int zero_some(struct qcow2 *q, enum zero_kind kind, struct range *r,
                     struct range asked, struct lam_error *err)
{
    uint64_t cover = l2_slice_cover(q);
    uint64_t length = min_u64(r->length, cover - (r->offset & (cover - 1)));
    struct claim claim = { .range = range_widen(range_make(r->offset, length),
                                                q->g.cluster_size) };

    if (!claim_try(&q->inflight, &claim)) {
        claim_wait(&q->inflight, r->offset);
        return 0;
    }
    length = min_u64(length, range_end(claim.range) - r->offset);
    struct range part = range_make(r->offset, length);
    int rc = zero_part(q, kind, part, asked, err);
    claim_drop(&q->inflight, &claim);
    if (rc == LOOK_INFLATE)
        return inflate_and_zero(q, part, err);
    if (rc < 0)
        return rc;
    *r = range_make(r->offset + length, r->length - length);
    return 0;
}

static int zero_range(struct qcow2 *q, enum zero_kind kind, struct range r,
                      struct range asked, struct lam_error *err)
{
    int rc = 0;

    while (rc == 0 && r.length > 0)
        rc = zero_some(q, kind, &r, asked, err);
    if (rc == 0 && release_is_crowded(q))
        rc = qcow2_write_back(q, true, err);
    return rc;
}

/* Cut clusters (extended L2) by themselves: only they may need inflating. */
static int zero_split(struct qcow2 *q, enum zero_kind kind, struct range r,
                      struct range asked, struct lam_error *err)
{
    struct range_split s = range_split(r, q->g.cluster_size);
    int rc = zero_range(q, kind, s.head, asked, err);

    if (rc == 0)
        rc = zero_range(q, kind, s.body, asked, err);
    if (rc == 0)
        rc = zero_range(q, kind, s.tail, asked, err);
    return rc;
}

int qcow2_zero(void *format, uint64_t offset, uint64_t length, unsigned flags,
               struct lam_error *err)
{
    struct qcow2 *q = format;
    uint64_t unit = q->g.subcluster_size;
    enum zero_kind kind = (flags & LAM_ZERO_UNMAP) && q->unmap ? ZERO_UNMAP
                                                               : ZERO_KEEP;
    int rc = qcow2_before_change(q, err);
    if (rc < 0 || !length)
        return rc;
    if (flags & FORMAT_ZERO_ABSENT)
        kind = ZERO_ABSENT;
    if (has_no_zero(q, kind))
        return refuse_zero(kind, err);
    /* What a cut last cluster lacks counts as zero. */
    struct range asked = range_make(offset, length);
    struct range r = range_widen(asked, unit);
    uint64_t cs = q->g.cluster_size;
    if (range_end(asked) == q->size && r.offset <= align_down(q->size, cs))
        r.length = align_up(q->size, cs) - r.offset;
    return zero_split(q, kind, r, asked, err);
}

int qcow2_discard(void *format, uint64_t offset, uint64_t length,
                  struct lam_error *err)
{
    struct qcow2 *q = format;
    uint64_t cs = q->g.cluster_size;
    int rc = qcow2_before_change(q, err);

    if (rc < 0 || !q->unmap)
        return rc;
    if (has_no_zero(q, ZERO_DISCARD))
        return 0;
    /* Also of what is left alone, as the genuine tools do. */
    struct range asked = range_make(offset, length);
    rc = bitmaps_mark(q, offset, length, err);
    uint64_t end = offset + length;
    end = end == q->size ? align_up(end, cs) : align_down(end, cs);
    offset = align_up(offset, cs);
    if (rc < 0 || offset >= end)
        return rc;
    return zero_range(q, ZERO_DISCARD, range_make(offset, end - offset), asked,
                      err);
}

int qcow2_forget(struct qcow2 *q, uint64_t offset, uint64_t length,
                 struct lam_error *err)
{
    assert(is_aligned(offset | length, q->g.cluster_size));
    struct range r = range_make(offset, length);
    return zero_range(q, ZERO_FORGET, r, r, err);
}
