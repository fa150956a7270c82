/* SPDX-License-Identifier: MIT */
/*
 * bulk-tables.c - L1 and L2 tables read, counted and copied by the thousand.
 *
 * Tables are read from the file, one at a time, and copies are gathered, so
 * that what is written is long and in order.
 */
#include "format/qcow2/bulk.h"

#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"
#include "base/bytes.h"
#include "format/qcow2/table.h"

enum { GATHER_BYTES = 2 << 20 };

int bulk_load_l1(struct bulk *b, uint64_t offset, size_t entries,
                 uint64_t **out, struct lam_error *err)
{
    lam_autofree uint64_t *l1 = malloc(entries ? entries * sizeof *l1 : 1);

    if (!l1)
        return lam_fail(err, ENOMEM, "no memory for an L1 table of %zu "
                        "entries", entries);
    int rc = entries ? lam_io_read(b->q->io, l1, entries * sizeof *l1, offset,
                                   err) : 0;
    if (rc < 0)
        return lam_error_prefix(err, rc, "Could not read L1 table");
    for (size_t i = 0; i < entries; i++)
        l1[i] = be64_get(&l1[i]);
    *out = lam_take(&l1);
    return 0;
}

int bulk_table_of(const struct bulk *b, const uint64_t *l1, size_t i,
                  uint64_t *table, struct lam_error *err)
{
    *table = entry_offset(l1[i]);
    if ((l1[i] & QCOW2_L1_RESERVED) ||
        !is_aligned(*table, b->q->g.cluster_size))
        return lam_fail(err, EUCLEAN, "L1 entry %zu: %#" PRIx64 " has "
                        "reserved bits or an unaligned L2 table offset", i,
                        l1[i]);
    return 0;
}

int bulk_read_table(struct bulk *b, uint64_t table, uint8_t *buf,
                    struct lam_error *err)
{
    int rc = lam_io_read(b->q->io, buf, b->q->g.cluster_size, table, err);

    return lam_error_prefix(err, rc, "Could not read L2 table");
}

/* ----------------------------------------------------------------- counting */

static int count_entry(struct bulk *b, struct qcow2_l2_entry e, int delta,
                       struct lam_error *err)
{
    const struct qcow2_geometry *g = &b->q->g;

    if (e.word & QCOW2_COMPRESSED)
        return shadow_add(&b->refs, compressed_offset(g, e.word),
                          compressed_length(g, e.word), delta, err);
    if (!entry_offset(e.word) || b->q->data_file)
        return 0;               /* an external data file counts nothing */
    return shadow_add(&b->refs, entry_offset(e.word), g->cluster_size, delta,
                      err);
}

/* What the entries of table @l1_index hold; if @cleared is not NULL they lose
 * COPIED, and it says whether one had it. */
static int count_table(struct bulk *b, uint8_t *table, size_t l1_index,
                       int delta, bool *cleared, struct lam_error *err)
{
    const struct qcow2_geometry *g = &b->q->g;
    uint64_t guest = l1_index * g->l2_cover;

    if (cleared)
        *cleared = false;
    for (uint64_t i = 0; i < g->l2_entries; i++, guest += g->cluster_size) {
        struct qcow2_l2_entry e = l2_get(g, table, i);

        if (!(e.word | e.bitmap))
            continue;
        int rc = l2_check_entry(b->q, guest, e, err);
        if (rc == 0)
            rc = count_entry(b, e, delta, err);
        if (rc < 0)
            return rc;
        if (cleared && entry_copied(e.word)) {
            *cleared = true;
            e.word &= ~QCOW2_COPIED;
            l2_put(g, table, i, e);
        }
    }
    return 0;
}

int bulk_drop_l1(struct bulk *b, const uint64_t *l1, size_t entries,
                 uint64_t offset, struct lam_error *err)
{
    uint64_t cs = b->q->g.cluster_size, table;
    lam_autofree uint8_t *buf = buffer_new(cs);

    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for an L2 table");
    int rc = shadow_drop_table(&b->refs, offset, entries * sizeof *l1, err);
    for (size_t i = 0; rc == 0 && i < entries; i++) {
        rc = bulk_table_of(b, l1, i, &table, err);
        if (rc < 0 || !table)
            continue;
        rc = bulk_read_table(b, table, buf, err);
        if (rc == 0)
            rc = count_table(b, buf, i, -1, NULL, err);
        if (rc == 0)
            rc = shadow_drop_table(&b->refs, table, cs, err);
    }
    return rc;
}

/* ---------------------------------------------------------- gathered copies */

int gather_init(struct gather *t, struct bulk *b, struct lam_error *err)
{
    uint64_t cs = b->q->g.cluster_size;

    *t = (struct gather){ .b = b, .capacity = GATHER_BYTES / cs };
    t->buf = buffer_new_contiguous(t->capacity * cs);
    return t->buf ? 0 : lam_fail(err, ENOMEM, "no memory for L2 tables");
}

