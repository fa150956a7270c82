/* SPDX-License-Identifier: MIT */
/*
 * preallocate.c - clusters for a grown area that nobody has written to yet
 * (format document 7.11).
 *
 * Nothing is mapped there, so L2 tables are built in memory and written whole;
 * the table that the old end lies in is changed through the cache.  Host space
 * exists and reads as zero before an entry shows it.  The cluster that the old
 * end lies in, the tail, gets a place as well, if it has none.
 */
#include "format/qcow2/resize.h"

#include <string.h>

#include "base/zeroes.h"
#include "format/inflight.h"
#include "format/qcow2/alloc.h"
#include "format/qcow2/encrypt.h"
#include "format/qcow2/table.h"

struct prealloc {
    struct qcow2 *q;
    uint64_t old_end;           /* whole clusters; below lies the tail */
    uint64_t below_end;
    enum lam_preallocation mode;
    const uint8_t *tail;        /* what is written to it; NULL: it is zero */
    uint64_t next, left;        /* bytes of the host reserved in one piece */
    uint64_t cursor;            /* cluster, where the next run is looked for */
};

/* ----------------------------------------------------------------- entries */

/*
 * Host space reads as zero, but other tools expect to be told so where a
 * backing file would show; and zeroes on the host are noise once decrypted.
 * What the subclusters of the tail are, @was says.  Its own place is the
 * guest's as soon as it is there.
 */
static struct qcow2_l2_entry make_entry(const struct prealloc *p,
                                        uint64_t guest, uint64_t host,
                                        struct qcow2_l2_entry was)
{
    const struct qcow2 *q = p->q;
    struct qcow2_l2_entry e = { .word = host | QCOW2_COPIED };
    bool tail = guest < p->old_end;
    bool hides = p->below_end > q->size;
    bool thin = p->mode == LAM_PREALLOC_METADATA;
    bool noise = q->header.crypt_method != QCOW2_CRYPT_NONE;

    if (q->g.extended_l2)
        e.bitmap = tail ? was.bitmap
                 : !hides ? 0
                 : thin || noise ? QCOW2_ALL_ZERO : QCOW2_ALL_ALLOCATED;
    else if (q->header.version >= 3 &&
             (tail ? noise && !p->tail : noise || (hides && thin)))
        e.word |= QCOW2_ZERO;
    return e;
}

/* ------------------------------------------------------------- host space */

/* Zeroes at [host, host + length), which was free.  Thin and behind the end of
 * the file there is nothing to do yet. */
static int make_space(const struct prealloc *p, uint64_t host, uint64_t length,
                      struct lam_error *err)
{
    struct lam_io *io = p->q->io;
    uint64_t size = atomic_load(&io->size);

    if (p->mode == LAM_PREALLOC_METADATA && io->limits.can_grow) {
        if (host >= size)
            return 0;
        length = min_u64(length, size - host);
    }
    return lam_io_preallocate(io, host, length, p->mode, err);
}

/* The file reaches up to @end before an entry points there. */
static int extend_file(const struct prealloc *p, uint64_t end,
                       struct lam_error *err)
{
    struct lam_io *io = p->q->io;

    if (end <= atomic_load(&io->size))
        return 0;
    return lam_io_preallocate(io, end - QCOW2_SECTOR, QCOW2_SECTOR,
                              LAM_PREALLOC_METADATA, err);
}

static void give_back(struct qcow2 *q, uint64_t host, uint64_t length)
{
    LAM_LOCKED(&q->alloc_lock);
    alloc_drop(q, host, length, NULL, NULL);
}

/* What only has to be there some time lies in a row as well, as far as one
 * table maps it.  A device is filled up to the last cluster. */
static int reserve_row(struct prealloc *p, uint64_t want, uint64_t *host,
                       uint64_t *got, struct lam_error *err)
{
    struct qcow2 *q = p->q;

    if (p->mode != LAM_PREALLOC_METADATA || !q->io->limits.can_grow)
        return alloc_clusters(q, want, host, got, err);
    int rc = alloc_contiguous_from(q, max_u64(p->cursor, q->alloc.hint), want,
                                   host, err);
    if (rc < 0)
        return rc;
    *got = want;
    p->cursor = host_cluster(&q->g, *host) + want;
    return 0;
}

/* At most @want clusters in a row: of the piece, or wherever some are free. */
static int reserve_run(struct prealloc *p, uint64_t want, uint64_t *host,
                       uint64_t *got, struct lam_error *err)
{
    struct qcow2 *q = p->q;
    LAM_LOCKED(&q->alloc_lock);

    if (!p->left)
        return reserve_row(p, want, host, got, err);
    *host = p->next;
    *got = min_u64(want, p->left >> q->g.cluster_bits);
    p->next += *got << q->g.cluster_bits;
    p->left -= *got << q->g.cluster_bits;
    return 0;
}

/* The rest of the cluster is zero on the host, too, but once encrypted. */
static int write_tail(const struct prealloc *p, uint64_t guest, uint64_t host,
                      struct lam_error *err)
{
    struct qcow2 *q = p->q;
    uint64_t length = q->size - guest;
    lam_autofree uint8_t *copy = calloc(1, q->g.cluster_size);

