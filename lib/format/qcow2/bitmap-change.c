/* SPDX-License-Identifier: MIT */
/*
 * bitmap-change.c - add, remove, clear, enable, disable and merge persistent
 * bitmaps, and look into them.
 *
 * A change is stored at once, except for what is in_use: nobody relies on what
 * is stored of that, and all of it is at the end.
 */
#include "format/qcow2/bitmap-set.h"

#include <inttypes.h>
#include <string.h>

#include "format/inflight.h"
#include "format/qcow2/bitmap.h"
#include "format/qcow2/qcow2.h"

/* Whoever changes data meanwhile would do so before or after, in part. */
struct change {
    struct qcow2 *q;
    struct claim claim;
};

static int change_begin(struct change *c, struct qcow2 *q,
                        struct lam_error *err)
{
    *c = (struct change){ .q = q };
    claim_all(&q->inflight, &c->claim);
    pthread_mutex_lock(&q->alloc_lock);
    int rc = qcow2_check_writable(q, err);
    return rc < 0 ? rc : bitmaps_open(q, err);
}

static void change_end(struct change *c)
{
    bitmaps_count_recording(&c->q->bitmaps);
    pthread_mutex_unlock(&c->q->alloc_lock);
    claim_drop(&c->q->inflight, &c->claim);
}

static int not_found(const char *name, struct lam_error *err)
{
    return lam_fail(err, ENOENT, "Dirty bitmap '%s' not found", name);
}

/* One that can be used. */
static int find_usable(struct qcow2 *q, const char *name,
                       struct qcow2_bitmap **out, struct lam_error *err)
{
    *out = bitmaps_find(&q->bitmaps, name);
    if (!*out)
        return not_found(name, err);
    if ((*out)->inconsistent)
        return lam_fail(err, EINVAL, "Bitmap '%s' is inconsistent and cannot "
                        "be used", name);
    return 0;
}

/* --------------------------------------------------------------------- add */

static int check_name(const struct qcow2 *q, const char *name,
                      struct lam_error *err)
{
    if (!*name)
        return lam_fail(err, EINVAL, "Bitmap name cannot be empty");
    if (bitmaps_find(&q->bitmaps, name))
        return lam_fail(err, EEXIST, "Bitmap already exists: %s", name);
    if (q->header.version < 3)
        return lam_fail(err, ENOTSUP, "Cannot store dirty bitmaps in qcow2 v2 "
                        "files");
    if (strlen(name) > BITMAP_MAX_NAME)
        return lam_fail(err, EINVAL, "Name length exceeds maximum (%d "
                        "characters)", BITMAP_MAX_NAME);
    if (q->bitmaps.count >= QCOW2_MAX_BITMAPS)
        return lam_fail(err, EFBIG, "Maximum number of persistent bitmaps is "
                        "already reached: %d", QCOW2_MAX_BITMAPS);
    return 0;
}

static int check_granularity(const struct qcow2 *q, uint64_t granularity,
                             struct lam_error *err)
{
    if (!is_power_of_two(granularity) || granularity < 512 ||
        granularity >> BITMAP_MAX_GRANULARITY_BITS > 1)
        return lam_fail(err, EINVAL, "Granularity must be power of 2 and at "
                        "least 512");
    /* Its table would have no entry, which nobody reads. */
    if (!q->size)
        return lam_fail(err, EINVAL, "A disk of 0 bytes cannot have dirty "
                        "bitmaps");
    unsigned bits = (unsigned)__builtin_ctzll(granularity);
    if (bitmap_bytes(q->size, bits) > BITMAP_MAX_BYTES)
        return lam_fail(err, EFBIG, "Too much space will be occupied by the "
                        "bitmap. Use larger granularity: %" PRIu64 " bytes "
                        "(limit: %" PRIu64 ")", bitmap_bytes(q->size, bits),
                        BITMAP_MAX_BYTES);
    return 0;
}

static int new_bitmap(struct qcow2 *q, const char *name, uint64_t granularity,
                      bool recording, struct qcow2_bitmap **out,
                      struct lam_error *err)
{
    struct qcow2_bitmap *b = calloc(1, sizeof *b);

    if (b)
        b->name = strdup(name);
    if (!b || !b->name || bits_init(&b->bits, div_up(q->size, granularity),
                                    q->g.cluster_size) < 0) {
        bitmap_free(b);
        return lam_fail(err, ENOMEM, "no memory for a bitmap");
    }
    b->granularity_bits = (uint8_t)__builtin_ctzll(granularity);
    b->recording = recording;
    b->loaded = true;
    b->in_use = recording && atomic_load(&q->changed);
    *out = b;
    return 0;
}

