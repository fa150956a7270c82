/* SPDX-License-Identifier: MIT */
/*
 * check-count.c - count every reference to a host cluster (format document
 * 5.2, 14.1): header, active L1, snapshots' L1s, the L2 tables of both, the
 * snapshot table, bitmaps, the encryption header, refcount table and blocks.
 *
 * An L2 table that k L1 tables share adds k references to each of its
 * clusters.  L1 entries are collected first (check-l1.c), and each table is
 * walked once.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/luks/volume.h"
#include "format/qcow2/bitmap.h"
#include "format/qcow2/check-internal.h"

bool check_in_file(struct check *c, uint64_t offset, uint64_t length,
                   uint64_t weight)
{
    uint64_t end;

    if (!add_overflows(offset, length, &end) &&
        (end <= c->file_length || end - c->file_length < c->g.cluster_size))
        return true;
    check_found(c, LAM_FINDING_CORRUPTION, weight,
                "ERROR: counting reference for region exceeding the end of the "
                "file by one cluster or more: offset 0x%" PRIx64 " size 0x%"
                PRIx64, offset, length);
    return false;
}

int check_add_references(struct check *c, uint64_t offset, uint64_t length,
                         uint64_t weight, struct lam_error *err)
{
    uint64_t last = host_cluster(&c->g, offset + length - 1);

    for (uint64_t i = host_cluster(&c->g, offset); i <= last; i++) {
        int rc = refmap_add(&c->refs, i, weight, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int check_reference(struct check *c, uint64_t offset, uint64_t length,
                    uint64_t weight, struct lam_error *err)
{
    if (!length || !check_in_file(c, offset, length, weight))
        return 0;
    return check_add_references(c, offset, length, weight, err);
}

void check_note_presence(struct check *c, uint64_t offset, uint64_t length)
{
    uint64_t end;

    if (length && (add_overflows(offset, length, &end) ||
                   end > align_up(c->file_length, c->g.cluster_size)))
        c->incomplete = true;
}

/* --------------------------------------------------------------- L2 tables */

static int count_l2_tables(struct check *c, struct lam_error *err)
{
    check_collect_l2(c);
    for (size_t i = 0; i < c->nb_l2; i++) {
        struct check_l2 *l2 = &c->l2[i];
        uint64_t before = c->out->corruptions;
        int rc = check_reference(c, l2->offset, c->g.cluster_size,
                                 l2->references, err);

        if (rc < 0)
            return rc;
        check_note_presence(c, l2->offset, c->g.cluster_size);
        if (l2->offset >= c->file_length)
            continue;
        rc = check_read(c, c->cluster, c->g.cluster_size, l2->offset, err);
        if (rc == 0)
            rc = check_l2_table(c, l2, err);
        if (rc < 0)
            return rc;
        l2->errors = c->out->corruptions - before;
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

static int count_snapshots(struct check *c, struct lam_error *err)
{
    int rc = check_snapshot_l1s(c, err);

    return rc < 0 ? rc
                  : check_reference(c, c->h->snapshots_offset,
                                    c->snapshots.table_length, 1, err);
}

/* ------------------------------------------------------------------- other */

static int count_bitmap(void *opaque, uint64_t offset, uint64_t length,
                        struct lam_error *err)
{
    check_note_presence(opaque, offset, length);
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
                    "%" PRIu64 " has reserved bits set: %" PRIx64, index,
                    c->reft[index]);
        c->refcount_errors++;
        c->rebuild = true;
        return 0;
    }
    if (!is_aligned(offset, c->g.cluster_size)) {
        check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR refcount block %"
                    PRIu64 " is not cluster aligned; refcount table entry "
                    "corrupted: %" PRIx64, index, c->reft[index]);
        c->refcount_errors++;
        c->rebuild = true;
        return 0;
    }
    if (offset >= c->file_length) {
        check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR refcount block %"
                    PRIu64 " is outside image: offset %#" PRIx64 ", the file "
                    "ends at %#" PRIx64, index, offset, c->file_length);
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

/* What passes the end is not there to be repaired: it is made anew. */
static int count_refcount_table(struct check *c, struct lam_error *err)
{
    uint64_t before = c->out->corruptions;
    int rc = check_reference(c, c->h->reft_offset,
                             (uint64_t)c->h->reft_clusters << c->g.cluster_bits,
                             1, err);

    if (c->out->corruptions != before) {
        c->refcount_errors++;
        c->rebuild |= c->fix & LAM_REPAIR_ERRORS;
    }
    return rc;
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

/* Where the header has its tables: what is wrong there is counted as what
 * follows from it, so this only says why. */
static void tell_layout(struct check *c)
{
    struct lam_error local = LAM_ERROR_INIT;

    if (header_validate_layout(c->h, c->file_length, &local) < 0)
        check_found(c, LAM_FINDING_CORRUPTION, 0, "ERROR %s", local.message);
}

/*
 * Judged without a passphrase.  Nothing is freed while it cannot be read: its
 * length may be what is wrong, and the keys among the leaks.
 */
static void judge_luks_header(struct check *c)
{
    const struct qcow2_header *h = c->h;
    struct lam_error local = LAM_ERROR_INIT;
    struct luks_volume volume;

    if (h->crypt_method != QCOW2_CRYPT_LUKS)
        return;
    check_note_presence(c, h->crypto_offset, h->crypto_length);
    int rc = luks_volume_load(&volume, c->io, h->crypto_offset,
                              h->crypto_length, &local);
    if (rc == 0)
        luks_volume_deinit(&volume);
    /* What this build cannot decrypt may be sound. */
    if (rc == 0 || rc == -ENOTSUP)
        return;
    check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR Encryption header at %#"
                PRIx64 ": %s", h->crypto_offset, local.message);
    c->incomplete = true;
}

int check_count(struct check *c, struct lam_error *err)
{
    const struct qcow2_header *h = c->h;

    tell_layout(c);
    judge_snapshot_table(c);
    judge_luks_header(c);
    int rc = check_reference(c, 0, c->g.cluster_size, 1, err);
    if (rc == 0)
        rc = check_active_l1(c, err);
    if (rc == 0)
        rc = count_snapshots(c, err);
    if (rc == 0)
        rc = count_l2_tables(c, err);
    if (rc == 0)
        rc = count_refcount_table(c, err);
    if (rc == 0 && h->has_crypto)
        rc = check_reference(c, h->crypto_offset, h->crypto_length, 1, err);
    if (rc == 0 && header_has_bitmaps(h))
        rc = count_bitmaps(c, err);
    if (rc == 0)
        rc = count_refcounts(c, err);
    return rc;
}
