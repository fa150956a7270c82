/* SPDX-License-Identifier: MIT */
/*
 * check-copied.c - COPIED bits against the refcounts on disk (format document
 * 3.5), offsets in a data file, and tables that something else lies on.
 *
 * Only the active tables' bits mean anything.  A bit that is repaired is
 * cleared whenever the refcount says so; it is set only where the references
 * that we counted say the same as the refcount, since a wrong one destroys
 * data.  A table is written to only if nothing else lies on it.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/qcow2/check-internal.h"
#include "format/qcow2/l2.h"

/* ------------------------------------------------------------------ COPIED */

/* On the way, so that the tables need not be read twice for nothing. */
void check_look_at_copied(struct check *c, uint64_t word, bool in_data_file)
{
    uint64_t cluster = host_cluster(&c->g, entry_offset(word)), refcount = 1;

    if (in_data_file)
        c->copied_wrong = true;     /* offsets are to be judged, too */
    else if (check_refcount(c, cluster, &refcount))
        c->copied_wrong |= (refcount == 1) != entry_copied(word);
}

/* A table or a piece of one while it is looked through. */
struct scan {
    uint64_t guest;             /* of the table's first entry */
    bool fix;                   /* bits are to be put right, ... */
    bool writable;              /* ... and this table may be written to */
    bool changed;
};

/* The bit of @word against @refcount; true if it is to be flipped. */
static bool judge_bit(struct check *c, const struct scan *s, uint64_t word,
                      uint64_t refcount, uint64_t reference, bool *wrong)
{
    *wrong = (refcount == 1) != entry_copied(word);
    if (!*wrong || !s->fix || !s->writable)
        return false;
    (void)c;
    return refcount != 1 || reference == 1;
}

/* How much of a cluster is read from the data file. */
static uint64_t shown_bytes(const struct check *c, struct qcow2_l2_entry entry)
{
    uint64_t shown = entry.bitmap & QCOW2_ALL_ALLOCATED;

    if (!c->g.extended_l2)
        return entry.word & QCOW2_ZERO ? 0 : c->g.cluster_size;
    return shown ? (uint64_t)(64 - __builtin_clzll(shown)) *
                   c->g.subcluster_size : 0;
}

static void judge_data_offset(struct check *c, const struct scan *s,
                              uint64_t index, struct qcow2_l2_entry entry)
{
    uint64_t guest = s->guest + (index << c->g.cluster_bits);
    uint64_t offset = entry_offset(entry.word);
    uint64_t end = min_u64(guest + shown_bytes(c, entry), c->h->size);

    if (!is_aligned(offset, c->g.cluster_size))
        return;                             /* told when it was counted */
    if (offset != guest)
        check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR data file: guest "
                    "offset 0x%" PRIx64 " is stored at offset 0x%" PRIx64,
                    guest, offset);
    else if (end > guest && end > c->data_end)
        check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR data file: guest "
                    "offset 0x%" PRIx64 " passes the end of the data file at "
                    "0x%" PRIx64, guest, c->data_end);
}

static void copied_l2_entry(struct check *c, struct scan *s, uint64_t index)
{
    struct qcow2_l2_entry entry = l2_get(&c->g, c->cluster, index);
    enum qcow2_cluster_type type = entry_type(&c->g, entry.word, c->data_file);
    uint64_t cluster = host_cluster(&c->g, entry_offset(entry.word));
    uint64_t refcount = 1, reference = 1;   /* in a data file: always ours */
    bool wrong;

    if (type != QCOW2_NORMAL && type != QCOW2_ZERO_ALLOC)
        return;
    if (c->data_file)
        judge_data_offset(c, s, index, entry);
    else if (!check_refcount(c, cluster, &refcount))
        return;                             /* told by the comparison */
    else
        reference = refmap_get(&c->refs, cluster);
    bool flip = judge_bit(c, s, entry.word, refcount, reference, &wrong);
    if (wrong)
        check_mended(c, flip, 1, "OFLAG_COPIED data cluster: l2_entry=%" PRIx64
                     " refcount=%" PRIu64, entry.word, refcount);
    if (!flip)
        return;
    entry.word ^= QCOW2_COPIED;
    l2_put(&c->g, c->cluster, index, entry);
    s->changed = true;
}

static int copied_l2_table(struct check *c, struct scan *l1, uint64_t index,
                           uint64_t table, struct lam_error *err)
{
    struct scan s = {
        .guest = index * c->g.l2_cover,
        .fix = l1->fix,
        .writable = l1->fix && check_owns_l2(c, table),
    };

    if (table >= c->file_length)
        return 0;
    int rc = check_read(c, c->cluster, c->g.cluster_size, table, err);
    if (rc < 0)
        return rc;
    for (uint64_t i = 0; i < c->g.l2_entries; i++)
        copied_l2_entry(c, &s, i);
    return s.changed ? check_write(c, c->cluster, c->g.cluster_size, table,
                                   err) : 0;
}

