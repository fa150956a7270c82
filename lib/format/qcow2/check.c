/* SPDX-License-Identifier: MIT */
/*
 * check.c - check an image: count references, compare them with the refcounts
 * on disk, look at the COPIED bits (format document 14).
 */
#include "format/qcow2/check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/qcow2/check-internal.h"
#include "format/qcow2/l2.h"
#include "format/qcow2/refblock.h"

void check_found(struct check *c, enum lam_finding_kind kind, uint64_t times,
                 const char *fmt, ...)
{
    char text[512];
    va_list args;

    if (kind == LAM_FINDING_CORRUPTION)
        c->out->corruptions += times;
    else if (kind == LAM_FINDING_LEAK)
        c->out->leaks += times;
    else
        c->out->check_errors += times;
    if (!c->finding)
        return;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    /* Snapshot names come from the image: one line, and a terminal's own
     * control sequences do not get through. */
    for (char *p = text; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    }
    c->finding(c->opaque, kind, text);
}

int check_read(struct check *c, void *buf, uint64_t length, uint64_t offset,
               struct lam_error *err)
{
    uint64_t there = offset < c->file_length
                         ? min_u64(length, c->file_length - offset) : 0;

    memset((uint8_t *)buf + there, 0, length - there);
    return there ? lam_io_read(c->io, buf, there, offset, err) : 0;
}

/* -------------------------------------------------------- refcounts on disk */

static int load_refcount_table(struct check *c, struct lam_error *err)
{
    uint64_t bytes = (uint64_t)c->h->reft_clusters << c->h->cluster_bits;

    c->reft = malloc(bytes ? bytes : 1);
    if (!c->reft)
        return lam_fail(err, ENOMEM, "no memory for a refcount table of %"
                        PRIu64 " bytes", bytes);
    int rc = check_read(c, c->reft, bytes, c->h->reft_offset, err);
    c->reft_entries = bytes / 8;
    for (uint64_t i = 0; i < c->reft_entries; i++)
        c->reft[i] = be64_get(&c->reft[i]);
    return rc;
}

/* Block @index of the table, which has an offset for it; NULL if it cannot be
 * had. */
static const uint8_t *get_block(struct check *c, uint64_t index)
{
    uint64_t offset = c->reft[index] & QCOW2_REFT_MASK;
    size_t slot = index % CHECK_BLOCK_SLOTS;

    if (c->slot[slot].bytes && c->slot[slot].index == index)
        return c->slot[slot].bytes;
    if (!is_aligned(offset, c->g.cluster_size))
        return NULL;
    if (!c->slot[slot].bytes)
        c->slot[slot].bytes = malloc(c->g.cluster_size);
    if (!c->slot[slot].bytes)
        return NULL;
    c->slot[slot].index = UINT64_MAX;
    if (check_read(c, c->slot[slot].bytes, c->g.cluster_size, offset, NULL) < 0)
        return NULL;
    c->slot[slot].index = index;
    return c->slot[slot].bytes;
}

/* True if no block says anything about @cluster: its refcount is 0. */
static bool uncovered(const struct check *c, uint64_t cluster)
{
    uint64_t index = reft_index(&c->g, cluster);

    return index >= c->reft_entries || !(c->reft[index] & QCOW2_REFT_MASK);
}

bool check_refcount(struct check *c, uint64_t cluster, uint64_t *refcount)
{
    *refcount = 0;
    if (uncovered(c, cluster))
        return true;

    const uint8_t *block = get_block(c, reft_index(&c->g, cluster));
    if (block)
        *refcount = refblock_get(block, c->g.refcount_order,
                                 refblock_index(&c->g, cluster));
    return block;
}

/* -------------------------------------------------------------- comparison */

static void compare_cluster(struct check *c, uint64_t cluster)
{
    uint64_t reference = refmap_get(&c->refs, cluster);
    uint64_t refcount;

    /* Behind the end of the file only references count. */
    if (!reference && cluster * c->g.cluster_size >= c->file_length)
        return;
    if (!check_refcount(c, cluster, &refcount)) {
        check_found(c, LAM_FINDING_ERROR, 1, "Can't get refcount for cluster %"
                    PRIu64 ": Input/output error", cluster);
        return;
    }
    if (refcount || reference)
        c->out->image_end_offset = (cluster + 1) * c->g.cluster_size;
    if (refcount == reference)
        return;
    if (!refcount)
        c->rebuild = true;
    check_found(c, refcount < reference ? LAM_FINDING_CORRUPTION
                                        : LAM_FINDING_LEAK, 1,
                "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%"
                PRIu64, refcount < reference ? "ERROR" : "Leaked", cluster,
                refcount, reference);
}

/* Whole leaves and blocks of nothing are passed over: a sparse file of many
 * terabytes has little else. */
static void compare(struct check *c)
{
    uint64_t i = 0;

    c->out->image_end_offset = c->g.cluster_size;   /* the header at least */
    while (i < c->refs.nb_clusters) {
        uint64_t leaf_end = (i / REFMAP_LEAF + 1) * REFMAP_LEAF;
        uint64_t block_end = align_down(i, c->g.refblock_entries) +
                             c->g.refblock_entries;

        if (uncovered(c, i) && !c->refs.leaves[i / REFMAP_LEAF])
            i = min_u64(leaf_end, block_end);
        else
            compare_cluster(c, i++);
    }
}

