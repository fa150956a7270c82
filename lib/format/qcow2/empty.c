/* SPDX-License-Identifier: MIT */
/*
 * empty.c - an overlay that has nothing of its own any more: its backing file
 * shows everywhere.
 *
 * One bulk change: an L1 table without entries beside the one in force, all
 * that was reachable loses a reference, and one write of the header switches.
 * Killed before it, the overlay has everything; after it, nothing.  Internal
 * snapshots and bitmaps keep what is theirs.
 */
#include "format/qcow2/backing.h"
#include "format/qcow2/bulk.h"
#include "format/qcow2/shrink.h"

static int empty_in(struct bulk *b, struct lam_error *err)
{
    struct qcow2 *q = b->q;
    size_t entries = q->l1_size;
    lam_autofree uint64_t *l1 = calloc(entries, sizeof *l1);
    uint64_t old = b->l1_offset;

    if (!l1)
        return lam_fail(err, ENOMEM, "no memory for an L1 table of %zu "
                        "entries", entries);
    int rc = bulk_set_l1(b, lam_take(&l1), entries, err);
    if (rc == 0)
        rc = bulk_drop_l1(b, q->l1, entries, old, err);
    return rc < 0 ? rc : bulk_commit(b, err);
}

static bool has_tables(const struct qcow2 *q)
{
    for (size_t i = 0; i < q->l1_size; i++)
        if (q->l1[i])
            return true;
    return false;
}

int qcow2_empty(void *format, struct lam_error *err)
{
    struct qcow2 *q = format;
    struct bulk b;
    bool change = false;
    int rc = bulk_begin(&b, q, err);

    if (rc == 0) {
        change = has_tables(q);
        rc = change ? empty_in(&b, err) : 0;
    }
    bulk_end(&b);
    if (rc < 0 || !change)
        return rc;
    if (q->data_file)
        lam_io_discard(q->data_io, 0, q->size, NULL);
    return shrink_file(q, err);
}
