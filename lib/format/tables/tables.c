/* SPDX-License-Identifier: MIT */
/*
 * tables.c - the pages of the tables in memory, and host space.
 */
#include "format/tables/tables.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"

enum { PAGE_BYTES = 64 * 1024, MIN_LOADED = 8 };
static const uint64_t MEMORY_BYTES = 32 * LAM_MIB;      /* of pages */
static const uint64_t MAX_PAGES = UINT64_C(1) << 22;
static const uint64_t MAX_L1_BYTES = 32 * LAM_MIB;

uint64_t tables_clusters(const struct tables *t)
{
    return div_up(t->size, t->cluster);
}

uint64_t tables_raw(const struct tables *t, const uint8_t *bytes)
{
    if (t->layout->entry_bytes == 4)
        return t->layout->big_endian ? be32_get(bytes) : le32_get(bytes);
    return t->layout->big_endian ? be64_get(bytes) : le64_get(bytes);
}

void tables_put_raw(const struct tables *t, uint8_t *bytes, uint64_t raw)
{
    if (t->layout->entry_bytes == 4 && t->layout->big_endian)
        be32_put(bytes, (uint32_t)raw);
    else if (t->layout->entry_bytes == 4)
        le32_put(bytes, (uint32_t)raw);
    else if (t->layout->big_endian)
        be64_put(bytes, raw);
    else
        le64_put(bytes, raw);
}

/* ------------------------------------------------------------ the beginning */

static int check_table(const struct tables *t, uint64_t bytes, uint64_t length,
                       struct lam_error *err)
{
    if (range_fits(t->table_offset, bytes, length))
        return 0;
    return lam_fail(err, EUCLEAN, "%s: table of %" PRIu64 " bytes at offset %"
                    PRIu64 " ends beyond the file's length of %" PRIu64,
                    t->layout->name, bytes, t->table_offset, length);
}

static int check_l1_entry(const struct tables *t, uint64_t i, uint64_t length,
                          struct lam_error *err)
{
    uint64_t bytes = t->table_entries * t->layout->entry_bytes;

    if (!t->l1[i] || (range_fits(t->l1[i], bytes, length) &&
                      t->l1[i] >= t->data_start))
        return 0;
    return lam_fail(err, EUCLEAN, "%s: L1 entry %" PRIu64 ": L2 table of %"
                    PRIu64 " bytes at offset %#" PRIx64 " is not between %"
                    PRIu64 " and the end of the file at %" PRIu64,
                    t->layout->name, i, bytes, t->l1[i], t->data_start, length);
}

static int read_l1(struct tables *t, uint64_t first, uint64_t length,
                   struct lam_error *err)
{
    unsigned entry = t->layout->entry_bytes;
    uint64_t bytes = (t->nb_l1 - first) * entry;
    lam_autofree uint8_t *raw = malloc(bytes + 1);

    if (!raw)
        return lam_fail(err, ENOMEM, "no memory for an L1 table of %" PRIu64
                        " bytes", bytes);
    int rc = !bytes ? 0 : lam_io_read(t->io, raw, bytes, t->table_offset +
                                      first * entry, err);
    for (uint64_t i = first; i < t->nb_l1 && rc == 0; i++) {
        t->l1[i] = tables_raw(t, raw + (i - first) * entry);
        rc = check_l1_entry(t, i, length, t->for_check ? NULL : err);
        if (rc < 0 && t->for_check) {
            t->l1_wrong[i] = t->l1[i];
            t->l1[i] = 0;
            rc = 0;
        }
    }
    return rc;
}

