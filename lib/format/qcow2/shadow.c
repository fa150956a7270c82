/* SPDX-License-Identifier: MIT */
/*
 * shadow.c - refcounts as they are to become, beside those in force.
 */
#include "format/qcow2/shadow.h"

#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"
#include "base/bytes.h"
#include "format/qcow2/alloc.h"
#include "format/qcow2/refblock.h"

int shadow_init(struct shadow *s, struct qcow2 *q, struct lam_error *err)
{
    size_t n = q->alloc.table_entries;

    *s = (struct shadow){ .q = q, .entries = n, .cursor = q->alloc.hint,
                          .lowest_freed = UINT64_MAX };
    int rc = alloc_write_back(q, err);
    if (rc < 0)
        return rc;
    s->table = calloc(n, sizeof *s->table);
    s->blocks = calloc(n, sizeof *s->blocks);
    if (!s->table || !s->blocks)
        return lam_fail(err, ENOMEM, "no memory for a refcount table of %zu "
                        "entries", n);
    memcpy(s->table, q->alloc.table, n * sizeof *s->table);
    return 0;
}

void shadow_deinit(struct shadow *s)
{
    for (size_t i = 0; s->blocks && i < s->entries; i++)
        free(s->blocks[i].bytes);
    free(s->blocks);
    free(s->table);
    free(s->quiet);
    *s = (struct shadow){ 0 };
}

/* ------------------------------------------------------------------ blocks */

/* The table gets longer by a half, for there may be more to come. */
static int grow_entries(struct shadow *s, uint64_t index,
                        struct lam_error *err)
{
    uint64_t max = QCOW2_MAX_REFCOUNT_TABLE / sizeof *s->table;
    uint64_t n = min_u64(index + index / 2 + 8, max);

    if (index >= max)
        return lam_fail(err, EFBIG, "refcount table would need %" PRIu64
                        " entries; the limit is %" PRIu64, index + 1, max);
    uint64_t *table = realloc(s->table, n * sizeof *table);
    if (!table)
        return lam_fail(err, ENOMEM, "no memory for a refcount table");
    s->table = table;
    struct shadow_block *blocks = realloc(s->blocks, n * sizeof *blocks);
    if (!blocks)
        return lam_fail(err, ENOMEM, "no memory for a refcount table");
    s->blocks = blocks;
    memset(table + s->entries, 0, (n - s->entries) * sizeof *table);
    memset(blocks + s->entries, 0, (n - s->entries) * sizeof *blocks);
    s->entries = n;
    return 0;
}

/* The copy of block @i that may be changed. */
static int own_block(struct shadow *s, uint64_t i, uint8_t **out,
                     struct lam_error *err)
{
    uint64_t cs = s->q->g.cluster_size;

    if (i >= s->entries) {
        int rc = grow_entries(s, i, err);
        if (rc < 0)
            return rc;
    }
    if (!s->blocks[i].bytes) {
        lam_autofree uint8_t *bytes = buffer_new(cs);

        if (!bytes)
            return lam_fail(err, ENOMEM, "no memory for a refcount block");
        memset(bytes, 0, s->table[i] ? 0 : cs);
        int rc = s->table[i] ? lam_io_read(s->q->io, bytes, cs, s->table[i],
                                           err) : 0;
        if (rc < 0)
            return lam_error_prefix(err, rc, "Could not read refcount block");
        s->blocks[i].bytes = lam_take(&bytes);
    }
    *out = s->blocks[i].bytes;
    return 0;
}

int shadow_get(struct shadow *s, uint64_t cluster, uint64_t *value,
               struct lam_error *err)
{
    uint64_t i = reft_index(&s->q->g, cluster);

    if (i >= s->entries || !s->blocks[i].bytes)
        return refcount_read(s->q, cluster, value, err);
    *value = refblock_get(s->blocks[i].bytes, s->q->g.refcount_order,
                          refblock_index(&s->q->g, cluster));
    return 0;
}

static int set_count(struct shadow *s, uint64_t cluster, uint64_t value,
                     struct lam_error *err)
{
    uint8_t *block = NULL;
    int rc = own_block(s, reft_index(&s->q->g, cluster), &block, err);

    if (rc == 0)
        refblock_set(block, s->q->g.refcount_order,
                     refblock_index(&s->q->g, cluster), value);
    return rc;
}

