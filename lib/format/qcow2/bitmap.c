/* SPDX-License-Identifier: MIT */
/*
 * bitmap.c - read the directory of persistent bitmaps (format document 9.1).
 */
#include "format/qcow2/bitmap.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/qcow2/entry.h"

/* Offsets in an entry of the directory. */
enum {
    BM_TABLE_OFFSET = 0,
    BM_TABLE_ENTRIES = 8,
    BM_FLAGS = 12,
    BM_TYPE = 16,
    BM_GRANULARITY_BITS = 17,
    BM_NAME_LENGTH = 18,
    BM_EXTRA_LENGTH = 20,
    BM_HEAD = 24,
};

enum {
    BM_KNOWN_FLAGS = BITMAP_IN_USE | BITMAP_AUTO,
    BM_DIRTY_TRACKING = 1,
};

/* 0: offset names a cluster of data; else all of the cluster is this bit. */
#define BM_ALL_ONES         UINT64_C(1)
#define BM_TABLE_RESERVED   UINT64_C(0xff000000000001fe)

static int judge(const struct qcow2_header *h, const struct bitmap_entry *e,
                 uint8_t type, uint32_t extra_length, struct lam_error *err)
{
    uint64_t cs = UINT64_C(1) << h->cluster_bits;
    char why[64] = "";

    if (extra_length)
        return lam_fail(err, EUCLEAN, "Bitmap extra data is not supported: %"
                        PRIu32 " bytes for bitmap '%.*s'", extra_length,
                        (int)e->name_length, e->name);
    if (!e->table_offset || !is_aligned(e->table_offset, cs))
        snprintf(why, sizeof why, "table offset %#" PRIx64, e->table_offset);
    else if (!e->table_entries)
        snprintf(why, sizeof why, "table of 0 entries (minimum: 1)");
    else if (e->flags & ~(uint32_t)BM_KNOWN_FLAGS)
        snprintf(why, sizeof why, "flags %#" PRIx32 " (known: %#x)", e->flags,
                 (unsigned)BM_KNOWN_FLAGS);
    else if (type != BM_DIRTY_TRACKING)
        snprintf(why, sizeof why, "type %u (known: %d)", type,
                 BM_DIRTY_TRACKING);
    else if (e->granularity_bits < BITMAP_MIN_GRANULARITY_BITS ||
             e->granularity_bits > BITMAP_MAX_GRANULARITY_BITS)
        snprintf(why, sizeof why, "granularity of 2^%u (limits: 2^%d to 2^%d)",
                 (unsigned)e->granularity_bits, BITMAP_MIN_GRANULARITY_BITS,
                 BITMAP_MAX_GRANULARITY_BITS);
    else if (!e->name_length || e->name_length > BITMAP_MAX_NAME)
        snprintf(why, sizeof why, "name of %u bytes (limits: 1 to %d)",
                 (unsigned)e->name_length, BITMAP_MAX_NAME);
    if (!*why)
        return 0;
    return lam_fail(err, EUCLEAN, "Bitmap '%.*s' doesn't satisfy the "
                    "constraints: %s", (int)min_u64(e->name_length,
                    BITMAP_MAX_NAME), e->name, why);
}

/*
 * What is in use says nothing, and may have been made for another size of the
 * disk.  Any other table has exactly the entries that its bits need: nobody
 * knows what more of them would mean.
 */
static int judge_table(const struct qcow2_header *h,
                       const struct bitmap_entry *e, struct lam_error *err)
{
    uint64_t cs = UINT64_C(1) << h->cluster_bits;
    uint64_t bytes = bitmap_bytes(align_down(h->size, 512),
                                  e->granularity_bits);
    uint64_t needed = max_u64(div_up(bytes, cs), 1);

    if (e->table_entries > BITMAP_MAX_BYTES / cs)
        return lam_fail(err, EUCLEAN, "Bitmap '%.*s' doesn't satisfy the "
                        "constraints: table of %" PRIu32 " entries (limit: %"
                        PRIu64 ")", (int)e->name_length, e->name,
                        e->table_entries, BITMAP_MAX_BYTES / cs);
    if (e->flags & BITMAP_IN_USE || e->table_entries == needed)
        return 0;
    return lam_fail(err, EUCLEAN, "Bitmap '%.*s' doesn't satisfy the "
                    "constraints: table of %" PRIu32 " entries (needed: %"
                    PRIu64 ")", (int)e->name_length, e->name, e->table_entries,
                    needed);
}

