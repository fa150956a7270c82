/* SPDX-License-Identifier: MIT */
/*
 * check.c - check an image: count references and compare them with the
 * refcounts on disk (format document 14).
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
#include "format/qcow2/refblock.h"

/* Snapshot names come from the image: one line, and a terminal's own control
 * sequences do not get through. */
static void tell(struct check *c, enum lam_finding_kind kind,
                 const char *prefix, const char *fmt, va_list args)
{
    char text[512];
    int used = snprintf(text, sizeof text, "%s", prefix);

    vsnprintf(text + used, sizeof text - (size_t)used, fmt, args);
    for (char *p = text; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    }
    c->finding(c->opaque, kind, text);
}

/* A table that a million entries name makes gigabytes of text. */
static bool may_tell(struct check *c, enum lam_finding_kind kind)
{
    if (!c->finding || c->told > CHECK_MOST_TOLD)
        return false;
    if (c->told++ < CHECK_MOST_TOLD)
        return true;
    c->finding(c->opaque, kind, "There is more, which is counted and not told");
    return false;
}

void check_found(struct check *c, enum lam_finding_kind kind, uint64_t times,
                 const char *fmt, ...)
{
    va_list args;

    if (kind == LAM_FINDING_CORRUPTION)
        c->out->corruptions += times;
    else if (kind == LAM_FINDING_LEAK)
        c->out->leaks += times;
    else
        c->out->check_errors += times;
    if (!may_tell(c, kind))
        return;
    va_start(args, fmt);
    tell(c, kind, "", fmt, args);
    va_end(args);
}

void check_mended(struct check *c, bool fix, uint64_t times, const char *fmt,
                  ...)
{
    va_list args;

    if (fix)
        c->out->corruptions_fixed += times;
    else
        c->out->corruptions += times;
    if (!may_tell(c, LAM_FINDING_CORRUPTION))
        return;
    va_start(args, fmt);
    tell(c, LAM_FINDING_CORRUPTION, fix ? "Repairing " : "ERROR ", fmt, args);
    va_end(args);
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

static int write_slot(struct check *c, size_t slot, struct lam_error *err)
{
    if (!c->slot[slot].dirty)
        return 0;
    c->slot[slot].dirty = false;
    return check_write(c, c->slot[slot].bytes, c->g.cluster_size,
                       c->reft[c->slot[slot].index] & QCOW2_REFT_MASK, err);
}

/* Block @index of the table, which has an offset for it; NULL if it cannot be
 * had. */
static uint8_t *get_block(struct check *c, uint64_t index)
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
    if (write_slot(c, slot, NULL) < 0)
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

/* ------------------------------------------------------------------ repairs */

int check_write(struct check *c, const void *buf, uint64_t length,
                uint64_t offset, struct lam_error *err)
{
    struct lam_error local = LAM_ERROR_INIT;

    assert(c->fix);
    if (!c->write_error) {
        c->write_error = lam_io_write(c->io, buf, length, offset, &local);
        c->write_failure = local;
    }
    if (c->write_error < 0 && err)
        *err = c->write_failure;
    return c->write_error;
}

void check_set_refcount(struct check *c, uint64_t cluster, uint64_t refcount)
{
    uint64_t index = reft_index(&c->g, cluster);
    uint8_t *block = get_block(c, index);

    if (!block)                 /* its write-back failed, or this one's */
        return;
    refblock_set(block, c->g.refcount_order, refblock_index(&c->g, cluster),
                 refcount);
    c->slot[index % CHECK_BLOCK_SLOTS].dirty = true;
}

int check_write_blocks(struct check *c, struct lam_error *err)
{
    int rc = 0;

    for (size_t i = 0; i < CHECK_BLOCK_SLOTS && rc == 0; i++)
        rc = write_slot(c, i, err);
    if (rc == 0 && c->write_error) {
        rc = c->write_error;
        if (err)
            *err = c->write_failure;
    }
    return rc;
}

void check_forget_blocks(struct check *c)
{
    for (size_t i = 0; i < CHECK_BLOCK_SLOTS; i++) {
        assert(!c->slot[i].dirty);
        c->slot[i].index = UINT64_MAX;
    }
}

/* -------------------------------------------------------------- comparison */

static bool can_mend(const struct check *c, unsigned fix, uint64_t refcount,
                     uint64_t reference)
{
    if (refcount > reference)
        return (fix & LAM_REPAIR_LEAKS) && !c->incomplete;
    return (fix & LAM_REPAIR_ERRORS) && reference <= c->g.refcount_max;
}

static void mismatch(struct check *c, unsigned fix, uint64_t cluster,
                     uint64_t refcount, uint64_t reference)
{
    bool leak = refcount > reference;

    c->refcount_errors += !leak;
    if (!can_mend(c, fix, refcount, reference)) {
        check_found(c, leak ? LAM_FINDING_LEAK : LAM_FINDING_CORRUPTION, 1,
                    "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%"
                    PRIu64, leak ? "Leaked" : "ERROR", cluster, refcount,
                    reference);
        return;
    }
    check_mended(c, true, !leak, "cluster %" PRIu64 " refcount=%" PRIu64
                 " reference=%" PRIu64, cluster, refcount, reference);
    c->out->leaks_fixed += leak;
    check_set_refcount(c, cluster, reference);
}

static void compare_cluster(struct check *c, unsigned fix, uint64_t cluster)
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
    mismatch(c, fix, cluster, refcount, reference);
}

