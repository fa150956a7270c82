/* SPDX-License-Identifier: MIT */
/*
 * check.c - do entries overlap, lie in the file, and leave nothing unused?  And
 * what can be put right of that.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "format/tables/tables.h"

struct look {
    struct tables *t;
    uint8_t *used;              /* a bit a place where a cluster may begin */
    uint64_t nb_places, length;
    uint64_t first;             /* place of the first that data may take */
    uint64_t last_index, last_end;  /* of the stored cluster before */
    lam_finding_fn *finding;
    void *opaque;
    struct lam_check_result *out;
    bool repair;
};

static void tell(struct look *l, enum lam_finding_kind kind, const char *text)
{
    if (kind == LAM_FINDING_CORRUPTION)
        l->out->corruptions++;
    else if (kind == LAM_FINDING_LEAK)
        l->out->leaks++;
    if (l->finding)
        l->finding(l->opaque, kind, text);
}

/* The finding that was told last is none any more. */
static void count_fixed(struct look *l)
{
    l->out->corruptions--;
    l->out->corruptions_fixed++;
}

static uint64_t place_of(const struct look *l, uint64_t host)
{
    return (host - l->t->align_base) / l->t->cluster;
}

/* False: somebody else has some of it. */
static bool take(struct look *l, uint64_t host, uint64_t bytes, bool alone)
{
    bool free = true;

    for (uint64_t i = place_of(l, host);
         i <= place_of(l, host + bytes - 1) && i < l->nb_places; i++) {
        if (l->used[i / 8] & 1 << i % 8)
            free = false;
        l->used[i / 8] |= (uint8_t)(1 << i % 8);
    }
    return free || !alone;
}

static void count_fragments(struct look *l, uint64_t index, uint64_t host)
{
    bool near = index == l->last_index + 1 || l->t->layout->holes_fragment;

    l->out->fragmented_clusters += l->last_end && near && host != l->last_end;
    l->last_index = index;
    l->last_end = host + l->t->cluster;
}

/* There are no data in what is not there. */
static int drop_entry(struct look *l, uint64_t index, struct lam_error *err)
{
    if (!l->repair)
        return 0;
    int rc = tables_set(l->t, index, 1, l->t->layout->absent, 0, err);
    if (rc == 0)
        count_fixed(l);
    return rc;
}

/* Cluster @index has the one at @host together with another, and gets its own:
 * a copy, which is on disk before the entry that shows it. */
static int part_clusters(struct look *l, uint64_t index, uint64_t host,
                         struct lam_error *err)
{
    struct tables *t = l->t;
    uint64_t place, n = min_u64(t->cluster, t->io->size - host);
    bool fresh;

    if (!l->repair || !t->layout->parts_clusters)
        return 0;
    lam_autofree uint8_t *bytes = calloc(1, t->cluster);
    if (!bytes)
        return lam_fail(err, ENOMEM, "no memory for a cluster");
    int rc = lam_io_read(t->io, bytes, n, host, err);
    if (rc == 0)
        rc = tables_allocate(t, t->cluster, true, &place, &fresh, err);
    if (rc == 0)
        rc = lam_io_write(t->io, bytes, t->cluster, place, err);
    if (rc == 0)
        rc = tables_set(t, index, 1, t->layout->encode(t, place), 0, err);
    if (rc < 0)
        return rc;
    l->out->image_end_offset = max_u64(l->out->image_end_offset,
                                       place + t->cluster);
    count_fixed(l);
    return 0;
}

static int look_at_entry(struct look *l, uint64_t index, uint64_t raw,
                         struct lam_error *err)
{
    struct lam_error why = LAM_ERROR_INIT;
    struct entry entry;
    char text[128];

    bool wrong = tables_decode(l->t, index, raw, &entry, &why) < 0;
    if (entry.kind == ENTRY_ABSENT || entry.kind == ENTRY_ZERO)
        return 0;
    if (!wrong || l->t->layout->holes_fragment) {
        l->out->allocated_clusters++;
        count_fragments(l, index, entry.host);
    }
    if (wrong) {
        tell(l, LAM_FINDING_CORRUPTION, why.message);
        return drop_entry(l, index, err);
    }
    bool compressed = entry.kind == ENTRY_COMPRESSED;
    l->out->compressed_clusters += compressed;
    l->out->image_end_offset = max_u64(l->out->image_end_offset, entry.host +
                                       (compressed ? entry.host_length
                                                   : l->t->cluster));
    if (take(l, entry.host, compressed ? entry.host_length : l->t->cluster,
             !compressed))
        return 0;
    snprintf(text, sizeof text, "cluster %" PRIu64 " at host offset %#" PRIx64
             " is used by another one, too", index, entry.host);
    tell(l, LAM_FINDING_CORRUPTION, text);
    return part_clusters(l, index, entry.host, err);
}

