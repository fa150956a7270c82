/* SPDX-License-Identifier: MIT */
/*
 * bochs.c - growing disks of the Bochs emulator, to be read.
 *
 * A catalog says which extent of the disk lies where.  In front of each extent
 * in the file is a bitmap of the sectors in it that have been written.
 */
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/format.h"

enum {                          /* every field little-endian */
    BH_MAGIC = 0,               /* 32 bytes of text, as the next two */
    BH_TYPE = 32,               /* 16 */
    BH_SUBTYPE = 48,            /* 16 */
    BH_VERSION = 64,            /* u32  BOCHS_V1, BOCHS_V2 */
    BH_HEADER_SIZE = 68,        /* u32  bytes: where the catalog is */
    BH_ENTRIES = 72,            /* u32  of the catalog */
    BH_BITMAP_SIZE = 76,        /* u32  bytes */
    BH_EXTENT_SIZE = 80,        /* u32  bytes */
    BH_SIZE_V1 = 84,            /* u64  bytes, of the disk */
    BH_SIZE_V2 = 88,            /* u64  behind a time */
    BH_BYTES = 512,
};
enum { BOCHS_V1 = 0x00010000, BOCHS_V2 = 0x00020000, SECTOR = 512 };
enum { ENTRIES_MAX = 1 << 20, EXTENT_MAX = 8 << 20 };
#define ENTRY_NONE UINT32_C(0xffffffff)

struct bochs {
    struct lam_io *io;
    uint64_t size, extent;      /* bytes */
    uint64_t data;              /* host offset of the first extent's bitmap */
    uint64_t bitmap;            /* bytes, in whole sectors */
    uint64_t bits;              /* bytes of it that count */
    uint32_t *catalog;
    uint64_t nb_entries;
};

static int bochs_probe(const uint8_t *head, size_t length)
{
    uint32_t version;

    if (length < BH_BYTES ||
        strcmp((const char *)head, "Bochs Virtual HD Image"))
        return 0;
    version = le32_get(head + BH_VERSION);
    return !strncmp((const char *)head + BH_TYPE, "Redolog", 16) &&
           !strncmp((const char *)head + BH_SUBTYPE, "Growing", 16) &&
           (version == BOCHS_V1 || version == BOCHS_V2) ? 100 : 0;
}

/* ------------------------------------------------------------ opening */

static int check_sizes(const struct bochs *b, uint64_t bitmap,
                       struct lam_error *err)
{
    if (b->nb_entries > ENTRIES_MAX)
        return lam_fail(err, EFBIG, "Catalog size is too large: %" PRIu64
                        " (limit: %d)", b->nb_entries, ENTRIES_MAX);
    if (!is_power_of_two(b->extent) || b->extent < SECTOR ||
        b->extent > EXTENT_MAX)
        return lam_fail(err, EUCLEAN, "bochs: extent size %" PRIu64 " (must be "
                        "a power of two from 512 to %d)", b->extent,
                        EXTENT_MAX);
    if (bitmap > EXTENT_MAX || bitmap * 8 < b->extent / SECTOR)
        return lam_fail(err, EUCLEAN, "bochs: bitmap of %" PRIu64 " bytes for "
                        "extents of %" PRIu64, bitmap, b->extent);
    if (b->size % SECTOR || b->nb_entries < div_up(b->size, b->extent))
        return lam_fail(err, EUCLEAN, "Catalog size is too small for this disk "
                        "size: %" PRIu64 " extents of %" PRIu64 " bytes, disk "
                        "of %" PRIu64, b->nb_entries, b->extent, b->size);
    return 0;
}

static int load_catalog(struct bochs *b, uint64_t start, uint64_t length,
                        struct lam_error *err)
{
    if (!range_fits(start, b->nb_entries * 4, length))
        return lam_fail(err, EUCLEAN, "bochs: catalog of %" PRIu64 " entries at"
                        " offset %" PRIu64 " ends beyond the file's length of %"
                        PRIu64, b->nb_entries, start, length);
    b->catalog = malloc(b->nb_entries * 4 + 1);
    if (!b->catalog)
        return lam_fail(err, ENOMEM, "no memory for a catalog of %" PRIu64
                        " entries", b->nb_entries);
    int rc = !b->nb_entries ? 0 : lam_io_read(b->io, b->catalog,
                                              b->nb_entries * 4, start, err);
    for (uint64_t i = 0; i < b->nb_entries && rc == 0; i++)
        b->catalog[i] = le32_get(&b->catalog[i]);
    b->data = start + b->nb_entries * 4;
    return rc;
}

