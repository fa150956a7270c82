/* SPDX-License-Identifier: MIT */
/*
 * amend-zero.c - an image without zero clusters, for version 2.
 *
 * L2 tables that have some are copied, beside the old ones.  Over a backing
 * file a zero cluster becomes a reference to a cluster of zeroes, which as many
 * of them share as its refcount can count: that takes no space to speak of, and
 * the first write to one copies it like any shared cluster.
 */
#include "format/qcow2/amend.h"

#include <string.h>

#include "base/buffer.h"
#include "format/qcow2/encrypt.h"
#include "format/qcow2/snapshot.h"
#include "format/qcow2/table.h"

/* An L2 table that several L1 tables may name, and its copy. */
struct moved {
    uint64_t from, to;          /* to == from: it had no zero clusters */
};

struct conversion {
    struct bulk *b;
    bool no_compressed;
    struct gather t;
    struct qcow2_snapshots snapshots;
    struct moved *moved;        /* hash table by @from; 0: empty */
    size_t nb_moved, capacity;  /* a power of two */
    uint64_t zeroes;            /* host cluster that holds them; 0: none yet */
    uint64_t users, most_users; /* entries, once a table */
    uint64_t first_table, first_index;  /* the first of them */
    const struct amend_progress *progress;
    uint64_t done, total;       /* L1 entries */
};

/* -------------------------------------------------------- tables met before */

static struct moved *find_moved(const struct conversion *c, uint64_t from)
{
    size_t mask = c->capacity - 1;
    size_t i = (size_t)((from >> 9) * UINT64_C(0x9e3779b97f4a7c15) >> 20);

    for (i &= mask; c->moved[i].from && c->moved[i].from != from;)
        i = (i + 1) & mask;
    return &c->moved[i];
}

static int grow_moved(struct conversion *c, struct lam_error *err)
{
    struct conversion old = *c;

    if (c->nb_moved * 2 < c->capacity)
        return 0;
    size_t n = c->capacity ? c->capacity * 2 : 256;
    struct moved *table = calloc(n, sizeof *table);
    if (!table)
        return lam_fail(err, ENOMEM, "no memory for %zu L2 tables", n);
    c->moved = table;
    c->capacity = n;
    for (size_t i = 0; i < old.capacity; i++)
        if (old.moved[i].from)
            *find_moved(c, old.moved[i].from) = old.moved[i];
    free(old.moved);
    return 0;
}

static int note_moved(struct conversion *c, uint64_t from, uint64_t to,
                      struct lam_error *err)
{
    int rc = grow_moved(c, err);

    if (rc < 0)
        return rc;
    *find_moved(c, from) = (struct moved){ from, to };
    c->nb_moved++;
    return 0;
}

/* ------------------------------------------------------ a cluster of zeroes */

/* If one entry alone refers to the last one, that entry has COPIED; when it was
 * made, nobody knew.  The table is not referred to yet. */
static int finish_zeroes(struct conversion *c, struct lam_error *err)
{
    const struct qcow2_geometry *g = &c->b->q->g;
    uint64_t count;
    uint8_t word[8];

    if (!c->zeroes)
        return 0;
    int rc = shadow_get(&c->b->refs, host_cluster(g, c->zeroes), &count, err);
    if (rc < 0 || count != 1)
        return rc;
    l2_put(g, word, 0, (struct qcow2_l2_entry){ c->zeroes | QCOW2_COPIED, 0 });
    return lam_io_write(c->b->q->io, word, sizeof word,
                        c->first_table + c->first_index * 8, err);
}

static bool is_zero_entry(struct qcow2_l2_entry e)
{
    return (e.word & QCOW2_ZERO) && !(e.word & QCOW2_COMPRESSED);
}

/* Whether version 2 can have no cluster like that.  Data are encrypted by their
 * place on the host, not the guest, but not by the legacy method: there a
 * cluster of zeroes cannot be shared. */
static int check_entry(const struct qcow2 *q, bool no_compressed,
                       struct qcow2_l2_entry e, struct lam_error *err)
{
    if (no_compressed && (e.word & QCOW2_COMPRESSED))
        return lam_fail(err, ENOTSUP, "Cannot downgrade an image with zstd "
                        "compression type and existing compressed clusters");
    if (is_zero_entry(e) && q->has_backing &&
        q->header.crypt_method == QCOW2_CRYPT_AES)
        return lam_fail(err, ENOTSUP, "Cannot downgrade an image with legacy "
                        "encryption and zero clusters over a backing file");
    return 0;
}

