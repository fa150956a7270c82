/* SPDX-License-Identifier: MIT */
/*
 * preallocate.c - clusters for a grown area that nobody has written to yet
 * (format document 7.11).
 *
 * Nothing is mapped there, so L2 tables are built in memory and written whole;
 * the table that the old end lies in is changed through the cache.  Host space
 * exists and reads as zero before an entry shows it.  The cluster that the old
 * end lies in gets a place as well, if it has none.
 */
#include "format/qcow2/resize.h"

#include <string.h>

#include "format/inflight.h"
#include "format/qcow2/alloc.h"
#include "format/qcow2/table.h"

struct prealloc {
    struct qcow2 *q;
    uint64_t old_end;           /* whole clusters; below lies the tail */
    uint64_t below_end;
    enum lam_preallocation mode;
    uint64_t next, left;        /* bytes of the host reserved in one piece */
    uint64_t cursor;            /* cluster, where the next run is looked for */
};

/* ----------------------------------------------------------------- entries */

/*
 * Host space reads as zero, but other tools expect to be told so where a
 * backing file would show; and zeroes on the host are noise once decrypted.
 * What the subclusters of the tail are, @was says.
 */
static struct qcow2_l2_entry make_entry(const struct prealloc *p,
                                        uint64_t guest, uint64_t host,
                                        struct qcow2_l2_entry was)
{
    const struct qcow2 *q = p->q;
    struct qcow2_l2_entry e = { .word = host | QCOW2_COPIED };
    bool hides = p->below_end > q->size;
    bool thin = p->mode == LAM_PREALLOC_METADATA;
    bool noise = q->header.crypt_method != QCOW2_CRYPT_NONE;

    if (q->g.extended_l2)
        e.bitmap = guest < p->old_end ? was.bitmap
                 : !hides ? 0
                 : thin || noise ? QCOW2_ALL_ZERO : QCOW2_ALL_ALLOCATED;
    else if (q->header.version >= 3 && (noise || (hides && thin)))
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

/* The same, ready to be shown. */
static int take_run(struct prealloc *p, uint64_t want, uint64_t guest,
                    uint64_t *host, uint64_t *got, struct lam_error *err)
{
    struct qcow2 *q = p->q;

    if (q->data_file) {
        *host = guest;
        *got = want;
        return 0;
    }
    int rc = reserve_run(p, want, host, got, err);
    if (rc < 0)
        return rc;
    uint64_t length = *got << q->g.cluster_bits;
    rc = make_space(p, *host, length, err);
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
 * The tail is the cluster that the old end lies in.  It is part of the area if
 * it has no place on the host and reads the same with one: for its subclusters
 * say what they are, or nothing is below.
 */
static int has_bare_tail(struct qcow2 *q, struct range tail, bool *bare,
                         struct lam_error *err)
{
    struct lam_extents extents lam_cleanup(lam_extents_deinit) =
        LAM_EXTENTS_INIT;
    int rc = 0;

    *bare = q->g.extended_l2 || !q->has_backing;
    if (*bare)
        rc = qcow2_map(q, tail.offset, tail.length, &extents, err);
    for (size_t i = 0; i < extents.count; i++)
        *bare &= !(extents.items[i].flags & LAM_EXTENT_HAS_HOST);
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
                          struct lam_error *err)
{
    struct qcow2 *q = p->q;
    uint64_t cs = q->g.cluster_size;
    struct claim claim = { .range = range_make(p->old_end - cs, cs) };
    bool bare;

    while (!claim_try(&q->inflight, &claim))
        claim_wait(&q->inflight, claim.range.offset);
    int rc = has_bare_tail(q, claim.range, &bare, err);
    if (rc == 0)
        rc = fill_piece(p, p->old_end - (bare ? cs : 0), to, err);
    claim_drop(&q->inflight, &claim);
    return rc;
}

int preallocate_clusters(struct qcow2 *q, uint64_t from, uint64_t to,
                         uint64_t below_end, enum lam_preallocation mode,
                         struct lam_error *err)
{
    struct prealloc p = { .q = q, .old_end = from, .below_end = below_end,
                          .mode = mode };

    return is_aligned(q->size, q->g.cluster_size)
        ? fill_piece(&p, from, to, err) : fill_with_tail(&p, to, err);
}
