/* SPDX-License-Identifier: MIT */
/*
 * repair-snapshots.c - entries of the snapshot table that lack extra data
 * which version 3 wants (format document 8.1, 14.3).
 *
 * Everything else in the image is sound by now.  So it is opened as a writer
 * opens it, and the table is replaced as a bulk change replaces it: by one
 * write of the header.
 */
#include <stdlib.h>

#include "base/cleanup.h"
#include "format/qcow2/bulk.h"
#include "format/qcow2/check-internal.h"

/* Both are needed; the icount may be missing. */
enum { NEEDED_EXTRA = 16 };

size_t check_short_snapshots(const struct check *c)
{
    size_t n = 0;

    for (size_t i = 0; i < c->snapshots.count; i++)
        n += c->h->version >= 3 &&
             c->snapshots.items[i].extra_length < NEEDED_EXTRA;
    return n;
}

static void tell(struct check *c, bool fix)
{
    for (size_t i = 0; i < c->snapshots.count; i++)
        if (c->snapshots.items[i].extra_length < NEEDED_EXTRA)
            check_mended(c, fix, 1, "snapshot table entry %zu is incomplete",
                         i);
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

    if (!check_short_snapshots(c))
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
