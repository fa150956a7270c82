/* SPDX-License-Identifier: MIT */
/*
 * repair.c - put right what a check finds (format document 14.3).
 *
 * The phases are those of a check, in its order.  What may be changed is what
 * was verified:
 *
 *  - A counter is lowered only if every table that may hold references was
 *    read.  Else what seems to have leaked may be the only copy of something.
 *  - Counters are raised, and COPIED bits cleared, in place: each such change
 *    is right alone, so that it does not matter which of them a crash lets by.
 *  - Refcount structures that cannot be trusted are replaced as a whole, by
 *    one write of the header (repair-rebuild.c).
 *  - Entries change before counters drop, behind a barrier.
 *  - The dirty and the corrupt bit go last, after a second look.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "format/qcow2/check-internal.h"

static int refuse_rebuild(struct check *c, struct lam_error *err)
{
    check_found(c, LAM_FINDING_ERROR, 1, "ERROR need to rebuild refcount "
                "structures");
    return lam_fail(err, EIO, "Input/output error");
}

/* All of it may be wrong where not all references are known. */
static int rebuild(struct check *c, struct qcow2 *q, uint64_t check_errors,
                   struct lam_error *err)
{
    if (!(c->fix & LAM_REPAIR_ERRORS))
        return refuse_rebuild(c, err);
    if (c->incomplete) {
        check_found(c, LAM_FINDING_ERROR, 1, "ERROR refcount structures are "
                    "not rebuilt: tables that may refer to more clusters "
                    "cannot be read");
        return 0;
    }
    check_found(c, LAM_FINDING_CORRUPTION, 0, "Rebuilding refcount structure");
    int rc = repair_rebuild(c, q, err);
    if (rc < 0)
        return lam_error_prefix(err, rc, "rebuilding refcount structures");
    c->out->corruptions -= c->refcount_errors;
    c->out->corruptions_fixed += c->refcount_errors;
    c->out->leaks_fixed += c->out->leaks;
    c->out->leaks = 0;
    c->out->check_errors = check_errors;    /* what could not be read is gone */
    return 0;
}

static int repair_refcounts(struct check *c, struct qcow2 *q,
                            struct lam_error *err)
{
    struct lam_check_result before = *c->out;

    check_compare(c, 0);
    if (c->rebuild)
        return rebuild(c, q, before.check_errors, err);
    bool low = c->out->corruptions != before.corruptions;
    bool high = c->out->leaks != before.leaks;
    if (high && c->incomplete)
        check_found(c, LAM_FINDING_LEAK, 0, "Leaked clusters are left alone: "
                    "tables that may refer to them cannot be read");
    if (!low && (!high || c->incomplete))
        return 0;
    *c->out = before;
    check_compare(c, c->fix);
    return check_write_blocks(c, err);
}

/*
 * Somebody wrote to the image without keeping the bitmaps up to date, and
 * cleared their autoclear bit.  Nothing reads them any more; what they had is
 * free, so that nothing may name it either.
 */
static int drop_dead_bitmaps(struct check *c, struct qcow2 *q,
                             struct lam_error *err)
{
    const struct lam_check_result *r = c->out;

    if (!q->header.has_bitmaps || header_has_bitmaps(&q->header) ||
        !(c->fix & LAM_REPAIR_ERRORS) || c->incomplete || r->corruptions ||
        r->leaks || r->check_errors)
        return 0;
    check_found(c, LAM_FINDING_LEAK, 0, "Discarding %" PRIu32 " bitmaps that "
                "are out of date", q->header.nb_bitmaps);
    q->header.has_bitmaps = false;
    return qcow2_rewrite_header(q, err);
}

static int run_phases(struct check *c, struct qcow2 *q, struct lam_error *err)
{
    int rc = check_count(c, err);

    if (rc == 0)
        rc = repair_entries(c, err);
    if (rc == 0)
        rc = repair_refcounts(c, q, err);
    /* COPIED tells of refcounts that are on disk. */
    if (rc == 0)
        rc = lam_io_flush(c->io, err);
    if (rc == 0)
        rc = check_copied(c, err);
    if (rc == 0)
        check_overlaps(c);
    if (rc == 0)
        rc = lam_io_flush(c->io, err);
    if (rc == 0 && c->reserved_bits && (c->fix & LAM_REPAIR_ERRORS))
        rc = repair_reserved_bits(c, q, err);
    if (rc == 0)
        rc = repair_snapshots(c, q, err);
    return rc < 0 ? rc : drop_dead_bitmaps(c, q, err);
}

/* ------------------------------------------------------------- header bits */

/* A check as anybody would run it now, without a word. */
static int look_again(struct qcow2 *q, struct lam_check_result *out,
                      uint64_t *refcount_errors, struct lam_error *err)
{
    lam_autofree struct check *c = malloc(sizeof *c);

    if (!c)
        return lam_fail(err, ENOMEM, "no memory for a check");
    int rc = check_init(c, q->io, &q->header, 0, NULL, NULL, out, err);
    if (rc == 0)
        rc = check_all(c, err);
    *refcount_errors = c->refcount_errors;
    check_deinit(c);
    return rc;
}

static int clear_bits(struct qcow2 *q, struct lam_error *err)
{
    const uint64_t bits = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;
    struct lam_check_result now;
    uint64_t refcount_errors = 0;

    if (q->header.version < 3 || !(q->header.incompatible & bits))
        return 0;
    int rc = look_again(q, &now, &refcount_errors, err);
    if (rc < 0 || now.check_errors)
        return rc;
    if (!refcount_errors)
        q->header.incompatible &= ~QCOW2_INCOMPAT_DIRTY;
    if (!now.corruptions)
        q->header.incompatible &= ~QCOW2_INCOMPAT_CORRUPT;
    rc = qcow2_write_header(q, QH_INCOMPATIBLE, QH_COMPATIBLE, err);
    return rc < 0 ? rc : lam_io_flush(q->io, err);
}

/* What they promise was not kept up by us (format document 2.2). */
static int clear_unknown_autoclear(struct qcow2 *q, struct lam_error *err)
{
    uint64_t known = QCOW2_AUTOCLEAR_BITMAPS | QCOW2_AUTOCLEAR_DATA_RAW;

    if (q->header.version < 3 || !(q->header.autoclear & ~known))
        return 0;
    q->header.autoclear &= known;
    int rc = qcow2_write_header(q, QH_AUTOCLEAR, QH_REFCOUNT_ORDER, err);
    return rc < 0 ? rc : lam_io_flush(q->io, err);
}

int qcow2_repair_run(struct qcow2 *q, unsigned what, lam_finding_fn *finding,
                     void *opaque, struct lam_check_result *out,
                     struct lam_error *err)
{
    lam_autofree struct check *c = malloc(sizeof *c);

    if (!c)
        return lam_fail(err, ENOMEM, "no memory for a check");
    int rc = check_init(c, q->io, &q->header, what, finding, opaque, out, err);
    check_set_data(c, qcow2_open_data(q));
    if (rc == 0)
        rc = clear_unknown_autoclear(q, err);
    if (rc == 0)
        rc = repair_snapshot_count(c, q, err);
    if (rc == 0)
        rc = run_phases(c, q, err);
    check_deinit(c);
    return rc < 0 ? rc : clear_bits(q, err);
}
