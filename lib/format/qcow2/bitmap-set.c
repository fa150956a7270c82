/* SPDX-License-Identifier: MIT */
/*
 * bitmap-set.c - the persistent bitmaps of an open image: reading them, and
 * recording what is written.
 */
#include "format/qcow2/bitmap-set.h"

#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"
#include "base/bytes.h"
#include "format/qcow2/bitmap.h"
#include "format/qcow2/qcow2.h"

void bitmaps_init(struct bitmap_set *set)
{
    pthread_mutex_init(&set->lock, NULL);
}

void bitmap_free(struct qcow2_bitmap *b)
{
    if (!b)
        return;
    bits_deinit(&b->bits);
    free(b->name);
    free(b);
}

static void forget_items(struct bitmap_set *set)
{
    for (size_t i = 0; i < set->count; i++)
        bitmap_free(set->items[i]);
    free(set->items);
    set->items = NULL;
    set->count = 0;
}

void bitmaps_deinit(struct bitmap_set *set)
{
    forget_items(set);
    pthread_mutex_destroy(&set->lock);
}

struct qcow2_bitmap *bitmaps_find(const struct bitmap_set *set,
                                  const char *name)
{
    for (size_t i = 0; i < set->count; i++)
        if (!strcmp(set->items[i]->name, name))
            return set->items[i];
    return NULL;
}

void bitmaps_count_recording(struct bitmap_set *set)
{
    bool any = false;

    for (size_t i = 0; i < set->count; i++)
        any |= set->items[i]->recording && !set->items[i]->inconsistent;
    atomic_store(&set->recording, any);
}

/* --------------------------------------------------------------- directory */

/* Table entries for the disk as it is; at least one. */
static uint64_t entries_needed(const struct qcow2 *q, unsigned granularity_bits)
{
    uint64_t bytes = bitmap_bytes(q->size, granularity_bits);

    return max_u64(div_up(bytes, q->g.cluster_size), 1);
}

static int take_entry(void *opaque, const struct bitmap_entry *e,
                      struct lam_error *err)
{
    struct qcow2 *q = opaque;
    struct bitmap_set *set = &q->bitmaps;

    if (memchr(e->name, '\0', e->name_length))
        return lam_fail(err, EUCLEAN, "Bitmap '%.*s' doesn't satisfy the "
                        "constraints: NUL in its name", (int)e->name_length,
                        e->name);
    struct qcow2_bitmap *b = calloc(1, sizeof *b);
    if (b)
        b->name = strndup(e->name, e->name_length);
    if (!b || !b->name) {
        free(b);
        return lam_fail(err, ENOMEM, "no memory for a bitmap");
    }
    b->granularity_bits = e->granularity_bits;
    b->recording = e->flags & BITMAP_AUTO;
    b->inconsistent = e->flags & BITMAP_IN_USE;
    b->table_offset = e->table_offset;
    /* What a table in use has beyond that may be anything: it is not ours to
     * drop. */
    b->table_entries = (uint32_t)min_u64(e->table_entries,
                                         entries_needed(q,
                                                        b->granularity_bits));
    set->items[set->count++] = b;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(struct qcow2_bitmap *const *)a)->name,
                  (*(struct qcow2_bitmap *const *)b)->name);
}

static int check_unique(const struct bitmap_set *set, struct lam_error *err)
{
    size_t bytes = set->count * sizeof *set->items;
    lam_autofree struct qcow2_bitmap **sorted = malloc(bytes ? bytes : 1);

    if (!sorted)
        return lam_fail(err, ENOMEM, "no memory for %zu bitmaps", set->count);
    if (set->count)
        memcpy(sorted, set->items, bytes);
    qsort(sorted, set->count, sizeof *sorted, by_name);
    for (size_t i = 1; i < set->count; i++)
        if (!by_name(&sorted[i - 1], &sorted[i]))
            return lam_fail(err, EUCLEAN, "Bitmap name '%s' occurs more than "
                            "once in the directory", sorted[i]->name);
    return 0;
}