static int append(struct bitmap_set *set, struct qcow2_bitmap *b,
                  struct lam_error *err)
{
    LAM_LOCKED(&set->lock);
    struct qcow2_bitmap **grown =
        realloc(set->items, (set->count + 1) * sizeof *grown);

    if (!grown)
        return lam_fail(err, ENOMEM, "no memory for %zu bitmaps",
                        set->count + 1);
    set->items = grown;
    set->items[set->count++] = b;
    return 0;
}

/* Item @i goes, and is the caller's. */
static struct qcow2_bitmap *take_out(struct bitmap_set *set, size_t i)
{
    LAM_LOCKED(&set->lock);
    struct qcow2_bitmap *b = set->items[i];

    set->count--;
    memmove(&set->items[i], &set->items[i + 1],
            (set->count - i) * sizeof(struct qcow2_bitmap *));
    return b;
}

static int add_in(struct qcow2 *q, const char *name, uint64_t granularity,
                  bool recording, struct lam_error *err)
{
    struct qcow2_bitmap *b = NULL;

    if (!granularity)
        granularity = max_u64(4 * LAM_KIB, min_u64(64 * LAM_KIB,
                                                   q->g.cluster_size));
    int rc = check_name(q, name, err);
    if (rc == 0)
        rc = check_granularity(q, granularity, err);
    if (rc == 0)
        rc = new_bitmap(q, name, granularity, recording, &b, err);
    if (rc < 0)
        return rc;
    rc = append(&q->bitmaps, b, err);
    if (rc < 0) {
        bitmap_free(b);
        return rc;
    }
    rc = bitmaps_store(q, false, NULL, err);
    if (rc < 0)
        bitmap_free(take_out(&q->bitmaps, q->bitmaps.count - 1));
    return rc;
}

static int qcow2_bitmap_add(void *format, const char *name,
                            uint64_t granularity, bool recording,
                            struct lam_error *err)
{
    struct change c;
    int rc = change_begin(&c, format, err);

    if (rc == 0)
        rc = add_in(c.q, name, granularity, recording, err);
    change_end(&c);
    return rc;
}

/* ------------------------------------------------------------------ remove */

static int remove_in(struct qcow2 *q, const char *name, struct lam_error *err)
{
    struct bitmap_set *set = &q->bitmaps;
    size_t i = 0;

    while (i < set->count && strcmp(set->items[i]->name, name))
        i++;
    if (i == set->count)
        return not_found(name, err);
    struct qcow2_bitmap *b = take_out(set, i);
    int rc = bitmaps_store(q, false, b, err);
    if (rc == 0) {
        bitmap_free(b);
        return 0;
    }
    /* There is room for it. */
    LAM_LOCKED(&set->lock);
    memmove(&set->items[i + 1], &set->items[i],
            (set->count - i) * sizeof(struct qcow2_bitmap *));
    set->items[i] = b;
    set->count++;
    return rc;
}

static int qcow2_bitmap_remove(void *format, const char *name,
                               struct lam_error *err)
{
    struct change c;
    int rc = change_begin(&c, format, err);

    if (rc == 0)
        rc = remove_in(c.q, name, err);
    change_end(&c);
    return rc;
}

/* ------------------------------------------------------- enable and disable */

static int enable_in(struct qcow2 *q, const char *name, bool recording,
                     struct lam_error *err)
{
    struct qcow2_bitmap *b = NULL;
    int rc = find_usable(q, name, &b, err);

    if (rc < 0 || b->recording == recording)
        return rc;
    bool was_in_use = b->in_use;
    {
        LAM_LOCKED(&q->bitmaps.lock);
        rc = recording ? bitmap_load(q, b, err) : 0;
        if (rc < 0)
            return rc;
        b->recording = recording;
        b->in_use |= recording && atomic_load(&q->changed);
    }
    /* Also if it was in_use: the flag would be lost in a crash. */
    rc = bitmaps_store(q, false, NULL, err);
    if (rc < 0) {
        LAM_LOCKED(&q->bitmaps.lock);
        b->recording = !recording;
        b->in_use = was_in_use;
    }
    return rc;
}

static int qcow2_bitmap_enable(void *format, const char *name, bool recording,
                               struct lam_error *err)
{
    struct change c;
    int rc = change_begin(&c, format, err);

    if (rc == 0)
        rc = enable_in(c.q, name, recording, err);
    change_end(&c);
    return rc;
}

/* ---------------------------------------------------------- clear and merge */

