/* SPDX-License-Identifier: MIT */
/*
 * overlap.c - what a write must never reach.
 */
#include "format/qcow2/overlap.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/qcow2/qcow2.h"
#include "format/qcow2/snapshot.h"

enum {
    IN_SLOTS = OVERLAP_ACTIVE_L2 | OVERLAP_REFCOUNT_BLOCK |
               OVERLAP_INACTIVE_L2,
    CONSTANT = OVERLAP_HEADER | OVERLAP_ACTIVE_L1 | OVERLAP_REFCOUNT_TABLE |
               OVERLAP_SNAPSHOT_TABLE | OVERLAP_BITMAP_DIRECTORY,
    CACHED = CONSTANT | OVERLAP_ACTIVE_L2 | OVERLAP_REFCOUNT_BLOCK |
             OVERLAP_INACTIVE_L1,
    ALL = CACHED | OVERLAP_INACTIVE_L2,
    SNAPSHOT_HEAD = 40,             /* bytes a snapshot has at least */
};

/* -------------------------------------------------------------- the tables */

static size_t slot_of(const struct overlap *o, uint64_t host)
{
    return (size_t)((host >> 9) * UINT64_C(0x9e3779b97f4a7c15) >> 20) &
           (o->capacity - 1);
}

static bool contains(const struct overlap *o, uint64_t host)
{
    if (!o->capacity)
        return false;
    for (size_t i = slot_of(o, host); o->slots[i];
         i = (i + 1) & (o->capacity - 1))
        if (o->slots[i] == host)
            return true;
    return false;
}

static void insert(struct overlap *o, uint64_t host)
{
    size_t i = slot_of(o, host);

    while (o->slots[i] && o->slots[i] != host)
        i = (i + 1) & (o->capacity - 1);
    o->used += !o->slots[i];
    o->slots[i] = host;
}

static bool grow(struct overlap *o)
{
    struct overlap larger = { .capacity = o->capacity ? 2 * o->capacity : 64 };

    larger.slots = calloc(larger.capacity, sizeof *larger.slots);
    if (!larger.slots)
        return false;
    for (size_t i = 0; i < o->capacity; i++)
        if (o->slots[i])
            insert(&larger, o->slots[i]);
    free(o->slots);
    o->slots = larger.slots;
    o->capacity = larger.capacity;
    o->used = larger.used;
    return true;
}

static bool add(struct overlap *o, uint64_t host)
{
    if (!host)
        return true;
    if (2 * (o->used + 1) > o->capacity && !grow(o))
        return false;
    insert(o, host);
    return true;
}

void overlap_add(struct qcow2 *q, uint64_t host)
{
    /* Without memory the write goes on: this is a second line of defence. */
    if (q->overlap.checked & IN_SLOTS)
        add(&q->overlap, host);
}

static void forget(struct overlap *o)
{
    free(o->slots);
    free(o->inactive_l1);
    *o = (struct overlap){ .checked = o->checked };
}

void overlap_deinit(struct overlap *o)
{
    forget(o);
}

static int no_memory(struct lam_error *err)
{
    return lam_fail(err, ENOMEM, "no memory for the places of tables");
}

typedef int table_fn(struct qcow2 *q, uint64_t host, struct lam_error *err);

static int add_table(struct qcow2 *q, uint64_t host, struct lam_error *err)
{
    return add(&q->overlap, host) ? 0 : no_memory(err);
}

/* The L2 tables of an L1 table in the file. */
static int each_l2(struct qcow2 *q, uint64_t l1, uint64_t entries,
                   table_fn *fn, struct lam_error *err)
{
    enum { PIECE = 4096 };          /* entries */
    lam_autofree uint8_t *buf = malloc(PIECE * 8);
    int rc = 0;

    if (!buf)
        return no_memory(err);
    for (uint64_t i = 0; i < entries && rc == 0; i += PIECE) {
        uint64_t n = min_u64(PIECE, entries - i);

        rc = lam_io_read(q->io, buf, n * 8, l1 + i * 8, err);
        for (uint64_t j = 0; j < n && rc == 0; j++)
            rc = fn(q, entry_offset(be64_get(buf + j * 8)), err);
    }
    return rc;
}

