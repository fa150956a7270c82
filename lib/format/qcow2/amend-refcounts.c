/* SPDX-License-Identifier: MIT */
/*
 * amend-refcounts.c - refcounts of another width (format document 5.4).
 *
 * A complete second set of blocks and table is written beside the one in force.
 * What is in use then is worked out in a shadow of the old counters (the new
 * set counts, the old one does not), and the new blocks are made from that, one
 * at a time.  One write of the header names table and width together.
 */
#include "format/qcow2/amend.h"

#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"
#include "base/bytes.h"
#include "base/zeroes.h"
#include "format/qcow2/alloc.h"
#include "format/qcow2/refblock.h"

enum { WRITE_BYTES = 2 << 20 };

struct widening {
    struct bulk *b;
    struct qcow2_geometry g;    /* with the new width */
    uint64_t *table;            /* new blocks; NEEDED: without a place yet */
    uint64_t entries;           /* allocated */
    uint64_t count;             /* one behind the last block */
    uint64_t table_place, table_clusters;
    uint8_t *old;               /* one old block as read */
    uint64_t old_index;         /* which; UINT64_MAX: none */
    const struct amend_progress *progress;
    uint64_t done, total;       /* blocks */
};

/* No cluster starts there. */
#define NEEDED UINT64_C(1)

static void widening_deinit(struct widening *w)
{
    free(w->table);
    free(w->old);
}

/* --------------------------------------------------------- the old counters */

/* The old block @i as it is to become; NULL in *@out: all counters are 0. */
static int old_block(struct widening *w, uint64_t i, const uint8_t **out,
                     struct lam_error *err)
{
    const struct shadow *s = &w->b->refs;
    uint64_t cs = w->g.cluster_size;
    int rc = 0;

    *out = NULL;
    if (i >= s->entries || (!s->blocks[i].bytes && !s->table[i]))
        return 0;
    *out = s->blocks[i].bytes ? s->blocks[i].bytes : w->old;
    if (s->blocks[i].bytes || w->old_index == i)
        return 0;
    w->old_index = UINT64_MAX;
    rc = lam_io_read(w->b->q->io, w->old, cs, s->table[i], err);
    if (rc == 0)
        w->old_index = i;
    return lam_error_prefix(err, rc, "Could not read refcount block");
}

/* Sets the new counters of [first, first + n), which one old block holds;
 * @new is NULL if there are none yet. */
static int convert_counters(struct widening *w, const uint8_t *old,
                            uint64_t first, uint64_t n, uint8_t *new,
                            struct lam_error *err)
{
    const struct qcow2_geometry *from = &w->b->q->g, *to = &w->g;
    uint64_t at = refblock_index(from, first);
    uint64_t there = refblock_index(to, first);

    for (uint64_t i = 0; i < n; i++) {
        uint64_t value = refblock_get(old, from->refcount_order, at + i);

        if (value > to->refcount_max)
            return lam_fail(err, EINVAL, "Cannot decrease refcount entry width "
                            "to %u bits: Cluster at offset %#" PRIx64 " has a "
                            "refcount of %" PRIu64, to->refcount_bits,
                            (first + i) << to->cluster_bits, value);
        if (value && new)
            refblock_set(new, to->refcount_order, there + i, value);
    }
    return 0;
}

/* The counters of new block @i into @new, or (NULL) only looked at. */
static int convert_block(struct widening *w, uint64_t i, uint8_t *new,
                         bool *in_use, struct lam_error *err)
{
    const struct qcow2_geometry *from = &w->b->q->g;
    uint64_t step = min_u64(from->refblock_entries, w->g.refblock_entries);
    uint64_t first = i * w->g.refblock_entries;
    uint64_t bytes = (step << from->refcount_order) / 8;
    int rc = 0;

    *in_use = false;
    if (new)
        memset(new, 0, w->g.cluster_size);
    for (uint64_t n = 0; rc == 0 && n < w->g.refblock_entries; n += step) {
        const uint8_t *old;
        uint64_t at = refblock_index(from, first + n);

        rc = old_block(w, reft_index(from, first + n), &old, err);
        if (rc < 0 || !old ||
            memory_is_zero(old + ((at << from->refcount_order) / 8), bytes))
            continue;
        *in_use = true;
        if (new || w->g.refcount_max < from->refcount_max)
            rc = convert_counters(w, old, first + n, step, new, err);
    }
    return rc;
}

/* --------------------------------------------------------------- the places */

