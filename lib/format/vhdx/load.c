/* SPDX-License-Identifier: MIT */
/*
 * load.c - reading headers, regions, metadata and the table of blocks.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/vhdx/log.h"
#include "format/vhdx/vhdx.h"

/* Of the metadata region; its items have 1 MiB at most. */
static const uint64_t METADATA_MAX = 16 * VHDX_UNIT;

/* ----------------------------------------------------------------- header */

/* What of @length bytes at @offset the file has; the rest is zero. */
static int read_some(struct vhdx *v, uint8_t *buf, uint64_t length,
                     uint64_t offset, uint64_t file_length,
                     struct lam_error *err)
{
    uint64_t n = offset < file_length
        ? min_u64(length, file_length - offset) : 0;

    memset(buf + n, 0, length - n);
    return n ? lam_io_read(v->io, buf, n, offset, err) : 0;
}

static int load_header(struct vhdx *v, uint64_t length, struct lam_error *err)
{
    uint8_t bytes[VHDX_HEADER_BYTES];
    struct vhdx_header h[2];
    bool ok[2];

    int rc = read_some(v, bytes, 8, 0, length, err);
    if (rc == 0 && !vhdx_is_identifier(bytes))
        return lam_fail(err, EINVAL, "not a VHDX image");
    for (unsigned i = 0; i < 2; i++) {
        if (rc == 0)
            rc = read_some(v, bytes, sizeof bytes, (i + 1) * VHDX_PART, length,
                           err);
        if (rc < 0)
            return rc;
        ok[i] = vhdx_header_decode(bytes, &h[i]);
    }
    /* Two different ones with the same number: nobody knows. */
    if ((!ok[0] && !ok[1]) || (ok[0] && ok[1] && h[0].sequence == h[1].sequence
                               && memcmp(&h[0], &h[1], sizeof h[0])))
        return lam_fail(err, EINVAL, "No valid VHDX header found");
    v->other_header = ok[1] && (!ok[0] || h[1].sequence > h[0].sequence);
    v->header = h[v->other_header];
    return 0;
}

static int check_log(const struct vhdx *v, uint64_t file_length,
                     struct lam_error *err)
{
    const struct vhdx_header *h = &v->header;
    bool has_log = !vhdx_guid_is_zero(&h->log);

    if (h->log_version)
        return lam_fail(err, ENOTSUP, "log version %u is not supported",
                        (unsigned)h->log_version);
    if (h->log_offset < VHDX_UNIT || !is_aligned(h->log_offset, VHDX_UNIT))
        return lam_fail(err, EUCLEAN, "log: offset %" PRIu64 " is not a "
                        "multiple of 1 MiB from 1 MiB on", h->log_offset);
    if (!is_aligned(h->log_length, VHDX_UNIT))
        return lam_fail(err, EUCLEAN, "log: length %" PRIu32 " is not a "
                        "multiple of 1 MiB", h->log_length);
    /* Who writes needs one, and so does what waits in it. */
    bool inside = h->log_length && h->log_offset <= file_length &&
                  h->log_length <= file_length - h->log_offset;
    if (inside || (!has_log && !v->writable))
        return 0;
    return lam_fail(err, EUCLEAN, "log: %" PRIu32 " bytes at offset %" PRIu64
                    " are not in the file of %" PRIu64 " bytes", h->log_length,
                    h->log_offset, file_length);
}

static int replay(struct vhdx *v, struct lam_error *err)
{
    static const struct vhdx_guid none;

    if (vhdx_guid_is_zero(&v->header.log))
        return 0;
    int rc = vhdx_log_replay(v->io, &v->header, v->writable, &v->replayed,
                             err);
    if (rc < 0)
        return rc;
    if (v->replayed && !v->writable)
        return lam_fail(err, EPERM, "VHDX image file '%s' opened read-only, but"
                        " contains a log that needs to be replayed; to replay "
                        "the log, run: check -r all '%s'", v->io->name,
                        v->io->name);
    return v->writable ? vhdx_set_log(v, &none, err) : 0;
}

/* -------------------------------------------------------- regions, metadata */

