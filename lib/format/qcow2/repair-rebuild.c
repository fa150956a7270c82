/* SPDX-License-Identifier: MIT */
/*
 * repair-rebuild.c - refcount blocks and their table made anew (format
 * document 5.3, 14.3).
 *
 * All of the new lies in clusters that nothing refers to and that no readable
 * counter claims, so that until the header names the new table, by one write
 * of 12 bytes, the image is what it was.  The counters are made for the time
 * after: the old structures are free in them.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/qcow2/check-internal.h"
#include "format/qcow2/refblock.h"

enum { MAX_ENTRIES = QCOW2_MAX_REFCOUNT_TABLE / 8 };
#define UNPLACED UINT64_MAX

struct rebuild {
    struct check *c;
    uint64_t *place;            /* MAX_ENTRIES: cluster of each block; 0: no
                                   block is needed, or UNPLACED */
    uint64_t entries;           /* one more than the last that is needed */
    uint64_t pending;           /* blocks still UNPLACED */
    uint64_t cursor;            /* no free cluster below */
    uint64_t table, table_clusters;
    uint64_t lost;              /* counters too narrow */
};

/* ------------------------------------------------------------ free clusters */

static bool is_free(const struct rebuild *r, uint64_t cluster)
{
    struct check *c = r->c;
    uint64_t refcount;

    if (refmap_get(&c->refs, cluster))
        return false;
    if (cluster >= div_up(c->file_length, c->g.cluster_size))
        return true;
    /* A counter that cannot be read may claim it. */
    return check_refcount(c, cluster, &refcount) && !refcount;
}

static int check_place(const struct rebuild *r, uint64_t end,
                       struct lam_error *err)
{
    uint64_t limit = (UINT64_C(1) << 56) >> r->c->g.cluster_bits;

    if (!r->c->io->limits.can_grow)
        limit = r->c->file_length >> r->c->g.cluster_bits;
    return end <= limit ? 0
         : lam_fail(err, ENOSPC, "No space left on device for new refcount "
                    "structures: %" PRIu64 " clusters", limit);
}

/* @cluster has references: it needs a block. */
static int need_block(struct rebuild *r, uint64_t cluster,
                      struct lam_error *err)
{
    uint64_t index = reft_index(&r->c->g, cluster);

    if (index >= MAX_ENTRIES)
        return lam_fail(err, EFBIG, "host cluster %" PRIu64 " is beyond what a "
                        "refcount table of %d bytes covers", cluster,
                        QCOW2_MAX_REFCOUNT_TABLE);
    if (r->place[index])
        return 0;
    r->place[index] = UNPLACED;
    r->pending++;
    r->entries = max_u64(r->entries, index + 1);
    return 0;
}

/* What was named behind the end of the file becomes a part of it where the file
 * grows past it: from now on its references count. */
static int pass_by(struct rebuild *r, uint64_t cluster, struct lam_error *err)
{
    uint64_t named = refmap_get(&r->c->beyond, cluster);
    int rc = named ? refmap_extend(&r->c->refs, cluster + 1, err) : 0;

    if (!named || rc < 0)
        return rc;
    refmap_drop(&r->c->beyond, cluster, named);
    rc = refmap_add(&r->c->refs, cluster, named, err);
    return rc < 0 ? rc : need_block(r, cluster, err);
}

/* The first run of @n free clusters, which get one reference each. */
static int take_run(struct rebuild *r, uint64_t n, uint64_t *first,
                    struct lam_error *err)
{
    uint64_t run = 0, at = r->cursor;

    for (; run < n; at++) {
        int rc = check_place(r, at + 1, err);
        if (rc == 0)
            rc = pass_by(r, at, err);
        if (rc < 0)
            return rc;
        run = is_free(r, at) ? run + 1 : 0;
    }
    *first = at - n;
    if (n == 1)
        r->cursor = at;
    int rc = refmap_extend(&r->c->refs, at, err);
    for (uint64_t i = *first; rc == 0 && i < at; i++)
        rc = refmap_add(&r->c->refs, i, 1, err);
    return rc;
}

static void give_back(struct rebuild *r, uint64_t first, uint64_t n)
{
    for (uint64_t i = first; i < first + n; i++)
        refmap_drop(&r->c->refs, i, 1);
}

/* ------------------------------------------------------------------- blocks */