/* The entry at @p, of which the directory has @length bytes left. */
static int decode_entry(const struct qcow2_header *h, const uint8_t *p,
                        uint64_t length, struct bitmap_entry *e, uint64_t *used,
                        struct lam_error *err)
{
    if (length < BM_HEAD)
        return lam_fail(err, EUCLEAN, "Broken bitmap directory: %" PRIu64
                        " bytes left for an entry (minimum: %d)", length,
                        BM_HEAD);
    uint64_t extra = be32_get(p + BM_EXTRA_LENGTH);

    *e = (struct bitmap_entry){
        .table_offset = be64_get(p + BM_TABLE_OFFSET),
        .table_entries = be32_get(p + BM_TABLE_ENTRIES),
        .flags = be32_get(p + BM_FLAGS),
        .granularity_bits = p[BM_GRANULARITY_BITS],
        .name_length = be16_get(p + BM_NAME_LENGTH),
    };
    *used = align_up(BM_HEAD + extra + e->name_length, 8);
    if (*used > length)
        return lam_fail(err, EUCLEAN, "Broken bitmap directory: an entry of %"
                        PRIu64 " bytes where %" PRIu64 " are left", *used,
                        length);
    e->name = (const char *)p + BM_HEAD + extra;
    int rc = judge(h, e, p[BM_TYPE], (uint32_t)extra, err);
    return rc < 0 ? rc : judge_table(h, e, err);
}

size_t bitmap_entry_size(const struct bitmap_entry *e)
{
    return (size_t)align_up(BM_HEAD + e->name_length, 8);
}

void bitmap_entry_encode(const struct bitmap_entry *e, uint8_t *p)
{
    memset(p, 0, bitmap_entry_size(e));
    be64_put(p + BM_TABLE_OFFSET, e->table_offset);
    be32_put(p + BM_TABLE_ENTRIES, e->table_entries);
    be32_put(p + BM_FLAGS, e->flags);
    p[BM_TYPE] = BM_DIRTY_TRACKING;
    p[BM_GRANULARITY_BITS] = e->granularity_bits;
    be16_put(p + BM_NAME_LENGTH, (uint16_t)e->name_length);
    memcpy(p + BM_HEAD, e->name, e->name_length);
}

int bitmap_word_decode(const struct qcow2_header *h, const char *name,
                       size_t name_length, uint64_t word, uint64_t *offset,
                       bool *ones, struct lam_error *err)
{
    *offset = entry_offset(word);
    *ones = word & BM_ALL_ONES;
    if (!(word & BM_TABLE_RESERVED) && !(*offset && *ones) &&
        is_aligned(*offset, UINT64_C(1) << h->cluster_bits))
        return 0;
    return lam_fail(err, EUCLEAN, "Could not read bitmap_table table from "
                    "image for bitmap '%.*s': invalid entry %#" PRIx64,
                    (int)name_length, name, word);
}

/* The whole directory.  The header was validated: 64 MiB at most. */
int bitmaps_for_each(struct lam_io *io, const struct qcow2_header *h,
                     uint64_t file_length, bitmap_entry_fn *fn, void *opaque,
                     struct lam_error *err)
{
    uint64_t size = h->bitmap_directory_size, at = 0;
    uint32_t n = 0;

    if (h->bitmap_directory_offset + size > file_length)
        return lam_fail(err, EUCLEAN, "Bitmap directory at %#" PRIx64 " (%"
                        PRIu64 " bytes) passes the end of the file at %#"
                        PRIx64, h->bitmap_directory_offset, size, file_length);
    lam_autofree uint8_t *directory = malloc(size ? size : 1);
    if (!directory)
        return lam_fail(err, ENOMEM, "no memory for a bitmap directory of %"
                        PRIu64 " bytes", size);
    int rc = lam_io_read(io, directory, size, h->bitmap_directory_offset, err);