static int load(struct bochs *b, struct lam_error *err)
{
    uint8_t head[BH_BYTES];
    uint64_t length;
    int rc = lam_io_size(b->io, &length, err);

    memset(head, 0, sizeof head);
    if (rc == 0)
        rc = lam_io_read(b->io, head, min_u64(length, sizeof head), 0, err);
    if (rc == 0 && !bochs_probe(head, sizeof head))
        rc = lam_fail(err, EINVAL, "Image not in Bochs format");
    if (rc < 0)
        return rc;
    uint64_t bitmap = le32_get(head + BH_BITMAP_SIZE);
    b->size = le64_get(head + (le32_get(head + BH_VERSION) == BOCHS_V1
                               ? BH_SIZE_V1 : BH_SIZE_V2));
    b->size = align_down(b->size, SECTOR);
    b->nb_entries = le32_get(head + BH_ENTRIES);
    b->extent = le32_get(head + BH_EXTENT_SIZE);
    b->bitmap = align_up(bitmap, SECTOR);
    rc = check_sizes(b, bitmap, err);
    b->bits = b->extent / SECTOR / 8 + 1;
    return rc < 0 ? rc : load_catalog(b, le32_get(head + BH_HEADER_SIZE),
                                      length, err);
}

static int bochs_close(void *format, struct lam_error *err)
{
    struct bochs *b = format;

    (void)err;
    free(b->catalog);
    free(b);
    return 0;
}

static int bochs_open(const struct format_open *o, void **format,
                      struct lam_error *err)
{
    struct bochs *b = calloc(1, sizeof *b);

    if (!b)
        return lam_fail(err, ENOMEM, "no memory for a Bochs image");
    b->io = o->io;
    if (b->io->eof_unit < SECTOR)
        b->io->eof_unit = SECTOR;
    int rc = load(b, err);
    if (rc < 0)
        bochs_close(b, NULL);
    else
        *format = b;
    return rc;
}

/* ------------------------------------------------------------ the map */

/* @r lies in one extent, whose bitmap is at @host. */
static int map_sectors(const struct bochs *b, uint64_t host,
                       const uint8_t *bits, struct range r,
                       struct lam_extents *out, struct lam_error *err)
{
    const uint64_t base = host + b->bitmap;
    int rc = 0;

    while (r.length && rc == 0) {
        uint64_t inside = r.offset % b->extent, sector = inside / SECTOR;
        uint64_t n = min_u64(SECTOR - inside % SECTOR, r.length);
        bool there = bits[sector / 8] >> sector % 8 & 1;

        rc = extents_add(out, there ? LAM_EXTENT_DATA : LAM_EXTENT_ZERO,
                         r.offset, n, base + inside, err);
        r = range_make(r.offset + n, r.length - n);
    }
    return rc;
}

static int map_extent(const struct bochs *b, uint8_t *bits, struct range r,
                      struct lam_extents *out, struct lam_error *err)
{
    uint32_t entry = b->catalog[r.offset / b->extent];
    uint64_t host = b->data + entry * (b->bitmap + b->extent);

    if (entry == ENTRY_NONE)
        return extents_add(out, LAM_EXTENT_ZERO, r.offset, r.length, 0, err);
    uint64_t last = (r.offset % b->extent + r.length - 1) / SECTOR;
    int rc = lam_io_read(b->io, bits, last / 8 + 1, host, err);
    if (rc < 0)
        return lam_error_prefix(err, rc, "bochs: bitmap of extent %" PRIu64,
                                r.offset / b->extent);
    return map_sectors(b, host, bits, r, out, err);
}

static int bochs_map(void *format, uint64_t offset, uint64_t length,
                     struct lam_extents *out, struct lam_error *err)
{
    const struct bochs *b = format;
    lam_autofree uint8_t *bits = malloc(b->bits);
    int rc = 0;

    if (!bits)
        return lam_fail(err, ENOMEM, "no memory for a bitmap");
    while (length && rc == 0) {
        uint64_t n = min_u64(b->extent - offset % b->extent, length);
        rc = map_extent(b, bits, range_make(offset, n), out, err);
        offset += n;
        length -= n;
    }
    return rc;
}

static uint64_t bochs_size(void *format)
{
    const struct bochs *b = format;
    return b->size;
}

static uint64_t bochs_none(void *format)
{
    (void)format;
    return 0;
}

const struct format_ops format_bochs = {
    .name = "bochs",
    .no_details = true,
    .probe = bochs_probe,
    .open = bochs_open,
    .close = bochs_close,
    .size = bochs_size,
    .cluster_size = bochs_none,
    .zero_unit = bochs_none,
    .map = bochs_map,
};