int gather_flush(struct gather *t, struct lam_error *err)
{
    uint64_t cs = t->b->q->g.cluster_size;
    int rc = 0;

    if (t->used)
        rc = lam_io_write_past_cache(t->b->q->io, t->buf, t->used * cs,
                                     t->host, err);
    if (rc == 0)
        rc = shadow_unalloc(&t->b->refs, t->host + t->used * cs,
                            (t->got - t->used) * cs, err);
    t->got = t->used = 0;
    return lam_error_prefix(err, rc, "Could not write L2 tables");
}

uint8_t *gather_next(struct gather *t)
{
    return t->buf + t->used * t->b->q->g.cluster_size;
}

int gather_add(struct gather *t, uint64_t *host, struct lam_error *err)
{
    int rc = 0;

    if (!t->got)
        rc = shadow_alloc(&t->b->refs, t->capacity, false, &t->host, &t->got,
                          err);
    if (rc < 0)
        return rc;
    *host = t->host + t->used++ * t->b->q->g.cluster_size;
    return t->used == t->got ? gather_flush(t, err) : 0;
}

/* -------------------------------------------------------------- the new L1 */

int bulk_write_l1(struct bulk *b, const uint64_t *l1, size_t entries,
                  uint64_t *host, struct lam_error *err)
{
    uint64_t bytes = align_up(entries * 8, b->q->g.cluster_size), got;
    lam_autofree uint8_t *buf = buffer_new(bytes ? bytes : 1);

    *host = b->l1_offset;
    if (!entries)
        return 0;
    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for an L1 table of %" PRIu64
                        " bytes", bytes);
    memset(buf, 0, bytes);
    for (size_t i = 0; i < entries; i++)
        be64_put(buf + i * 8, l1[i]);
    int rc = shadow_alloc(&b->refs, bytes >> b->q->g.cluster_bits, true, host,
                          &got, err);
    if (rc == 0)
        rc = lam_io_write(b->q->io, buf, bulk_table_bytes(entries * 8, bytes),
                          *host, err);
    return lam_error_prefix(err, rc, "Could not write L1 table");
}

int bulk_set_l1(struct bulk *b, uint64_t *l1, size_t entries,
                struct lam_error *err)
{
    int rc = bulk_write_l1(b, l1, entries, &b->l1_offset, err);

    b->l1 = l1;
    b->l1_size = entries;
    return rc;
}

/* One reference more, if the counter can hold it. */
static int share_table(struct bulk *b, uint64_t table, bool *shared,
                       struct lam_error *err)
{
    const struct qcow2_geometry *g = &b->q->g;
    uint64_t count;
    int rc = shadow_get(&b->refs, host_cluster(g, table), &count, err);

    *shared = rc == 0 && count < g->refcount_max;
    return *shared ? shadow_add(&b->refs, table, g->cluster_size, 1, err) : rc;
}

/* The table at @table, which entry @i of an L1 names: what the active L1 is to
 * have there, in *@entry. */
static int copy_table(struct bulk *b, uint64_t table, size_t i,
                      struct gather *t, uint64_t *entry, struct lam_error *err)
{
    uint64_t host = 0;
    bool cleared, shared = false;
    int rc = bulk_read_table(b, table, gather_next(t), err);

    if (rc == 0)
        rc = count_table(b, gather_next(t), i, 1, &cleared, err);
    if (rc == 0 && !cleared)
        rc = share_table(b, table, &shared, err);
    *entry = table;
    if (rc < 0 || shared)
        return rc;
    rc = gather_add(t, &host, err);
    *entry = host | QCOW2_COPIED;
    return rc;
}

static int copy_tables(struct bulk *b, const uint64_t *l1, size_t entries,
                       struct gather *t, uint64_t *new, struct lam_error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < entries; i++) {
        uint64_t table;

        rc = bulk_table_of(b, l1, i, &table, err);
        if (rc == 0 && table)
            rc = copy_table(b, table, i, t, &new[i], err);
    }
    return rc < 0 ? rc : gather_flush(t, err);
}

int bulk_copy_l1(struct bulk *b, const uint64_t *l1, size_t entries,
                 struct lam_error *err)
{
    lam_autofree uint64_t *new = calloc(entries ? entries : 1, sizeof *new);
    struct gather t;

    if (!new)
        return lam_fail(err, ENOMEM, "no memory for an L1 table of %zu "
                        "entries", entries);
    int rc = gather_init(&t, b, err);
    if (rc == 0)
        rc = copy_tables(b, l1, entries, &t, new, err);
    free(t.buf);
    return rc < 0 ? rc : bulk_set_l1(b, lam_take(&new), entries, err);
}

/* ----------------------------------------------------------- COPIED again */

/* COPIED follows the counters; true in *@changed if any bit had to. */
static int renew_entries(struct bulk *b, uint8_t *table, bool *changed,
                         struct lam_error *err)
{
    const struct qcow2_geometry *g = &b->q->g;

