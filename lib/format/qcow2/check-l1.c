/* SPDX-License-Identifier: MIT */
/*
 * check-l1.c - the L1 tables, active and of snapshots, and the list of L2
 * tables that they name.
 *
 * Nothing keeps the tables of 65,536 snapshots, 32 MiB each, from lying over
 * each other in a small file.  So they are not read one by one: what k of them
 * have in common is read once and counts k times, and holes are not read at
 * all.  The time is that of the data in the file.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/qcow2/check-internal.h"

/* Whose an entry is: the active table's, or of so many snapshots' tables. */
struct l1_of {
    uint64_t weight;
    bool active;
};

static int by_offset(const void *a, const void *b)
{
    uint64_t x = ((const struct check_l2 *)a)->offset;
    uint64_t y = ((const struct check_l2 *)b)->offset;

    return x < y ? -1 : x > y;
}

/* Sort the list and make one item of those that name the same table. */
void check_collect_l2(struct check *c)
{
    size_t n = 0;

    if (c->l2_sorted == c->nb_l2)
        return;
    qsort(c->l2, c->nb_l2, sizeof *c->l2, by_offset);
    for (size_t i = 0; i < c->nb_l2; i++) {
        if (n && c->l2[n - 1].offset == c->l2[i].offset) {
            c->l2[n - 1].references += c->l2[i].references;
            c->l2[n - 1].active += c->l2[i].active;
        } else {
            c->l2[n++] = c->l2[i];
        }
    }
    c->nb_l2 = c->l2_sorted = n;
}

/* Full lists are collected before they grow, so that a thousand snapshots of
 * the same tables take the memory of one. */
static int add_l2(struct check *c, uint64_t offset, struct l1_of of,
                  struct lam_error *err)
{
    if (c->nb_l2 == c->l2_capacity) {
        check_collect_l2(c);
        if (c->nb_l2 >= c->l2_capacity / 2) {
            size_t wanted = c->l2_capacity ? c->l2_capacity * 2 : 1024;
            struct check_l2 *grown = realloc(c->l2, wanted * sizeof *grown);
            if (!grown)
                return lam_fail(err, ENOMEM, "no memory for %zu L2 tables",
                                wanted);
            c->l2 = grown;
            c->l2_capacity = wanted;
        }
    }
    c->l2[c->nb_l2++] = (struct check_l2){
        .offset = offset,
        .references = of.weight,
        .active = of.active,
    };
    return 0;
}

static int l1_entry(struct check *c, uint64_t entry, struct l1_of of,
                    struct lam_error *err)
{
    uint64_t offset = entry_offset(entry);

    if (!entry)
        return 0;
    if (entry & QCOW2_L1_RESERVED) {
        check_found(c, LAM_FINDING_CORRUPTION, of.weight, "ERROR found L1 "
                    "entry with reserved bits set: %" PRIx64, entry);
        c->reserved_bits = true;
    }
    if (!offset) {
        /* Where the table was is not known: it may be among the leaks. */
        if (!(entry & QCOW2_L1_RESERVED))
            check_found(c, LAM_FINDING_CORRUPTION, of.weight, "ERROR found L1 "
                        "entry without an L2 table: %" PRIx64, entry);
        c->incomplete = true;
        return 0;
    }
    if (!is_aligned(offset, c->g.cluster_size)) {
        check_found(c, LAM_FINDING_CORRUPTION, of.weight, "ERROR l2_offset=%"
                    PRIx64 ": Table is not cluster aligned; L1 entry corrupted",
                    offset);
        c->incomplete = true;
        return 0;               /* what is there is no table */
    }
    if (of.active)
        check_look_at_copied(c, entry, false);
    return add_l2(c, offset, of, err);
}

/* Entries from @offset to @end; what the file has not got is all zero. */
static int walk_entries(struct check *c, uint64_t offset, uint64_t end,
                        struct l1_of of, struct lam_error *err)
{
    enum { PIECE = 32 * 1024 };                 /* bytes */
    lam_autofree uint8_t *buf = malloc(PIECE);
    int rc = 0;

    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for an L1 table");
    end = min_u64(end, align_up(c->file_length, 8));
    while (offset < end && rc == 0) {
        uint64_t hole = align_down(lam_io_hole(c->io, offset, end - offset), 8);
        uint64_t n = min_u64(PIECE, end - offset);
        if (hole) {
            offset += hole;
            continue;
        }
        rc = check_read(c, buf, n, offset, err);
        for (uint64_t j = 0; j < n && rc == 0; j += 8)
            rc = l1_entry(c, be64_get(buf + j), of, err);
        offset += n;
    }
    return rc;
}