static int load_l1(struct tables *t, uint64_t length, struct lam_error *err)
{
    uint64_t bytes = t->nb_l1 * t->layout->entry_bytes;

    if (bytes > MAX_L1_BYTES)
        return lam_fail(err, EFBIG, "%s: L1 table of %" PRIu64 " bytes (limit: "
                        "%" PRIu64 ")", t->layout->name, bytes, MAX_L1_BYTES);
    int rc = check_table(t, bytes, length, err);
    if (rc < 0)
        return rc;
    t->l1 = calloc(t->nb_l1 + 1, sizeof *t->l1);
    t->l1_dirty = calloc(t->nb_l1 + 1, sizeof *t->l1_dirty);
    t->l1_wrong = calloc(t->for_check ? t->nb_l1 + 1 : 1, sizeof *t->l1_wrong);
    if (!t->l1 || !t->l1_dirty || !t->l1_wrong)
        return lam_fail(err, ENOMEM, "no memory for an L1 table of %" PRIu64
                        " bytes", bytes);
    return read_l1(t, 0, length, err);
}

static int plan_pages(struct tables *t, struct lam_error *err)
{
    uint64_t clusters = tables_clusters(t);
    uint64_t whole = t->is_two_level ? t->table_entries : clusters;

    t->page_entries = min_u64(max_u64(whole, 1),
                              PAGE_BYTES / t->layout->entry_bytes);
    t->page_bytes = t->page_entries * t->layout->entry_bytes;
    t->pages_per_table = div_up(whole, t->page_entries);
    t->nb_l1 = t->is_two_level ? div_up(clusters, t->table_entries) : 0;
    t->nb_pages = t->is_two_level ? t->nb_l1 * t->pages_per_table
                                  : t->pages_per_table;
    if (t->nb_pages > MAX_PAGES)
        return lam_fail(err, EFBIG, "%s: %" PRIu64 " parts of tables (limit: %"
                        PRIu64 ")", t->layout->name, t->nb_pages, MAX_PAGES);
    t->max_loaded = max_u64(MEMORY_BYTES / t->page_bytes, MIN_LOADED);
    t->pages = calloc(t->nb_pages + 1, sizeof *t->pages);
    return t->pages ? 0 : lam_fail(err, ENOMEM, "no memory for %" PRIu64
                                   " parts of tables", t->nb_pages);
}

static void init_locks(struct tables *t)
{
    pthread_rwlock_init(&t->lock, NULL);
    pthread_mutex_init(&t->flush_lock, NULL);
    pthread_mutex_init(&t->alloc_lock, NULL);
    inflight_init(&t->claims);
}

int tables_init(struct tables *t, struct lam_error *err)
{
    uint64_t length;

    init_locks(t);
    assert(t->cluster && t->cluster % 512 == 0);
    int rc = lam_io_size(t->io, &length, err);
    if (rc == 0)
        rc = plan_pages(t, err);
    if (rc < 0)
        return rc;
    if (t->io->eof_unit < 512)
        t->io->eof_unit = 512;
    t->next_free = max_u64(length, t->data_start);
    t->touched_end = t->next_free;
    return t->is_two_level ? load_l1(t, length, err)
        : check_table(t, tables_clusters(t) * t->layout->entry_bytes, length,
                      err);
}

/* Larger copies of what counts tables; those of @from stay its own. */
static int copy_larger(struct tables *to, const struct tables *from,
                       struct lam_error *err)
{
    int rc = plan_pages(to, err);

    if (rc < 0)
        return rc;
    to->l1 = calloc(to->nb_l1 + 1, sizeof *to->l1);
    to->l1_dirty = calloc(to->nb_l1 + 1, sizeof *to->l1_dirty);
    if (!to->l1 || !to->l1_dirty)
        return lam_fail(err, ENOMEM, "no memory for an L1 table");
    memcpy(to->pages, from->pages, from->nb_pages * sizeof *to->pages);
    memcpy(to->l1, from->l1, from->nb_l1 * sizeof *to->l1);
    memcpy(to->l1_dirty, from->l1_dirty, from->nb_l1 * sizeof *to->l1_dirty);
    return 0;
}

static void free_arrays(struct tables *t)
{
    free(t->pages);
    free(t->l1);
    free(t->l1_dirty);
    free(t->l1_wrong);
}