static int read_directory(struct qcow2 *q, struct lam_error *err)
{
    struct bitmap_set *set = &q->bitmaps;
    uint64_t file_length;
    int rc = lam_io_size(q->io, &file_length, err);

    if (rc < 0)
        return rc;
    set->items = calloc(q->header.nb_bitmaps, sizeof *set->items);
    if (!set->items)
        return lam_fail(err, ENOMEM, "no memory for %" PRIu32 " bitmaps",
                        q->header.nb_bitmaps);
    rc = bitmaps_for_each(q->io, &q->header, file_length, take_entry, q, err);
    return rc < 0 ? rc : check_unique(set, err);
}

int bitmaps_open(struct qcow2 *q, struct lam_error *err)
{
    struct bitmap_set *set = &q->bitmaps;
    LAM_LOCKED(&set->lock);

    if (set->known)
        return 0;
    int rc = header_has_bitmaps(&q->header) ? read_directory(q, err) : 0;
    if (rc < 0) {
        forget_items(set);
        return rc;
    }
    set->known = true;
    bitmaps_count_recording(set);
    return 0;
}

/* ---------------------------------------------------------------- contents */

static int load_page(struct qcow2 *q, struct qcow2_bitmap *b, size_t i,
                     uint64_t word, uint8_t *page, struct lam_error *err)
{
    uint64_t offset;
    bool ones;
    int rc = bitmap_word_decode(&q->header, b->name, strlen(b->name), word,
                                &offset, &ones, err);

    if (rc == 0 && offset)
        rc = lam_io_read(q->io, page, q->g.cluster_size, offset, err);
    if (rc < 0)
        return rc;
    if (offset)
        rc = bits_put_page(&b->bits, i, page);
    else if (ones)
        rc = bits_put_ones(&b->bits, i);
    return rc < 0 ? lam_fail(err, ENOMEM, "no memory for bitmap '%s'", b->name)
                  : 0;
}

/* Clusters that are named twice would let a small file fill the memory. */
static int check_amount(struct qcow2 *q, const struct qcow2_bitmap *b,
                        const uint64_t *table, struct lam_error *err)
{
    uint64_t clusters = 0;
    uint64_t file = div_up(atomic_load(&q->io->size), q->g.cluster_size);

    for (size_t i = 0; i < b->bits.nb_pages; i++)
        clusters += entry_offset(be64_get(&table[i])) != 0;
    if (clusters > file)
        return lam_fail(err, EUCLEAN, "Bitmap '%s' names %" PRIu64
                        " clusters of a file that has %" PRIu64, b->name,
                        clusters, file);
    return 0;
}

static int load_pages(struct qcow2 *q, struct qcow2_bitmap *b,
                      struct lam_error *err)
{
    uint64_t bytes = b->bits.nb_pages * sizeof(uint64_t);
    lam_autofree uint64_t *table = malloc(bytes ? bytes : 1);
    lam_autofree uint8_t *page = buffer_new(q->g.cluster_size);
    int rc = 0;

    if (!table || !page)
        return lam_fail(err, ENOMEM, "no memory for bitmap '%s'", b->name);
    if (bytes)
        rc = lam_io_read(q->io, table, bytes, b->table_offset, err);
    if (rc == 0)
        rc = check_amount(q, b, table, err);
    for (size_t i = 0; i < b->bits.nb_pages && rc == 0; i++)
        rc = load_page(q, b, i, be64_get(&table[i]), page, err);
    return rc;
}

int bitmap_load(struct qcow2 *q, struct qcow2_bitmap *b, struct lam_error *err)
{
    uint64_t count = div_up(q->size, UINT64_C(1) << b->granularity_bits);

    assert(!b->inconsistent);
    if (b->loaded)
        return 0;
    assert(b->table_offset);
    if (bits_init(&b->bits, count, q->g.cluster_size) < 0)
        return lam_fail(err, ENOMEM, "no memory for bitmap '%s'", b->name);
    int rc = load_pages(q, b, err);
    if (rc < 0) {
        bits_deinit(&b->bits);
        return lam_error_prefix(err, rc, "Could not read bitmap '%s' from "
                                "image", b->name);
    }
    b->loaded = true;
    return 0;
}

/* --------------------------------------------------------------- recording */

/* What the disk has not got is not so here either: the next change tries
 * again. */
