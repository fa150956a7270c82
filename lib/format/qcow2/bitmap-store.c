/* SPDX-License-Identifier: MIT */
/*
 * bitmap-store.c - bitmaps to disk: contents and a directory in new clusters,
 * then the switch.
 */
#include "format/qcow2/bitmap-set.h"

#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"
#include "base/bytes.h"
#include "format/qcow2/alloc.h"
#include "format/qcow2/bitmap.h"
#include "format/qcow2/qcow2.h"
#include "format/qcow2/release.h"

/* Host ranges that were allocated on the way. */
struct ranges {
    struct range *items;
    size_t count, capacity;
};

struct store {
    struct qcow2 *q;
    bool all;
    struct ranges made;
    uint64_t directory, directory_size;     /* 0, 0: no bitmap is left */
    uint8_t *bytes;                         /* of the directory */
};

/* ------------------------------------------------------------- allocation */

static int ranges_add(struct ranges *list, struct range r,
                      struct lam_error *err)
{
    if (list->count == list->capacity) {
        size_t n = list->capacity ? list->capacity * 2 : 16;
        struct range *grown = realloc(list->items, n * sizeof *grown);

        if (!grown)
            return lam_fail(err, ENOMEM, "no memory for %zu ranges", n);
        list->items = grown;
        list->capacity = n;
    }
    list->items[list->count++] = r;
    return 0;
}

/* Clusters that are given back if nothing comes of it.  With @got as many as
 * are free in one place, else all. */
static int take_clusters(struct store *s, uint64_t want, uint64_t *host,
                         uint64_t *got, struct lam_error *err)
{
    uint64_t n = want;
    int rc = got ? alloc_clusters(s->q, want, host, &n, err)
                 : alloc_contiguous(s->q, want, host, err);

    if (rc < 0)
        return rc;
    if (got)
        *got = n;
    struct range r = range_make(*host, n << s->q->g.cluster_bits);
    rc = ranges_add(&s->made, r, err);
    if (rc < 0)
        alloc_drop(s->q, r.offset, r.length, NULL, NULL);
    return rc;
}

/* ---------------------------------------------------------------- contents */

/* Pages of @b that need a cluster, from @from on; at least one is there. */
static uint64_t count_pages(const struct bits *bits, size_t from)
{
    uint64_t n = 0;

    for (size_t i = from; i < bits->nb_pages; i++)
        n += bits->pages[i] && bits->pages[i] != bits_ones;
    return n;
}

static int write_page(struct store *s, const struct qcow2_bitmap *b, size_t i,
                      uint64_t host, struct lam_error *err)
{
    int rc = lam_io_write(s->q->io, b->bits.pages[i], b->bits.page_size, host,
                          err);

    return lam_error_prefix(err, rc, "Failed to write bitmap '%s' to file",
                            b->name);
}

static int write_pages(struct store *s, const struct qcow2_bitmap *b,
                       uint64_t *table, struct lam_error *err)
{
    const struct bits *bits = &b->bits;
    uint64_t left = count_pages(bits, 0), got = 0, host = 0;
    int rc = 0;

    for (size_t i = 0; i < bits->nb_pages && rc == 0; i++) {
        uint64_t word = bits->pages[i] == bits_ones;

        if (bits->pages[i] && !word) {
            if (!got)
                rc = take_clusters(s, left, &host, &got, err);
            if (rc == 0)
                rc = write_page(s, b, i, host, err);
            word = host;
            host += bits->page_size;
            got--;
            left--;
        }
        be64_put(&table[i], word);
    }
    return rc;
}

/* Contents and table to new clusters. */
static int write_bitmap(struct store *s, struct qcow2_bitmap *b,
                        struct lam_error *err)
{
    uint64_t cs = s->q->g.cluster_size;
    uint64_t entries = max_u64(b->bits.nb_pages, 1);
    uint64_t length = align_up(entries * sizeof(uint64_t), cs);
    lam_autofree uint64_t *table = calloc(1, length);

    if (!table)
        return lam_fail(err, ENOMEM, "no memory for a bitmap table");
    int rc = write_pages(s, b, table, err);
    if (rc == 0)
        rc = take_clusters(s, length / cs, &b->new_table_offset, NULL, err);
    if (rc == 0)
        rc = lam_io_write(s->q->io, table, length, b->new_table_offset, err);
    b->new_table_entries = (uint32_t)entries;
    b->written = rc == 0;
    return rc;
}

static bool must_write(const struct store *s, const struct qcow2_bitmap *b)
{
    if (b->inconsistent)
        return false;
    if (!b->table_offset)
        return true;
    return b->stale && (s->all || !b->in_use);
}