int tables_grow(struct tables *t, uint64_t size, struct lam_error *err)
{
    struct tables larger = {
        .layout = t->layout, .io = t->io, .size = size, .cluster = t->cluster,
        .is_two_level = true, .table_entries = t->table_entries,
        .table_offset = t->table_offset, .data_start = t->data_start,
    };

    LAM_LOCKED(&t->flush_lock);
    pthread_rwlock_wrlock(&t->lock);
    int rc = copy_larger(&larger, t, err);
    if (rc == 0)
        rc = read_l1(&larger, t->nb_l1, t->io->size, err);
    if (rc == 0) {
        struct tables old = *t;
        t->pages = larger.pages;
        t->l1 = larger.l1;
        t->l1_dirty = larger.l1_dirty;
        t->l1_wrong = larger.l1_wrong;
        t->nb_pages = larger.nb_pages;
        t->nb_l1 = larger.nb_l1;
        t->size = size;
        larger = old;
    }
    pthread_rwlock_unlock(&t->lock);
    free_arrays(&larger);
    return rc;
}

static void page_free(struct page *page)
{
    if (page)
        free(page->bytes);
    free(page);
}

void tables_deinit(struct tables *t)
{
    for (uint64_t i = 0; t->pages && i < t->nb_pages; i++)
        page_free(t->pages[i]);
    free_arrays(t);
    pthread_rwlock_destroy(&t->lock);
    pthread_mutex_destroy(&t->flush_lock);
    pthread_mutex_destroy(&t->alloc_lock);
    inflight_deinit(&t->claims);
}

int tables_close(struct tables *t, struct lam_error *err)
{
    int rc = t->writable && t->changed ? tables_flush(t, err) : 0;

    tables_deinit(t);
    return rc;
}

/* ------------------------------------------------------------ pages */

/* Second-level tables begin anew at each multiple of their entries. */
static uint64_t page_of(const struct tables *t, uint64_t index,
                        uint64_t *slot)
{
    uint64_t table = t->is_two_level ? index / t->table_entries : 0;
    uint64_t inside = t->is_two_level ? index % t->table_entries : index;

    *slot = inside % t->page_entries;
    return table * t->pages_per_table + inside / t->page_entries;
}

static bool has_table(const struct tables *t, uint64_t number)
{
    return !t->is_two_level || t->l1[number / t->pages_per_table];
}

int tables_lookup(struct tables *t, uint64_t index, uint64_t *raw)
{
    uint64_t slot, number = page_of(t, index, &slot);
    struct page *page = t->pages[number];

    if (!page && has_table(t, number))
        return -EAGAIN;
    *raw = t->layout->absent;
    if (!page)
        return 0;
    __atomic_store_n(&page->used, atomic_fetch_add(&t->clock, 1),
                     __ATOMIC_RELAXED);
    *raw = tables_raw(t, page->bytes + slot * t->layout->entry_bytes);
    return 0;
}

static struct page *page_new(const struct tables *t, uint64_t number,
                             struct lam_error *err)
{
    struct page *page = calloc(1, sizeof *page);

    if (page)
        page->bytes = calloc(1, t->page_bytes);
    if (page && page->bytes) {
        page->number = number;
        return page;
    }
    free(page);
    lam_fail(err, ENOMEM, "no memory for %" PRIu64 " bytes of a table",
             t->page_bytes);
    return NULL;
}

static uint64_t page_host(const struct tables *t, uint64_t number)
{
    uint64_t inside = number % t->pages_per_table * t->page_bytes;

    return inside + (t->is_two_level ? t->l1[number / t->pages_per_table]
                                     : t->table_offset);
}

/* A table at the end of the file need not fill its last page. */
static uint64_t page_length(const struct tables *t, uint64_t number)
{
    uint64_t whole = t->is_two_level ? t->table_entries : tables_clusters(t);

    return min_u64(t->page_bytes, whole * t->layout->entry_bytes -
                   number % t->pages_per_table * t->page_bytes);
}

