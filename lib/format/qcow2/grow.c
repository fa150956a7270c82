/* SPDX-License-Identifier: MIT */
/*
 * grow.c - new refcount blocks, and a larger refcount table (format document
 * 5.3).
 *
 * A new block always lies in the range that it describes itself, so that
 * making one never needs another one.  It is written before anything names it;
 * the table entry follows behind a barrier at the next write-back, or at once
 * within a new table.
 */
#include "format/qcow2/alloc.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "format/qcow2/refblock.h"
#include "format/qcow2/release.h"

int grow_write_block(struct qcow2 *q, uint64_t at, uint64_t from, uint64_t to,
                     struct lam_error *err)
{
    lam_autofree uint8_t *block = calloc(1, q->g.cluster_size);

    if (!block)
        return lam_fail(err, ENOMEM, "no memory for a refcount block");
    for (uint64_t c = from; c < to; c++)
        refblock_set(block, q->g.refcount_order, refblock_index(&q->g, c), 1);
    alloc_touch(q, at, max_u64(to, at + 1) - at);
    int rc = lam_io_write(q->io, block, q->g.cluster_size,
                          at << q->g.cluster_bits, err);
    return lam_error_prefix(err, rc, "Could not write new refcount block");
}

void alloc_set_block(struct qcow2 *q, uint64_t i, uint64_t block)
{
    struct allocator *a = &q->alloc;

    a->table[i] = block;
    overlap_add(q, block);
    if (block)
        a->next_block = max_u64(a->next_block, i + 1);
    bool clean = a->dirty_from == a->dirty_to;
    a->dirty_from = clean ? i : min_u64(a->dirty_from, i);
    a->dirty_to = clean ? i + 1 : max_u64(a->dirty_to, i + 1);
}

int grow_write_entries(struct qcow2 *q, struct lam_error *err)
{
    struct allocator *a = &q->alloc;
    size_t from = (size_t)align_down(a->dirty_from, 64);
    size_t to = min_u64(align_up(a->dirty_to, 64), a->table_entries);
    size_t bytes = (to - from) * sizeof(uint64_t);
    lam_autofree uint8_t *buf = malloc(bytes);

    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for refcount table entries");
    for (size_t i = from; i < to; i++)
        be64_put(buf + (i - from) * 8, a->table[i]);
    lam_io_event(q->io, IO_EVENT_REFTABLE_UPDATE);
    int rc = lam_io_write(q->io, buf, bytes, q->header.reft_offset + from * 8,
                          err);
    if (rc < 0)
        return lam_error_prefix(err, rc, "Could not write refcount table");
    a->dirty_from = a->dirty_to = 0;
    return 0;
}

int grow_add_block(struct qcow2 *q, uint64_t at, struct lam_error *err)
{
    uint64_t i = reft_index(&q->g, at);
    int rc = 0;

    if (i >= q->alloc.table_entries)
        return grow_table(q, i + 1, err);
    rc = alloc_check_place(q, at, 1, err);
    if (rc == 0)
        rc = overlap_check(q, 0, at << q->g.cluster_bits, q->g.cluster_size,
                           err);
    if (rc < 0)
        return rc;
    lam_io_event(q->io, IO_EVENT_REFBLOCK_ALLOC_WRITE);
    rc = grow_write_block(q, at, at, at + 1, err);
    if (rc < 0)
        return rc;
    lam_io_event(q->io, IO_EVENT_REFBLOCK_ALLOC_HOOKUP);
    alloc_set_block(q, i, at << q->g.cluster_bits);
    return 0;
}

/* A region behind all that is covered: blocks, then what they were made for. */
struct region {
    uint64_t first_block;       /* index of the first new table entry */
    uint64_t start;             /* cluster of the first block */
    uint64_t blocks, others;    /* clusters */
};

static struct region region_make(const struct qcow2 *q, uint64_t others)
{
    uint64_t per_block = q->g.refblock_entries;
    struct region r = {
        .first_block = q->alloc.next_block,
        .start = q->alloc.next_block * per_block,
        /* A block describes itself and per_block - 1 others. */
        .blocks = div_up(others, per_block - 1),
        .others = others,
    };
    return r;
}

static int region_write(struct qcow2 *q, const struct region *r,
                        struct lam_error *err)
{
    uint64_t used_end = r->start + r->blocks + r->others;
    int rc = alloc_check_place(q, r->start, r->blocks + r->others, err);

    if (rc == 0)
        rc = overlap_check(q, 0, r->start << q->g.cluster_bits,
                           (r->blocks + r->others) << q->g.cluster_bits, err);

    lam_io_event(q->io, IO_EVENT_REFBLOCK_ALLOC_WRITE_BLOCKS);
    for (uint64_t i = 0; rc == 0 && i < r->blocks; i++) {
        uint64_t from = r->start + i * q->g.refblock_entries;
        uint64_t to = min_u64(from + q->g.refblock_entries, used_end);

        rc = grow_write_block(q, r->start + i, from, to, err);
    }
    return rc;
}

static uint64_t region_others(const struct qcow2 *q, const struct region *r)
{
    return (r->start + r->blocks) << q->g.cluster_bits;
}

static void region_enter(struct qcow2 *q, const struct region *r)
{
    for (uint64_t i = 0; i < r->blocks; i++)
        alloc_set_block(q, r->first_block + i,
                        (r->start + i) << q->g.cluster_bits);
}