    if (!copy)
        return lam_fail(err, ENOMEM, "no memory for a cluster");
    if (p->tail)
        memcpy(copy, p->tail, length);
    if (q->crypt)
        length = q->g.cluster_size;
    struct format_allocation a = { .offset = guest, .length = length,
                                   .host_offset = host, .io = q->data_io };
    return qcow2_write_data(q, &a, copy, err);
}

/* The same, ready to be shown. */
static int take_run(struct prealloc *p, uint64_t want, uint64_t guest,
                    uint64_t *host, uint64_t *got, struct lam_error *err)
{
    struct qcow2 *q = p->q;
    bool tail = guest < p->old_end && p->tail;

    *host = guest;
    *got = want;
    /* A data file may hold there what the guest has discarded. */
    if (q->data_file)
        return guest < p->old_end && !q->g.extended_l2 ?
               write_tail(p, guest, guest, err) : 0;
    int rc = reserve_run(p, want, host, got, err);
    if (rc < 0)
        return rc;
    uint64_t length = *got << q->g.cluster_bits;
    rc = make_space(p, *host, length, err);
    if (rc == 0 && tail)
        rc = write_tail(p, guest, *host, err);
    if (rc < 0)
        give_back(q, *host, length);
    return rc;
}

/* ---------------------------------------------------------- a new L2 table */

/* Entries of [from, to) into @table; *@end is where the file has to end. */
static int fill_table(struct prealloc *p, uint8_t *table, uint64_t from,
                      uint64_t to, uint64_t *end, struct lam_error *err)
{
    const struct qcow2_geometry *g = &p->q->g;

    while (from < to) {
        uint64_t host, got;
        int rc = take_run(p, (to - from) >> g->cluster_bits, from, &host, &got,
                          err);

        if (rc < 0)
            return rc;
        for (uint64_t i = 0; i < got; i++, from += g->cluster_size)
            l2_put(g, table, l2_index(g, from),
                   make_entry(p, from, host + (i << g->cluster_bits),
                              (struct qcow2_l2_entry){ 0, 0 }));
        if (!p->q->data_file)
            *end = max_u64(*end, host + (got << g->cluster_bits));
    }
    return 0;
}

/* What a table that nothing names holds. */
static void drop_table(const struct prealloc *p, const uint8_t *table)
{
    struct qcow2 *q = p->q;

    for (uint64_t i = 0; i < q->g.l2_entries && !q->data_file; i++) {
        uint64_t host = entry_offset(l2_get(&q->g, table, i).word);

        if (host)
            give_back(q, host, q->g.cluster_size);
    }
}

static int reserve_table(struct prealloc *p, uint64_t *host,
                         struct lam_error *err)
{
    uint64_t got;

    LAM_LOCKED(&p->q->alloc_lock);
    return reserve_row(p, 1, host, &got, err);
}

static int new_table(struct prealloc *p, uint8_t *table, uint64_t from,
                     uint64_t to, struct lam_error *err)
{
    struct qcow2 *q = p->q;
    uint64_t host, end = 0;
    int rc = reserve_table(p, &host, err);

    if (rc < 0)
        return rc;
    memset(table, 0, q->g.cluster_size);
    rc = fill_table(p, table, from, to, &end, err);
    if (rc == 0)
        rc = lam_io_write(q->io, table, q->g.cluster_size, host, err);
    if (rc == 0)
        rc = extend_file(p, end, err);
    if (rc < 0) {
        drop_table(p, table);
        give_back(q, host, q->g.cluster_size);
        return rc;
    }
    l2_link_table(q, l1_index(&q->g, from), host, NULL);
    return 0;
}

/* --------------------------------------------------- a table that is there */

static void put_entries(const struct prealloc *p, struct slice *s,
                        uint64_t from, uint64_t host, uint64_t clusters)
{
    struct qcow2 *q = p->q;
    size_t byte = l2_slice_byte(q, from);
    uint64_t first = byte / q->g.l2_entry_size;

    pthread_rwlock_wrlock(&q->lock);
    for (uint64_t i = 0; i < clusters; i++) {
        uint64_t step = i << q->g.cluster_bits;

        l2_put(&q->g, s->data, first + i,
               make_entry(p, from + step, host + step,
                          l2_get(&q->g, s->data, first + i)));
    }
    cache_mark_dirty(&q->l2, s, byte,
                     byte + (size_t)clusters * q->g.l2_entry_size);
    pthread_rwlock_unlock(&q->lock);
}