/* The page that was used longest ago and need not be written. */
static void evict(struct tables *t)
{
    struct page *oldest = NULL;

    for (uint64_t i = 0; i < t->nb_pages; i++) {
        struct page *page = t->pages[i];
        if (page && !page->dirty && (!oldest || page->used < oldest->used))
            oldest = page;
    }
    if (!oldest)
        return;
    t->pages[oldest->number] = NULL;
    t->nb_loaded--;
    t->evictions++;
    page_free(oldest);
}

static void insert(struct tables *t, struct page *page)
{
    if (t->nb_loaded >= t->max_loaded && !t->held)
        evict(t);
    page->used = atomic_fetch_add(&t->clock, 1);
    t->pages[page->number] = page;
    t->nb_loaded++;
}

/* What was read may be older than what somebody else has loaded, changed and
 * written meanwhile: then it counts for nothing. */
int tables_load(struct tables *t, uint64_t index, struct lam_error *err)
{
    uint64_t slot, number = page_of(t, index, &slot);
    struct page *page = page_new(t, number, err);

    if (!page)
        return -ENOMEM;
    pthread_rwlock_rdlock(&t->lock);
    uint64_t evictions = t->evictions;
    bool wanted = !t->pages[number] && has_table(t, number);
    uint64_t host = wanted ? page_host(t, number) : 0;
    pthread_rwlock_unlock(&t->lock);

    int rc = !wanted ? 0 : lam_io_read(t->io, page->bytes,
                                       page_length(t, number), host, err);
    pthread_rwlock_wrlock(&t->lock);
    if (rc == 0 && wanted && !t->pages[number] && t->evictions == evictions) {
        insert(t, page);
        page = NULL;
    }
    pthread_rwlock_unlock(&t->lock);
    page_free(page);
    return lam_error_prefix(err, rc, "%s: table", t->layout->name);
}

int tables_decode(struct tables *t, uint64_t index, uint64_t raw,
                  struct entry *entry, struct lam_error *err)
{
    *entry = t->layout->decode(t, raw);
    if (entry->kind == ENTRY_ABSENT || entry->kind == ENTRY_ZERO)
        return 0;
    uint64_t length = t->io->size;
    if (t->layout->strict_places && entry->host >= t->align_base &&
        (entry->host - t->align_base) % t->cluster)
        return lam_fail(err, EUCLEAN, "%s: cluster %" PRIu64 ": entry %#" PRIx64
                        " is not a multiple of %" PRIu64, t->layout->name,
                        index, raw, t->cluster);
    if (entry->host >= t->data_start && entry->host < length &&
        entry->host_length <= length - entry->host)
        return 0;
    return lam_fail(err, EUCLEAN, "%s: cluster %" PRIu64 ": entry %#" PRIx64
                    ": host offset %#" PRIx64 " is not between %" PRIu64 " and "
                    "the end of the file at %" PRIu64, t->layout->name, index,
                    raw, entry->host, t->data_start, length);
}

/* ------------------------------------------------------------ changes */

/* The page with room for changes; with lock held.  -EAGAIN as in lookup. */
static int page_for_change(struct tables *t, uint64_t index, uint8_t **entry,
                           struct lam_error *err)
{
    uint64_t slot, number = page_of(t, index, &slot);

    if (!t->pages[number]) {
        if (has_table(t, number))
            return -EAGAIN;
        struct page *page = page_new(t, number, err);
        if (!page)
            return -ENOMEM;
        insert(t, page);
    }
    t->pages[number]->dirty = true;
    *entry = t->pages[number]->bytes + slot * t->layout->entry_bytes;
    return 0;
}