static int look_at_all(struct look *l, struct lam_error *err)
{
    uint64_t clusters = tables_clusters(l->t);

    for (uint64_t i = 0; i < clusters; i++) {
        uint64_t raw;
        pthread_rwlock_rdlock(&l->t->lock);
        int rc = tables_lookup(l->t, i, &raw);
        pthread_rwlock_unlock(&l->t->lock);
        if (rc == -EAGAIN && (rc = tables_load(l->t, i, err)) == 0) {
            i--;
            continue;
        }
        if (rc == 0)
            rc = look_at_entry(l, i, raw, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Where no table can be there is none: its clusters are gone. */
static void look_at_l1_entry(struct look *l, uint64_t i)
{
    struct tables *t = l->t;
    char text[160];

    if (!t->for_check || !t->l1_wrong[i])
        return;
    snprintf(text, sizeof text, "%s: L1 entry %" PRIu64 ": there is no L2 table"
             " at offset %#" PRIx64 " of a file of %" PRIu64 " bytes",
             t->layout->name, i, t->l1_wrong[i], l->length);
    tell(l, LAM_FINDING_CORRUPTION, text);
    if (!l->repair)
        return;
    t->l1_wrong[i] = 0;
    t->l1_dirty[i] = t->header_dirty = true;
    count_fixed(l);
}

static void take_tables(struct look *l)
{
    const struct tables *t = l->t;
    uint64_t bytes = t->table_entries * t->layout->entry_bytes;
    char text[128];

    if (t->is_two_level && t->table_offset >= t->data_start)
        take(l, t->table_offset, bytes, false);
    for (uint64_t i = 0; i < t->nb_l1; i++) {
        look_at_l1_entry(l, i);
        if (!t->l1[i])
            continue;
        l->out->image_end_offset = max_u64(l->out->image_end_offset,
                                           t->l1[i] + bytes);
        if (t->l1[i] >= t->align_base && take(l, t->l1[i], bytes, true))
            continue;
        snprintf(text, sizeof text, "L2 table %" PRIu64 " at host offset %#"
                 PRIx64 " is used by another one, too", i, t->l1[i]);
        tell(l, LAM_FINDING_CORRUPTION, text);
    }
}

static void count_leaks(struct look *l)
{
    char text[128];
    uint64_t leaked = 0;

    if (l->t->layout->leaks_at_end)
        l->first = max_u64(l->first, div_up(l->out->image_end_offset -
                                            l->t->align_base, l->t->cluster));
    for (uint64_t i = l->first; i < l->nb_places; i++)
        leaked += !(l->used[i / 8] & 1 << i % 8);
    if (!leaked)
        return;
    snprintf(text, sizeof text, "%" PRIu64 " clusters of the file are used by "
             "nothing", leaked);
    tell(l, LAM_FINDING_LEAK, text);
    l->out->leaks = leaked;
}

static int look(struct tables *t, bool repair, lam_finding_fn *finding,
                void *opaque, struct lam_check_result *out,
                struct lam_error *err)
{
    struct look l = { .t = t, .finding = finding, .opaque = opaque,
                      .out = out, .repair = repair };
    int rc = lam_io_size(t->io, &l.length, err);

    if (rc < 0)
        return rc;
    if (l.length > t->align_base)
        l.nb_places = t->layout->whole_clusters
            ? (l.length - t->align_base) / t->cluster
            : div_up(l.length - t->align_base, t->cluster);
    if (t->data_start > t->align_base)
        l.first = div_up(t->data_start - t->align_base, t->cluster);
    lam_autofree uint8_t *used = calloc(1, l.nb_places / 8 + 1);
    if (!used)
        return lam_fail(err, ENOMEM, "no memory for a map of %" PRIu64
                        " clusters", l.nb_places);
    l.used = used;
    out->total_clusters = tables_clusters(t);
    out->image_end_offset = max_u64(out->image_end_offset,
                                    min_u64(t->data_start, l.length));
    take_tables(&l);
    rc = look_at_all(&l, err);
    if (rc == 0 && !t->layout->ignores_leaks)
        count_leaks(&l);
    return rc;
}

int tables_check(struct tables *t, lam_finding_fn *finding, void *opaque,
                 struct lam_check_result *out, struct lam_error *err)
{
    return look(t, false, finding, opaque, out, err);
}

int tables_repair(struct tables *t, lam_finding_fn *finding, void *opaque,
                  struct lam_check_result *out, struct lam_error *err)
{
    return look(t, true, finding, opaque, out, err);
}