static int new_zeroes(struct conversion *c, struct lam_error *err)
{
    struct qcow2 *q = c->b->q;
    uint64_t cs = q->g.cluster_size, got;
    lam_autofree uint8_t *bytes = buffer_new(cs);

    if (!bytes)
        return lam_fail(err, ENOMEM, "no memory for a cluster");
    memset(bytes, 0, cs);
    int rc = shadow_alloc(&c->b->refs, 1, true, &c->zeroes, &got, err);
    struct format_allocation a = {
        .length = cs, .cow_end = cs, .host_offset = c->zeroes, .io = q->io,
    };
    c->users = 0;
    return rc < 0 ? rc : qcow2_write_data(q, &a, bytes, err);
}

/* One reference more to it; the first is there since it was made. */
static int use_zeroes(struct conversion *c, uint64_t index,
                      struct lam_error *err)
{
    int rc = 0;

    if (!c->zeroes || c->users == c->most_users)
        rc = new_zeroes(c, err);
    if (rc == 0 && c->users)
        rc = shadow_add(&c->b->refs, c->zeroes, 1, 1, err);
    if (rc == 0 && c->users++ == 0) {
        c->first_table = 0;     /* the one being made */
        c->first_index = index;
    }
    return rc;
}

/* ------------------------------------------------------------------ entries */

static int drop_host(struct conversion *c, struct qcow2_l2_entry e,
                     struct lam_error *err)
{
    uint64_t host = entry_offset(e.word);

    return host ? shadow_add(&c->b->refs, host, c->b->q->g.cluster_size, -1,
                             err) : 0;
}

static int convert_entry(struct conversion *c, uint8_t *table, uint64_t i,
                         struct lam_error *err)
{
    struct qcow2_l2_entry e = l2_get(&c->b->q->g, table, i);
    int rc = drop_host(c, e, err);

    e.word = 0;
    if (rc == 0 && c->b->q->has_backing) {
        rc = use_zeroes(c, i, err);
        e.word = c->zeroes;
    }
    l2_put(&c->b->q->g, table, i, e);
    return rc;
}

static int convert_entries(struct conversion *c, uint8_t *table,
                           uint64_t guest, bool *changed,
                           struct lam_error *err)
{
    const struct qcow2_geometry *g = &c->b->q->g;
    int rc = 0;

    *changed = false;
    for (uint64_t i = 0; rc == 0 && i < g->l2_entries; i++) {
        struct qcow2_l2_entry e = l2_get(g, table, i);

        if (!e.word)
            continue;
        rc = l2_check_entry(c->b->q, guest + (i << g->cluster_bits), e, err);
        if (rc == 0)
            rc = check_entry(c->b->q, c->no_compressed, e, err);
        if (rc < 0 || !is_zero_entry(e))
            continue;
        *changed = true;
        rc = convert_entry(c, table, i, err);
    }
    return rc;
}

/* Another L1 table names the table that was converted before: each of its
 * references moves, like that one's did. */
static int convert_again(struct conversion *c, const struct moved *m,
                         struct lam_error *err)
{
    const struct qcow2_geometry *g = &c->b->q->g;
    lam_autofree uint8_t *old = buffer_new(g->cluster_size);
    lam_autofree uint8_t *new = buffer_new(g->cluster_size);

    if (!old || !new)
        return lam_fail(err, ENOMEM, "no memory for L2 tables");
    int rc = gather_flush(&c->t, err);
    if (rc == 0)
        rc = bulk_read_table(c->b, m->from, old, err);
    if (rc == 0)
        rc = bulk_read_table(c->b, m->to, new, err);
    for (uint64_t i = 0; rc == 0 && i < g->l2_entries; i++) {
        struct qcow2_l2_entry e = l2_get(g, old, i);
        uint64_t host = entry_offset(l2_get(g, new, i).word);

        if (!is_zero_entry(e))
            continue;
        rc = drop_host(c, e, err);
        if (rc == 0 && host)
            rc = shadow_add(&c->b->refs, host, g->cluster_size, 1, err);
    }
    if (rc == 0)
        rc = shadow_add(&c->b->refs, m->to, g->cluster_size, 1, err);
    return rc < 0 ? rc : shadow_drop_table(&c->b->refs, m->from,
                                           g->cluster_size, err);
}