static int mark_in_use(struct qcow2 *q, bool all, struct lam_error *err)
{
    struct bitmap_set *set = &q->bitmaps;
    lam_autofree bool *was = calloc(set->count + 1, sizeof *was);

    if (!was)
        return lam_fail(err, ENOMEM, "no memory for %zu bitmaps", set->count);
    for (size_t i = 0; i < set->count; i++) {
        struct qcow2_bitmap *b = set->items[i];
        was[i] = b->in_use;
        if (!b->inconsistent)
            b->in_use |= all || b->recording;
    }
    int rc = bitmaps_store_flags(q, err);
    for (size_t i = 0; i < set->count && rc < 0; i++)
        set->items[i]->in_use = was[i];
    return rc;
}

/* Bitmaps become in_use, on disk: those that record, or all. */
static int become_in_use(struct qcow2 *q, bool all, struct lam_error *err)
{
    struct bitmap_set *set = &q->bitmaps;
    bool any = false;
    LAM_LOCKED(&set->lock);

    for (size_t i = 0; i < set->count; i++) {
        struct qcow2_bitmap *b = set->items[i];
        if (b->inconsistent || b->in_use || !(all || b->recording))
            continue;
        int rc = bitmap_load(q, b, err);
        if (rc < 0)
            return rc;
        any = true;
    }
    return any ? mark_in_use(q, all, err) : 0;
}

/* Without the autoclear bit the extension is dead: it must not come to life
 * again after we have changed something. */
static int drop_dead_extension(struct qcow2 *q, struct lam_error *err)
{
    if (!q->header.has_bitmaps || header_has_bitmaps(&q->header))
        return 0;
    q->header.has_bitmaps = false;
    int rc = qcow2_rewrite_header(q, err);
    if (rc < 0)
        q->header.has_bitmaps = true;
    /* A header that does not fit, rewritten our way, can stay as it is. */
    return rc == -ENOSPC ? qcow2_check_writable(q, err) : rc;
}

int bitmaps_before_change(struct qcow2 *q, struct lam_error *err)
{
    int rc = drop_dead_extension(q, err);

    /* Opened for repair, it may have bitmaps that cannot be made out: they are
     * given up (update.c clears the autoclear bit). */
    if (rc < 0 || (!q->bitmaps.known && bitmaps_open(q, NULL) < 0))
        return rc;
    return become_in_use(q, false, err);
}

int bitmaps_record(struct qcow2 *q, uint64_t offset, uint64_t length,
                   struct lam_error *err)
{
    struct bitmap_set *set = &q->bitmaps;
    LAM_LOCKED(&set->lock);

    for (size_t i = 0; i < set->count && length; i++) {
        struct qcow2_bitmap *b = set->items[i];
        unsigned bits = b->granularity_bits;

        if (!b->recording || b->inconsistent)
            continue;
        assert(b->loaded && b->in_use);
        uint64_t first = offset >> bits;
        uint64_t end = ((offset + length - 1) >> bits) + 1;
        if (bits_set(&b->bits, first, end - first) < 0)
            return lam_fail(err, ENOMEM, "no memory to record a write in "
                            "bitmap '%s'", b->name);
        b->stale = true;
    }
    return 0;
}

/* ---------------------------------------------------------------- resizing */

int bitmaps_check_resize(struct qcow2 *q, struct lam_error *err)
{
    struct bitmap_set *set = &q->bitmaps;
    LAM_LOCKED(&q->alloc_lock);

    for (size_t i = 0; i < set->count; i++)
        if (set->items[i]->inconsistent)
            return lam_fail(err, EINVAL, "Bitmap '%s' is inconsistent and "
                            "cannot be used", set->items[i]->name);
    return 0;
}

int bitmaps_prepare_resize(struct qcow2 *q, struct lam_error *err)
{
    LAM_LOCKED(&q->alloc_lock);

    return become_in_use(q, true, err);
}

void bitmaps_resized(struct qcow2 *q)
{
    struct bitmap_set *set = &q->bitmaps;
    LAM_LOCKED(&q->alloc_lock);
    LAM_LOCKED(&set->lock);

    for (size_t i = 0; i < set->count; i++) {
        struct qcow2_bitmap *b = set->items[i];
        uint64_t count = div_up(q->size, UINT64_C(1) << b->granularity_bits);

        /* in_use on disk, where nothing is lost that is not lost here. */
        if (!b->inconsistent && (bits_resize(&b->bits, count) < 0 ||
            bitmap_bytes(q->size, b->granularity_bits) > BITMAP_MAX_BYTES))
            b->inconsistent = true;
        b->stale = true;
    }
    bitmaps_count_recording(set);
}