int tables_set(struct tables *t, uint64_t index, uint64_t count, uint64_t raw,
               uint64_t step, struct lam_error *err)
{
    uint64_t i = 0;

    while (i < count) {
        uint8_t *entry;
        pthread_rwlock_wrlock(&t->lock);
        int rc = 0;
        for (; i < count && rc == 0; i += rc == 0) {
            rc = page_for_change(t, index + i, &entry, err);
            if (rc == 0)
                tables_put_raw(t, entry, raw + i * step);
        }
        t->header_dirty = true;
        pthread_rwlock_unlock(&t->lock);
        if (rc == -EAGAIN)
            rc = tables_load(t, index + i, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int tables_begin_changes(struct tables *t, struct lam_error *err)
{
    LAM_LOCKED(&t->alloc_lock);
    if (t->changed)
        return 0;
    int rc = t->layout->begin_changes ? t->layout->begin_changes(t, err) : 0;
    t->changed = rc == 0;
    return rc;
}

/* Where the next cluster may begin at or behind @host. */
static uint64_t next_place(const struct tables *t, uint64_t host)
{
    assert(host >= t->align_base);
    return t->align_base +
           div_up(host - t->align_base, t->cluster) * t->cluster;
}

/* A cluster that ends at @end passes the file's end: it comes with what is to
 * follow.  The lock is held. */
static int take_ahead(struct tables *t, uint64_t end, struct lam_error *err)
{
    uint64_t size = t->io->size;

    if (!t->ahead || !t->io->limits.can_grow || end <= size)
        return 0;
    if (t->ahead_bytes > INT64_MAX - end)
        return lam_fail(err, EFBIG, "%s: host offset %" PRIu64 " and %" PRIu64
                        " bytes ahead of it exceed 63 bits", t->layout->name,
                        end, t->ahead_bytes);
    end += t->ahead_bytes;
    int rc = t->ahead_sparse ? -ENOTSUP
                             : lam_io_allocate(t->io, size, end - size, err);
    return rc == -ENOTSUP ? lam_io_truncate(t->io, end, err) : rc;
}

int tables_cut(struct tables *t, struct lam_error *err)
{
    LAM_LOCKED(&t->alloc_lock);
    if (!t->ahead || !t->io->limits.can_grow || t->io->size <= t->next_free)
        return 0;
    return lam_io_truncate(t->io, t->next_free, err);
}

int tables_allocate(struct tables *t, uint64_t bytes, bool aligned,
                    uint64_t *host, bool *fresh, struct lam_error *err)
{
    LAM_LOCKED(&t->alloc_lock);
    uint64_t place = aligned ? next_place(t, t->next_free) : t->next_free;

    if (bytes > INT64_MAX - place)
        return lam_fail(err, EFBIG, "%s: no room behind host offset %" PRIu64,
                        t->layout->name, place);
    if (t->host_limit && place + bytes > t->host_limit)
        return lam_fail(err, EFBIG, "%s: host offset %" PRIu64 " (limit of the "
                        "format: %" PRIu64 ")", t->layout->name, place + bytes,
                        t->host_limit);
    if (!t->io->limits.can_grow && place + bytes > t->io->size)
        return lam_fail(err, ENOSPC, "%s: no room for %" PRIu64 " bytes at host"
                        " offset %" PRIu64 ", the device ends at %" PRIu64,
                        t->layout->name, bytes, place, (uint64_t)t->io->size);
    int rc = take_ahead(t, place + bytes, err);
    if (rc < 0)
        return rc;
    *host = place;
    *fresh = t->io->limits.can_grow && place >= t->touched_end;
    t->next_free = place + bytes;
    t->touched_end = max_u64(t->touched_end, t->next_free);
    return 0;
}

uint64_t tables_size(void *format)
{
    struct tables *t = format;
    return t->size;
}

/* The image layer counts in powers of two. */
uint64_t tables_cluster_size(void *format)
{
    struct tables *t = format;
    return is_power_of_two(t->cluster) ? t->cluster : 0;
}

struct crypt *tables_crypt(void *format)
{
    struct tables *t = format;
    return t->crypt;
}