/* Whole leaves and blocks of nothing are passed over: a sparse file of many
 * terabytes has little else. */
void check_compare(struct check *c, unsigned fix)
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
            compare_cluster(c, fix, i++);
    }
}

/* ------------------------------------------------------------------ phases */

/* A table that the file has not got all of does not keep a check, or a repair
 * of leaks, which it finds to be none, from telling what else is wrong. */
static int load_cut_snapshots(struct check *c, struct lam_error *err)
{
    const struct qcow2_header *h = c->h;
    struct lam_error why = LAM_ERROR_INIT;
    int rc = snapshots_load(c->io, h, &c->snapshots, &why);

    if (rc != -EUCLEAN || !c->snapshots.passes_end ||
        c->fix & LAM_REPAIR_ERRORS)
        return rc < 0 ? lam_fail(err, -rc, "%s", why.message) : 0;
    snapshots_deinit(&c->snapshots);
    rc = snapshots_salvage(c->io, h, &c->snapshots, &c->why_lost);
    if (rc < 0)
        return lam_fail(err, -rc, "%s", c->why_lost.message);
    uint64_t lost = h->nb_snapshots - (uint64_t)c->snapshots.count;
    check_found(c, LAM_FINDING_CORRUPTION, lost, "ERROR %" PRIu64 " of %" PRIu32
                " snapshots cannot be read: %s", lost, h->nb_snapshots,
                why.message);
    c->incomplete = true;
    return 0;
}

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
    rc = c->fix & QCOW2_REPAIR_SNAPSHOTS
       ? snapshots_salvage(c->io, c->h, &c->snapshots, &c->why_lost)
       : load_cut_snapshots(c, err);
    if (rc < 0 && err && (c->fix & QCOW2_REPAIR_SNAPSHOTS))
        *err = c->why_lost;
    return rc < 0 ? lam_error_prefix(err, rc, "ERROR failed to read the "
                                     "snapshot table") : 0;
}

void check_deinit(struct check *c)
{
    for (size_t i = 0; i < CHECK_BLOCK_SLOTS; i++)
        free(c->slot[i].bytes);
    snapshots_deinit(&c->snapshots);
    refmap_deinit(&c->refs);
    refmap_deinit(&c->beyond);
    free(c->reft);
    free(c->l2);
    free(c->cluster);
}

int check_init(struct check *c, struct lam_io *io,
               const struct qcow2_header *h, unsigned fix,
               lam_finding_fn *finding, void *opaque,
               struct lam_check_result *out, struct lam_error *err)
{
    *c = (struct check){
        .io = io,
        .h = h,
        .fix = fix,
        .finding = finding,
        .opaque = opaque,
        .out = out,
        .data_end = UINT64_MAX,
    };
    memset(out, 0, sizeof *out);
    return prepare(c, err);
}

void check_set_data(struct check *c, struct lam_io *data)
{
    if (data && data->eof_unit != UINT64_MAX)
        c->data_end = align_up(atomic_load(&data->size), data->eof_unit);
}

int check_all(struct check *c, struct lam_error *err)
{
    int rc = check_count(c, err);

    if (rc == 0)
        check_compare(c, 0);
    if (rc == 0)
        rc = check_copied(c, err);
    if (rc == 0)
        check_overlaps(c);
    return rc;
}

int qcow2_check_run(struct lam_io *io, const struct qcow2_header *h,
                    lam_finding_fn *finding, void *opaque,
                    struct lam_check_result *out, struct lam_error *err)
{
    return qcow2_check_with_data(io, h, NULL, finding, opaque, out, err);
}

int qcow2_check_with_data(struct lam_io *io, const struct qcow2_header *h,
                          struct lam_io *data, lam_finding_fn *finding,
                          void *opaque, struct lam_check_result *out,
                          struct lam_error *err)
{
    lam_autofree struct check *c = malloc(sizeof *c);

    if (!c)
        return lam_fail(err, ENOMEM, "no memory for a check");
    int rc = check_init(c, io, h, 0, finding, opaque, out, err);
    check_set_data(c, data);
    if (rc == 0)
        rc = check_all(c, err);
    check_deinit(c);
    return rc;
}