static bool overlap(uint64_t a, uint64_t a_length, uint64_t b,
                    uint64_t b_length)
{
    return a < b + b_length && b < a + a_length;
}

static int check_apart(uint64_t a, uint64_t a_length, uint64_t b,
                       uint64_t b_length, struct lam_error *err)
{
    if (!overlap(a, a_length, b, b_length))
        return 0;
    return lam_fail(err, EUCLEAN, "VHDX region %" PRIu64 "-%" PRIu64
                    " overlaps with region %" PRIu64 "-%" PRIu64, a,
                    a + a_length, b, b + b_length);
}

static int load_regions(struct vhdx *v, uint64_t length, struct lam_error *err)
{
    lam_autofree uint8_t *bytes = malloc(VHDX_TABLE_BYTES);
    const struct vhdx_region *t = &v->regions.table, *m = &v->regions.metadata;
    struct lam_error first = LAM_ERROR_INIT;
    int rc = -EUCLEAN;

    if (!bytes)
        return lam_fail(err, ENOMEM, "no memory for a region table");
    /* Both are the same; one of them whole is enough. */
    for (unsigned i = 0; i < 2 && rc == -EUCLEAN; i++) {
        rc = read_some(v, bytes, VHDX_TABLE_BYTES, (3 + i) * VHDX_PART, length,
                       err);
        if (rc < 0)
            return rc;
        rc = vhdx_regions_decode(bytes, &v->regions, i ? NULL : &first);
    }
    if (rc < 0)
        return lam_fail(err, -rc, "%s", first.message[0] ? first.message
                        : "region table: damaged");
    rc = check_apart(m->offset, m->length, t->offset, t->length, err);
    if (rc == 0)
        rc = check_apart(m->offset, m->length, v->header.log_offset,
                         v->header.log_length, err);
    return rc < 0 ? rc : check_apart(t->offset, t->length,
                                     v->header.log_offset,
                                     v->header.log_length, err);
}

static int load_metadata(struct vhdx *v, uint64_t length, struct lam_error *err)
{
    uint64_t at = v->regions.metadata.offset;
    uint64_t n = min_u64(v->regions.metadata.length, METADATA_MAX);

    n = at < length ? min_u64(n, length - at) : 0;
    lam_autofree uint8_t *bytes = malloc(n + 1);
    if (!bytes)
        return lam_fail(err, ENOMEM, "no memory for the metadata region");
    int rc = n ? lam_io_read(v->io, bytes, n, at, err) : 0;
    if (rc == 0)
        rc = vhdx_metadata_decode(bytes, n, &v->m, err);
    if (rc < 0)
        return rc;
    v->chunk_ratio = vhdx_chunk_ratio(&v->m);
    if (!v->m.has_parent)
        return 0;
    rc = vhdx_parent_decode(bytes + v->m.locator, v->m.locator_length,
                            &v->parent, err);
    if (rc == 0 && v->writable)
        rc = lam_fail(err, ENOTSUP, "a differencing VHDX can only be read");
    return rc;
}

/* -------------------------------------------------------- table of blocks */

bool vhdx_entry_is_sound(const struct vhdx *v, uint64_t index, uint64_t length,
                         char text[VHDX_TEXT])
{
    uint64_t offset = vhdx_entry_offset(v->table[index]);
    bool is_bitmap = index % (v->chunk_ratio + 1) == v->chunk_ratio;
    uint64_t bytes = is_bitmap ? VHDX_BITMAP_BLOCK : v->m.block_size, end;
    const struct { uint64_t offset, length; } others[] = {
        { 0, VHDX_UNIT },
        { v->header.log_offset, v->header.log_length },
        { v->regions.table.offset, v->regions.table.length },
        { v->regions.metadata.offset, v->regions.metadata.length },
    };

    if (add_overflows(offset, bytes, &end) || end > INT64_MAX) {
        snprintf(text, VHDX_TEXT, "VHDX BAT entry %" PRIu64 " offset overflow.",
                 index);
        return false;
    }
    if (offset >= length) {
        snprintf(text, VHDX_TEXT, "VHDX BAT entry %" PRIu64 " start offset %"
                 PRIu64 " points after end of file (%" PRIu64 "). Image has "
                 "probably been truncated.", index, offset, length);
        return false;
    }
    for (size_t i = 0; i < LAM_ARRAY_SIZE(others); i++) {
        if (!overlap(offset, bytes, others[i].offset, others[i].length))
            continue;
        snprintf(text, VHDX_TEXT, "VHDX region %" PRIu64 "-%" PRIu64 " overlaps"
                 " with region %" PRIu64 "-%" PRIu64, offset, end,
                 others[i].offset, others[i].offset + others[i].length);
        return false;
    }
    return true;
}

