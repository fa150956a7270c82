/* SPDX-License-Identifier: MIT */
/*
 * check-count.c - count every reference to a host cluster (format document
 * 5.2, 14.1): header, active L1, snapshots' L1s, the L2 tables of both, the
 * snapshot table, bitmaps, the encryption header, refcount table and blocks.
 *
 * An L2 table that k L1 tables share adds k references to each of its
 * clusters.  L1 entries are collected first, and each table is walked once.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/qcow2/bitmap.h"
#include "format/qcow2/check-internal.h"

int check_reference(struct check *c, uint64_t offset, uint64_t length,
                    uint64_t weight, struct lam_error *err)
{
    uint64_t end;

    if (!length)
        return 0;
    if (add_overflows(offset, length, &end) ||
        (end > c->file_length &&
         end - c->file_length >= c->g.cluster_size)) {
        check_found(c, LAM_FINDING_CORRUPTION, weight,
                    "ERROR: counting reference for region exceeding the end of "
                    "the file by one cluster or more: offset 0x%" PRIx64
                    " size 0x%" PRIx64, offset, length);
        return 0;
    }
    uint64_t last = host_cluster(&c->g, end - 1);
    for (uint64_t i = host_cluster(&c->g, offset); i <= last; i++) {
        int rc = refmap_add(&c->refs, i, weight, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* References from a table that the file has not got are not counted. */
static void note_presence(struct check *c, uint64_t offset, uint64_t length)
{
    uint64_t end;

    if (length && (add_overflows(offset, length, &end) ||
                   end > align_up(c->file_length, c->g.cluster_size)))
        c->incomplete = true;
}

/* --------------------------------------------------------------- L1 tables */

static int by_offset(const void *a, const void *b)
{
    uint64_t x = ((const struct check_l2 *)a)->offset;
    uint64_t y = ((const struct check_l2 *)b)->offset;

    return x < y ? -1 : x > y;
}

/* Sort the list and make one item of those that name the same table. */
static void collect(struct check *c)
{
    size_t n = 0;

    if (c->l2_sorted == c->nb_l2)
        return;
    qsort(c->l2, c->nb_l2, sizeof *c->l2, by_offset);
    for (size_t i = 0; i < c->nb_l2; i++) {
        if (n && c->l2[n - 1].offset == c->l2[i].offset) {
            c->l2[n - 1].references += c->l2[i].references;
            c->l2[n - 1].active += c->l2[i].active;
        } else {
            c->l2[n++] = c->l2[i];
        }
    }
    c->nb_l2 = c->l2_sorted = n;
}

/* Full lists are collected before they grow, so that a thousand snapshots of
 * the same tables take the memory of one. */
static int add_l2(struct check *c, uint64_t offset, bool active,
                  struct lam_error *err)
{
    if (c->nb_l2 == c->l2_capacity) {
        collect(c);
        if (c->nb_l2 >= c->l2_capacity / 2) {
            size_t wanted = c->l2_capacity ? c->l2_capacity * 2 : 1024;
            struct check_l2 *grown = realloc(c->l2, wanted * sizeof *grown);
            if (!grown)
                return lam_fail(err, ENOMEM, "no memory for %zu L2 tables",
                                wanted);
            c->l2 = grown;
            c->l2_capacity = wanted;
        }
    }
    c->l2[c->nb_l2++] = (struct check_l2){ offset, 1, active };
    return 0;
}

static int l1_entry(struct check *c, uint64_t entry, bool active,
                    struct lam_error *err)
{
    uint64_t offset = entry_offset(entry);

    if (!entry)
        return 0;
    if (entry & QCOW2_L1_RESERVED)
        check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR found L1 entry with "
                    "reserved bits set: %" PRIx64, entry);
    if (!offset)
        return 0;
    if (!is_aligned(offset, c->g.cluster_size)) {
        check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR l2_offset=%" PRIx64
                    ": Table is not cluster aligned; L1 entry corrupted",
                    offset);
        c->incomplete = true;
        return 0;               /* what is there is no table */
    }
    if (active)
        check_look_at_copied(c, entry, false);
    return add_l2(c, offset, active, err);
}

static int count_l1(struct check *c, uint64_t offset, uint64_t l1_size,
                    bool active, struct lam_error *err)
{
    enum { PIECE = 4096 };                      /* entries */
    lam_autofree uint8_t *buf = malloc(PIECE * 8);
    int rc = check_reference(c, offset, l1_size * 8, 1, err);

    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for an L1 table");
    note_presence(c, offset, l1_size * 8);
    for (uint64_t i = 0; i < l1_size && rc == 0; i += PIECE) {
        uint64_t n = min_u64(PIECE, l1_size - i);

        /* What the file has not got is all zero: nothing left to find. */
        if (offset + i * 8 >= c->file_length)
            return 0;
        rc = check_read(c, buf, n * 8, offset + i * 8, err);
        for (uint64_t j = 0; j < n && rc == 0; j++)
            rc = l1_entry(c, be64_get(buf + j * 8), active, err);
    }
    return rc;
}