static int need_block(struct widening *w, uint64_t i, struct lam_error *err)
{
    uint64_t max = QCOW2_MAX_REFCOUNT_TABLE / sizeof *w->table;

    if (i >= max)
        return lam_fail(err, EFBIG, "refcount table would need %" PRIu64
                        " entries; the limit is %" PRIu64, i + 1, max);
    if (i >= w->entries) {
        uint64_t n = min_u64(i + i / 2 + 64, max);
        uint64_t *table = realloc(w->table, n * sizeof *table);

        if (!table)
            return lam_fail(err, ENOMEM, "no memory for a refcount table");
        memset(table + w->entries, 0, (n - w->entries) * sizeof *table);
        w->table = table;
        w->entries = n;
    }
    if (!w->table[i])
        w->table[i] = NEEDED;
    w->count = max_u64(w->count, i + 1);
    return 0;
}

static int need_blocks_of(struct widening *w, uint64_t host, uint64_t clusters,
                          struct lam_error *err)
{
    uint64_t first = host_cluster(&w->g, host);
    uint64_t last = reft_index(&w->g, first + clusters - 1);
    int rc = 0;

    for (uint64_t i = reft_index(&w->g, first); rc == 0 && i <= last; i++)
        rc = need_block(w, i, err);
    return rc;
}

/* Which blocks the clusters in use now need. */
static int need_present(struct widening *w, struct lam_error *err)
{
    const struct qcow2 *q = w->b->q;
    uint64_t clusters = q->alloc.next_block * q->g.refblock_entries;
    uint64_t n = div_up(clusters, w->g.refblock_entries);
    int rc = 0;

    w->total = 2 * n;
    for (uint64_t i = 0; rc == 0 && i < n; i++) {
        bool in_use;

        rc = convert_block(w, i, NULL, &in_use, err);
        if (rc == 0 && in_use)
            rc = need_block(w, i, err);
        amend_tell(w->progress, ++w->done, w->total);
    }
    return rc;
}

static uint64_t count_needed(const struct widening *w, uint64_t from)
{
    uint64_t n = 0;

    for (uint64_t i = from; i < w->count; i++)
        n += w->table[i] == NEEDED;
    return n;
}

/* A run of places for blocks from *@i on that want one. */
static int place_run(struct widening *w, uint64_t *i, uint64_t want,
                     struct lam_error *err)
{
    uint64_t host, got;
    int rc = shadow_alloc(&w->b->refs, want, false, &host, &got, err);

    if (rc < 0)
        return rc;
    for (uint64_t n = 0; n < got; ++*i)
        if (w->table[*i] == NEEDED)
            w->table[*i] = host + n++ * w->g.cluster_size;
    return need_blocks_of(w, host, got, err);
}

static int place_blocks(struct widening *w, bool *again, struct lam_error *err)
{
    uint64_t i = 0, want = count_needed(w, 0);
    int rc = 0;

    *again = want > 0;
    while (rc == 0 && want) {
        rc = place_run(w, &i, want, err);
        want = count_needed(w, i);
    }
    return rc;
}

static int place_table(struct widening *w, bool *again, struct lam_error *err)
{
    uint64_t need = div_up(w->count * sizeof *w->table, w->g.cluster_size);
    uint64_t got;
    int rc = 0;

    if (need <= w->table_clusters)
        return 0;
    *again = true;
    if (w->table_clusters)
        rc = shadow_unalloc(&w->b->refs, w->table_place,
                            w->table_clusters << w->g.cluster_bits, err);
    if (rc == 0)
        rc = shadow_alloc(&w->b->refs, need, true, &w->table_place, &got, err);
    w->table_clusters = need;
    return rc < 0 ? rc : need_blocks_of(w, w->table_place, need, err);
}

/* The old set is not needed afterwards; until then its places stay taken. */
static int drop_old(struct widening *w, struct lam_error *err)
{
    const struct qcow2_header *h = &w->b->q->header;
    const struct allocator *a = &w->b->q->alloc;
    struct shadow *s = &w->b->refs;
    int rc = shadow_drop_table(s, h->reft_offset, (uint64_t)h->reft_clusters <<
                               h->cluster_bits, err);

    for (uint64_t i = 0; rc == 0 && i < a->next_block; i++)
        if (a->table[i])
            rc = shadow_drop_table(s, a->table[i], w->g.cluster_size, err);
    return rc;
}

static int place_all(struct widening *w, struct lam_error *err)
{
    bool again = true;
    int rc = need_present(w, err);

    if (rc == 0)
        rc = drop_old(w, err);
    while (rc == 0 && again) {
        rc = place_blocks(w, &again, err);
        if (rc == 0)
            rc = place_table(w, &again, err);
    }
    return rc;
}

/* ----------------------------------------------------------------- writing */

/* Blocks from *@i on that lie behind each other, as many as @buf holds. */
static int write_run(struct widening *w, uint64_t *i, uint8_t *buf,
                     struct lam_error *err)
{
    uint64_t cs = w->g.cluster_size, first = w->table[*i], n = 0;
    bool in_use;
    int rc = 0;