static bool has_data(uint64_t entry)
{
    return vhdx_entry_state(entry) == VHDX_FULLY_PRESENT ||
           vhdx_entry_state(entry) == VHDX_PARTIALLY_PRESENT;
}

static int check_table(const struct vhdx *v, uint64_t length,
                       struct lam_error *err)
{
    char text[VHDX_TEXT];

    for (uint64_t i = 0; i < v->nb_entries; i++)
        if (has_data(v->table[i]) && !vhdx_entry_is_sound(v, i, length, text))
            return lam_fail(err, EUCLEAN, "%s", text);
    return 0;
}

/* The part of the table that is there: most of a new one is a hole. */
static int read_entries(struct vhdx *v, uint64_t from, uint64_t to,
                        struct lam_error *err)
{
    uint64_t at = v->regions.table.offset;
    int rc = 0;

    while (from < to && rc == 0) {
        enum lam_io_state state;
        uint64_t run;
        rc = lam_io_extent(v->io, at + from, to - from, &state, &run, err);
        if (rc < 0)
            return rc;
        run = min_u64(run, to - from);
        if (state != LAM_IO_HOLE)
            rc = lam_io_read(v->io, (uint8_t *)v->table + from, run, at + from,
                             err);
        from += run;
    }
    return rc;
}

static int load_table(struct vhdx *v, uint64_t length, struct lam_error *err)
{
    const struct vhdx_region *t = &v->regions.table;
    uint64_t bytes;

    v->nb_entries = vhdx_nb_entries(&v->m);
    bytes = v->nb_entries * 8;
    if (bytes > t->length)
        return lam_fail(err, EUCLEAN, "the BAT region has %" PRIu32 " bytes, a "
                        "disk of %" PRIu64 " bytes needs %" PRIu64, t->length,
                        v->m.size, bytes);
    /* Without this a few bytes could ask for 512 MiB. */
    if (t->offset > length || bytes > length - t->offset)
        return lam_fail(err, EUCLEAN, "BAT: %" PRIu64 " bytes at offset %"
                        PRIu64 " are not in the file of %" PRIu64 " bytes",
                        bytes, t->offset, length);
    v->table = calloc(1, bytes + 1);
    v->dirty = calloc(1, vhdx_nb_sectors(v) / 8 + 1);
    if (!v->table || !v->dirty)
        return lam_fail(err, ENOMEM, "no memory for %" PRIu64 " entries of the "
                        "BAT", v->nb_entries);
    int rc = read_entries(v, 0, bytes, err);
    if (rc < 0)
        return rc;
    /* What is zero stays untouched memory. */
    for (uint64_t i = 0; i < v->nb_entries; i++)
        if (v->table[i])
            v->table[i] = le64_get(&v->table[i]);
    return v->for_check ? 0 : check_table(v, length, err);
}

int vhdx_load(struct vhdx *v, struct lam_error *err)
{
    uint64_t length;
    int rc = lam_io_size(v->io, &length, err);

    if (rc == 0)
        rc = load_header(v, length, err);
    if (rc == 0)
        rc = check_log(v, length, err);
    if (rc == 0)
        rc = replay(v, err);
    if (rc == 0)
        rc = lam_io_size(v->io, &length, err);      /* it may have grown */
    if (rc == 0)
        rc = load_regions(v, length, err);
    if (rc == 0)
        rc = load_metadata(v, length, err);
    if (rc == 0)
        rc = load_table(v, length, err);
    if (rc < 0)
        return rc;
    v->end = max_u64(align_up(length, VHDX_UNIT), VHDX_UNIT);
    return 0;
}