static int find_needed(struct rebuild *r, struct lam_error *err)
{
    const struct refmap *refs = &r->c->refs;
    int rc = 0;

    for (uint64_t i = 0; i < refs->nb_leaves; i++) {
        if (!refs->leaves[i])
            continue;
        for (uint64_t j = 0; j < REFMAP_LEAF && rc == 0; j++)
            if (refmap_get(refs, i * REFMAP_LEAF + j))
                rc = need_block(r, i * REFMAP_LEAF + j, err);
    }
    return rc;
}

/* A block may make one more necessary, which counts it. */
static int place_blocks(struct rebuild *r, struct lam_error *err)
{
    while (r->pending) {
        for (uint64_t i = 0; i < r->entries; i++) {
            if (r->place[i] != UNPLACED)
                continue;
            int rc = take_run(r, 1, &r->place[i], err);
            if (rc < 0)
                return rc;
            r->pending--;
            rc = need_block(r, r->place[i], err);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

static uint64_t table_clusters(const struct rebuild *r)
{
    return div_up(r->entries * 8, r->c->g.cluster_size);
}

/* The table, and the blocks that it makes necessary: if these make it longer,
 * it goes elsewhere. */
static int place_table(struct rebuild *r, struct lam_error *err)
{
    for (;;) {
        uint64_t n = table_clusters(r);
        int rc = take_run(r, n, &r->table, err);

        for (uint64_t i = 0; rc == 0 && i < n; i++)
            rc = need_block(r, r->table + i, err);
        if (rc == 0)
            rc = place_blocks(r, err);
        if (rc < 0)
            return rc;
        r->table_clusters = n;
        if (table_clusters(r) <= n)
            return 0;
        give_back(r, r->table, n);
    }
}

/* ------------------------------------------------------- the old structures */

typedef int cluster_fn(struct rebuild *r, uint64_t cluster,
                       struct lam_error *err);

static int each_of_block(struct rebuild *r, uint64_t word, bool counted,
                         cluster_fn *fn, struct lam_error *err)
{
    const struct check *c = r->c;
    uint64_t offset = word & QCOW2_REFT_MASK;
    bool sound = !(word & QCOW2_REFT_RESERVED) &&
                 is_aligned(offset, c->g.cluster_size);

    if (!word || offset >= c->file_length || sound != counted)
        return 0;
    uint64_t first = host_cluster(&c->g, offset);
    int rc = fn(r, first, err);
    if (rc == 0 && !is_aligned(offset, c->g.cluster_size) &&
        first + 1 < c->refs.nb_clusters)
        rc = fn(r, first + 1, err);
    return rc;
}

/* Blocks that the count took for such (@counted), or those that it did not. */
static int each_old_block(struct rebuild *r, bool counted, cluster_fn *fn,
                          struct lam_error *err)
{
    int rc = 0;

    for (uint64_t i = 0; i < r->c->reft_entries && rc == 0; i++)
        rc = each_of_block(r, r->c->reft[i], counted, fn, err);
    return rc;
}

static int each_old_table_cluster(struct rebuild *r, cluster_fn *fn,
                                  struct lam_error *err)
{
    const struct check *c = r->c;
    uint64_t first = host_cluster(&c->g, c->h->reft_offset);
    uint64_t end = c->h->reft_offset +
                   ((uint64_t)c->h->reft_clusters << c->g.cluster_bits);
    int rc = 0;

    if (end > c->file_length && end - c->file_length >= c->g.cluster_size)
        return 0;                   /* not counted either */
    for (uint64_t i = 0; i < c->h->reft_clusters && rc == 0; i++)
        rc = fn(r, first + i, err);
    return rc;
}

static int hold(struct rebuild *r, uint64_t cluster, struct lam_error *err)
{
    return refmap_add(&r->c->refs, cluster, 1, err);
}

static int drop(struct rebuild *r, uint64_t cluster, struct lam_error *err)
{
    (void)err;
    refmap_drop(&r->c->refs, cluster, 1);
    return 0;
}

/* What is freed, as the genuine tool tells it; not a leak that was found. */
static int drop_and_tell(struct rebuild *r, uint64_t cluster,
                         struct lam_error *err)
{
    uint64_t before = refmap_get(&r->c->refs, cluster);

    drop(r, cluster, err);
    check_mended(r->c, true, 0, "cluster %" PRIu64 " refcount=%" PRIu64
                 " reference=%" PRIu64, cluster, before, before - 1);
    return 0;
}

/* ------------------------------------------------------------------ writing */

static uint64_t counter(struct rebuild *r, uint64_t cluster)
{
    uint64_t n = refmap_get(&r->c->refs, cluster);

    if (n <= r->c->g.refcount_max)
        return n;
    r->lost++;
    return r->c->g.refcount_max;
}

static int write_blocks(struct rebuild *r, struct lam_error *err)
{
    struct check *c = r->c;
    lam_autofree uint8_t *block = malloc(c->g.cluster_size);
    int rc = 0;

    if (!block)
        return lam_fail(err, ENOMEM, "no memory for a refcount block");
    for (uint64_t i = 0; i < r->entries && rc == 0; i++) {
        if (!r->place[i])
            continue;
        memset(block, 0, c->g.cluster_size);
        for (uint64_t j = 0; j < c->g.refblock_entries; j++)
            refblock_set(block, c->g.refcount_order, j,
                         counter(r, i * c->g.refblock_entries + j));
        rc = check_write(c, block, c->g.cluster_size,
                         r->place[i] << c->g.cluster_bits, err);
    }
    return rc;
}

/* Native, as struct check has it. */
static uint64_t *make_table(const struct rebuild *r)
{
    const struct check *c = r->c;
    uint64_t *table = calloc(r->table_clusters, c->g.cluster_size);

    for (uint64_t i = 0; table && i < r->entries; i++)
        table[i] = r->place[i] << c->g.cluster_bits;
    return table;
}

static int write_table(struct rebuild *r, const uint64_t *table,
                       struct lam_error *err)
{
    struct check *c = r->c;
    uint64_t bytes = r->table_clusters << c->g.cluster_bits;
    lam_autofree uint8_t *buf = malloc(bytes);

    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for a refcount table of %"
                        PRIu64 " bytes", bytes);
    for (uint64_t i = 0; i < bytes / 8; i++)
        be64_put(buf + i * 8, table[i]);
    return check_write(c, buf, bytes, r->table << c->g.cluster_bits, err);
}

static int switch_header(struct rebuild *r, struct qcow2 *q,
                         struct lam_error *err)
{
    int rc = lam_io_flush(r->c->io, err);

    if (rc < 0)
        return rc;
    q->header.reft_offset = r->table << r->c->g.cluster_bits;
    q->header.reft_clusters = (uint32_t)r->table_clusters;
    rc = qcow2_write_header(q, QH_REFT_OFFSET, QH_NB_SNAPSHOTS, err);
    return rc < 0 ? rc : lam_io_flush(r->c->io, err);
}

static int place(struct rebuild *r, struct lam_error *err)
{
    int rc = each_old_block(r, false, hold, err);

    if (rc == 0)
        rc = find_needed(r, err);
    if (rc == 0)
        rc = place_blocks(r, err);
    if (rc == 0)
        rc = place_table(r, err);
    if (rc == 0)
        rc = each_old_block(r, false, drop, err);
    if (rc == 0)
        rc = each_old_table_cluster(r, drop_and_tell, err);
    return rc < 0 ? rc : each_old_block(r, true, drop_and_tell, err);
}

static int rebuild(struct rebuild *r, struct qcow2 *q, struct lam_error *err)
{
    struct check *c = r->c;
    int rc = place(r, err);

    if (rc == 0)
        rc = write_blocks(r, err);
    if (rc < 0)
        return rc;
    lam_autofree uint64_t *table = make_table(r);
    if (!table)
        return lam_fail(err, ENOMEM, "no memory for a refcount table");
    rc = write_table(r, table, err);
    if (rc == 0)
        rc = switch_header(r, q, err);
    if (rc < 0)
        return rc;
    free(c->reft);
    c->reft = lam_take(&table);
    c->reft_entries = (r->table_clusters << c->g.cluster_bits) / 8;
    check_forget_blocks(c);
    return lam_io_size(c->io, &c->file_length, err);
}

int repair_rebuild(struct check *c, struct qcow2 *q, struct lam_error *err)
{
    struct rebuild r = { .c = c, .place = calloc(MAX_ENTRIES, 8) };

    if (!r.place)
        return lam_fail(err, ENOMEM, "no memory for a refcount table");
    int rc = rebuild(&r, q, err);
    free(r.place);
    if (rc == 0 && r.lost)
        check_found(c, LAM_FINDING_CORRUPTION, r.lost, "ERROR %" PRIu64
                    " clusters have more references than refcounts of %u bits "
                    "can hold", r.lost, c->g.refcount_bits);
    return rc;
}
