/* SPDX-License-Identifier: MIT */
/*
 * alloc.c - refcounts, and host clusters: find, reserve, drop.
 *
 * First fit from a hint below which nothing is free, which moves back when
 * something is.  Refcounts are trusted: what has none is free.
 */
#include "format/qcow2/alloc.h"

#include <inttypes.h>

#include "base/bytes.h"
#include "base/zeroes.h"
#include "format/qcow2/refblock.h"

/* Default budget of the refcount cache: 4 clusters, and not less than this. */
enum { DEFAULT_BUDGET = 1 << 20 };

static int load_table(struct qcow2 *q, struct lam_error *err)
{
    struct allocator *a = &q->alloc;
    uint64_t bytes = (uint64_t)q->header.reft_clusters << q->g.cluster_bits;
    lam_autofree uint64_t *table = malloc(bytes);

    if (!table)
        return lam_fail(err, ENOMEM, "no memory for a refcount table of %"
                        PRIu64 " bytes", bytes);
    lam_io_event(q->io, IO_EVENT_REFTABLE_LOAD);
    int rc = lam_io_read(q->io, table, bytes, q->header.reft_offset, err);
    if (rc < 0)
        return lam_error_prefix(err, rc, "Could not read refcount table");
    a->table_entries = bytes / sizeof *table;
    for (size_t i = 0; i < a->table_entries; i++) {
        table[i] = be64_get(&table[i]) & QCOW2_REFT_MASK;
        if (!is_aligned(table[i], q->g.cluster_size))
            return lam_fail(err, EUCLEAN, "refcount table entry %zu: block "
                            "offset %#" PRIx64 " is not a multiple of %"
                            PRIu64, i, table[i], q->g.cluster_size);
        if (table[i])
            a->next_block = i + 1;
    }
    a->table = lam_take(&table);
    return 0;
}

int alloc_open(struct qcow2 *q, uint64_t budget, struct lam_error *err)
{
    uint64_t slice = min_u64(q->g.cluster_size, 64 * LAM_KIB);

    if (!budget)
        budget = max_u64(4 * q->g.cluster_size, DEFAULT_BUDGET);
    if (budget < 8 * slice)
        slice = min_u64(slice, 4 * LAM_KIB);
    int rc = load_table(q, err);
    if (rc == 0)
        rc = cache_init(&q->alloc.cache, (size_t)slice, budget, err);
    return rc;
}

void alloc_close(struct qcow2 *q)
{
    cache_deinit(&q->alloc.cache);
    free(q->alloc.table);
}

/* --------------------------------------------------------------- refcounts */

/* Safe at any time for raised refcounts (invariant 1), and lowered ones have
 * waited for their entries (invariant 3): no order among the slices. */
static int write_slices(struct qcow2 *q, struct lam_error *err)
{
    struct cache *c = &q->alloc.cache;

    while (c->dirty) {
        struct slice *s = c->dirty;
        uint32_t from = s->dirty_from, to = s->dirty_to;

        lam_io_event(q->io, IO_EVENT_REFBLOCK_UPDATE_PART);
        int rc = lam_io_write(q->io, s->data + from, to - from, s->host + from,
                              err);
        if (rc < 0)
            return lam_error_prefix(err, rc, "Could not write refcount block");
        cache_mark_writing(c, s);
        s->writing = false;
    }
    return 0;
}

/* Nobody else uses this cache, so the slice stays until the next load. */
static int load_slice(struct qcow2 *q, uint64_t host, struct slice **out,
                      struct lam_error *err)
{
    struct cache *c = &q->alloc.cache;
    struct slice *s = cache_find(c, host);

    if (s) {
        *out = s;
        return 0;
    }
    int rc = overlap_check(q, OVERLAP_REFCOUNT_BLOCK,
                           align_down(host, q->g.cluster_size),
                           q->g.cluster_size, err);
    if (rc < 0)
        return rc;
    rc = cache_take(c, host, false, &s);
    if (rc == -EBUSY) {
        /* Where they cannot be written (a full disk) the cache grows: the
         * clusters of a failed write must be given back nevertheless. */
        bool full = write_slices(q, NULL) < 0;

        rc = cache_take(c, host, full, &s);
    }
    if (rc < 0)
        return lam_fail(err, ENOMEM, "no memory for a refcount slice of %zu "
                        "bytes", c->slice_size);
    assert(rc == 1);
    lam_io_event(q->io, IO_EVENT_REFBLOCK_LOAD);
    rc = lam_io_read(q->io, s->data, c->slice_size, s->host, err);
    cache_loaded(c, s, rc == 0);
    *out = rc == 0 ? s : NULL;
    slice_unpin(s);
    if (rc < 0)
        return lam_error_prefix(err, rc, "Could not read refcount block at %#"
                                PRIx64, host);
    return 0;
}