/* What cannot be made sense of is not protected; check tells. */
static int add_snapshots(struct qcow2 *q, struct lam_error *err)
{
    struct qcow2_snapshots all = { 0 };
    struct overlap *o = &q->overlap;
    int rc = snapshots_load(q->io, &q->header, &all, NULL);

    if (rc == 0 && all.count) {
        o->inactive_l1 = calloc(all.count, 2 * sizeof *o->inactive_l1);
        rc = o->inactive_l1 ? 0 : no_memory(err);
    } else {
        rc = 0;
    }
    for (size_t i = 0; o->inactive_l1 && i < all.count && rc == 0; i++) {
        const struct qcow2_snapshot *s = &all.items[i];

        if (!s->l1_size || s->l1_size > QCOW2_MAX_L1_ENTRIES)
            continue;
        o->inactive_l1[2 * o->nb_inactive_l1] = s->l1_offset;
        o->inactive_l1[2 * o->nb_inactive_l1++ + 1] = s->l1_size;
        if (o->checked & OVERLAP_INACTIVE_L2)
            rc = each_l2(q, s->l1_offset, s->l1_size, add_table, err);
    }
    snapshots_deinit(&all);
    return rc;
}

static int load(struct qcow2 *q, struct lam_error *err)
{
    struct overlap *o = &q->overlap;

    for (size_t i = 0; (o->checked & IN_SLOTS) && i < q->l1_size; i++)
        if (!add(o, entry_offset(q->l1[i])))
            return no_memory(err);
    for (size_t i = 0; (o->checked & IN_SLOTS) && i < q->alloc.next_block; i++)
        if (!add(o, q->alloc.table[i]))
            return no_memory(err);
    return o->checked & (OVERLAP_INACTIVE_L1 | OVERLAP_INACTIVE_L2)
         ? add_snapshots(q, err) : 0;
}

int overlap_load(struct qcow2 *q, enum lam_overlap_check level, unsigned on,
                 unsigned off, struct lam_error *err)
{
    static const unsigned classes[] = {
        [LAM_OVERLAP_CACHED] = CACHED,
        [LAM_OVERLAP_NONE] = 0,
        [LAM_OVERLAP_CONSTANT] = CONSTANT,
        [LAM_OVERLAP_ALL] = ALL,
    };

    q->overlap.checked = (classes[level] | on) & ~off;
    return load(q, err);
}

void overlap_reload(struct qcow2 *q)
{
    forget(&q->overlap);
    load(q, NULL);                  /* as far as memory goes */
}

/* ------------------------------------------------------------------- a hit */

static bool touches(struct range r, uint64_t offset, uint64_t length)
{
    return length && range_overlaps(r, range_make(offset, length));
}

/* Class of a fixed table that @r touches, of those @wanted, or 0. */
static unsigned on_fixed(const struct qcow2 *q, unsigned wanted,
                         struct range r)
{
    const struct qcow2_header *h = &q->header;
    const struct { unsigned class; uint64_t offset, length; } tables[] = {
        { OVERLAP_HEADER, 0, q->g.cluster_size },
        { OVERLAP_ACTIVE_L1, h->l1_offset, (uint64_t)h->l1_size * 8 },
        { OVERLAP_REFCOUNT_TABLE, h->reft_offset,
          (uint64_t)h->reft_clusters << q->g.cluster_bits },
        { OVERLAP_SNAPSHOT_TABLE, h->snapshots_offset,
          (uint64_t)h->nb_snapshots * SNAPSHOT_HEAD },
        { OVERLAP_BITMAP_DIRECTORY, h->bitmap_directory_offset,
          header_has_bitmaps(h) ? h->bitmap_directory_size : 0 },
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(tables); i++)
        if ((tables[i].class & wanted) &&
            touches(r, tables[i].offset, tables[i].length))
            return tables[i].class;
    return 0;
}

static unsigned on_inactive_l1(const struct overlap *o, struct range r)
{
    for (size_t i = 0; i < o->nb_inactive_l1; i++)
        if (touches(r, o->inactive_l1[2 * i], o->inactive_l1[2 * i + 1] * 8))
            return OVERLAP_INACTIVE_L1;
    return 0;
}

