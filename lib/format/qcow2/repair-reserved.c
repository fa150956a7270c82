/* SPDX-License-Identifier: MIT */
/*
 * repair-reserved.c - reserved bits of L1 and L2 entries (format document 3.3).
 *
 * Nobody looks at them when data are read, so that an entry shows the same
 * without them.  They may also be all that tells a table from something else,
 * though.  So they go last, when the rest is repaired and has been counted
 * once more, and only if all tables can be read: from those that nothing else
 * lies on, and from an L1 entry if it names such a table, with nothing else
 * wrong in it.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/qcow2/check-internal.h"
#include "format/qcow2/l2.h"

struct mending {
    struct check *c;                    /* what there is now */
    struct check *done;                 /* whose findings are mended */
};

static void mended(struct mending *m, uint64_t times, const char *what,
                   uint64_t word)
{
    struct lam_check_result *r = m->done->out;

    check_mended(m->done, true, times, "%s with reserved bits set: %" PRIx64,
                 what, word);
    r->corruptions -= min_u64(r->corruptions, times);
}

/* --------------------------------------------------------------- L2 tables */

static int mend_l2_table(struct mending *m, struct check_l2 *l2,
                         struct lam_error *err)
{
    struct check *c = m->c;
    bool changed = false;

    if (!l2->errors || !check_owns_l2(c, l2->offset))
        return 0;
    int rc = check_read(c, c->cluster, c->g.cluster_size, l2->offset, err);
    for (uint64_t i = 0; i < c->g.l2_entries && rc == 0; i++) {
        struct qcow2_l2_entry e = l2_get(&c->g, c->cluster, i);

        if (e.word & QCOW2_COMPRESSED || !(e.word & QCOW2_L2_RESERVED))
            continue;
        mended(m, l2->references, "l2 entry", e.word);
        e.word &= ~QCOW2_L2_RESERVED;
        l2_put(&c->g, c->cluster, i, e);
        l2->errors -= l2->references;
        changed = true;
    }
    if (changed)
        rc = check_write(c, c->cluster, c->g.cluster_size, l2->offset, err);
    return rc;
}

/* --------------------------------------------------------------- L1 tables */

static bool is_sound_l2(const struct check *c, uint64_t table)
{
    return check_owns_l2(c, table) && !check_find_l2(c, table)->errors;
}

static bool mend_l1_entry(struct mending *m, uint8_t *p)
{
    uint64_t entry = be64_get(p), table = entry_offset(entry);

    if (!(entry & QCOW2_L1_RESERVED) || (table && !is_sound_l2(m->c, table)))
        return false;
    mended(m, 1, "L1 entry", entry);
    be64_put(p, entry & ~QCOW2_L1_RESERVED);
    return true;
}

static int mend_l1_table(struct mending *m, uint64_t offset, uint64_t entries,
                         struct lam_error *err)
{
    enum { PIECE = 4096 };                      /* entries */
    lam_autofree uint8_t *buf = malloc(PIECE * 8);
    struct check *c = m->c;
    int rc = 0;

    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for an L1 table");
    if (!is_aligned(offset, c->g.cluster_size) ||
        entries > QCOW2_MAX_L1_ENTRIES || !check_owns(c, offset, entries * 8))
        return 0;
    for (uint64_t i = 0; i < entries && rc == 0; i += PIECE) {
        uint64_t n = min_u64(PIECE, entries - i), at = offset + i * 8;
        bool changed = false;

        rc = check_read(c, buf, n * 8, at, err);
        for (uint64_t k = 0; k < n && rc == 0; k++)
            changed |= mend_l1_entry(m, buf + k * 8);
        if (changed)
            rc = check_write(c, buf, n * 8, at, err);
    }
    return rc;
}

static int mend_all(struct mending *m, struct lam_error *err)
{
    struct check *c = m->c;
    int rc = 0;

    for (size_t i = 0; i < c->nb_l2 && rc == 0; i++)
        rc = mend_l2_table(m, &c->l2[i], err);
    if (rc == 0)
        rc = mend_l1_table(m, c->h->l1_offset, c->h->l1_size, err);
    for (size_t i = 0; i < c->snapshots.count && rc == 0; i++) {
        const struct qcow2_snapshot *s = &c->snapshots.items[i];

        rc = mend_l1_table(m, s->l1_offset, s->l1_size, err);
    }
    return rc < 0 ? rc : lam_io_flush(c->io, err);
}

int repair_reserved_bits(struct check *done, struct qcow2 *q,
                         struct lam_error *err)
{
    lam_autofree struct check *c = malloc(sizeof *c);
    struct mending m = { .c = c, .done = done };
    struct lam_check_result now;

    if (!c)
        return lam_fail(err, ENOMEM, "no memory for a check");
    int rc = check_init(c, q->io, &q->header, done->fix, NULL, NULL, &now, err);
    c->fix = 0;                         /* it only counts, ... */
    if (rc == 0)
        rc = check_count(c, err);
    c->fix = done->fix;                 /* ... and may write now */
    if (rc == 0 && !c->incomplete)
        rc = mend_all(&m, err);
    check_deinit(c);
    return rc;
}