/* Counters of one slice, from @cluster's on. */
struct counters {
    struct slice *slice;        /* NULL: no block, all are 0 */
    uint64_t index;             /* of @cluster's counter in the slice */
    uint64_t end;               /* counters in the slice */
};

static int find_counters(struct qcow2 *q, uint64_t cluster,
                         struct counters *out, struct lam_error *err)
{
    const struct allocator *a = &q->alloc;
    uint64_t i = reft_index(&q->g, cluster);
    uint64_t index = refblock_index(&q->g, cluster);
    uint64_t per_slice = (a->cache.slice_size * 8) >> q->g.refcount_order;

    out->slice = NULL;
    out->index = index & (per_slice - 1);
    out->end = per_slice;
    if (i >= a->next_block || !a->table[i])
        return 0;
    return load_slice(q, a->table[i] + index / per_slice * a->cache.slice_size,
                      &out->slice, err);
}

int refcount_read(struct qcow2 *q, uint64_t cluster, uint64_t *value,
                  struct lam_error *err)
{
    struct counters at;
    int rc = find_counters(q, cluster, &at, err);

    if (rc < 0)
        return rc;
    *value = at.slice ? refblock_get(at.slice->data, q->g.refcount_order,
                                     at.index) : 0;
    return 0;
}

static void set_counter(struct qcow2 *q, const struct counters *at,
                        uint64_t value)
{
    unsigned order = q->g.refcount_order;
    size_t byte = (size_t)((at->index << order) / 8);
    size_t bytes = order < 3 ? 1 : (size_t)1 << (order - 3);

    refblock_set(at->slice->data, order, at->index, value);
    cache_mark_dirty(&q->alloc.cache, at->slice, byte, byte + bytes);
}

int refcount_raise(struct qcow2 *q, uint64_t cluster, struct lam_error *err)
{
    struct counters at;
    int rc = find_counters(q, cluster, &at, err);

    if (rc < 0)
        return rc;
    assert(at.slice);
    uint64_t value = refblock_get(at.slice->data, q->g.refcount_order,
                                  at.index);
    if (value == q->g.refcount_max)
        return lam_fail(err, EINVAL, "host cluster %#" PRIx64 ": refcount "
                        "cannot exceed %" PRIu64, cluster << q->g.cluster_bits,
                        q->g.refcount_max);
    set_counter(q, &at, value + 1);
    return 0;
}

bool refcount_lower(struct qcow2 *q, uint64_t cluster)
{
    struct allocator *a = &q->alloc;
    struct counters at;

    if (find_counters(q, cluster, &at, NULL) < 0 || !at.slice)
        return false;
    uint64_t value = refblock_get(at.slice->data, q->g.refcount_order,
                                  at.index);
    if (!value)
        return false;           /* corrupt before us; check tells */
    set_counter(q, &at, value - 1);
    if (value > 1)
        return false;
    a->hint = min_u64(a->hint, cluster);
    if (host_cluster(&q->g, a->byte_cursor) == cluster)
        a->byte_cursor = 0;
    if (a->payload_end && host_cluster(&q->g, a->payload_end - 1) == cluster)
        a->payload_end = 0;
    return true;
}

void alloc_drop(struct qcow2 *q, uint64_t host, uint64_t length,
                alloc_freed_fn *freed, const void *opaque)
{
    uint64_t first = host_cluster(&q->g, host);
    uint64_t end = host_cluster(&q->g, host + length - 1) + 1;
    uint64_t run = 0;

    lam_io_event(q->io, IO_EVENT_CLUSTER_FREE);
    for (uint64_t c = first; c <= end; c++) {
        if (c < end && refcount_lower(q, c)) {
            run++;
            continue;
        }
        if (run && freed)
            freed(q, (c - run) << q->g.cluster_bits,
                  run << q->g.cluster_bits, opaque);
        run = 0;
    }
}

/* -------------------------------------------------------------- free space */

/* Refcounts may say that what the header names is free (a damaged image):
 * nothing may be put there, least of all over the header itself. */