/* ------------------------------------------------------------------- tables */

/* Table @from of L1 entry @l1_index, which was not met before; *@to is @from if
 * nothing had to change. */
static int convert_table(struct conversion *c, uint64_t from, size_t l1_index,
                         uint64_t *to, struct lam_error *err)
{
    const struct qcow2_geometry *g = &c->b->q->g;
    bool changed = false;
    int rc = bulk_read_table(c->b, from, gather_next(&c->t), err);

    *to = from;
    if (rc == 0)
        rc = convert_entries(c, gather_next(&c->t), l1_index * g->l2_cover,
                             &changed, err);
    if (rc < 0 || !changed)
        return rc;
    rc = gather_add(&c->t, to, err);
    if (!c->first_table)
        c->first_table = *to;
    return rc < 0 ? rc : shadow_drop_table(&c->b->refs, from, g->cluster_size,
                                           err);
}

static int convert_l1_entry(struct conversion *c, const uint64_t *l1, size_t i,
                            uint64_t *new, struct lam_error *err)
{
    uint64_t table, to;
    int rc = bulk_table_of(c->b, l1, i, &table, err);

    *new = l1[i];
    if (rc < 0 || !table)
        return rc;
    const struct moved *m = c->capacity ? find_moved(c, table) : NULL;
    if (m && m->from) {
        to = m->to;
        rc = to == table ? 0 : convert_again(c, m, err);
    } else {
        rc = convert_table(c, table, i, &to, err);
        if (rc == 0 && c->snapshots.count)
            rc = note_moved(c, table, to, err);
    }
    *new = to | (l1[i] & QCOW2_COPIED);
    return rc;
}

static int convert_l1(struct conversion *c, const uint64_t *l1, size_t entries,
                      uint64_t *new, bool *changed, struct lam_error *err)
{
    int rc = 0;

    *changed = false;
    for (size_t i = 0; rc == 0 && i < entries; i++) {
        rc = convert_l1_entry(c, l1, i, &new[i], err);
        *changed |= new[i] != l1[i];
        amend_tell(c->progress, ++c->done, c->total);
    }
    /* Now, so that the L1 table goes behind the copies and not behind all the
     * room that was reserved for them. */
    return rc < 0 ? rc : gather_flush(&c->t, err);
}

static int convert_active(struct conversion *c, bool *changed,
                          struct lam_error *err)
{
    struct bulk *b = c->b;
    size_t entries = b->l1_size;
    uint64_t old = b->l1_offset;
    lam_autofree uint64_t *new = calloc(entries ? entries : 1, sizeof *new);

    if (!new)
        return lam_fail(err, ENOMEM, "no memory for an L1 table of %zu "
                        "entries", entries);
    int rc = convert_l1(c, b->q->l1, entries, new, changed, err);
    if (rc < 0 || !*changed)
        return rc;
    rc = bulk_set_l1(b, lam_take(&new), entries, err);
    return rc < 0 ? rc : shadow_drop_table(&b->refs, old,
                                           entries * sizeof *new, err);
}

/* The snapshot's L1 table; *@host is where it is from now on. */
static int convert_snapshot(struct conversion *c,
                            const struct qcow2_snapshot *s, uint64_t *host,
                            bool *changed, struct lam_error *err)
{
    lam_autofree uint64_t *l1 = NULL;
    lam_autofree uint64_t *new = calloc((size_t)s->l1_size + 1, sizeof *new);
    bool mine = false;

    *host = s->l1_offset;
    if (!new)
        return lam_fail(err, ENOMEM, "no memory for an L1 table of %u "
                        "entries", s->l1_size);
    int rc = snapshot_check_l1(c->b->q, s, err);
    if (rc == 0)
        rc = bulk_load_l1(c->b, s->l1_offset, s->l1_size, &l1, err);
    if (rc == 0)
        rc = convert_l1(c, l1, s->l1_size, new, &mine, err);
    if (rc < 0 || !mine)
        return rc;
    *changed = true;
    rc = bulk_write_l1(c->b, new, s->l1_size, host, err);
    return rc < 0 ? rc : shadow_drop_table(&c->b->refs, s->l1_offset,
                                           s->l1_size * sizeof *new, err);
}