    while (rc == 0 && at < size) {
        struct bitmap_entry e;
        uint64_t used = 0;

        if (n++ == h->nb_bitmaps)
            return lam_fail(err, EUCLEAN, "More bitmaps found than specified "
                            "in header extension: %" PRIu32, h->nb_bitmaps);
        rc = decode_entry(h, directory + at, size - at, &e, &used, err);
        if (rc == 0)
            rc = fn(opaque, &e, err);
        at += used;
    }
    if (rc == 0 && n < h->nb_bitmaps)
        return lam_fail(err, EUCLEAN, "Less bitmaps found than specified in "
                        "header extension: %" PRIu32 " of %" PRIu32, n,
                        h->nb_bitmaps);
    return rc;
}

/* -------------------------------------------------------------------- info */

static int list_entry(void *opaque, const struct bitmap_entry *e,
                      struct lam_error *err)
{
    struct lam_image_info *info = opaque;
    struct lam_bitmap_info *grown =
        realloc(info->bitmaps, (info->nb_bitmaps + 1) * sizeof *grown);

    if (!grown)
        return lam_fail(err, ENOMEM, "no memory for %zu bitmaps",
                        info->nb_bitmaps + 1);
    info->bitmaps = grown;
    grown += info->nb_bitmaps;
    *grown = (struct lam_bitmap_info){
        .name = strndup(e->name, e->name_length),
        .granularity = UINT64_C(1) << e->granularity_bits,
        .in_use = e->flags & BITMAP_IN_USE,
        .automatic = e->flags & BITMAP_AUTO,
    };
    if (!grown->name)
        return lam_fail(err, ENOMEM, "no memory for the name of a bitmap");
    info->nb_bitmaps++;
    return 0;
}

int bitmaps_info(struct lam_io *io, const struct qcow2_header *h,
                 struct lam_image_info *info, struct lam_error *err)
{
    uint64_t file_length;

    info->bitmaps_lost = h->has_bitmaps && !header_has_bitmaps(h);
    if (!header_has_bitmaps(h))
        return 0;
    int rc = lam_io_size(io, &file_length, err);
    return rc < 0 ? rc : bitmaps_for_each(io, h, file_length, list_entry, info,
                                          err);
}

/* ------------------------------------------------------------------- areas */

struct areas {
    struct lam_io *io;
    const struct qcow2_header *h;
    uint64_t file_length;
    bitmap_area_fn *area;
    void *opaque;
};

static int table_piece(const struct areas *a, const struct bitmap_entry *e,
                       const uint8_t *p, uint64_t n, struct lam_error *err)
{
    uint64_t cs = UINT64_C(1) << a->h->cluster_bits;
    int rc = 0;

    for (uint64_t i = 0; i < n && rc == 0; i++) {
        uint64_t offset;
        bool ones;

        rc = bitmap_word_decode(a->h, e->name, e->name_length,
                                be64_get(p + i * 8), &offset, &ones, err);
        if (rc == 0 && offset)
            rc = a->area(a->opaque, offset, cs, err);
    }
    return rc;
}

static int areas_of_entry(void *opaque, const struct bitmap_entry *e,
                          struct lam_error *err)
{
    enum { PIECE = 4096 };                      /* table entries */
    const struct areas *a = opaque;
    lam_autofree uint8_t *buf = malloc(PIECE * 8);
    int rc = a->area(a->opaque, e->table_offset, e->table_entries * 8ull, err);

    if (!buf)
        return lam_fail(err, ENOMEM, "no memory for a bitmap table");
    for (uint64_t i = 0; i < e->table_entries && rc == 0; i += PIECE) {
        uint64_t at = e->table_offset + i * 8;
        uint64_t there = at < a->file_length ? (a->file_length - at) / 8 : 0;
        uint64_t n = min_u64(min_u64(PIECE, e->table_entries - i), there);

        if (!n)
            return 0;
        rc = lam_io_read(a->io, buf, n * 8, at, err);
        if (rc == 0)
            rc = table_piece(a, e, buf, n, err);
    }
    return rc;
}

int bitmaps_areas(struct lam_io *io, const struct qcow2_header *h,
                  uint64_t file_length, bitmap_area_fn *area, void *opaque,
                  struct lam_error *err)
{
    struct areas a = { io, h, file_length, area, opaque };

    if (!header_has_bitmaps(h))
        return 0;
    int rc = area(opaque, h->bitmap_directory_offset, h->bitmap_directory_size,
                  err);
    return rc < 0 ? rc : bitmaps_for_each(io, h, file_length, areas_of_entry,
                                          &a, err);
}
