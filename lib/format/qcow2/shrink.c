/* SPDX-License-Identifier: MIT */
/*
 * shrink.c - a smaller virtual disk (format document 13.2).
 *
 * The size field decides, so it comes first: a crash before it leaves the old
 * disk whole, a crash after it the new one, with clusters mapped behind its end
 * that nobody sees and the next resize drops.
 */
#include "format/qcow2/shrink.h"

#include <inttypes.h>

#include "format/inflight.h"
#include "format/qcow2/alloc.h"
#include "format/qcow2/bulk.h"
#include "format/qcow2/check.h"
#include "format/qcow2/release.h"
#include "format/qcow2/resize.h"
#include "format/qcow2/table.h"

/* --------------------------------------------------- tables behind the end */

/* What L1 entry @i names and that table's contents, as on disk.  Without a
 * table *@host is 0. */
static int read_table(struct qcow2 *q, uint64_t i, uint8_t *table,
                      uint64_t *host, struct lam_error *err)
{
    bool copied;

    pthread_rwlock_rdlock(&q->lock);
    int rc = l1_lookup(q, i * q->g.l2_cover, host, &copied, err);
    pthread_rwlock_unlock(&q->lock);
    if (rc < 0 || !*host)
        return rc;
    rc = lam_io_read(q->io, table, q->g.cluster_size, *host, err);
    return lam_error_prefix(err, rc, "Could not read L2 table at %#" PRIx64,
                            *host);
}

static int check_table(struct qcow2 *q, const uint8_t *table, uint64_t i,
                       uint64_t from, struct lam_error *err)
{
    for (uint64_t j = 0; j < q->g.l2_entries; j++) {
        uint64_t guest = i * q->g.l2_cover + (j << q->g.cluster_bits);
        struct qcow2_l2_entry e = l2_get(&q->g, table, j);
        int rc = guest < from ? 0 : l2_check_entry(q, guest, e, err);

        if (rc < 0)
            return rc;
    }
    return 0;
}

int shrink_check(struct qcow2 *q, uint64_t from, struct lam_error *err)
{
    lam_autofree uint8_t *table = malloc(q->g.cluster_size);
    int rc = 0;

    if (!table)
        return lam_fail(err, ENOMEM, "no memory for an L2 table");
    for (uint64_t i = l1_index(&q->g, from); i < q->l1_size && rc == 0; i++) {
        uint64_t host;

        rc = read_table(q, i, table, &host, err);
        if (rc == 0 && host)
            rc = check_table(q, table, i, from, err);
    }
    return rc;
}

/* The table at @host and what it holds, one reference of each. */
static struct release_batch *table_releases(const struct qcow2 *q,
                                            const uint8_t *table,
                                            uint64_t host)
{
    struct release_batch *b = release_new(q->g.l2_entries + 1);

    if (!b)
        return NULL;
    for (uint64_t j = 0; j < q->g.l2_entries; j++) {
        struct qcow2_l2_entry e = l2_get(&q->g, table, j);

        if (e.word)
            release_add_entry(q, b, e, true);
    }
    b->items[b->count++] = (struct release){
        .offset = host, .length = q->g.cluster_size, .discard = true,
        .table = true };
    struct release_batch *small = realloc(b, sizeof *b + b->count *
                                             sizeof b->items[0]);
    return small ? small : b;
}

/* L1 entry @i: nobody maps anything behind the end meanwhile. */
static int drop_table(struct qcow2 *q, uint64_t i, uint8_t *table,
                      struct lam_error *err)
{
    uint64_t host;
    int rc = read_table(q, i, table, &host, err);

    if (rc == 0 && host)
        rc = check_table(q, table, i, 0, err);
    if (rc < 0 || !host)
        return rc;
    struct release_batch *old = table_releases(q, table, host);
    if (!old)
        return lam_fail(err, ENOMEM, "no memory for the clusters to release");
    pthread_rwlock_wrlock(&q->lock);
    q->l1[i] = 0;
    l1_mark_dirty(q, i);
    release_pend(q, old);
    pthread_rwlock_unlock(&q->lock);
    return release_is_crowded(q) ? qcow2_write_back(q, true, err) : 0;
}

/* Tables are not changed, only let go: those that a snapshot shares stay as
 * they are. */