static int add_one(struct shadow *s, uint64_t cluster, int delta,
                   struct lam_error *err)
{
    const struct qcow2_geometry *g = &s->q->g;
    uint64_t i = reft_index(g, cluster), slot = refblock_index(g, cluster);
    uint64_t value = 0;
    uint8_t *block = NULL;
    int rc = 0;

    if (i < s->entries && (s->table[i] || s->blocks[i].bytes)) {
        rc = own_block(s, i, &block, err);
        if (rc < 0)
            return rc;
        value = refblock_get(block, g->refcount_order, slot);
    }
    if (!value)
        return lam_fail(err, EUCLEAN, "host cluster %#" PRIx64 " is in use "
                        "and has refcount 0; check the image",
                        cluster << g->cluster_bits);
    if (delta > 0 && value == g->refcount_max)
        return lam_fail(err, EINVAL, "host cluster %#" PRIx64 ": refcount "
                        "cannot exceed %" PRIu64, cluster << g->cluster_bits,
                        g->refcount_max);
    value = delta > 0 ? value + 1 : value - 1;
    refblock_set(block, g->refcount_order, slot, value);
    if (!value)
        s->lowest_freed = min_u64(s->lowest_freed, cluster);
    return 0;
}

int shadow_add(struct shadow *s, uint64_t host, uint64_t length, int delta,
               struct lam_error *err)
{
    uint64_t last = host_cluster(&s->q->g, host + length - 1);
    int rc = 0;

    assert(delta == 1 || delta == -1);
    if (!length)
        return 0;
    for (uint64_t c = host_cluster(&s->q->g, host); rc == 0 && c <= last; c++)
        rc = add_one(s, c, delta, err);
    return rc;
}

static int add_quiet(struct shadow *s, uint64_t cluster, struct lam_error *err)
{
    if (s->nb_quiet == s->quiet_capacity) {
        size_t n = s->quiet_capacity ? s->quiet_capacity * 2 : 256;
        uint64_t *grown = realloc(s->quiet, n * sizeof *grown);

        if (!grown)
            return lam_fail(err, ENOMEM, "no memory for %zu clusters", n);
        s->quiet = grown;
        s->quiet_capacity = n;
    }
    s->quiet[s->nb_quiet++] = cluster;
    return 0;
}

int shadow_drop_table(struct shadow *s, uint64_t host, uint64_t length,
                      struct lam_error *err)
{
    uint64_t c = host_cluster(&s->q->g, host), value;
    int rc = shadow_add(s, host, length, -1, err);

    for (; rc == 0 && c << s->q->g.cluster_bits < host + length; c++) {
        rc = shadow_get(s, c, &value, err);
        if (rc == 0 && !value)
            rc = add_quiet(s, c, err);
    }
    return rc;
}

int shadow_take_back(struct shadow *s, uint64_t table, struct lam_error *err)
{
    return set_count(s, host_cluster(&s->q->g, table), 1, err);
}

/* -------------------------------------------------------------- free space */

static int is_free(struct shadow *s, uint64_t cluster, bool *out,
                   struct lam_error *err)
{
    uint64_t now, before = 0;
    int rc = shadow_get(s, cluster, &now, err);

    if (rc == 0 && !now)
        rc = refcount_read(s->q, cluster, &before, err);
    *out = !now && !before;
    return rc;
}

/* Free clusters from @first on, at most @want. */
static int count_run(struct shadow *s, uint64_t first, uint64_t want,
                     uint64_t *n, struct lam_error *err)
{
    bool ok = true;
    int rc = 0;

    *n = 0;
    while (*n < want) {
        rc = is_free(s, first + *n, &ok, err);
        if (rc < 0 || !ok)
            break;
        ++*n;
    }
    return rc;
}

static int take_run(struct shadow *s, uint64_t first, uint64_t n,
                    struct lam_error *err)
{
    int rc = alloc_check_place(s->q, first, n, err);

    alloc_touch(s->q, first, n);
    for (uint64_t i = 0; rc == 0 && i < n; i++)
        rc = set_count(s, first + i, 1, err);
    return rc;
}