/* --------------------------------------------------------------- directory */

static struct bitmap_entry entry_of(const struct qcow2_bitmap *b, bool all)
{
    bool in_use = b->inconsistent || (b->in_use && !all);

    return (struct bitmap_entry){
        .table_offset = b->written ? b->new_table_offset : b->table_offset,
        .table_entries = b->written ? b->new_table_entries : b->table_entries,
        .flags = (in_use ? BITMAP_IN_USE : 0) |
                 (b->recording ? BITMAP_AUTO : 0),
        .granularity_bits = b->granularity_bits,
        .name = b->name,
        .name_length = strlen(b->name),
    };
}

static int encode_directory(const struct bitmap_set *set, bool all,
                            uint64_t pad, uint8_t **out, uint64_t *size,
                            struct lam_error *err)
{
    uint64_t at = 0;

    *size = 0;
    for (size_t i = 0; i < set->count; i++) {
        struct bitmap_entry e = entry_of(set->items[i], all);
        *size += bitmap_entry_size(&e);
    }
    *out = calloc(1, align_up(max_u64(*size, 1), pad));
    if (!*out)
        return lam_fail(err, ENOMEM, "no memory for a bitmap directory of %"
                        PRIu64 " bytes", *size);
    for (size_t i = 0; i < set->count; i++) {
        struct bitmap_entry e = entry_of(set->items[i], all);
        bitmap_entry_encode(&e, *out + at);
        at += bitmap_entry_size(&e);
    }
    return 0;
}

static int write_directory(struct store *s, struct lam_error *err)
{
    uint64_t cs = s->q->g.cluster_size, length;

    if (!s->q->bitmaps.count)
        return 0;
    int rc = encode_directory(&s->q->bitmaps, s->all, cs, &s->bytes,
                              &s->directory_size, err);
    if (rc < 0)
        return rc;
    length = align_up(s->directory_size, cs);
    rc = take_clusters(s, length / cs, &s->directory, NULL, err);
    if (rc == 0)
        rc = lam_io_write(s->q->io, s->bytes, length, s->directory, err);
    return lam_error_prefix(err, rc, "Failed to write the bitmap directory");
}

/*
 * The flags are written in place: what else lies there, a guest's cluster even,
 * would be changed.
 */
static int check_directory(struct qcow2 *q, struct lam_error *err)
{
    uint64_t offset = q->header.bitmap_directory_offset, value;
    uint64_t last = offset + q->header.bitmap_directory_size - 1;

    for (uint64_t c = host_cluster(&q->g, offset);
         c <= host_cluster(&q->g, last); c++) {
        int rc = refcount_read(q, c, &value, err);
        if (rc < 0)
            return rc;
        if (value != 1)
            return lam_fail(err, EUCLEAN, "bitmap directory at offset %" PRIu64
                            ": cluster %" PRIu64 " has refcount %" PRIu64
                            ", not 1", offset, c, value);
    }
    return 0;
}

int bitmaps_store_flags(struct qcow2 *q, struct lam_error *err)
{
    struct lam_error local = LAM_ERROR_INIT;
    lam_autofree uint8_t *bytes = NULL;
    uint64_t size;
    int rc = encode_directory(&q->bitmaps, false, 1, &bytes, &size, err);

    if (rc < 0)
        return rc;
    if (size != q->header.bitmap_directory_size)
        return lam_fail(err, EUCLEAN, "bitmap directory of %" PRIu64 " bytes, "
                        "of which %" PRIu64 " are used",
                        q->header.bitmap_directory_size, size);
    rc = check_directory(q, err);
    if (rc < 0)
        return rc;
    rc = lam_io_write(q->io, bytes, size, q->header.bitmap_directory_offset,
                      &local);
    if (rc == 0)
        rc = lam_io_flush(q->io, &local);
    if (rc == 0)
        return 0;
    qcow2_fail(q, &local);      /* which flags the disk has is unknown */
    return lam_fail(err, -rc, "Could not mark bitmaps as in use: %s",
                    local.message);
}

/* ------------------------------------------------------------ old clusters */

/* What table @offset names, and the table.  What cannot be read leaks. */
static void drop_table(struct qcow2 *q, const char *name, uint64_t offset,
                       uint32_t entries)
{
    enum { PIECE = 512 };
    uint64_t words[PIECE], host;
    bool ones;

    for (uint64_t i = 0; i < entries; i += PIECE) {
        uint64_t n = min_u64(PIECE, entries - i);

        if (lam_io_read(q->io, words, n * 8, offset + i * 8, NULL) < 0)
            break;
        for (uint64_t k = 0; k < n; k++)
            if (!bitmap_word_decode(&q->header, name, strlen(name),
                                    be64_get(&words[k]), &host, &ones, NULL) &&
                host)
                alloc_drop(q, host, q->g.cluster_size, NULL, NULL);
    }
    alloc_drop(q, offset, entries * UINT64_C(8), NULL, NULL);
}

