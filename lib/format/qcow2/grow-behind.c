/* SPDX-License-Identifier: MIT */
/*
 * grow-behind.c - room for an area that is preallocated as a whole (format
 * document 7.11).
 *
 * Behind the last cluster in use come the refcount blocks that are missing to
 * count all of it, a new refcount table, and then the area in one piece: the
 * genuine tool's layout, whatever the disk's size.  The old table's clusters
 * are free from then on, and the first L2 tables go there.
 *
 * Blocks and table are on disk before the header names the table.
 */
#include "format/qcow2/alloc.h"
#include "format/qcow2/shrink.h"

#include <inttypes.h>
#include <string.h>

/* All in clusters. */
struct behind {
    uint64_t start;             /* of the new blocks, which nobody uses yet */
    uint64_t new_blocks, table_start, table_clusters, area;
    uint64_t area_clusters;
    uint64_t nb_blocks;         /* refcount table entries with a block then */
};

static bool has_block(const struct qcow2 *q, uint64_t i)
{
    return i < q->alloc.next_block && q->alloc.table[i];
}

/* As many blocks as the genuine tool has for the area and @tables L2 tables: it
 * counts on one more than necessary. */
static void plan_sizes(const struct qcow2 *q, uint64_t tables,
                       struct behind *b)
{
    uint64_t others = b->start + b->area_clusters + tables + 1;
    uint64_t n = max_u64(q->alloc.next_block, 1);

    for (;; n++) {
        b->table_clusters = div_up(n * 8, q->g.cluster_size);
        if (others + b->table_clusters + n <= n * q->g.refblock_entries)
            break;
    }
    b->nb_blocks = n;
    for (uint64_t i = 0; i < n; i++)
        b->new_blocks += !has_block(q, i);
    b->table_start = b->start + b->new_blocks;
    b->area = b->table_start + b->table_clusters;
}

/* Counters of blocks and table are 1, in a block that is there already. */
static int count_in_old(struct qcow2 *q, const struct behind *b,
                        struct lam_error *err)
{
    for (uint64_t c = b->start; c < b->area; c++) {
        if (!has_block(q, reft_index(&q->g, c)))
            continue;
        int rc = alloc_reserve(q, c, 1, err);
        if (rc < 0)
            return rc;
    }
    return alloc_write_back(q, err);
}

/* New ones, with their places in @table. */
static int write_blocks(struct qcow2 *q, const struct behind *b,
                        uint64_t *table, struct lam_error *err)
{
    uint64_t per_block = q->g.refblock_entries, at = b->start;
    int rc = 0;

    lam_io_event(q->io, IO_EVENT_REFBLOCK_ALLOC_WRITE_BLOCKS);
    for (uint64_t i = 0; i < b->nb_blocks && rc == 0; i++) {
        if (has_block(q, i))
            continue;
        uint64_t from = max_u64(i * per_block, b->start);
        uint64_t to = min_u64((i + 1) * per_block, b->area);

        table[i] = at << q->g.cluster_bits;
        rc = grow_write_block(q, at++, from, max_u64(from, to), err);
    }
    return rc;
}

static int build(struct qcow2 *q, const struct behind *b,
                 struct lam_error *err)
{
    uint64_t entries = (b->table_clusters << q->g.cluster_bits) / 8;
    lam_autofree uint64_t *table = calloc(entries, sizeof *table);

    if (!table)
        return lam_fail(err, ENOMEM, "no memory for a refcount table of %"
                        PRIu64 " entries", entries);
    memcpy(table, q->alloc.table, q->alloc.next_block * sizeof *table);
    int rc = count_in_old(q, b, err);
    if (rc == 0)
        rc = write_blocks(q, b, table, err);
    return rc < 0 ? rc
                  : grow_use_table(q, &table, b->table_start,
                                   b->table_clusters, b->nb_blocks, err);
}

/* What count_in_old() has raised, wherever that ended. */
static void forget(struct qcow2 *q, const struct behind *b)
{
    for (uint64_t c = b->start; c < b->area; c++) {
        uint64_t value;

        if (has_block(q, reft_index(&q->g, c)) &&
            refcount_read(q, c, &value, NULL) == 0 && value)
            alloc_drop(q, c << q->g.cluster_bits, q->g.cluster_size, NULL,
                       NULL);
    }
}

/* False if it cannot all lie there: at the end of a device, say. */
static bool fits(struct qcow2 *q, const struct behind *b)
{
    uint64_t all = b->area + b->area_clusters - b->start;

    return b->table_clusters <= QCOW2_MAX_REFCOUNT_TABLE / q->g.cluster_size &&
           alloc_check_place(q, b->start, all, NULL) == 0 &&
           overlap_check(q, 0, b->start << q->g.cluster_bits,
                         all << q->g.cluster_bits, NULL) == 0;
}

int grow_behind(struct qcow2 *q, uint64_t clusters, uint64_t tables,
                uint64_t *host, struct lam_error *err)
{
    struct behind b = { .area_clusters = clusters };

    LAM_LOCKED(&q->alloc_lock);
    int rc = shrink_used_end(q, &b.start, err);
    *host = 0;
    if (rc < 0 || b.start > UINT64_MAX >> q->g.cluster_bits)
        return rc;
    plan_sizes(q, tables, &b);
    if (!fits(q, &b))
        return 0;
    rc = build(q, &b, err);
    if (rc < 0) {
        forget(q, &b);
        return rc;
    }
    rc = alloc_reserve(q, b.area, clusters, err);
    if (rc == 0)
        *host = b.area << q->g.cluster_bits;
    return rc;
}