static int count_l2_tables(struct check *c, struct lam_error *err)
{
    collect(c);
    for (size_t i = 0; i < c->nb_l2; i++) {
        const struct check_l2 *l2 = &c->l2[i];
        int rc = check_reference(c, l2->offset, c->g.cluster_size,
                                 l2->references, err);

        if (rc < 0)
            return rc;
        note_presence(c, l2->offset, c->g.cluster_size);
        if (l2->offset >= c->file_length)
            continue;
        rc = check_read(c, c->cluster, c->g.cluster_size, l2->offset, err);
        if (rc == 0)
            rc = check_l2_table(c, l2, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* --------------------------------------------------------------- snapshots */

static void judge_snapshot_table(struct check *c)
{
    /* A repair tells of these when it comes to them. */
    for (size_t i = 0; i < c->snapshots.count; i++) {
        if (c->h->version >= 3 && c->snapshots.items[i].extra_length < 16 &&
            !c->fix)
            check_found(c, LAM_FINDING_CORRUPTION, 1,
                        "ERROR snapshot table entry %zu is incomplete", i);
    }
    if (c->snapshots.count && c->data_file)
        check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR %zu snapshots in "
                    "image with data file", c->snapshots.count);
}

static int count_snapshot(struct check *c, const struct qcow2_snapshot *s,
                          struct lam_error *err)
{
    if (!is_aligned(s->l1_offset, c->g.cluster_size)) {
        check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR snapshot %s (%s) "
                    "l1_offset=%#" PRIx64 ": L1 table is not cluster aligned; "
                    "snapshot table entry corrupted", s->id, s->name,
                    s->l1_offset);
        c->incomplete = true;
        return 0;
    }
    if (s->l1_size > QCOW2_MAX_L1_ENTRIES) {
        check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR snapshot %s (%s) "
                    "l1_size=%#" PRIx32 ": L1 table is too large; snapshot "
                    "table entry corrupted", s->id, s->name, s->l1_size);
        c->incomplete = true;
        return 0;
    }
    return count_l1(c, s->l1_offset, s->l1_size, false, err);
}

static int count_snapshots(struct check *c, struct lam_error *err)
{
    int rc = 0;

    for (size_t i = 0; i < c->snapshots.count && rc == 0; i++)
        rc = count_snapshot(c, &c->snapshots.items[i], err);
    if (rc < 0)
        return rc;
    return check_reference(c, c->h->snapshots_offset, c->snapshots.table_length,
                           1, err);
}

/* ------------------------------------------------------------------- other */

static int count_bitmap(void *opaque, uint64_t offset, uint64_t length,
                        struct lam_error *err)
{
    note_presence(opaque, offset, length);
    return check_reference(opaque, offset, length, 1, err);
}

static int count_bitmaps(struct check *c, struct lam_error *err)
{
    struct lam_error local = LAM_ERROR_INIT;
    int rc = bitmaps_areas(c->io, c->h, c->file_length, count_bitmap, c,
                           &local);

    if (rc == -EUCLEAN) {
        check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR %s", local.message);
        c->incomplete = true;
        return 0;
    }
    return rc < 0 ? lam_fail(err, -rc, "%s", local.message) : 0;
}

static int count_refcount_block(struct check *c, uint64_t index,
                                struct lam_error *err)
{
    uint64_t offset = c->reft[index] & QCOW2_REFT_MASK;
    uint64_t cluster = host_cluster(&c->g, offset);

    if (c->reft[index] & QCOW2_REFT_RESERVED) {
        check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR refcount table entry "
                    "%" PRIu64 " has reserved bits set", index);
        c->refcount_errors++;
        c->rebuild = true;
        return 0;
    }
    if (!is_aligned(offset, c->g.cluster_size)) {
        check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR refcount block %"
                    PRIu64 " is not cluster aligned; refcount table entry "
                    "corrupted", index);
        c->refcount_errors++;
        c->rebuild = true;
        return 0;
    }
    if (offset >= c->file_length) {
        check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR refcount block %"
                    PRIu64 " is outside image", index);
        c->refcount_errors++;
        c->rebuild |= c->fix & LAM_REPAIR_ERRORS;
        return 0;
    }
    int rc = check_reference(c, offset, c->g.cluster_size, 1, err);
    if (rc < 0 || refmap_get(&c->refs, cluster) == 1)
        return rc;
    check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR refcount block %" PRIu64
                " refcount=%" PRIu64, index, refmap_get(&c->refs, cluster));
    c->refcount_errors++;
    c->rebuild = true;
    return 0;
}

static int count_refcounts(struct check *c, struct lam_error *err)
{
    int rc = 0;

    for (uint64_t i = 0; i < c->reft_entries && rc == 0; i++) {
        if (c->reft[i])
            rc = count_refcount_block(c, i, err);
    }
    return rc;
}

int check_count(struct check *c, struct lam_error *err)
{
    const struct qcow2_header *h = c->h;

    judge_snapshot_table(c);
    int rc = check_reference(c, 0, c->g.cluster_size, 1, err);
    if (rc == 0)
        rc = count_l1(c, h->l1_offset, h->l1_size, true, err);
    if (rc == 0)
        rc = count_snapshots(c, err);
    if (rc == 0)
        rc = count_l2_tables(c, err);
    if (rc == 0)
        rc = check_reference(c, h->reft_offset,
                             (uint64_t)h->reft_clusters << h->cluster_bits, 1,
                             err);
    if (rc == 0 && h->has_crypto)
        rc = check_reference(c, h->crypto_offset, h->crypto_length, 1, err);
    if (rc == 0 && header_has_bitmaps(h))
        rc = count_bitmaps(c, err);
    if (rc == 0)
        rc = count_refcounts(c, err);
    return rc;
}