int check_active_l1(struct check *c, struct lam_error *err)
{
    uint64_t offset = c->h->l1_offset, length = c->h->l1_size * UINT64_C(8);
    int rc = check_reference(c, offset, length, 1, err);

    check_note_presence(c, offset, length);
    if (rc < 0)
        return rc;
    return walk_entries(c, offset, offset + length,
                        (struct l1_of){ .weight = 1, .active = true }, err);
}

/* --------------------------------------------------------------- snapshots */

/* Where tables begin and end. */
struct edge {
    uint64_t at;
    int step;                   /* +1, -1 */
};

struct edges {
    struct edge *items;
    size_t count;
};

typedef int span_fn(struct check *c, uint64_t offset, uint64_t end,
                    uint64_t tables, struct lam_error *err);

static int by_place(const void *a, const void *b)
{
    const struct edge *x = a, *y = b;

    return x->at < y->at ? -1 : x->at > y->at;
}

/* Each span that the same tables share, once. */
static int for_spans(struct check *c, struct edges *edges, span_fn *fn,
                     struct lam_error *err)
{
    uint64_t tables = 0;
    int rc = 0;

    qsort(edges->items, edges->count, sizeof *edges->items, by_place);
    for (size_t i = 0; i + 1 < edges->count && rc == 0; i++) {
        const struct edge *here = &edges->items[i];
        tables += (uint64_t)(int64_t)here->step;
        if (tables && here[1].at > here->at)
            rc = fn(c, here->at, here[1].at, tables, err);
    }
    return rc;
}

static void add_edges(struct edges *edges, uint64_t offset, uint64_t end)
{
    if (end == offset)
        return;
    edges->items[edges->count++] = (struct edge){ offset, +1 };
    edges->items[edges->count++] = (struct edge){ end, -1 };
}

static int walk_span(struct check *c, uint64_t offset, uint64_t end,
                     uint64_t tables, struct lam_error *err)
{
    return walk_entries(c, offset, end, (struct l1_of){ .weight = tables },
                        err);
}

static int reference_span(struct check *c, uint64_t offset, uint64_t end,
                          uint64_t tables, struct lam_error *err)
{
    return check_add_references(c, offset, end - offset, tables, err);
}

static bool judge_snapshot(struct check *c, const struct qcow2_snapshot *s)
{
    bool aligned = is_aligned(s->l1_offset, c->g.cluster_size);

    if (aligned && s->l1_size <= QCOW2_MAX_L1_ENTRIES)
        return true;
    if (!aligned)
        check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR snapshot %s (%s) "
                    "l1_offset=%#" PRIx64 ": L1 table is not cluster aligned; "
                    "snapshot table entry corrupted", s->id, s->name,
                    s->l1_offset);
    else
        check_found(c, LAM_FINDING_CORRUPTION, 1, "ERROR snapshot %s (%s) "
                    "l1_size=%#" PRIx32 ": L1 table is too large; snapshot "
                    "table entry corrupted", s->id, s->name, s->l1_size);
    c->incomplete = true;
    return false;
}

/* Where the tables lie that can be walked, and those that count. */
static void collect_snapshots(struct check *c, struct edges *walked,
                              struct edges *counted)
{
    for (size_t i = 0; i < c->snapshots.count; i++) {
        const struct qcow2_snapshot *s = &c->snapshots.items[i];
        uint64_t length = s->l1_size * UINT64_C(8), end;
        if (!judge_snapshot(c, s))
            continue;
        check_note_presence(c, s->l1_offset, length);
        if (length && check_in_file(c, s->l1_offset, length, 1))
            add_edges(counted, s->l1_offset,
                      align_up(s->l1_offset + length, c->g.cluster_size));
        if (!add_overflows(s->l1_offset, length, &end))
            add_edges(walked, s->l1_offset, end);
    }
}

int check_snapshot_l1s(struct check *c, struct lam_error *err)
{
    size_t most = 2 * c->snapshots.count + 1;
    lam_autofree struct edge *first = calloc(most, sizeof *first);
    lam_autofree struct edge *second = calloc(most, sizeof *second);
    struct edges walked = { .items = first }, counted = { .items = second };

    if (!first || !second)
        return lam_fail(err, ENOMEM, "no memory for the L1 tables of %zu "
                        "snapshots", c->snapshots.count);
    collect_snapshots(c, &walked, &counted);
    int rc = for_spans(c, &counted, reference_span, err);
    return rc < 0 ? rc : for_spans(c, &walked, walk_span, err);
}
