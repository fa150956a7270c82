/* SPDX-License-Identifier: MIT */
/*
 * repair-entries.c - L2 entries that name an unaligned host cluster without
 * showing any of its data (format document 14.3): they lose the offset, and
 * read what they read.  So do those with subclusters that lose bit 0.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "format/qcow2/check-internal.h"

static int by_offset(const void *key, const void *item)
{
    uint64_t x = *(const uint64_t *)key;
    uint64_t y = ((const struct check_l2 *)item)->offset;

    return x < y ? -1 : x > y;
}

const struct check_l2 *check_find_l2(const struct check *c, uint64_t table)
{
    return bsearch(&table, c->l2, c->nb_l2, sizeof *c->l2, by_offset);
}

bool check_owns_l2(const struct check *c, uint64_t table)
{
    const struct check_l2 *l2 = check_find_l2(c, table);

    return l2 && is_aligned(table, c->g.cluster_size) &&
           table < c->file_length &&
           refmap_get(&c->refs, host_cluster(&c->g, table)) == l2->references;
}

/* What check-l2.c announced: a host offset that is unaligned and unused. */
static bool is_due(const struct check *c, struct qcow2_l2_entry e)
{
    enum qcow2_cluster_type type = entry_type(&c->g, e.word, c->data_file);

    if (is_aligned(entry_offset(e.word), c->g.cluster_size))
        return false;
    if (c->g.extended_l2)
        return type == QCOW2_NORMAL && !(e.bitmap & QCOW2_ALL_ALLOCATED);
    return type == QCOW2_ZERO_ALLOC && c->h->version >= 3;
}

static bool has_odd_zero(const struct check *c, struct qcow2_l2_entry e)
{
    return c->g.extended_l2 && (e.word & QCOW2_ZERO) &&
           !(e.word & QCOW2_COMPRESSED);
}

/* What the count has left to us is told now, for only now it is known whether
 * the table may be written to. */
static bool mend_entry(struct check *c, uint64_t i, bool owned)
{
    struct qcow2_l2_entry e = l2_get(&c->g, c->cluster, i);
    bool odd = has_odd_zero(c, e), due = is_due(c, e);

    if (due)
        check_mended(c, owned, 1, "offset=%" PRIx64 ": Preallocated cluster is "
                     "not properly aligned; L2 entry corrupted.",
                     entry_offset(e.word));
    if (odd)
        check_mended(c, owned, 1, "l2 entry with reserved bits set: %" PRIx64,
                     e.word);
    if (odd)
        e.word &= ~QCOW2_ZERO;
    if (due)
        e.word = c->g.extended_l2 ? 0 : QCOW2_ZERO;
    l2_put(&c->g, c->cluster, i, e);
    return odd || due;
}

/* The table at @table, if it needs it and may be written to. */
static int repair_table(struct check *c, uint64_t table, struct lam_error *err)
{
    /* Refcount blocks that were not counted stay if there is no rebuild. */
    bool owned = check_owns_l2(c, table) && !(c->rebuild && c->incomplete);
    bool changed = false;

    if (table >= c->file_length)
        return 0;
    int rc = check_read(c, c->cluster, c->g.cluster_size, table, err);
    if (rc < 0)
        return rc;
    for (uint64_t i = 0; i < c->g.l2_entries; i++)
        changed |= mend_entry(c, i, owned);
    if (!changed)
        return 0;
    if (owned)
        return check_write(c, c->cluster, c->g.cluster_size, table, err);
    check_found(c, LAM_FINDING_CORRUPTION, 0, "ERROR L2 table at offset 0x%"
                PRIx64 " is not repaired: something else lies on it", table);
    c->incomplete = true;
    return 0;
}

int repair_entries(struct check *c, struct lam_error *err)
{
    int rc = 0;

    if (!c->entry_fixes)
        return 0;
    for (size_t i = 0; i < c->nb_l2 && rc == 0; i++)
        rc = repair_table(c, c->l2[i].offset, err);
    /* Their host clusters lose references only when this is on disk. */
    return rc < 0 ? rc : lam_io_flush(c->io, err);
}