    for (; rc == 0 && *i < w->count && n < WRITE_BYTES / cs; ++*i) {
        if (!w->table[*i])
            continue;
        if (w->table[*i] != first + n * cs)
            break;
        rc = convert_block(w, *i, buf + n++ * cs, &in_use, err);
        amend_tell(w->progress, w->total / 2 + *i, w->total);
    }
    if (rc == 0)
        rc = lam_io_write(w->b->q->io, buf, n * cs, first, err);
    return lam_error_prefix(err, rc, "Could not write refcount blocks");
}

static int write_table(struct widening *w, struct lam_error *err)
{
    uint64_t bytes = w->table_clusters << w->g.cluster_bits;
    lam_autofree uint8_t *buf = buffer_new(bytes);

    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for a refcount table");
    memset(buf, 0, bytes);
    for (uint64_t i = 0; i < w->count; i++)
        be64_put(buf + i * 8, w->table[i]);
    int rc = lam_io_write(w->b->q->io, buf, bytes, w->table_place, err);
    return lam_error_prefix(err, rc, "Could not write refcount table");
}

static int write_all(struct widening *w, struct lam_error *err)
{
    lam_autofree uint8_t *buf = buffer_new(WRITE_BYTES);
    int rc = 0;

    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for refcount blocks");
    for (uint64_t i = 0; rc == 0 && i < w->count;) {
        if (w->table[i])
            rc = write_run(w, &i, buf, err);
        else
            i++;
    }
    if (rc == 0)
        rc = write_table(w, err);
    return rc < 0 ? rc : bulk_barrier(w->b, err);
}

/* -------------------------------------------------------------- the moment */

static int switch_header(struct widening *w, struct lam_error *err)
{
    struct qcow2 *q = w->b->q;

    w->b->switched = true;
    q->header.reft_offset = w->table_place;
    q->header.reft_clusters = (uint32_t)w->table_clusters;
    q->header.refcount_order = w->g.refcount_order;
    return qcow2_switch_header(q, QH_REFT_OFFSET, QH_HEADER_LENGTH, err);
}

/* The new table in memory.  Only these members of the geometry change: others
 * are read without alloc_lock. */
static void install(struct widening *w)
{
    struct qcow2 *q = w->b->q;
    struct allocator *a = &q->alloc;

    for (uint64_t i = 0; i < a->next_block; i++)
        if (a->table[i])
            cache_forget(&a->cache, a->table[i], q->g.cluster_size);
    free(a->table);
    a->table = lam_take(&w->table);
    a->table_entries = (size_t)w->entries;
    a->next_block = w->count;
    a->hint = min_u64(a->hint, w->b->refs.lowest_freed);
    a->byte_cursor = a->payload_end = 0;
    q->g.refcount_order = w->g.refcount_order;
    q->g.refcount_bits = w->g.refcount_bits;
    q->g.refblock_entries = w->g.refblock_entries;
    q->g.refcount_max = w->g.refcount_max;
    overlap_reload(q);
}

/* The table takes whole clusters, and so does its copy in memory. */
static int fit_table(struct widening *w, struct lam_error *err)
{
    uint64_t n = (w->table_clusters << w->g.cluster_bits) / sizeof *w->table;
    uint64_t *table = realloc(w->table, n * sizeof *table);

    if (!table)
        return lam_fail(err, ENOMEM, "no memory for a refcount table");
    for (uint64_t i = w->count; i < n; i++)
        table[i] = 0;
    w->table = table;
    w->entries = n;
    return 0;
}

static int change_width(struct widening *w, struct lam_error *err)
{
    int rc = place_all(w, err);

    if (rc == 0)
        rc = fit_table(w, err);
    if (rc == 0)
        rc = write_all(w, err);
    if (rc == 0)
        rc = switch_header(w, err);
    if (rc == 0)
        install(w);
    return rc;
}

static int widening_init(struct widening *w, struct bulk *b, unsigned order,
                         const struct amend_progress *progress,
                         struct lam_error *err)
{
    const struct qcow2_geometry *g = &b->q->g;

    *w = (struct widening){
        .b = b, .old_index = UINT64_MAX, .progress = progress,
        .g = qcow2_geometry_make(g->cluster_bits, order, g->extended_l2),
        .old = buffer_new(g->cluster_size),
    };
    return w->old ? 0 : lam_fail(err, ENOMEM, "no memory for a refcount block");
}

int amend_check_width(struct bulk *b, unsigned order, struct lam_error *err)
{
    static const struct amend_progress nobody = { NULL, NULL };
    struct widening w;
    int rc = widening_init(&w, b, order, &nobody, err);

    if (rc == 0)
        rc = need_present(&w, err);
    widening_deinit(&w);
    return rc;
}

int amend_refcount_width(struct bulk *b, unsigned order,
                         const struct amend_progress *progress,
                         struct lam_error *err)
{
    struct widening w;
    int rc = widening_init(&w, b, order, progress, err);

    if (rc == 0)
        rc = change_width(&w, err);
    widening_deinit(&w);
    return rc;
}