static int check_free_of_tables(const struct qcow2 *q, uint64_t first,
                                uint64_t n, struct lam_error *err)
{
    const struct qcow2_header *h = &q->header;
    uint64_t cs = q->g.cluster_size;
    const struct {
        const char *name;
        uint64_t offset, clusters;
    } taken[] = {
        { "header", 0, 1 },
        { "refcount table", h->reft_offset, h->reft_clusters },
        { "L1 table", h->l1_offset, div_up((uint64_t)h->l1_size * 8, cs) },
    };

    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        uint64_t begin = taken[i].offset / cs;

        if (first < begin + taken[i].clusters && begin < first + n)
            return lam_fail(err, EUCLEAN, "the refcount of host cluster %"
                            PRIu64 " is 0, but the %s is there",
                            begin, taken[i].name);
    }
    return 0;
}

int alloc_check_place(struct qcow2 *q, uint64_t first, uint64_t n,
                      struct lam_error *err)
{
    uint64_t limit = (UINT64_C(1) << 56) >> q->g.cluster_bits;
    uint64_t size = atomic_load(&q->io->size);

    if (!q->io->limits.can_grow)
        limit = min_u64(limit, size >> q->g.cluster_bits);
    if (range_fits(first, n, limit))
        return check_free_of_tables(q, first, n, err);
    return lam_fail(err, ENOSPC, "No space left on device: host clusters %"
                    PRIu64 " to %" PRIu64 " of %" PRIu64, first, first + n,
                    limit);
}

/* The first free cluster at or after @from.  *@covered: a refcount block is
 * there for it. */
static int find_free(struct qcow2 *q, uint64_t from, uint64_t *cluster,
                     bool *covered, struct lam_error *err)
{
    for (uint64_t c = from;;) {
        struct counters at;
        int rc = find_counters(q, c, &at, err);

        if (rc < 0)
            return rc;
        *covered = at.slice != NULL;
        *cluster = c;
        if (!at.slice)
            return 0;
        uint64_t i = refblock_find_free(at.slice->data, q->g.refcount_order,
                                        at.index, at.end);
        c += i - at.index;
        *cluster = c;
        if (i < at.end)
            return 0;
    }
}

int alloc_count_free(struct qcow2 *q, uint64_t first, uint64_t want,
                     uint64_t *n, struct lam_error *err)
{
    *n = 0;
    while (*n < want) {
        struct counters at;
        int rc = find_counters(q, first + *n, &at, err);

        if (rc < 0)
            return rc;
        if (!at.slice)
            return 0;
        for (; at.index < at.end && *n < want; at.index++, ++*n)
            if (refblock_get(at.slice->data, q->g.refcount_order, at.index))
                return 0;
    }
    return 0;
}

int alloc_find_used(struct qcow2 *q, uint64_t from, uint64_t end,
                    uint64_t *cluster, struct lam_error *err)
{
    uint64_t c = from;

    while (c < end) {
        struct counters at;
        int rc = find_counters(q, c, &at, err);

        if (rc < 0)
            return rc;
        uint64_t slice_end = c + (at.end - at.index);
        if (!at.slice || (at.index == 0 && memory_is_zero(at.slice->data,
                                              q->alloc.cache.slice_size))) {
            c = slice_end;
            continue;
        }
        for (; c < min_u64(end, slice_end); c++, at.index++)
            if (refblock_get(at.slice->data, q->g.refcount_order, at.index)) {
                *cluster = c;
                return 0;
            }
    }
    *cluster = end;
    return 0;
}

void alloc_touch(struct qcow2 *q, uint64_t first, uint64_t n)
{
    q->alloc.touched = max_u64(q->alloc.touched, first + n);
}

int alloc_reserve(struct qcow2 *q, uint64_t first, uint64_t n,
                  struct lam_error *err)
{
    alloc_touch(q, first, n);
    inflated_forget(q, first, n);
    lam_io_event(q->io, IO_EVENT_REFBLOCK_ALLOC);
    for (uint64_t i = 0; i < n; i++) {
        int rc = refcount_raise(q, first + i, err);

        if (rc < 0) {
            while (i > 0)
                refcount_lower(q, first + --i);
            return rc;
        }
    }
    return 0;
}

/* The first free cluster that has a refcount block, made if need be. */
static int find_covered(struct qcow2 *q, uint64_t *cluster,
                        struct lam_error *err)
{
    for (;;) {
        bool covered;
        int rc = find_free(q, q->alloc.hint, cluster, &covered, err);

        if (rc < 0)
            return rc;
        q->alloc.hint = *cluster;
        if (covered)
            break;
        rc = grow_add_block(q, *cluster, err);
        if (rc < 0)
            return rc;
    }
    if (*cluster)
        return 0;
    return lam_fail(err, EUCLEAN, "the header's cluster has refcount 0");
}