static int copied_l1_entry(struct check *c, struct scan *s, uint64_t index,
                           uint8_t *p, struct lam_error *err)
{
    uint64_t entry = be64_get(p), offset = entry_offset(entry), refcount;
    uint64_t cluster = host_cluster(&c->g, offset);
    bool wrong;

    if (!offset || !is_aligned(offset, c->g.cluster_size))
        return 0;
    if (check_refcount(c, cluster, &refcount)) {
        bool flip = judge_bit(c, s, entry, refcount,
                              refmap_get(&c->refs, cluster), &wrong);
        if (wrong)
            check_mended(c, flip, 1, "OFLAG_COPIED L2 cluster: l1_index=%"
                         PRIu64 " l1_entry=%" PRIx64 " refcount=%" PRIu64,
                         index, entry, refcount);
        if (flip) {
            be64_put(p, entry ^ QCOW2_COPIED);
            s->changed = true;
        }
    }
    return copied_l2_table(c, s, index, offset, err);
}

bool check_owns(const struct check *c, uint64_t offset, uint64_t length)
{
    if (offset + length > align_up(c->file_length, c->g.cluster_size))
        return false;
    for (uint64_t at = 0; at < length; at += c->g.cluster_size)
        if (refmap_get(&c->refs, host_cluster(&c->g, offset + at)) != 1)
            return false;
    return true;
}

static bool is_fixing_copied(const struct check *c)
{
    const struct lam_check_result *r = c->out;

    return (c->fix & LAM_REPAIR_ERRORS) ||
           (c->fix && !r->corruptions && !r->leaks && !r->check_errors);
}

static int copied_l1_piece(struct check *c, struct scan *s, uint8_t *buf,
                           uint64_t first, uint64_t n, struct lam_error *err)
{
    uint64_t offset = c->h->l1_offset + first * 8;
    int rc = check_read(c, buf, n * 8, offset, err);

    s->changed = false;
    for (uint64_t i = 0; i < n && rc == 0; i++)
        rc = copied_l1_entry(c, s, first + i, buf + i * 8, err);
    if (rc == 0 && s->changed)
        rc = check_write(c, buf, n * 8, offset, err);
    return rc;
}

int check_copied(struct check *c, struct lam_error *err)
{
    enum { PIECE = 4096 };                      /* entries */
    lam_autofree uint8_t *buf = malloc(PIECE * 8);
    struct scan s = { .fix = is_fixing_copied(c) };
    int rc = 0;

    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for an L1 table");
    if (!c->copied_wrong && !c->fix)
        return 0;
    s.writable = s.fix && check_owns(c, c->h->l1_offset,
                                     c->h->l1_size * UINT64_C(8));
    for (uint64_t i = 0; i < c->h->l1_size && rc == 0; i += PIECE) {
        if (c->h->l1_offset + i * 8 >= c->file_length)
            return 0;
        rc = copied_l1_piece(c, &s, buf, i, min_u64(PIECE, c->h->l1_size - i),
                             err);
    }
    return rc;
}

/* ---------------------------------------------------------------- overlaps */

/* Refcounts that are too low have been told; here both agree. */
static void judge_table(struct check *c, const char *what, uint64_t offset,
                        uint64_t length, uint64_t expected)
{
    uint64_t end, refcount;

    if (!length || add_overflows(offset, length, &end))
        return;
    uint64_t stop = min_u64(div_up(end, c->g.cluster_size),
                            c->refs.nb_clusters);
    for (uint64_t i = host_cluster(&c->g, offset); i < stop; i++) {
        uint64_t reference = refmap_get(&c->refs, i);

        if (reference > expected && check_refcount(c, i, &refcount) &&
            refcount >= reference)
            check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR cluster %" PRIu64
                        " holds %s and something else: references=%" PRIu64
                        ", of its own=%" PRIu64, i, what, reference, expected);
    }
}

void check_overlaps(struct check *c)
{
    const struct qcow2_header *h = c->h;

    judge_table(c, "the header", 0, c->g.cluster_size, 1);
    judge_table(c, "the active L1 table", h->l1_offset,
                (uint64_t)h->l1_size * 8, 1);
    judge_table(c, "the refcount table", h->reft_offset,
                (uint64_t)h->reft_clusters << h->cluster_bits, 1);
    judge_table(c, "the snapshot table", h->snapshots_offset,
                c->snapshots.table_length, 1);
    if (header_has_bitmaps(h))
        judge_table(c, "the bitmap directory", h->bitmap_directory_offset,
                    h->bitmap_directory_size, 1);
    if (h->has_crypto)
        judge_table(c, "the encryption header", h->crypto_offset,
                    h->crypto_length, 1);
    for (size_t i = 0; i < c->nb_l2; i++)
        judge_table(c, "an L2 table", c->l2[i].offset, 1,
                    c->l2[i].references);
}