static int convert_snapshots(struct conversion *c, bool *changed,
                             struct lam_error *err)
{
    const struct qcow2_snapshots *list = &c->snapshots;
    lam_autofree uint64_t *hosts = calloc(list->count + 1, sizeof *hosts);
    bool mine = false;
    int rc = 0;

    if (!hosts)
        return lam_fail(err, ENOMEM, "no memory for %zu snapshots",
                        list->count);
    for (size_t i = 0; rc == 0 && i < list->count; i++)
        rc = convert_snapshot(c, &list->items[i], &hosts[i], &mine, err);
    if (rc < 0 || !mine)
        return rc;
    *changed = true;
    return snapshots_renew(c->b, list, hosts, err);
}

static int convert_all(struct conversion *c, bool *changed,
                       struct lam_error *err)
{
    struct qcow2 *q = c->b->q;

    c->total = c->b->l1_size;
    for (size_t i = 0; i < c->snapshots.count; i++)
        c->total += c->snapshots.items[i].l1_size;
    /* Each entry may come to count once a snapshot. */
    c->most_users = max_u64(2, q->g.refcount_max / (c->snapshots.count + 1));
    int rc = convert_active(c, changed, err);
    if (rc == 0)
        rc = convert_snapshots(c, changed, err);
    return rc < 0 ? rc : finish_zeroes(c, err);
}

int amend_remove_zeroes(struct bulk *b, bool no_compressed, bool *changed,
                        const struct amend_progress *progress,
                        struct lam_error *err)
{
    struct conversion c = { .b = b, .no_compressed = no_compressed,
                            .progress = progress };

    *changed = false;
    int rc = snapshots_load(b->q->io, &b->q->header, &c.snapshots, err);
    if (rc == 0)
        rc = gather_init(&c.t, b, err);
    if (rc == 0)
        rc = convert_all(&c, changed, err);
    snapshots_deinit(&c.snapshots);
    free(c.t.buf);
    free(c.moved);
    return rc;
}

/* ------------------------------------------------------------ looking ahead */

static int look_at_l1(struct bulk *b, bool no_compressed, const uint64_t *l1,
                      size_t entries, struct lam_error *err)
{
    const struct qcow2_geometry *g = &b->q->g;
    lam_autofree uint8_t *table = buffer_new(g->cluster_size);
    int rc = table ? 0 : lam_fail(err, ENOMEM, "no memory for an L2 table");

    for (size_t i = 0; rc == 0 && i < entries; i++) {
        uint64_t host;

        rc = bulk_table_of(b, l1, i, &host, err);
        if (rc < 0 || !host)
            continue;
        rc = bulk_read_table(b, host, table, err);
        for (uint64_t k = 0; rc == 0 && k < g->l2_entries; k++)
            rc = check_entry(b->q, no_compressed, l2_get(g, table, k), err);
    }
    return rc;
}

static int look_at_snapshot(struct bulk *b, bool no_compressed,
                            const struct qcow2_snapshot *s,
                            struct lam_error *err)
{
    lam_autofree uint64_t *l1 = NULL;
    int rc = snapshot_check_l1(b->q, s, err);

    if (rc == 0)
        rc = bulk_load_l1(b, s->l1_offset, s->l1_size, &l1, err);
    return rc < 0 ? rc : look_at_l1(b, no_compressed, l1, s->l1_size, err);
}

int amend_check_entries(struct bulk *b, bool no_compressed,
                        struct lam_error *err)
{
    struct qcow2_snapshots list = { 0 };

    if (!no_compressed && b->q->header.crypt_method != QCOW2_CRYPT_AES)
        return 0;
    int rc = look_at_l1(b, no_compressed, b->q->l1, b->l1_size, err);
    if (rc == 0)
        rc = snapshots_load(b->q->io, &b->q->header, &list, err);
    for (size_t i = 0; rc == 0 && i < list.count; i++)
        rc = look_at_snapshot(b, no_compressed, &list.items[i], err);
    snapshots_deinit(&list);
    return rc;
}