int shadow_alloc(struct shadow *s, uint64_t want, bool exact, uint64_t *host,
                 uint64_t *got, struct lam_error *err)
{
    uint64_t first = s->cursor;
    bool moving = true;         /* nothing free has been passed */

    for (;;) {
        int rc = count_run(s, first, want, got, err);

        if (rc < 0)
            return rc;
        if (*got && !first)
            return lam_fail(err, EUCLEAN, "the header's cluster has refcount "
                            "0");
        if (*got == want || (*got && !exact))
            break;
        moving = moving && !*got;
        first += *got + 1;      /* the one behind the run is not free */
        if (moving)
            s->cursor = first;
    }
    if (!exact && alloc_check_place(s->q, first, *got, NULL) < 0)
        *got = 1;               /* perhaps the last one of a device */
    int rc = overlap_check(s->q, 0, first << s->q->g.cluster_bits,
                           *got << s->q->g.cluster_bits, err);
    if (rc == 0)
        rc = take_run(s, first, *got, err);
    if (rc == 0 && moving)
        s->cursor = first + *got;
    *host = first << s->q->g.cluster_bits;
    return rc;
}

int shadow_unalloc(struct shadow *s, uint64_t host, uint64_t length,
                   struct lam_error *err)
{
    if (!length)
        return 0;
    s->cursor = min_u64(s->cursor, host_cluster(&s->q->g, host));
    return shadow_add(s, host, length, -1, err);
}

/* -------------------------------------------------------------- the places */

/* Each changed block leaves its old place; that may change another one. */
static int place_blocks(struct shadow *s, bool *again, struct lam_error *err)
{
    int rc = 0;

    *again = false;
    for (size_t i = 0; rc == 0 && i < s->entries; i++) {
        uint64_t got;

        if (!s->blocks[i].bytes || s->blocks[i].place)
            continue;
        *again = true;
        uint64_t place = 0;
        rc = shadow_alloc(s, 1, false, &place, &got, err);
        s->blocks[i].place = rc == 0 ? place : 0;
        if (rc == 0 && s->table[i])
            rc = shadow_drop_table(s, s->table[i], s->q->g.cluster_size, err);
    }
    return rc;
}

/* Clusters that the table needs. */
static uint64_t table_need(const struct shadow *s)
{
    size_t n = s->entries;

    while (n > 0 && !s->table[n - 1] && !s->blocks[n - 1].bytes)
        n--;
    return max_u64(1, div_up(n * sizeof *s->table, s->q->g.cluster_size));
}

static int place_table(struct shadow *s, bool *again, struct lam_error *err)
{
    uint64_t need = max_u64(table_need(s), s->q->header.reft_clusters), got;
    int rc = 0;

    if (need <= s->table_clusters)
        return 0;
    *again = true;
    if (s->table_clusters)
        rc = shadow_unalloc(s, s->table_place,
                            s->table_clusters << s->q->g.cluster_bits, err);
    if (rc == 0)
        rc = shadow_alloc(s, need, true, &s->table_place, &got, err);
    s->table_clusters = need;
    return rc;
}

int shadow_place(struct shadow *s, struct lam_error *err)
{
    const struct qcow2_header *h = &s->q->header;
    bool again = true;
    uint64_t bytes = (uint64_t)h->reft_clusters << h->cluster_bits;
    int rc = shadow_drop_table(s, h->reft_offset, bytes, err);

    while (rc == 0 && again) {
        rc = place_blocks(s, &again, err);
        if (rc == 0)
            rc = place_table(s, &again, err);
    }
    uint64_t n = (s->table_clusters << h->cluster_bits) / sizeof *s->table;
    return rc == 0 && n > s->entries ? grow_entries(s, n - 1, err) : rc;
}

/* ----------------------------------------------------------------- writing */

enum { GATHER = 64 };

/* Blocks that lie behind each other go out together. */
static int write_run(struct shadow *s, size_t from, size_t *end,
                     struct lam_error *err)
{
    uint64_t cs = s->q->g.cluster_size;
    struct iovec iov[GATHER];
    uint64_t first = s->blocks[from].place;
    int n = 0;
    size_t i = from;

    for (; i < s->entries && n < GATHER; i++) {
        if (!s->blocks[i].place)
            continue;
        if (s->blocks[i].place != first + (uint64_t)n * cs)
            break;
        iov[n++] = (struct iovec){ s->blocks[i].bytes, cs };
    }
    *end = i;
    int rc = lam_io_writev(s->q->io, iov, n, first, err);
    return lam_error_prefix(err, rc, "Could not write refcount blocks");
}