/* The new state is on disk. */
static void settle(struct store *s, const struct qcow2_bitmap *removed,
                   uint64_t old_directory, uint64_t old_size)
{
    struct qcow2 *q = s->q;

    for (size_t i = 0; i < q->bitmaps.count; i++) {
        struct qcow2_bitmap *b = q->bitmaps.items[i];

        if (s->all)
            b->in_use = false;
        if (!b->written)
            continue;
        if (b->table_offset)
            drop_table(q, b->name, b->table_offset, b->table_entries);
        b->table_offset = b->new_table_offset;
        b->table_entries = b->new_table_entries;
        b->written = b->stale = false;
    }
    if (removed && removed->table_offset)
        drop_table(q, removed->name, removed->table_offset,
                   removed->table_entries);
    if (old_size)
        release_table(q, old_directory, old_size);
}

static void undo(struct store *s)
{
    for (size_t i = 0; i < s->q->bitmaps.count; i++)
        s->q->bitmaps.items[i]->written = false;
    for (size_t i = 0; i < s->made.count; i++)
        alloc_drop(s->q, s->made.items[i].offset, s->made.items[i].length,
                   NULL, NULL);
}

/* -------------------------------------------------------------- the switch */

/* What was allocated has its refcount on disk, what was written is there. */
static int settle_on_disk(struct qcow2 *q, struct lam_error *err)
{
    struct lam_error local = LAM_ERROR_INIT;
    int rc = alloc_write_back(q, err);

    if (rc < 0)
        return rc;
    rc = lam_io_flush(q->io, &local);
    if (rc < 0) {
        qcow2_fail(q, &local);
        return lam_fail(err, -rc, "%s", local.message);
    }
    return 0;
}

static int switch_directory(struct store *s, struct lam_error *err)
{
    struct qcow2_header *h = &s->q->header;
    const struct qcow2_header old = *h;
    bool any = s->directory_size > 0;

    h->has_bitmaps = any;
    h->nb_bitmaps = (uint32_t)s->q->bitmaps.count;
    h->bitmap_directory_offset = s->directory;
    h->bitmap_directory_size = s->directory_size;
    h->autoclear &= QCOW2_AUTOCLEAR_DATA_RAW;
    if (any)
        h->autoclear |= QCOW2_AUTOCLEAR_BITMAPS;
    int rc = qcow2_rewrite_header(s->q, err);
    if (rc < 0) {
        h->has_bitmaps = old.has_bitmaps;
        h->nb_bitmaps = old.nb_bitmaps;
        h->bitmap_directory_offset = old.bitmap_directory_offset;
        h->bitmap_directory_size = old.bitmap_directory_size;
        h->autoclear = old.autoclear;
    }
    return rc;
}

static int write_new(struct store *s, struct lam_error *err)
{
    struct bitmap_set *set = &s->q->bitmaps;
    int rc = 0;

    for (size_t i = 0; i < set->count && rc == 0; i++)
        if (must_write(s, set->items[i]))
            rc = write_bitmap(s, set->items[i], err);
    if (rc == 0)
        rc = write_directory(s, err);
    return rc < 0 ? rc : settle_on_disk(s->q, err);
}

int bitmaps_store(struct qcow2 *q, bool all, const struct qcow2_bitmap *removed,
                  struct lam_error *err)
{
    struct store s = { .q = q, .all = all };
    uint64_t old = q->header.bitmap_directory_offset;
    uint64_t old_size = header_has_bitmaps(&q->header)
                      ? q->header.bitmap_directory_size : 0;
    LAM_LOCKED(&q->bitmaps.lock);

    int rc = write_new(&s, err);
    if (rc == 0)
        rc = switch_directory(&s, err);
    if (rc == 0)
        settle(&s, removed, old, old_size);
    else if (qcow2_check_writable(q, NULL) == 0)
        undo(&s);
    free(s.bytes);
    free(s.made.items);
    return rc;
}

int bitmaps_store_last(struct qcow2 *q, struct lam_error *err)
{
    bool any = false;
    LAM_LOCKED(&q->alloc_lock);

    for (size_t i = 0; i < q->bitmaps.count; i++)
        any |= q->bitmaps.items[i]->in_use;
    int rc = any ? bitmaps_store(q, true, NULL, err) : 0;
    return lam_error_prefix(err, rc, "Lost persistent bitmaps");
}