/* @bits, which become ours, are the contents of @b from now on. */
static int replace(struct qcow2 *q, struct qcow2_bitmap *b, struct bits *bits,
                   struct lam_error *err)
{
    struct bits old = b->bits;
    bool was_loaded = b->loaded, was_stale = b->stale;
    {
        LAM_LOCKED(&q->bitmaps.lock);
        b->bits = *bits;
        b->loaded = b->stale = true;
    }
    int rc = b->in_use ? 0 : bitmaps_store(q, false, NULL, err);
    if (rc == 0) {
        bits_deinit(&old);
        return 0;
    }
    LAM_LOCKED(&q->bitmaps.lock);
    bits_deinit(&b->bits);
    b->bits = old;
    b->loaded = was_loaded;
    b->stale = was_stale;
    return rc;
}

static int clear_in(struct qcow2 *q, const char *name, struct lam_error *err)
{
    struct qcow2_bitmap *b = NULL;
    struct bits empty;
    int rc = find_usable(q, name, &b, err);

    if (rc < 0)
        return rc;
    if (bits_init(&empty, div_up(q->size, UINT64_C(1) << b->granularity_bits),
                  q->g.cluster_size) < 0)
        return lam_fail(err, ENOMEM, "no memory for a bitmap");
    return replace(q, b, &empty, err);
}

static int qcow2_bitmap_clear(void *format, const char *name,
                              struct lam_error *err)
{
    struct change c;
    int rc = change_begin(&c, format, err);

    if (rc == 0)
        rc = clear_in(c.q, name, err);
    change_end(&c);
    return rc;
}

/* All that the source has, in our granularity. */
static int add_runs(struct bits *bits, unsigned granularity_bits,
                    struct format_bitmap_source *source, struct lam_error *err)
{
    uint64_t at = 0, end = bits->count << granularity_bits;
    struct range run;

    for (;;) {
        int rc = source->next(source, at, &run, err);
        if (rc <= 0)
            return rc;
        run = range_intersect(run, range_make(0, end));
        if (!run.length)
            return 0;
        at = range_end(run);
        uint64_t first = run.offset >> granularity_bits;
        uint64_t last = (at - 1) >> granularity_bits;
        if (bits_set(bits, first, last - first + 1) < 0)
            return lam_fail(err, ENOMEM, "no memory to merge bitmaps");
    }
}

static int merge_in(struct qcow2 *q, const char *name,
                    struct format_bitmap_source *source, struct lam_error *err)
{
    struct qcow2_bitmap *b = NULL;
    struct bits merged;
    int rc = find_usable(q, name, &b, err);

    if (rc < 0)
        return rc;
    {
        LAM_LOCKED(&q->bitmaps.lock);
        rc = bitmap_load(q, b, err);
        if (rc == 0 && bits_copy(&merged, &b->bits) < 0)
            rc = lam_fail(err, ENOMEM, "no memory to merge bitmaps");
    }
    if (rc < 0)
        return rc;
    rc = add_runs(&merged, b->granularity_bits, source, err);
    if (rc < 0) {
        bits_deinit(&merged);
        return rc;
    }
    return replace(q, b, &merged, err);
}

static int qcow2_bitmap_merge(void *format, const char *name,
                              struct format_bitmap_source *source,
                              struct lam_error *err)
{
    struct change c;
    int rc = change_begin(&c, format, err);

    if (rc == 0)
        rc = merge_in(c.q, name, source, err);
    change_end(&c);
    return rc;
}

/* -------------------------------------------------------------------- look */

static int qcow2_bitmap_next(void *format, const char *name, uint64_t offset,
                             struct range *run, struct lam_error *err)
{
    struct qcow2 *q = format;
    struct qcow2_bitmap *b = NULL;
    uint64_t first, n;
    int rc = bitmaps_open(q, err);

    if (rc < 0)
        return rc;
    LAM_LOCKED(&q->bitmaps.lock);
    rc = find_usable(q, name, &b, err);
    if (rc == 0)
        rc = bitmap_load(q, b, err);
    if (rc < 0)
        return rc;
    unsigned bits = b->granularity_bits;
    if (offset >= q->size || !bits_next(&b->bits, offset >> bits, &first, &n))
        return 0;
    uint64_t start = max_u64(offset, first << bits);
    *run = range_make(start, min_u64((first + n) << bits, q->size) - start);
    return 1;
}

const struct format_bitmap_ops qcow2_bitmap_ops = {
    .add = qcow2_bitmap_add,
    .remove = qcow2_bitmap_remove,
    .clear = qcow2_bitmap_clear,
    .enable = qcow2_bitmap_enable,
    .merge = qcow2_bitmap_merge,
    .next = qcow2_bitmap_next,
};