/* ------------------------------------------------------------------ COPIED */

static void copied_l2_table(struct check *c)
{
    for (uint64_t i = 0; i < c->g.l2_entries; i++) {
        struct qcow2_l2_entry entry = l2_get(&c->g, c->cluster, i);
        enum qcow2_cluster_type type =
            entry_type(&c->g, entry.word, c->data_file);
        uint64_t refcount = 1;          /* in a data file: always ours */

        if (type != QCOW2_NORMAL && type != QCOW2_ZERO_ALLOC)
            continue;
        if (!c->data_file &&
            !check_refcount(c, host_cluster(&c->g, entry_offset(entry.word)),
                            &refcount))
            continue;                   /* told by the comparison */
        if ((refcount == 1) != entry_copied(entry.word))
            check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR OFLAG_COPIED data "
                        "cluster: l2_entry=%" PRIx64 " refcount=%" PRIu64,
                        entry.word, refcount);
    }
}

static int copied_l1_entry(struct check *c, uint64_t index, uint64_t entry,
                           struct lam_error *err)
{
    uint64_t offset = entry_offset(entry), refcount;

    if (!offset)
        return 0;
    if (check_refcount(c, host_cluster(&c->g, offset), &refcount) &&
        (refcount == 1) != entry_copied(entry))
        check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR OFLAG_COPIED L2 "
                    "cluster: l1_index=%" PRIu64 " l1_entry=%" PRIx64
                    " refcount=%" PRIu64, index, entry, refcount);
    if (offset >= c->file_length)
        return 0;
    int rc = check_read(c, c->cluster, c->g.cluster_size, offset, err);
    if (rc == 0)
        copied_l2_table(c);
    return rc;
}

/* Only the active tables' bits mean anything (format document 3.5). */
static int check_copied(struct check *c, struct lam_error *err)
{
    enum { PIECE = 4096 };                      /* entries */
    lam_autofree uint8_t *buf = malloc(PIECE * 8);
    int rc = 0;

    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for an L1 table");
    for (uint64_t i = 0; i < c->h->l1_size && rc == 0; i += PIECE) {
        uint64_t n = min_u64(PIECE, c->h->l1_size - i);

        if (c->h->l1_offset + i * 8 >= c->file_length)
            return 0;
        rc = check_read(c, buf, n * 8, c->h->l1_offset + i * 8, err);
        for (uint64_t j = 0; j < n && rc == 0; j++)
            rc = copied_l1_entry(c, i + j, be64_get(buf + j * 8), err);
    }
    return rc;
}

/* ------------------------------------------------------------------ phases */

static int prepare(struct check *c, struct lam_error *err)
{
    c->g = qcow2_geometry_make(c->h->cluster_bits, c->h->refcount_order,
                               c->h->incompatible & QCOW2_INCOMPAT_EXTENDED_L2);
    c->data_file = c->h->incompatible & QCOW2_INCOMPAT_DATA_FILE;
    c->out->total_clusters = div_up(c->h->size, c->g.cluster_size);
    c->cluster = malloc(c->g.cluster_size);
    if (!c->cluster)
        return lam_fail(err, ENOMEM, "no memory for a cluster");

    int rc = lam_io_size(c->io, &c->file_length, err);
    if (rc < 0)
        return rc;
    /* One more: what passes the end by less than a cluster is counted. */
    rc = refmap_init(&c->refs,
                     div_up(c->file_length, c->g.cluster_size) + 1, err);
    if (rc == 0)
        rc = load_refcount_table(c, err);
    if (rc < 0)
        return rc;
    rc = snapshots_load(c->io, c->h, &c->snapshots, err);
    return rc < 0 ? lam_error_prefix(err, rc, "ERROR failed to read the "
                                     "snapshot table") : 0;
}

static void check_deinit(struct check *c)
{
    for (size_t i = 0; i < CHECK_BLOCK_SLOTS; i++)
        free(c->slot[i].bytes);
    snapshots_deinit(&c->snapshots);
    refmap_deinit(&c->refs);
    free(c->reft);
    free(c->l2);
    free(c->cluster);
}

int qcow2_check_run(struct lam_io *io, const struct qcow2_header *h,
                    lam_finding_fn *finding, void *opaque,
                    struct lam_check_result *out, struct lam_error *err)
{
    struct check *c = calloc(1, sizeof *c);

    memset(out, 0, sizeof *out);
    if (!c)
        return lam_fail(err, ENOMEM, "no memory for a check");
    c->io = io;
    c->h = h;
    c->finding = finding;
    c->opaque = opaque;
    c->out = out;

    int rc = prepare(c, err);
    if (rc == 0)
        rc = check_count(c, err);
    if (rc == 0)
        compare(c);
    if (rc == 0)
        rc = check_copied(c, err);
    check_deinit(c);
    free(c);
    return rc;
}