    *changed = false;
    for (uint64_t i = 0; i < g->l2_entries; i++) {
        struct qcow2_l2_entry e = l2_get(g, table, i);
        uint64_t host = entry_offset(e.word), count;

        if (!host || (e.word & QCOW2_COMPRESSED))
            continue;
        int rc = shadow_get(&b->refs, host_cluster(g, host), &count, err);
        if (rc < 0)
            return rc;
        if ((count == 1) == entry_copied(e.word))
            continue;
        e.word ^= QCOW2_COPIED;
        l2_put(g, table, i, e);
        *changed = true;
    }
    return 0;
}

/* What the dropped L1 has at entry @i, if nobody else has it; else 0. */
static int dropped_table(struct bulk *b, size_t i, uint64_t *table,
                         struct lam_error *err)
{
    uint64_t count = 0;

    *table = 0;
    if (i >= b->dropped_l1_size)
        return 0;
    int rc = bulk_table_of(b, b->dropped_l1, i, table, err);
    if (rc == 0 && *table)
        rc = shadow_get(&b->refs, host_cluster(&b->q->g, *table), &count, err);
    if (count)
        *table = 0;
    return rc;
}

/*
 * A snapshot keeps the tables as they were, with COPIED, and the active L1 got
 * copies.  What nobody wrote to since then is, with COPIED, that table again:
 * it is taken back, and there is nothing to write.
 */
static int take_back(struct bulk *b, uint64_t dropped, const uint8_t *renewed,
                     uint8_t *buf, bool *taken, struct lam_error *err)
{
    uint64_t cs = b->q->g.cluster_size;

    *taken = false;
    if (!dropped)
        return 0;
    int rc = bulk_read_table(b, dropped, buf, err);
    if (rc < 0 || memcmp(buf, renewed, cs) != 0)
        return rc;
    *taken = true;
    return shadow_take_back(&b->refs, dropped, err);
}

/* The active table at @table, and at @dropped what the dropped L1 had in its
 * place: its L1 entry to be, in *@entry.  @buf has room for a table. */
static int renew_table(struct bulk *b, uint64_t table, uint64_t dropped,
                       struct gather *t, uint8_t *buf, uint64_t *entry,
                       struct lam_error *err)
{
    uint64_t count, host = dropped;
    bool changed = false, taken = false;
    int rc = shadow_get(&b->refs, host_cluster(&b->q->g, table), &count, err);

    *entry = table;
    if (rc < 0 || count != 1)
        return rc;              /* shared, and all it has with it */
    *entry = table | QCOW2_COPIED;
    rc = bulk_read_table(b, table, gather_next(t), err);
    if (rc == 0)
        rc = renew_entries(b, gather_next(t), &changed, err);
    if (rc < 0 || !changed)
        return rc;
    rc = take_back(b, dropped, gather_next(t), buf, &taken, err);
    if (rc == 0 && !taken)
        rc = gather_add(t, &host, err);
    if (rc < 0)
        return rc;
    *entry = host | QCOW2_COPIED;
    return shadow_drop_table(&b->refs, table, b->q->g.cluster_size, err);
}

static int renew_tables(struct bulk *b, struct gather *t, uint64_t *new,
                        bool *changed, struct lam_error *err)
{
    lam_autofree uint8_t *buf = buffer_new(b->q->g.cluster_size);
    int rc = buf ? 0 : lam_fail(err, ENOMEM, "no memory for an L2 table");

    *changed = false;
    for (size_t i = 0; rc == 0 && i < b->l1_size; i++) {
        uint64_t table, dropped;

        new[i] = b->q->l1[i];
        rc = bulk_table_of(b, b->q->l1, i, &table, err);
        if (rc < 0 || !table)
            continue;
        rc = dropped_table(b, i, &dropped, err);
        if (rc == 0)
            rc = renew_table(b, table, dropped, t, buf, &new[i], err);
        *changed |= new[i] != b->q->l1[i];
    }
    return rc < 0 ? rc : gather_flush(t, err);
}

int bulk_renew_copied(struct bulk *b, struct lam_error *err)
{
    size_t entries = b->l1_size;
    lam_autofree uint64_t *new = calloc(entries ? entries : 1, sizeof *new);
    uint64_t old = b->l1_offset;
    struct gather t;
    bool changed = false;

    if (!new)
        return lam_fail(err, ENOMEM, "no memory for an L1 table of %zu "
                        "entries", entries);
    int rc = gather_init(&t, b, err);
    if (rc == 0)
        rc = renew_tables(b, &t, new, &changed, err);
    free(t.buf);
    if (rc < 0 || !changed)
        return rc;
    rc = bulk_set_l1(b, lam_take(&new), entries, err);
    return rc < 0 ? rc : shadow_drop_table(&b->refs, old,
                                           entries * sizeof *new, err);
}
