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
    lam_io_event(q->io, IO_EVENT_EMPTY_IMAGE_PREPARE);
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

/* @again: it is empty already, and its tables are to move to the front. */
static int empty_once(struct qcow2 *q, bool again, bool *changed,
                      struct lam_error *err)
{
    struct bulk b;
    int rc = bulk_begin(&b, q, err);

    *changed = false;
    if (rc == 0)
        *changed = again || has_tables(q);
    if (*changed)
        rc = empty_in(&b, err);
    bulk_end(&b);
    return rc < 0 || !*changed ? rc : shrink_file(q, err);
}

/* What has just been written lies behind all that there was before; with that
 * gone, there is room in front. */
static bool is_long(const struct qcow2 *q)
{
    uint64_t tables = q->l1_size * sizeof *q->l1 + 8 * q->g.cluster_size;

    return !q->header.nb_snapshots && atomic_load(&q->io->size) > 2 * tables;
}

int qcow2_empty(void *format, struct lam_error *err)
{
    struct qcow2 *q = format;
    bool changed;
    int rc = empty_once(q, false, &changed, err);

    if (rc == 0 && changed && q->data_file)
        lam_io_discard(q->data_io, 0, q->size, NULL);
    if (rc == 0 && changed && is_long(q))
        rc = empty_once(q, true, &changed, err);
    return rc;
}