int grow_append(struct qcow2 *q, uint64_t want, uint64_t *host,
                struct lam_error *err)
{
    struct region r = region_make(q, want);

    if (r.first_block + r.blocks > q->alloc.table_entries) {
        int rc = grow_table(q, r.first_block + r.blocks, err);

        if (rc < 0)
            return rc;
        r = region_make(q, want);
        /* The table's own blocks have taken entries; there may be room in
         * them, but a second growth is rare enough to be let be. */
        if (r.first_block + r.blocks > q->alloc.table_entries)
            return grow_append(q, want, host, err);
    }
    int rc = region_write(q, &r, err);
    if (rc < 0)
        return rc;
    region_enter(q, &r);
    *host = region_others(q, &r);
    return 0;
}

/* Clusters of a table for at least @entries old and new entries and those of
 * the blocks that describe the table itself. */
static int plan_table(struct qcow2 *q, uint64_t entries, struct region *r,
                      struct lam_error *err)
{
    uint64_t per_cluster = q->g.cluster_size / sizeof(uint64_t);
    uint64_t max = QCOW2_MAX_REFCOUNT_TABLE / q->g.cluster_size;
    uint64_t roomy = entries + entries / 2;

    for (uint64_t want = roomy;; want = entries) {
        uint64_t clusters = 0, need = div_up(want, per_cluster);

        while (clusters != need) {
            clusters = need;
            *r = region_make(q, clusters);
            need = max_u64(clusters, div_up(max_u64(want, r->first_block) +
                                            r->blocks, per_cluster));
        }
        if (clusters <= max)
            return 0;
        if (want == entries)
            return lam_fail(err, EFBIG, "refcount table would need %" PRIu64
                            " clusters; the limit is %" PRIu64, clusters, max);
    }
}

/* The header names the new table by one write of 12 bytes. */
static int switch_table(struct qcow2 *q, uint64_t host, uint64_t clusters,
                        struct lam_error *err)
{
    lam_io_event(q->io, IO_EVENT_REFBLOCK_ALLOC_SWITCH_TABLE);
    pthread_rwlock_wrlock(&q->lock);    /* l2_check_entry() looks there */
    q->header.reft_offset = host;
    q->header.reft_clusters = (uint32_t)clusters;
    pthread_rwlock_unlock(&q->lock);
    return qcow2_switch_header(q, QH_REFT_OFFSET, QH_NB_SNAPSHOTS, err);
}

static int write_table(struct qcow2 *q, const uint64_t *table, uint64_t host,
                       uint64_t bytes, struct lam_error *err)
{
    lam_autofree uint8_t *buf = malloc(bytes);

    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for a refcount table");
    for (uint64_t i = 0; i < bytes / 8; i++)
        be64_put(buf + i * 8, table[i]);
    lam_io_event(q->io, IO_EVENT_REFBLOCK_ALLOC_WRITE_TABLE);
    int rc = lam_io_write(q->io, buf, bytes, host, err);

    /* With everything that the table names, older blocks included: nothing
     * names the table yet. */
    return rc < 0 ? rc : lam_io_flush(q->io, err);
}

int grow_use_table(struct qcow2 *q, uint64_t **table, uint64_t at,
                   uint64_t clusters, uint64_t nb_blocks,
                   struct lam_error *err)
{
    struct allocator *a = &q->alloc;
    uint64_t host = at << q->g.cluster_bits;
    uint64_t bytes = clusters << q->g.cluster_bits;
    uint64_t old = q->header.reft_offset;
    uint64_t old_bytes = a->table_entries * sizeof(uint64_t);
    int rc = write_table(q, *table, host, bytes, err);

    if (rc == 0)
        rc = switch_table(q, host, clusters, err);
    if (rc < 0)
        return rc;
    for (uint64_t i = 0; i < nb_blocks; i++)
        if (i >= a->table_entries || (*table)[i] != a->table[i])
            overlap_add(q, (*table)[i]);
    free(a->table);
    a->table = lam_take(table);
    a->table_entries = bytes / sizeof(uint64_t);
    a->next_block = nb_blocks;
    a->dirty_from = a->dirty_to = 0;
    release_table(q, old, old_bytes);
    return 0;
}

int grow_table(struct qcow2 *q, uint64_t entries, struct lam_error *err)
{
    struct allocator *a = &q->alloc;
    struct region r = { 0 };

    lam_io_event(q->io, IO_EVENT_REFTABLE_GROW);
    int rc = plan_table(q, entries, &r, err);

    if (rc < 0)
        return rc;
    size_t new_entries = (r.others << q->g.cluster_bits) / sizeof(uint64_t);
    lam_autofree uint64_t *table = calloc(new_entries, sizeof *table);
    if (!table)
        return lam_fail(err, ENOMEM, "no memory for a refcount table of %zu "
                        "entries", new_entries);
    memcpy(table, a->table, a->table_entries * sizeof *table);
    for (uint64_t i = 0; i < r.blocks; i++)
        table[r.first_block + i] = (r.start + i) << q->g.cluster_bits;

    rc = region_write(q, &r, err);
    return rc < 0 ? rc
                  : grow_use_table(q, &table, r.start + r.blocks, r.others,
                                   r.first_block + r.blocks, err);
}
