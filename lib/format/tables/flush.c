/* SPDX-License-Identifier: MIT */
/*
 * flush.c - changed entries on their way to the disk, in the order of
 * tables.h.
 */
#include <string.h>

#include "base/cleanup.h"
#include "format/tables/tables.h"

/* A page as it was when the flush began. */
struct copy {
    uint64_t number, host, length;
    uint8_t *bytes;
};

struct batch {
    struct copy *items;
    size_t count;
};

static void batch_deinit(struct batch *b)
{
    for (size_t i = 0; i < b->count; i++)
        free(b->items[i].bytes);
    free(b->items);
}

/* The last cluster is there as a whole, and so is a new table.  Whoever writes
 * meanwhile stays in front of next_free, so nothing is cut off. */
static int extend(struct tables *t, struct lam_error *err)
{
    LAM_LOCKED(&t->alloc_lock);
    uint64_t size = t->io->size;

    if (!t->io->limits.can_grow || size >= t->next_free || !t->changed)
        return 0;
    return lam_io_truncate(t->io, t->next_free, err);
}

/* Host space for a second-level table, all zero. */
static int new_table(struct tables *t, uint64_t i, struct lam_error *err)
{
    uint64_t bytes = t->table_entries * t->layout->entry_bytes, host;
    bool fresh;
    int rc = tables_allocate(t, bytes, true, &host, &fresh, err);

    if (rc == 0)
        rc = lam_io_zero(t->io, host, bytes, 0, err);
    if (rc < 0)
        return rc;
    pthread_rwlock_wrlock(&t->lock);
    t->l1[i] = host;
    t->l1_dirty[i] = true;
    pthread_rwlock_unlock(&t->lock);
    return 0;
}

static int place_tables(struct tables *t, struct lam_error *err)
{
    int rc = 0;

    for (uint64_t n = 0; t->is_two_level && n < t->nb_pages && rc == 0; n++) {
        pthread_rwlock_rdlock(&t->lock);
        bool homeless = t->pages[n] && t->pages[n]->dirty &&
                        !t->l1[n / t->pages_per_table];
        pthread_rwlock_unlock(&t->lock);
        if (homeless)
            rc = new_table(t, n / t->pages_per_table, err);
    }
    return rc;
}

static int copy_page(const struct tables *t, struct page *page,
                     struct batch *b, struct lam_error *err)
{
    uint64_t inside = page->number % t->pages_per_table * t->page_bytes;
    uint64_t whole = (t->is_two_level ? t->table_entries : tables_clusters(t)) *
                     t->layout->entry_bytes;
    uint8_t *bytes = malloc(t->page_bytes);

    if (!bytes)
        return lam_fail(err, ENOMEM, "no memory for a copy of a table");
    memcpy(bytes, page->bytes, t->page_bytes);
    b->items[b->count++] = (struct copy){
        .number = page->number,
        .host = inside + (t->is_two_level
                          ? t->l1[page->number / t->pages_per_table]
                          : t->table_offset),
        .length = min_u64(t->page_bytes, whole - inside),
        .bytes = bytes,
    };
    return 0;
}

/* Pages without a place yet were changed after place_tables(): they wait. */
static bool is_ready(const struct tables *t, const struct page *page)
{
    return page && page->dirty &&
           (!t->is_two_level || t->l1[page->number / t->pages_per_table]);
}

static int copy_dirty(struct tables *t, struct batch *b, struct lam_error *err)
{
    size_t count = 0;
    int rc = 0;

    for (uint64_t n = 0; n < t->nb_pages; n++)
        count += is_ready(t, t->pages[n]);
    b->items = calloc(count + 1, sizeof *b->items);
    if (!b->items)
        return lam_fail(err, ENOMEM, "no memory for a list of tables");
    for (uint64_t n = 0; n < t->nb_pages && rc == 0; n++)
        if (is_ready(t, t->pages[n]))
            rc = copy_page(t, t->pages[n], b, err);
    /* Clean from here on; a change on the way makes them dirty again. */
    for (size_t i = 0; i < b->count && rc == 0; i++)
        t->pages[b->items[i].number]->dirty = false;
    return rc;
}

static int write_pages(struct tables *t, const struct batch *b,
                       struct lam_error *err)
{
    int rc = 0;

    for (size_t i = 0; i < b->count && rc == 0; i++)
        rc = lam_io_write(t->io, b->items[i].bytes, b->items[i].length,
                          b->items[i].host, err);
    return rc;
}

static int write_l1(struct tables *t, struct lam_error *err)
{
    unsigned bytes = t->layout->entry_bytes;
    bool any = false;
    int rc = 0;

    for (uint64_t i = 0; i < t->nb_l1; i++)
        any |= t->l1_dirty[i];
    if (any)
        rc = lam_io_flush(t->io, err);
    for (uint64_t i = 0; i < t->nb_l1 && rc == 0; i++) {
        uint8_t raw[8];
        if (!t->l1_dirty[i])
            continue;
        tables_put_raw(t, raw, t->l1[i]);
        rc = lam_io_write(t->io, raw, bytes, t->table_offset + i * bytes, err);
        t->l1_dirty[i] = rc < 0;
    }
    return rc;
}

static void make_dirty_again(struct tables *t, const struct batch *b)
{
    pthread_rwlock_wrlock(&t->lock);
    for (size_t i = 0; i < b->count; i++) {
        struct page *page = t->pages[b->items[i].number];
        if (page)
            page->dirty = true;
    }
    t->header_dirty = true;
    pthread_rwlock_unlock(&t->lock);
}

static int take_dirty(struct tables *t, struct batch *b, bool *header,
                      struct lam_error *err)
{
    int rc = place_tables(t, err);

    if (rc < 0)
        return rc;
    pthread_rwlock_wrlock(&t->lock);
    rc = copy_dirty(t, b, err);
    *header = t->header_dirty;
    if (rc == 0)
        t->header_dirty = false;
    pthread_rwlock_unlock(&t->lock);
    return rc;
}

/* A page that is being written may be loaded again only when it is on disk:
 * none is evicted meanwhile. */
static int write_dirty(struct tables *t, const struct batch *b, bool header,
                       struct lam_error *err)
{
    /* Data that a copied entry shows are on disk first. */
    int rc = header && t->layout->store_header ? t->layout->store_header(t, err)
                                               : 0;

    if (rc == 0)
        rc = lam_io_flush(t->io, err);
    if (rc == 0)
        rc = write_pages(t, b, err);
    if (rc == 0)
        rc = write_l1(t, err);
    return rc < 0 ? rc : lam_io_flush(t->io, err);
}

static void hold_evictions(struct tables *t, bool hold)
{
    pthread_rwlock_wrlock(&t->lock);
    t->held = hold;
    pthread_rwlock_unlock(&t->lock);
}

int tables_flush(void *format, struct lam_error *err)
{
    struct tables *t = format;
    struct batch b lam_cleanup(batch_deinit) = { NULL, 0 };
    bool header = false;

    LAM_LOCKED(&t->flush_lock);
    hold_evictions(t, true);
    int rc = take_dirty(t, &b, &header, err);
    if (rc == 0)
        rc = extend(t, err);
    if (rc == 0 && !b.count && !header)
        rc = lam_io_flush(t->io, err);
    else if (rc == 0)
        rc = write_dirty(t, &b, header, err);
    if (rc < 0 && b.count)
        make_dirty_again(t, &b);
    hold_evictions(t, false);
    return rc;
}