static int drop_tables(struct qcow2 *q, uint64_t first, struct lam_error *err)
{
    struct claim claim;
    lam_autofree uint8_t *table = malloc(q->g.cluster_size);

    if (!table)
        return lam_fail(err, ENOMEM, "no memory for an L2 table");
    claim_all(&q->inflight, &claim);
    int rc = qcow2_write_back(q, true, err);    /* the file has the entries */
    lam_io_event(q->io, IO_EVENT_L1_SHRINK_WRITE_TABLE);
    lam_io_event(q->io, IO_EVENT_L1_SHRINK_FREE_L2_CLUSTERS);
    for (uint64_t i = first; i < q->l1_size && rc == 0; i++)
        if (q->l1[i])
            rc = drop_table(q, i, table, err);
    claim_drop(&q->inflight, &claim);
    return rc;
}

static bool has_table(struct qcow2 *q, uint64_t first, uint64_t end)
{
    bool found = false;

    pthread_rwlock_rdlock(&q->lock);
    for (uint64_t i = first; i < min_u64(end, q->l1_size) && !found; i++)
        found = q->l1[i] != 0;
    pthread_rwlock_unlock(&q->lock);
    return found;
}

int shrink_drop_behind(struct qcow2 *q, uint64_t from, struct lam_error *err)
{
    uint64_t whole = align_up(from, q->g.l2_cover);
    uint64_t first = l1_index(&q->g, whole);
    int rc = 0;

    if (from < whole && has_table(q, first - 1, first))
        rc = qcow2_forget(q, from, whole - from, err);
    if (rc == 0 && has_table(q, first, UINT64_MAX))
        rc = drop_tables(q, first, err);
    return rc < 0 ? rc : qcow2_write_back(q, true, err);
}

/* -------------------------------------------------------- refcount blocks */

/* Block @i counts nothing, or itself and nothing else. */
static int block_is_idle(struct qcow2 *q, uint64_t i, bool *idle,
                         struct lam_error *err)
{
    uint64_t from = i * q->g.refblock_entries;
    uint64_t end = from + q->g.refblock_entries;
    uint64_t own = host_cluster(&q->g, q->alloc.table[i]);
    uint64_t used;
    int rc = alloc_find_used(q, from, end, &used, err);

    if (rc == 0 && used == own && used < end)
        rc = alloc_find_used(q, own + 1, end, &used, err);
    *idle = rc == 0 && used == end;
    return rc;
}

/* Takes idle blocks out of the table in memory; @places[i] keeps where each
 * was. */
static int unlink_idle(struct qcow2 *q, uint64_t *places, uint64_t *count,
                       struct lam_error *err)
{
    struct allocator *a = &q->alloc;
    uint64_t end = a->next_block;

    *count = 0;
    for (uint64_t i = 1; i < end; i++) {
        bool idle = false;
        int rc = a->table[i] ? block_is_idle(q, i, &idle, err) : 0;

        if (rc < 0)
            return rc;
        if (!idle)
            continue;
        places[i] = a->table[i];
        alloc_set_block(q, i, 0);
        ++*count;
    }
    return 0;
}

static void relink(struct qcow2 *q, const uint64_t *places, uint64_t end)
{
    for (uint64_t i = 0; i < end; i++)
        if (places[i])
            alloc_set_block(q, i, places[i]);
}

/* Off the disk: the clusters of the blocks are free, and nothing of them may
 * be written any more. */
static void forget_blocks(struct qcow2 *q, const uint64_t *places,
                          uint64_t end)
{
    struct allocator *a = &q->alloc;

    for (uint64_t i = 0; i < end; i++) {
        if (!places[i])
            continue;
        cache_forget(&a->cache, places[i], q->g.cluster_size);
        a->hint = min_u64(a->hint, i * q->g.refblock_entries);
        uint64_t own = host_cluster(&q->g, places[i]);
        if (reft_index(&q->g, own) != i)
            alloc_drop(q, places[i], q->g.cluster_size, NULL, NULL);
    }
    while (a->next_block > 0 && !a->table[a->next_block - 1])
        a->next_block--;
}

/* Under alloc_lock, write-backs kept out: until the table without them is on
 * disk, the clusters of the blocks are given to nobody. */
