/* SPDX-License-Identifier: MIT */
/*
 * extent.c - a sparse extent is opened: header, footer, directories.
 */
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/vmdk/vmdk.h"

enum { MARKER_EOS = 0, MARKER_FOOTER = 3, MARKER_VALUE = 0, MARKER_BYTES = 8,
       MARKER_TYPE = 12 };

void vmdk_sparse_free(struct vmdk_sparse *s)
{
    if (!s)
        return;
    for (uint64_t i = 0; s->tables && i < s->nb_tables; i++)
        free(s->tables[i].entries);
    free(s->tables);
    free(s->metadata);
    free(s->gd);
    free(s->rgd);
    free(s);
}

struct vmdk_extent *vmdk_extent_at(const struct vmdk *v, uint64_t offset)
{
    size_t low = 0, high = v->nb_extents;

    assert(offset < v->size);
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (v->extents[middle].guest.offset <= offset)
            low = middle;
        else
            high = middle;
    }
    return &v->extents[low];
}

uint64_t vmdk_grain_length(const struct vmdk_extent *e, uint64_t offset)
{
    uint64_t start = align_down(offset, e->sparse->grain_size);

    return min_u64(e->sparse->grain_size, e->guest.length - start);
}

/* ------------------------------------------------------------------ header */

/*
 * A file whose directory was not known when its header was written ends with
 * three sectors: the footer's marker, the footer, the end-of-stream marker.
 */
static int read_footer(struct lam_io *io, uint64_t length,
                       struct vmdk_header *h, struct lam_error *err)
{
    uint8_t buf[3 * VMDK_SECTOR];

    if (length < 4 * VMDK_SECTOR)
        return lam_fail(err, EUCLEAN, "the file of %" PRIu64 " bytes is too "
                        "short for a footer", length);
    int rc = lam_io_read(io, buf, sizeof buf, length - sizeof buf, err);
    if (rc < 0)
        return rc;
    const uint8_t *end = buf + 2 * VMDK_SECTOR;
    if (le64_get(buf + MARKER_VALUE) != 1 || le32_get(buf + MARKER_BYTES) ||
        le32_get(buf + MARKER_TYPE) != MARKER_FOOTER ||
        le64_get(end + MARKER_VALUE) || le32_get(end + MARKER_BYTES) ||
        le32_get(end + MARKER_TYPE) != MARKER_EOS)
        return lam_fail(err, EUCLEAN, "Invalid footer: its markers are not in "
                        "the last three sectors");
    rc = vmdk_header_decode(buf + VMDK_SECTOR, h, err);
    if (rc == 0 && h->gd_offset == VMDK_GD_AT_END)
        rc = lam_fail(err, EUCLEAN, "Invalid footer: it does not say where the "
                      "grain directory is");
    return lam_error_prefix(err, rc, "footer");
}

/* The second header says whether the file was closed. */
static int read_se_headers(struct lam_io *io, const uint8_t *first,
                           uint64_t length, struct vmdk_header *h,
                           struct lam_error *err)
{
    uint8_t buf[VMDK_HEADER_SIZE];
    int rc = vmdk_se_decode(first, h, err);

    if (rc < 0)
        return rc;
    if (h->volatile_offset < 1 ||
        h->volatile_offset >= length / VMDK_SECTOR)
        return lam_fail(err, EUCLEAN, "the volatile header at sector %" PRIu64
                        " is not inside the file's %" PRIu64 " bytes",
                        h->volatile_offset, length);
    rc = lam_io_read(io, buf, sizeof buf, h->volatile_offset * VMDK_SECTOR,
                     err);
    return rc < 0 ? rc : vmdk_se_judge_volatile(buf, err);
}

static int decode_header(const struct vmdk_extent *e, const uint8_t *buf,
                         uint64_t length, struct vmdk_header *h,
                         struct lam_error *err)
{
    if (e->type == VMDK_SE_SPARSE)
        return read_se_headers(e->io, buf, length, h, err);
    return vmdk_is_cowd(buf, VMDK_COWD_HEADER_SIZE)
        ? vmdk_cowd_decode(buf, h, err) : vmdk_header_decode(buf, h, err);
}