static int reserve_found(struct qcow2 *q, uint64_t first, uint64_t n,
                         uint64_t *host, struct lam_error *err)
{
    int rc = alloc_check_place(q, first, n, err);

    if (rc == 0)
        rc = overlap_check(q, 0, first << q->g.cluster_bits,
                           n << q->g.cluster_bits, err);
    *host = first << q->g.cluster_bits;
    return rc < 0 ? rc : alloc_reserve(q, first, n, err);
}

/* Of @want clusters from @first on, which are free, those behind the @n-th have
 * no refcount block: they get one right behind them all, if it describes itself
 * there.  1 if it is there now. */
static int cover_rest(struct qcow2 *q, uint64_t first, uint64_t n,
                      uint64_t want, struct lam_error *err)
{
    const struct allocator *a = &q->alloc;
    uint64_t i = reft_index(&q->g, first + n);

    if (n == want || i >= a->table_entries || a->table[i] ||
        reft_index(&q->g, first + want) != i)
        return 0;
    int rc = grow_add_block(q, first + want, err);
    return rc < 0 ? rc : 1;
}

/* Free clusters at the first place there is, *@n of @want.  Where no refcount
 * block counts them yet, it comes behind them all if it can. */
static int find_run(struct qcow2 *q, uint64_t want, uint64_t *first,
                    uint64_t *n, struct lam_error *err)
{
    bool covered;
    int rc = find_free(q, q->alloc.hint, first, &covered, err);

    *n = 0;
    if (rc < 0)
        return rc;
    q->alloc.hint = *first;
    if (covered)
        rc = alloc_count_free(q, *first, want, n, err);
    /* At the end of a device there may be room for less. */
    if (rc == 0 && alloc_check_place(q, *first, want + 1, NULL) == 0)
        rc = cover_rest(q, *first, *n, want, err);
    if (rc == 1)
        *n = want;
    if (rc < 0 || *n)
        return rc < 0 ? rc : 0;
    rc = find_covered(q, first, err);
    return rc < 0 ? rc : alloc_count_free(q, *first, want, n, err);
}

int alloc_clusters(struct qcow2 *q, uint64_t want, uint64_t *host,
                   uint64_t *got, struct lam_error *err)
{
    uint64_t first;

    lam_io_event(q->io, IO_EVENT_CLUSTER_ALLOC);
    int rc = find_run(q, want, &first, got, err);

    if (rc < 0)
        return rc;
    assert(*got > 0);
    if (alloc_check_place(q, first, *got, NULL) < 0)
        *got = 1;               /* perhaps the last one of a device */
    rc = reserve_found(q, first, *got, host, err);
    if (rc == 0)
        q->alloc.hint = first + *got;
    return rc;
}

int alloc_contiguous_from(struct qcow2 *q, uint64_t from, uint64_t want,
                          uint64_t *host, struct lam_error *err)
{
    for (;;) {
        uint64_t first, n = 0;
        bool covered;
        int rc = find_free(q, from, &first, &covered, err);

        if (rc == 0 && covered)
            rc = alloc_count_free(q, first, want, &n, err);
        if (rc == 0)
            rc = cover_rest(q, first, n, want, err);
        if (rc < 0)
            return rc;
        if ((rc == 1 || n == want) && first)
            return reserve_found(q, first, want, host, err);
        if (!covered)
            return grow_append(q, want, host, err);
        from = first + n;
    }
}

int alloc_contiguous(struct qcow2 *q, uint64_t want, uint64_t *host,
                     struct lam_error *err)
{
    return alloc_contiguous_from(q, q->alloc.hint, want, host, err);
}

/* -------------------------------------------------------------- write-back */

bool alloc_is_dirty(const struct qcow2 *q)
{
    return q->alloc.cache.dirty || q->alloc.dirty_from != q->alloc.dirty_to;
}

int alloc_write_back(struct qcow2 *q, struct lam_error *err)
{
    int rc = write_slices(q, err);

    if (rc < 0 || q->alloc.dirty_from == q->alloc.dirty_to)
        return rc;
    rc = lam_io_flush(q->io, err);      /* invariant 4 */
    if (rc < 0)
        return rc;
    return grow_write_entries(q, err);
}
