/* SPDX-License-Identifier: MIT */
/*
 * create-layout.c - where everything of a new image goes.
 *
 * The clusters of a new image are all in use once, from 0 to the last one:
 *
 *     0  header, extensions, backing file name
 *     1  refcount table
 *     2  refcount block 0
 *     3  L1 table, then what it needs: further refcount blocks, L2 tables
 *
 * which is the genuine tool's layout byte for byte, as long as one cluster of
 * refcount table is enough (without preallocation it always is from 2 KiB
 * clusters up).  With preallocation=metadata each L2 table is followed by the
 * clusters that it maps, and where a refcount block ends the next one comes
 * behind these.  With falloc and full the genuine tool lengthens a small file:
 * all further refcount blocks, a new refcount table, the data in one piece, the
 * L2 tables, of which the first takes the old refcount table's place.
 */
#include "format/qcow2/create-layout.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/arith.h"
#include "format/qcow2/header.h"

/*
 * The next cluster, for whatever.  A cluster that no block covers yet first
 * gets one, in the cluster behind it or wherever that one's own block comes to
 * lie: a block covers itself, or is covered by the next one taken.
 */
static void cover(struct layout *l, uint64_t cluster)
{
    uint64_t i = reft_index(&l->g, cluster);

    if (l->blocks[i])
        return;
    l->blocks[i] = l->nb_clusters++;
    l->nb_blocks = max_u64(l->nb_blocks, i + 1);
    cover(l, l->blocks[i]);
}

static uint64_t take(struct layout *l, uint64_t nb_clusters)
{
    uint64_t first = l->nb_clusters;

    l->nb_clusters += nb_clusters;
    for (uint64_t i = 0; i < nb_clusters; i += l->g.refblock_entries)
        cover(l, first + i);
    if (nb_clusters)
        cover(l, first + nb_clusters - 1);
    return first;
}

/* Clusters of refcount table, and *@nb_blocks blocks, for @nb_clusters others,
 * blocks and table. */
static uint64_t table_clusters(const struct qcow2_geometry *g,
                               uint64_t nb_clusters, uint64_t *nb_blocks)
{
    uint64_t table = 1, blocks = 1;

    for (;;) {
        uint64_t b = div_up(nb_clusters + table + blocks, g->refblock_entries);
        uint64_t t = div_up(b * 8, g->cluster_size);

        if (b <= blocks && t <= table) {
            *nb_blocks = blocks;
            return table;
        }
        blocks = max_u64(b, blocks);
        table = max_u64(t, table);
    }
}

static uint64_t mapped_by(const struct layout *l, const struct layout_demand *d,
                          uint64_t i)
{
    return min_u64(l->g.l2_entries, d->data - i * l->g.l2_entries);
}

/* Tables, then the data in one piece. */
static void place_apart(struct layout *l, const struct layout_demand *d)
{
    for (uint64_t i = 0; i < d->l2; i++)
        l->l2[i] = take(l, 1);
    uint64_t first = take(l, d->data);
    for (uint64_t i = 0; l->data && i < d->l2; i++)
        l->data[i] = first + i * l->g.l2_entries;
}

static void place_mixed(struct layout *l, const struct layout_demand *d)
{
    for (uint64_t i = 0; i < d->l2; i++) {
        l->l2[i] = take(l, 1);
        l->data[i] = take(l, mapped_by(l, d, i));
    }
}

/* As many blocks as the genuine tool makes for all that there is to be; it
 * counts on one more than necessary. */
static uint64_t blocks_for(const struct layout *l,
                           const struct layout_demand *d, uint64_t *table)
{
    uint64_t others = l->nb_clusters + d->data + d->l2 + 1;
    uint64_t blocks = 1;

    if (l->has_luks)
        others += d->luks;
    for (;; blocks++) {
        *table = div_up(blocks * 8, l->g.cluster_size);
        if (others + *table + blocks <= blocks * l->g.refblock_entries)
            return blocks;
    }
}

/* The file is lengthened: what is new goes behind it, and the old refcount
 * table's cluster is free again. */
static void place_behind(struct layout *l, const struct layout_demand *d)
{
    uint64_t blocks = blocks_for(l, d, &l->reft_clusters);

    for (uint64_t i = 0; i < blocks; i++)
        if (!l->blocks[i])
            l->blocks[i] = l->nb_clusters++;
    l->nb_blocks = blocks;
    l->reft_cluster = take(l, l->reft_clusters);
    uint64_t first = take(l, d->data);
    for (uint64_t i = 0; i < d->l2; i++) {
        l->l2[i] = i == 0 ? 1 : take(l, 1);
        l->data[i] = first + i * l->g.l2_entries;
    }
}

static void place(struct layout *l, const struct layout_demand *d,
                  uint64_t nb_blocks)
{
    bool one = l->reft_clusters == 1;
    bool behind = d->data && d->mode > LAM_PREALLOC_METADATA;

    if (behind)
        l->reft_clusters = 1;
    l->nb_clusters = 1 + l->reft_clusters;
    /* All in front of the data: a smaller disk is to be a shorter file. */
    for (; d->data && !one && !behind && l->nb_blocks < nb_blocks;
         l->nb_blocks++)
        l->blocks[l->nb_blocks] = l->nb_clusters++;
    cover(l, 0);
    l->l1_cluster = take(l, d->l1);
    if (behind)
        place_behind(l, d);
    else if (d->data && one)
        place_mixed(l, d);
    else
        place_apart(l, d);
    l->luks_cluster = take(l, d->luks);
}

int layout_make(struct layout *l, const struct layout_demand *d,
                struct lam_error *err)
{
    uint64_t nb_blocks;

    l->reft_cluster = 1;
    l->reft_clusters = table_clusters(&l->g, 1 + d->l1 + d->luks + d->l2 +
                                             d->data, &nb_blocks);
    if (l->reft_clusters << l->g.cluster_bits > QCOW2_MAX_REFCOUNT_TABLE)
        return lam_fail(err, EFBIG, "Refcount table of %" PRIu64 " bytes is "
                        "too large (limit: %d)",
                        l->reft_clusters << l->g.cluster_bits,
                        QCOW2_MAX_REFCOUNT_TABLE);
    /* Room for a table that gets a bit larger. */
    l->blocks = calloc(l->reft_clusters + 1, l->g.cluster_size);
    if (d->l2)
        l->l2 = calloc(d->l2, sizeof *l->l2);
    if (d->data)
        l->data = calloc(d->l2, sizeof *l->data);
    if (!l->blocks || (d->l2 && !l->l2) || (d->data && !l->data))
        return lam_fail(err, ENOMEM, "no memory for a refcount table and %"
                        PRIu64 " L2 tables", d->l2);
    place(l, d, nb_blocks);
    return 0;
}

void layout_deinit(struct layout *l)
{
    luks_volume_deinit(&l->luks);
    free(l->blocks);
    free(l->l2);
    free(l->data);
}