static int read_header(struct vmdk_extent *e, uint64_t length,
                       struct lam_error *err)
{
    struct vmdk_sparse *s = e->sparse;
    struct lam_io *io = e->io;
    uint8_t buf[VMDK_COWD_HEADER_SIZE] = { 0 };

    /* What a file that ends in its header lacks are zeroes. */
    int rc = lam_io_read(io, buf, min_u64(length, sizeof buf), 0, err);
    if (rc == 0)
        rc = decode_header(e, buf, length, &s->h, err);
    if (rc == 0)
        rc = vmdk_header_validate(&s->h, length, err);
    if (rc == 0 && s->h.gd_offset == VMDK_GD_AT_END) {
        s->footer = true;
        rc = read_footer(io, length, &s->h, err);
        if (rc == 0)
            rc = vmdk_header_validate(&s->h, length, err);
    }
    if (rc < 0)
        return rc;
    s->grain_size = s->h.grain_size * VMDK_SECTOR;
    s->compressed = vmdk_has_flag(&s->h, VMDK_FLAG_COMPRESSED);
    s->zeroed = s->h.se || vmdk_has_flag(&s->h, VMDK_FLAG_ZEROED);
    s->nb_tables = vmdk_nb_tables(&s->h);
    return 0;
}

/* ------------------------------------------------------------- directories */

static int read_directory(struct lam_io *io, uint64_t sector, uint64_t count,
                          uint32_t **out, struct lam_error *err)
{
    lam_autofree uint32_t *entries = calloc(count ? count : 1,
                                            sizeof *entries);
    if (!entries)
        return lam_fail(err, ENOMEM, "no memory for a grain directory of %"
                        PRIu64 " entries", count);
    if (count) {
        int rc = lam_io_read(io, entries, count * sizeof *entries,
                             sector * VMDK_SECTOR, err);
        if (rc < 0)
            return lam_error_prefix(err, rc, "grain directory");
    }
    for (uint64_t i = 0; i < count; i++)
        entries[i] = le32_get(&entries[i]);
    *out = lam_take(&entries);
    return 0;
}

/* The same of 64-bit entries, a piece at a time. */
static int read_se_directory(struct lam_io *io, const struct vmdk_header *h,
                             uint64_t count, uint32_t **out,
                             struct lam_error *err)
{
    lam_autofree uint32_t *entries = calloc(count ? count : 1,
                                            sizeof *entries);
    uint8_t raw[4096];
    int rc = 0;

    if (!entries)
        return lam_fail(err, ENOMEM, "no memory for a grain directory of %"
                        PRIu64 " entries", count);
    for (uint64_t i = 0; i < count && rc == 0; i++) {
        uint64_t n = min_u64(count - i, sizeof raw / 8);
        if (i % (sizeof raw / 8) == 0)
            rc = lam_io_read(io, raw, 8 * n, h->gd_offset * VMDK_SECTOR + 8 * i,
                             err);
        if (rc == 0)
            rc = vmdk_se_directory_entry(h, le64_get(raw + 8 * i % sizeof raw),
                                         &entries[i], err);
    }
    if (rc < 0)
        return lam_error_prefix(err, rc, "grain directory");
    *out = lam_take(&entries);
    return 0;
}

static void add_metadata(struct vmdk_sparse *s, uint64_t sector,
                         uint64_t bytes)
{
    struct range r = range_make(sector * VMDK_SECTOR,
                                align_up(bytes, VMDK_SECTOR));

    if (r.length)
        s->metadata[s->nb_metadata++] = r;
}

