/* SPDX-License-Identifier: MIT */
/*
 * scan.c - guest range → extents, past the cache.
 *
 * For the merged map of a chain, which asks for large ranges of many layers
 * once and keeps what it hears: the tables on the way need not be kept.  Most
 * of a layer's tables are empty in most places, so runs of zero entries are
 * skipped by the page.
 */
#include "format/qcow2/qcow2.h"

#include <inttypes.h>

#include "base/buffer.h"
#include "base/zeroes.h"

enum { PIECE = 64 * 1024, PAGE = 4096, DENSE_TABLES = 4 };

/* On the way through a table. */
struct table_scan {
    uint64_t table, host;       /* where it begins, and how far we are */
    uint64_t piece;             /* bytes to read at once */
    bool has_holes, behind_hole;
    uint8_t *buf;               /* PIECE bytes */
};

static int append_unallocated(struct range *guest, uint64_t length,
                              struct lam_extents *out, struct lam_error *err)
{
    struct lam_extent e = {
        .offset = guest->offset,
        .length = min_u64(guest->length, length),
        .state = LAM_EXTENT_UNALLOCATED,
    };
    int rc = extents_append(out, &e, err);

    if (rc == 0)
        *guest = range_make(guest->offset + e.length,
                            guest->length - e.length);
    return rc;
}

/* Guest bytes from @offset on whose entries are the @bytes at some place. */
static uint64_t cover_of(const struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
    return (bytes / q->g.l2_entry_size << q->g.cluster_bits) -
           in_cluster(&q->g, offset);
}

/* The entries of one piece of a table; they begin with that of @guest. */
static int scan_entries(const struct qcow2 *q, const uint8_t *entries,
                        uint64_t bytes, struct range *guest,
                        struct lam_extents *out, struct lam_error *err)
{
    while (bytes > 0 && guest->length > 0) {
        uint64_t n = min_u64(bytes, PAGE);
        uint64_t length = min_u64(cover_of(q, guest->offset, n), guest->length);
        int rc;

        /* An entry of zeroes is unallocated in every version. */
        if (memory_is_zero(entries, n)) {
            rc = append_unallocated(guest, length, out, err);
        } else {
            rc = l2_extents(&q->l2_context, entries, guest->offset, length, out,
                            err);
            *guest = range_make(guest->offset + length,
                                guest->length - length);
        }
        if (rc < 0)
            return rc;
        entries += n;
        bytes -= n;
    }
    return 0;
}

/*
 * A table that was written piece by piece may be all holes but for a page, and
 * asking for holes costs a tenth of reading one.  Where they are not found in
 * the first tables of an image, it is not asked again.
 */
static uint64_t hole_at(struct qcow2 *q, struct table_scan *t, uint64_t bytes)
{
    if (!t->has_holes && atomic_load(&q->dense_tables) >= DENSE_TABLES)
        return 0;
    uint64_t hole = align_down(lam_io_hole(q->io, t->host, bytes),
                               q->g.l2_entry_size);
    if (!hole)
        return 0;
    /* Data are read in small pieces behind a hole, then in larger ones. */
    t->piece = PAGE;
    t->has_holes = t->behind_hole = true;
    return hole;
}

/* The entries of the next piece, or of a hole.  @bytes are left. */
static int scan_piece(struct qcow2 *q, struct table_scan *t, uint64_t bytes,
                      struct range *guest, struct lam_extents *out,
                      struct lam_error *err)
{
    uint64_t hole = t->behind_hole ? 0 : hole_at(q, t, bytes);

    if (hole) {
        t->host += hole;
        return append_unallocated(guest, cover_of(q, guest->offset, hole), out,
                                  err);
    }
    bytes = min_u64(bytes, t->piece);
    int rc = lam_io_read(q->io, t->buf, bytes, t->host, err);
    if (rc < 0)
        return lam_error_prefix(err, rc, "Could not read L2 table at %#" PRIx64,
                                t->table);
    t->host += bytes;
    t->piece = min_u64(2 * t->piece, PIECE);
    t->behind_hole = false;
    return scan_entries(q, t->buf, bytes, guest, out, err);
}

/* What the L2 table at @table says about @guest, up to the table's end. */
static int scan_table(struct qcow2 *q, uint64_t table, struct range *guest,
                      uint8_t *buf, struct lam_extents *out,
                      struct lam_error *err)
{
    uint64_t end = align_down(guest->offset, q->g.l2_cover) + q->g.l2_cover;
    uint64_t last = min_u64(range_end(*guest), end) - 1;
    uint64_t stop = l2_entry_host(q, table, last) + q->g.l2_entry_size;
    struct table_scan t = {
        .table = table, .host = l2_entry_host(q, table, guest->offset),
        .piece = PIECE, .buf = buf,
    };
    int rc = 0;

    while (t.host < stop && rc == 0)
        rc = scan_piece(q, &t, stop - t.host, guest, out, err);
    if (!t.has_holes)
        atomic_fetch_add(&q->dense_tables, 1);
    return rc;
}

int qcow2_map_once(void *format, uint64_t offset, uint64_t length,
                   struct lam_extents *out, struct lam_error *err)
{
    struct qcow2 *q = format;
    struct range guest = range_make(offset, length);
    lam_autofree uint8_t *buf = NULL;

    /* What is written to has news in its cache. */
    if (atomic_load(&q->state) != QCOW2_READ_ONLY || q->metadata_only)
        return qcow2_map(format, offset, length, out, err);
    while (guest.length > 0) {
        uint64_t table;
        bool copied;
        int rc = l1_lookup(q, guest.offset, &table, &copied, err);

        if (rc < 0)
            return rc;
        if (!table) {
            rc = append_unallocated(&guest, l1_blank(q, guest), out, err);
        } else {
            if (!buf)
                buf = buffer_new(PIECE);
            if (!buf)
                return lam_fail(err, ENOMEM, "no memory for an L2 table");
            rc = scan_table(q, table, &guest, buf, out, err);
        }
        if (rc < 0)
            return rc;
    }
    return 0;
}
