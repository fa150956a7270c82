/* SPDX-License-Identifier: MIT */
/*
 * repair-snapshots.c - the snapshot table (format document 8.1, 14.3).
 *
 * Entries that cannot be read, and all behind them, since nobody knows where
 * they begin, are given up before anything is counted: one write of the
 * header.  Entries that lack extra data which version 3 wants, or that have
 * more than anybody reads, are put right when everything else in the image is
 * sound.  So it is opened as a writer opens it, and the table is replaced as a
 * bulk change replaces it: by one write of the header, too.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "format/qcow2/bulk.h"
#include "format/qcow2/check-internal.h"

/* Both are needed; the icount may be missing. */
enum { NEEDED_EXTRA = 16 };

static bool is_short(const struct check *c, const struct qcow2_snapshot *s)
{
    return c->h->version >= 3 && s->extra_length < NEEDED_EXTRA;
}

static bool is_long(const struct qcow2_snapshot *s)
{
    return s->extra_length > QCOW2_MAX_SNAPSHOT_EXTRA;
}

size_t check_odd_snapshots(const struct check *c)
{
    size_t n = 0;

    for (size_t i = 0; i < c->snapshots.count; i++)
        n += is_short(c, &c->snapshots.items[i]) ||
             is_long(&c->snapshots.items[i]);
    return n;
}

static void tell(struct check *c, bool fix)
{
    for (size_t i = 0; i < c->snapshots.count; i++) {
        const struct qcow2_snapshot *s = &c->snapshots.items[i];

        if (is_short(c, s))
            check_mended(c, fix, 1, "snapshot table entry %zu is incomplete",
                         i);
        else if (is_long(s))
            check_mended(c, fix, 1, "snapshot table entry %zu: %" PRIu32
                         " bytes of extra data (limit: %d)", i,
                         s->extra_length, QCOW2_MAX_SNAPSHOT_EXTRA);
    }
}

int repair_snapshot_count(struct check *c, struct qcow2 *q,
                          struct lam_error *err)
{
    uint32_t lost = q->header.nb_snapshots - (uint32_t)c->snapshots.count;

    if (!lost || !(c->fix & LAM_REPAIR_ERRORS))
        return 0;
    assert(c->fix & QCOW2_REPAIR_SNAPSHOTS);
    check_found(c, LAM_FINDING_CORRUPTION, 0, "Discarding %" PRIu32 " of %"
                PRIu32 " snapshots: %s", lost, q->header.nb_snapshots,
                c->why_lost.message[0] ? c->why_lost.message : "too many");
    c->out->corruptions_fixed += lost;
    q->header.nb_snapshots = (uint32_t)c->snapshots.count;
    if (!c->snapshots.count)
        q->header.snapshots_offset = 0;
    int rc = qcow2_write_header(q, QH_NB_SNAPSHOTS, QH_V2_LENGTH, err);
    return rc < 0 ? rc : lam_io_flush(q->io, err);
}

static int renew(struct qcow2 *q, const struct qcow2_snapshots *list,
                 struct lam_error *err)
{
    struct bulk b;
    int rc = bulk_begin(&b, q, err);

    if (rc == 0)
        rc = snapshots_renew(&b, list, NULL, err);
    if (rc == 0)
        rc = bulk_commit(&b, err);
    bulk_end(&b);
    return rc;
}

static int renew_in(struct check *c, struct lam_error *err)
{
    struct format_open o = { .io = c->io, .writable = true, .repairing = true };
    void *format;
    int rc = format_qcow2.open(&o, &format, err);

    if (rc < 0)
        return rc;
    rc = renew(format, &c->snapshots, err);
    int closed = format_qcow2.close(format, rc < 0 ? NULL : err);
    return rc < 0 ? rc : closed;
}

/* The header in memory follows what the other one has written. */
static int reload_header(struct check *c, struct qcow2 *q,
                         struct lam_error *err)
{
    struct qcow2_header h = { 0 };
    int rc = check_read(c, c->cluster, c->g.cluster_size, 0, err);

    if (rc == 0)
        rc = header_decode(c->cluster, c->g.cluster_size, &h, err);
    if (rc < 0) {
        header_deinit(&h);
        return rc;
    }
    header_deinit(&q->header);
    q->header = h;
    return 0;
}

int repair_snapshots(struct check *c, struct qcow2 *q, struct lam_error *err)
{
    const struct lam_check_result *r = c->out;

    if (!check_odd_snapshots(c))
        return 0;
    bool fix = (c->fix & LAM_REPAIR_ERRORS) && !c->incomplete &&
               !c->data_file && !r->corruptions && !r->check_errors;
    tell(c, fix);
    if (!fix)
        return 0;
    int rc = renew_in(c, err);
    if (rc < 0)
        return lam_error_prefix(err, rc, "writing the snapshot table");
    return reload_header(c, q, err);
}