/* A run in one slice; *@done is how many bytes of it. */
static int fill_slice(struct prealloc *p, uint64_t from, uint64_t to,
                      uint64_t *done, struct lam_error *err)
{
    struct qcow2 *q = p->q;
    uint64_t cover = l2_slice_cover(q), host, got;
    uint64_t length = min_u64(to - from, cover - (from & (cover - 1)));
    struct slice *s;
    int rc = l2_open_for_change(q, from, &s, err);

    if (rc < 0)
        return rc;
    rc = take_run(p, length >> q->g.cluster_bits, from, &host, &got, err);
    if (rc == 0 && !q->data_file) {
        rc = extend_file(p, host + (got << q->g.cluster_bits), err);
        if (rc < 0)
            give_back(q, host, got << q->g.cluster_bits);
    }
    if (rc == 0) {
        put_entries(p, s, from, host, got);
        *done = got << q->g.cluster_bits;
    }
    slice_unpin(s);
    return rc;
}

static int fill_old_table(struct prealloc *p, uint64_t from, uint64_t to,
                          struct lam_error *err)
{
    int rc = 0;

    while (from < to && rc == 0) {
        uint64_t done = 0;

        rc = fill_slice(p, from, to, &done, err);
        from += done;
    }
    return rc;
}

/* --------------------------------------------------------------- all tables */

static bool has_table(struct qcow2 *q, uint64_t guest)
{
    pthread_rwlock_rdlock(&q->lock);
    bool there = q->l1[l1_index(&q->g, guest)] != 0;
    pthread_rwlock_unlock(&q->lock);
    return there;
}

/* Space that exists from the start is taken in one piece. */
static int reserve_piece(struct prealloc *p, uint64_t length,
                         struct lam_error *err)
{
    struct qcow2 *q = p->q;

    if (p->mode <= LAM_PREALLOC_METADATA || q->data_file)
        return 0;
    int rc = grow_behind(q, length >> q->g.cluster_bits,
                         div_up(length, q->g.l2_cover), &p->next, err);

    p->left = rc == 0 && p->next ? length : 0;
    return rc;
}

static int fill_all(struct prealloc *p, uint64_t from, uint64_t to,
                    struct lam_error *err)
{
    struct qcow2 *q = p->q;
    lam_autofree uint8_t *table = malloc(q->g.cluster_size);
    int rc = 0;

    if (!table)
        return lam_fail(err, ENOMEM, "no memory for an L2 table");
    while (from < to && rc == 0) {
        uint64_t end = min_u64(to, align_down(from, q->g.l2_cover) +
                                   q->g.l2_cover);

        rc = has_table(q, from) ? fill_old_table(p, from, end, err)
                                : new_table(p, table, from, end, err);
        from = end;
    }
    return rc;
}

/*
 * The tail is part of the area if it has no place on the host and reads the
 * same with one: for its subclusters say what they are, it is zero, or what is
 * below is known (@below, or NULL) and can be written there.
 */
static int look_at_tail(struct prealloc *p, struct range tail,
                        const uint8_t *below, bool *bare,
                        struct lam_error *err)
{
    struct qcow2 *q = p->q;
    struct lam_extents extents lam_cleanup(lam_extents_deinit) =
        LAM_EXTENTS_INIT;
    int rc = qcow2_map(q, tail.offset, tail.length, &extents, err);

    *bare = true;
    for (size_t i = 0; i < extents.count; i++) {
        const struct lam_extent *e = &extents.items[i];

        *bare &= !(e->flags & LAM_EXTENT_HAS_HOST) &&
                 e->state != LAM_EXTENT_COMPRESSED;
        if (q->g.extended_l2 || !q->has_backing ||
            e->state != LAM_EXTENT_UNALLOCATED)
            continue;
        *bare &= below != NULL;
        if (below && !memory_is_zero(below, q->size - tail.offset))
            p->tail = below;
    }
    return rc;
}

static int fill_piece(struct prealloc *p, uint64_t from, uint64_t to,
                      struct lam_error *err)
{
    int rc = from < to ? reserve_piece(p, to - from, err) : 0;

    if (rc == 0)
        rc = fill_all(p, from, to, err);
    if (p->left)
        give_back(p->q, p->next, p->left);
    return rc;
}

/* The tail is the only part of the area that the guest may be writing to. */
static int fill_with_tail(struct prealloc *p, uint64_t to,
                          const uint8_t *below, struct lam_error *err)
{
    struct qcow2 *q = p->q;
    uint64_t cs = q->g.cluster_size;
    struct claim claim = { .range = range_make(p->old_end - cs, cs) };
    bool bare;

    while (!claim_try(&q->inflight, &claim))
        claim_wait(&q->inflight, claim.range.offset);
    int rc = look_at_tail(p, claim.range, below, &bare, err);
    if (rc == 0)
        rc = fill_piece(p, p->old_end - (bare ? cs : 0), to, err);
    claim_drop(&q->inflight, &claim);
    return rc;
}

int preallocate_clusters(struct qcow2 *q, const struct format_resize *to,
                         struct lam_error *err)
{
    uint64_t end = align_up(to->size, q->g.cluster_size);
    struct prealloc p = { .q = q, .below_end = to->below_end,
                          .mode = to->preallocation };

    p.old_end = align_up(q->size, q->g.cluster_size);
    return p.old_end == q->size ? fill_piece(&p, p.old_end, end, err)
                                : fill_with_tail(&p, end, to->tail, err);
}