static int drop_blocks(struct qcow2 *q, struct lam_error *err)
{
    uint64_t end = q->alloc.next_block, count;
    lam_autofree uint64_t *places = calloc(end + 1, sizeof *places);

    if (!places)
        return lam_fail(err, ENOMEM, "no memory for %" PRIu64 " refcount "
                        "blocks", end);
    int rc = alloc_write_back(q, err);      /* blocks are clean from here */
    if (rc == 0)
        rc = unlink_idle(q, places, &count, err);
    if (rc == 0 && !count)
        return 0;
    if (rc == 0)
        rc = alloc_write_back(q, err);
    if (rc == 0)
        rc = lam_io_flush(q->io, err);
    if (rc < 0) {
        relink(q, places, end);
        return rc;
    }
    forget_blocks(q, places, end);
    return alloc_write_back(q, err);
}

/* ------------------------------------------------------------ end of file */

int shrink_used_end(struct qcow2 *q, uint64_t *end, struct lam_error *err)
{
    uint64_t n = q->g.refblock_entries;

    for (uint64_t i = q->alloc.next_block; i > 0; i--) {
        uint64_t used;

        if (!q->alloc.table[i - 1])
            continue;
        *end = 0;
        for (uint64_t c = (i - 1) * n; c < i * n; c = used + 1) {
            int rc = alloc_find_used(q, c, i * n, &used, err);

            if (rc < 0)
                return rc;
            if (used < i * n)
                *end = used + 1;
        }
        if (*end)
            return 0;
    }
    *end = UINT64_MAX;
    return 0;
}

static int cut_file(struct qcow2 *q, struct lam_error *err)
{
    uint64_t end;
    int rc = shrink_used_end(q, &end, err);

    if (rc < 0 || end > UINT64_MAX >> q->g.cluster_bits)
        return rc;
    end <<= q->g.cluster_bits;
    if (!q->io->limits.can_grow || end >= atomic_load(&q->io->size))
        return 0;
    return lam_io_truncate(q->io, end, err);
}

static int cut_locked(struct qcow2 *q, struct lam_error *err)
{
    LAM_LOCKED(&q->alloc_lock);
    release_reap(q);
    int rc = drop_blocks(q, err);
    if (rc == 0)
        rc = cut_file(q, err);
    return rc < 0 ? rc : lam_io_flush(q->io, err);
}

int shrink_file(struct qcow2 *q, struct lam_error *err)
{
    flusher_stop(q);
    int rc = cut_locked(q, err);
    flusher_resume(q);
    return rc;
}

/* --------------------------------------------------------------- all of it */

/*
 * What is dropped takes references with it: where counters are too low, that
 * would free clusters, and punch holes into them, that what stays refers to.
 * Nobody changes the image while it is looked at.
 */
static int check_counters(struct qcow2 *q, struct lam_error *err)
{
    struct lam_check_result found;
    struct bulk b;
    int rc = bulk_begin(&b, q, err);

    if (rc == 0)
        rc = qcow2_check_run(q->io, &q->header, NULL, NULL, &found, err);
    if (rc == 0 && (found.corruptions || found.check_errors))
        rc = lam_fail(err, EUCLEAN, "Check the image before it is made "
                      "smaller: %" PRIu64 " errors were found in it",
                      found.corruptions + found.check_errors);
    bulk_end(&b);
    return rc;
}

int qcow2_shrink(struct qcow2 *q, uint64_t size, struct lam_error *err)
{
    uint64_t from = align_up(size, q->g.cluster_size);
    int rc = qcow2_write_back(q, true, err);

    /* What cannot be dropped is found before anything changes. */
    if (rc == 0)
        rc = shrink_check(q, from, err);
    if (rc == 0)
        rc = check_counters(q, err);
    if (rc == 0)
        rc = resize_set_size(q, size, err);
    if (rc == 0)
        rc = resize_zero_tail(q, size, from, err);
    if (rc == 0)
        rc = shrink_drop_behind(q, from, err);
    if (rc == 0)
        rc = shrink_file(q, err);
    if (rc == 0 && q->data_file)
        rc = lam_io_truncate(q->data_io, size, err);
    return rc;
}