static int compare_ranges(const void *a, const void *b)
{
    const struct range *x = a, *y = b;

    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Neighbours become one. */
static void merge_metadata(struct vmdk_sparse *s)
{
    size_t count = 0;

    qsort(s->metadata, s->nb_metadata, sizeof *s->metadata, compare_ranges);
    for (size_t i = 0; i < s->nb_metadata; i++) {
        struct range *last = count ? &s->metadata[count - 1] : NULL;
        struct range r = s->metadata[i];
        if (!last || range_end(*last) < r.offset) {
            s->metadata[count++] = r;
            continue;
        }
        if (range_end(*last) > r.offset && !s->overlap)
            s->overlap = r.offset;
        last->length = max_u64(range_end(*last), range_end(r)) - last->offset;
    }
    s->nb_metadata = count;
}

/* Tables that are not in the file at all are found when they are read. */
static void add_tables(struct vmdk_sparse *s, const uint32_t *gd,
                       uint64_t sector, uint64_t length)
{
    add_metadata(s, sector, s->nb_tables * (s->h.se ? 8 : 4));
    for (uint64_t i = 0; i < s->nb_tables; i++)
        if (gd[i] && vmdk_table_host(&s->h, gd[i]) < length)
            add_metadata(s, vmdk_table_host(&s->h, gd[i]) / VMDK_SECTOR,
                         vmdk_table_bytes(&s->h));
}

/* So that no entry can make a write of the guest's land there. */
static int note_metadata(struct vmdk_sparse *s, uint64_t length,
                         struct lam_error *err)
{
    const struct vmdk_header *h = &s->h;
    uint64_t most = 4 + s->nb_tables * (s->rgd ? 2 : 1);

    s->metadata = calloc(most, sizeof *s->metadata);
    if (!s->metadata)
        return lam_fail(err, ENOMEM, "no memory for %" PRIu64 " ranges", most);
    add_metadata(s, 0, vmdk_header_bytes(h));
    if (h->se)
        add_metadata(s, h->volatile_offset, VMDK_HEADER_SIZE);
    if (h->descriptor_offset)
        add_metadata(s, h->descriptor_offset,
                     h->descriptor_size * VMDK_SECTOR);
    if (s->rgd)
        add_tables(s, s->rgd, h->rgd_offset, length);
    add_tables(s, s->gd, h->gd_offset, length);
    merge_metadata(s);
    return 0;
}

bool vmdk_hits_metadata(const struct vmdk_sparse *s, uint64_t offset,
                        uint64_t length)
{
    size_t low = 0, high = s->nb_metadata;

    /* The first one that ends behind @offset. */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (range_end(s->metadata[middle]) > offset)
            high = middle;
        else
            low = middle + 1;
    }
    return low < s->nb_metadata &&
           s->metadata[low].offset < offset + length;
}

static int read_directories(struct vmdk_extent *e, uint64_t length,
                            struct lam_error *err)
{
    struct vmdk_sparse *s = e->sparse;
    int rc = s->h.se
        ? read_se_directory(e->io, &s->h, s->nb_tables, &s->gd, err)
        : read_directory(e->io, s->h.gd_offset, s->nb_tables, &s->gd, err);

    if (rc == 0 && vmdk_has_flag(&s->h, VMDK_FLAG_REDUNDANT))
        rc = read_directory(e->io, s->h.rgd_offset, s->nb_tables, &s->rgd,
                            err);
    if (rc < 0)
        return rc;
    s->tables = calloc(s->nb_tables ? s->nb_tables : 1, sizeof *s->tables);
    if (!s->tables)
        return lam_fail(err, ENOMEM, "no memory for %" PRIu64 " grain tables",
                        s->nb_tables);
    s->end = align_up(length, s->compressed ? VMDK_SECTOR : s->grain_size);
    return note_metadata(s, length, err);
}

int vmdk_sparse_open(struct vmdk_extent *e, bool tables, struct lam_error *err)
{
    uint64_t length;
    int rc = lam_io_size(e->io, &length, err);

    if (rc < 0)
        return rc;
    e->sparse = calloc(1, sizeof *e->sparse);
    if (!e->sparse)
        return lam_fail(err, ENOMEM, "no memory for an extent");
    rc = read_header(e, length, err);
    if (rc < 0 || !tables)
        return rc;
    if (e->io->eof_unit < VMDK_SECTOR)
        e->io->eof_unit = VMDK_SECTOR;
    return read_directories(e, length, err);
}