static bool in_inactive_l1(struct qcow2 *q, uint64_t l1, uint64_t entries,
                           uint64_t host)
{
    for (uint64_t i = 0; i < entries; i++) {
        uint8_t word[8];

        if (lam_io_read(q->io, word, sizeof word, l1 + i * 8, NULL) < 0)
            return true;
        if (entry_offset(be64_get(word)) == host)
            return true;
    }
    return false;
}

/* The slots may be older than the tables. */
static bool is_inactive_l2(struct qcow2 *q, uint64_t host)
{
    const struct overlap *o = &q->overlap;

    for (size_t i = 0; i < o->nb_inactive_l1; i++)
        if (in_inactive_l1(q, o->inactive_l1[2 * i],
                           o->inactive_l1[2 * i + 1], host))
            return true;
    return false;
}

static bool is_refcount_block(const struct qcow2 *q, uint64_t host)
{
    for (size_t i = 0; i < q->alloc.next_block; i++)
        if (q->alloc.table[i] == host)
            return true;
    return false;
}

static bool is_active_l2(struct qcow2 *q, uint64_t host)
{
    bool found = false;

    pthread_rwlock_rdlock(&q->lock);
    for (size_t i = 0; i < q->l1_size && !found; i++)
        found = entry_offset(q->l1[i]) == host;
    pthread_rwlock_unlock(&q->lock);
    return found;
}

/* What is at @host really, among what the slots may mean. */
static unsigned class_of(struct qcow2 *q, unsigned wanted, uint64_t host)
{
    if ((wanted & OVERLAP_REFCOUNT_BLOCK) && is_refcount_block(q, host))
        return OVERLAP_REFCOUNT_BLOCK;
    if ((wanted & OVERLAP_ACTIVE_L2) && is_active_l2(q, host))
        return OVERLAP_ACTIVE_L2;
    if ((wanted & OVERLAP_INACTIVE_L2) && is_inactive_l2(q, host))
        return OVERLAP_INACTIVE_L2;
    return 0;
}

static unsigned find(struct qcow2 *q, unsigned own, struct range r)
{
    unsigned wanted = q->overlap.checked & ~own;
    unsigned class = on_fixed(q, wanted, r);

    if (!class && (wanted & OVERLAP_INACTIVE_L1))
        class = on_inactive_l1(&q->overlap, r);
    for (uint64_t at = r.offset; at < range_end(r) && !class;
         at += q->g.cluster_size)
        if (contains(&q->overlap, at))
            class = class_of(q, wanted, at);
    return class;
}

static const char *name_of(unsigned class)
{
    static const char *const names[] = {
        "qcow2_header", "active L1 table", "active L2 table", "refcount table",
        "refcount block", "snapshot table", "inactive L1 table",
        "inactive L2 table", "bitmap directory",
    };

    return names[__builtin_ctz(class)];
}

/* Version 2 has no bit for it (format document 2.2). */
static void mark_corrupt(struct qcow2 *q)
{
    if (q->header.version < 3 ||
        (q->header.incompatible & QCOW2_INCOMPAT_CORRUPT))
        return;
    q->header.incompatible |= QCOW2_INCOMPAT_CORRUPT;
    if (qcow2_write_header(q, QH_INCOMPATIBLE, QH_COMPATIBLE, NULL) == 0)
        lam_io_flush(q->io, NULL);
}

int overlap_check(struct qcow2 *q, unsigned own, uint64_t host, uint64_t length,
                  struct lam_error *err)
{
    struct lam_error local = LAM_ERROR_INIT;
    unsigned class;

    if (!q->overlap.checked)
        return 0;
    class = find(q, own, range_make(host, length));
    if (!class)
        return 0;
    lam_fail(&local, EIO, "Preventing invalid write on %s (overlaps with %s) "
             "at host offset %#" PRIx64 ": the image is corrupt",
             own ? "metadata" : "host clusters", name_of(class), host);
    mark_corrupt(q);
    qcow2_fail(q, &local);
    if (err)
        *err = local;
    return -EIO;
}