static int write_table(struct shadow *s, struct lam_error *err)
{
    uint64_t bytes = s->table_clusters << s->q->g.cluster_bits;
    uint64_t n = bytes / sizeof *s->table;
    lam_autofree uint8_t *buf = buffer_new(bytes);

    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for a refcount table");
    assert(n <= s->entries);
    for (uint64_t i = 0; i < n; i++)
        be64_put(buf + i * 8, s->blocks[i].place ? s->blocks[i].place
                                                 : s->table[i]);
    int rc = lam_io_write(s->q->io, buf, bytes, s->table_place, err);
    return lam_error_prefix(err, rc, "Could not write refcount table");
}

int shadow_write(struct shadow *s, struct lam_error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < s->entries;) {
        if (s->blocks[i].place)
            rc = write_run(s, i, &i, err);
        else
            i++;
    }
    return rc < 0 ? rc : write_table(s, err);
}

/* Where the discarding stands: clusters in ascending order. */
struct discard {
    struct shadow *s;
    size_t quiet;               /* of these so many are behind us */
    uint64_t first, length;     /* a run of clusters not yet told */
};

static bool is_quiet(struct discard *d, uint64_t cluster)
{
    const struct shadow *s = d->s;

    while (d->quiet < s->nb_quiet && s->quiet[d->quiet] < cluster)
        d->quiet++;
    return d->quiet < s->nb_quiet && s->quiet[d->quiet] == cluster;
}

static bool is_told(struct discard *d, uint64_t cluster)
{
    const struct qcow2 *q = d->s->q;

    return q->pass_snapshot || (is_quiet(d, cluster) && q->pass_other);
}

static void discard_run(struct discard *d)
{
    unsigned bits = d->s->q->g.cluster_bits;

    if (d->length)
        lam_io_discard(d->s->q->io, d->first << bits, d->length << bits, NULL);
    d->length = 0;
}

/* What @old counts and @new does not, in the block whose first counter is
 * @first's. */
static void discard_block(struct discard *d, uint64_t first,
                          const uint8_t *old, const uint8_t *new)
{
    const struct qcow2_geometry *g = &d->s->q->g;

    for (uint64_t i = 0; i < g->refblock_entries; i++) {
        if (refblock_get(new, g->refcount_order, i) ||
            !refblock_get(old, g->refcount_order, i) ||
            !is_told(d, first + i))
            continue;
        if (d->first + d->length != first + i)
            discard_run(d);
        if (!d->length++)
            d->first = first + i;
    }
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

void shadow_discard(struct shadow *s)
{
    uint64_t cs = s->q->g.cluster_size;
    lam_autofree uint8_t *old = buffer_new(cs);
    struct discard d = { .s = s };

    if (!old || s->lowest_freed == UINT64_MAX)
        return;
    if (s->nb_quiet)
        qsort(s->quiet, s->nb_quiet, sizeof *s->quiet, by_value);
    for (size_t i = 0; i < s->entries; i++) {
        if (s->blocks[i].bytes && s->table[i] &&
            lam_io_read(s->q->io, old, cs, s->table[i], NULL) == 0)
            discard_block(&d, i * s->q->g.refblock_entries, old,
                          s->blocks[i].bytes);
    }
    discard_run(&d);
}

void shadow_install(struct shadow *s)
{
    struct qcow2 *q = s->q;
    struct allocator *a = &q->alloc;
    size_t n = (size_t)((s->table_clusters << q->g.cluster_bits) /
                        sizeof *s->table);

    assert(a->dirty_from == a->dirty_to && !a->cache.dirty);
    a->next_block = 0;
    for (size_t i = 0; i < s->entries; i++) {
        if (s->blocks[i].place && s->table[i])
            cache_forget(&a->cache, s->table[i], q->g.cluster_size);
        if (s->blocks[i].place)
            s->table[i] = s->blocks[i].place;
        if (s->table[i])
            a->next_block = i + 1;
    }
    assert(a->next_block <= n);
    free(a->table);
    a->table = lam_take(&s->table);
    a->table_entries = n;
    a->hint = min_u64(a->hint, s->lowest_freed);
    a->byte_cursor = a->payload_end = 0;
}
