/* SPDX-License-Identifier: MIT */
/*
 * vdi.c - VirtualBox disk images, dynamic and static, without parents.
 *
 * A header, a map of 4 bytes a block, and the blocks.  The number in an entry
 * counts blocks from the start of the data.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "format/tables/tables.h"
#include "format/values.h"

enum {                          /* every field little-endian */
    VH_TEXT = 0,                /* 64 bytes, for people */
    VH_SIGNATURE = 64,          /* u32 */
    VH_VERSION = 68,            /* u32  minor, major */
    VH_HEADER_SIZE = 72,        /* u32  bytes from here on */
    VH_TYPE = 76,               /* u32  VDI_DYNAMIC, VDI_STATIC */
    VH_MAP_OFFSET = 340,        /* u32  bytes */
    VH_DATA_OFFSET = 344,       /* u32  bytes */
    VH_SECTOR_SIZE = 360,       /* u32  512 */
    VH_DISK_SIZE = 368,         /* u64  bytes */
    VH_BLOCK_SIZE = 376,        /* u32  bytes */
    VH_BLOCK_EXTRA = 380,       /* u32  0 */
    VH_BLOCKS = 384,            /* u32  entries of the map */
    VH_ALLOCATED = 388,         /* u32  blocks in the file */
    VH_UUID_IMAGE = 392,        /* 16 bytes each */
    VH_UUID_SNAPSHOT = 408,
    VH_UUID_LINK = 424,
    VH_UUID_PARENT = 440,
    VH_BYTES = 512,
};

enum {
    VDI_VERSION = 0x00010001,
    VDI_DYNAMIC = 1, VDI_STATIC = 2,
    VDI_HEADER_SIZE = 0x180,
    VDI_MAP_START = 0x200,
};
#define VDI_MAGIC      UINT32_C(0xbeda107f)
#define BLOCK_ABSENT   UINT32_C(0xffffffff)
#define BLOCK_ZERO     UINT32_C(0xfffffffe)

static const uint64_t VDI_BLOCK = LAM_MIB;            /* of new images */
static const uint64_t BLOCK_MIN = 4096, BLOCK_MAX = 256 * LAM_MIB;
static const uint64_t MAX_BLOCKS = 0x1fffff80;    /* a map of 2 GiB */

struct vdi {
    struct tables t;            /* first: see tables.h */
    uint32_t allocated;         /* as the header has it */
    bool is_static;
};

static int vdi_probe(const uint8_t *head, size_t length)
{
    return length >= VH_SIGNATURE + 4 &&
           le32_get(head + VH_SIGNATURE) == VDI_MAGIC ? 100 : 0;
}

/* ------------------------------------------------------------ entries */

static struct entry decode(const struct tables *t, uint64_t raw)
{
    if (raw == BLOCK_ABSENT || raw == BLOCK_ZERO)
        return (struct entry){ .kind = raw == BLOCK_ZERO ? ENTRY_ZERO
                                                         : ENTRY_ABSENT };
    return (struct entry){ .kind = ENTRY_DATA,
                           .host = t->align_base + raw * t->cluster };
}

static uint64_t encode(const struct tables *t, uint64_t host)
{
    return (host - t->align_base) / t->cluster;
}

/* Others take the number of blocks for the number of the next one, so it counts
 * those that nobody uses, too. */
static int store_header(struct tables *t, struct lam_error *err)
{
    struct vdi *v = (struct vdi *)t;
    uint8_t raw[4];

    pthread_mutex_lock(&t->alloc_lock);
    uint32_t allocated = (uint32_t)div_up(t->next_free - t->data_start,
                                          t->cluster);
    pthread_mutex_unlock(&t->alloc_lock);
    if (allocated == v->allocated)
        return 0;
    le32_put(raw, allocated);
    int rc = lam_io_write(t->io, raw, sizeof raw, VH_ALLOCATED, err);
    if (rc == 0)
        v->allocated = allocated;
    return rc;
}

static const struct tables_layout layout = {
    .name = "vdi",
    .entry_bytes = 4,
    .absent_is_zero = true,
    .has_zero = true,
    .ignores_leaks = true,
    .absent = BLOCK_ABSENT,
    .zero = BLOCK_ZERO,
    .decode = decode,
    .encode = encode,
    .store_header = store_header,
};

/* ------------------------------------------------------------ the header */

static bool is_null(const uint8_t *uuid)
{
    static const uint8_t null[16];
    return !memcmp(uuid, null, sizeof null);
}

static int refuse(struct lam_error *err, const char *field, uint64_t value,
                  const char *limit)
{
    return lam_fail(err, EUCLEAN, "vdi: %s %" PRIu64 " (must be %s)", field,
                    value, limit);
}

static int check_kind(const uint8_t *head, struct lam_error *err)
{
    uint32_t type = le32_get(head + VH_TYPE);

    if (le64_get(head + VH_DISK_SIZE) > MAX_BLOCKS * VDI_BLOCK)
        return lam_fail(err, ENOTSUP, "Unsupported VDI image size (size is "
                        "0x%" PRIx64 ", max supported is 0x%" PRIx64 ")",
                        le64_get(head + VH_DISK_SIZE), MAX_BLOCKS * VDI_BLOCK);
    if (!vdi_probe(head, VH_BYTES))
        return lam_fail(err, EINVAL, "Image not in VDI format (bad signature "
                        "%08" PRIx32 ")", le32_get(head + VH_SIGNATURE));
    if (le32_get(head + VH_VERSION) != VDI_VERSION)
        return lam_fail(err, ENOTSUP, "unsupported VDI image (version %u.%u)",
                        le16_get(head + VH_VERSION + 2),
                        le16_get(head + VH_VERSION));
    if (!is_null(head + VH_UUID_LINK))
        return lam_fail(err, ENOTSUP, "unsupported VDI image (non-NULL link "
                        "UUID)");
    if (!is_null(head + VH_UUID_PARENT))
        return lam_fail(err, ENOTSUP, "unsupported VDI image (non-NULL parent "
                        "UUID)");
    if (type != VDI_DYNAMIC && type != VDI_STATIC)
        return lam_fail(err, ENOTSUP, "vdi: image type %" PRIu32 " (only "
                        "dynamic, 1, and static, 2, are read)", type);
    return 0;
}

static int check_places(const uint8_t *head, uint64_t length,
                        struct lam_error *err)
{
    uint64_t map = le32_get(head + VH_MAP_OFFSET);
    uint64_t data = le32_get(head + VH_DATA_OFFSET);
    uint64_t block = le32_get(head + VH_BLOCK_SIZE);
    uint64_t blocks = le32_get(head + VH_BLOCKS);
    uint64_t size = le64_get(head + VH_DISK_SIZE);

    if (le32_get(head + VH_SECTOR_SIZE) != 512)
        return refuse(err, "sector size", le32_get(head + VH_SECTOR_SIZE),
                      "512");
    if (!is_power_of_two(block) || block < BLOCK_MIN || block > BLOCK_MAX)
        return refuse(err, "block size", block, "a power of two from 4 KiB to "
                      "256 MiB");
    if (le32_get(head + VH_BLOCK_EXTRA))
        return refuse(err, "block extra data", le32_get(head + VH_BLOCK_EXTRA),
                      "0");
    if (blocks > MAX_BLOCKS)
        return refuse(err, "number of blocks", blocks, "at most 2^29");
    if (size > blocks * block)
        return lam_fail(err, EUCLEAN, "vdi: disk size %" PRIu64 " (limit: %"
                        PRIu64 ", %" PRIu64 " blocks of %" PRIu64 ")", size,
                        blocks * block, blocks, block);
    if (map % 512 || map < VH_BYTES)
        return refuse(err, "map offset", map, "a multiple of 512, at least "
                      "512");
    if (data % 512 || data < map + blocks * 4)
        return refuse(err, "data offset", data, "a multiple of 512 behind the "
                      "map");
    if (le32_get(head + VH_ALLOCATED) > blocks)
        return refuse(err, "number of allocated blocks",
                      le32_get(head + VH_ALLOCATED), "at most that of all");
    if (data > length && le32_get(head + VH_ALLOCATED))
        return refuse(err, "data offset", data, "inside the file");
    return 0;
}

static int read_header(struct vdi *v, uint8_t *head, struct lam_error *err)
{
    uint64_t length;
    int rc = lam_io_size(v->t.io, &length, err);

    memset(head, 0, VH_BYTES);
    if (rc == 0)
        rc = lam_io_read(v->t.io, head, min_u64(length, VH_BYTES), 0, err);
    if (rc == 0)
        rc = check_kind(head, err);
    return rc < 0 ? rc : check_places(head, length, err);
}

static int vdi_close(void *format, struct lam_error *err)
{
    struct vdi *v = format;
    int rc = tables_close(&v->t, err);

    free(v);
    return rc;
}

static int vdi_open(const struct format_open *o, void **format,
                    struct lam_error *err)
{
    uint8_t head[VH_BYTES];
    lam_autofree struct vdi *v = calloc(1, sizeof *v);

    if (!v)
        return lam_fail(err, ENOMEM, "no memory for a VDI image");
    v->t.io = o->io;
    int rc = read_header(v, head, err);
    if (rc < 0)
        return rc;
    v->t.layout = &layout;
    v->t.writable = o->writable;
    v->t.size = align_up(le64_get(head + VH_DISK_SIZE), 512);
    v->t.cluster = le32_get(head + VH_BLOCK_SIZE);
    v->t.table_offset = le32_get(head + VH_MAP_OFFSET);
    v->t.data_start = v->t.align_base = le32_get(head + VH_DATA_OFFSET);
    v->allocated = le32_get(head + VH_ALLOCATED);
    v->is_static = le32_get(head + VH_TYPE) == VDI_STATIC;
    rc = tables_init(&v->t, err);
    v->t.next_free = max_u64(v->t.next_free, v->t.data_start +
                             v->allocated * v->t.cluster);
    if (rc < 0)
        tables_deinit(&v->t);
    else
        *format = lam_take(&v);
    return rc;
}

/* ------------------------------------------------------------ the rest */

static bool vdi_is_flat(void *format)
{
    const struct vdi *v = format;

    return v->is_static;
}

/* Only what is wrong is told, as the genuine tool does. */
static int vdi_check(void *format, lam_finding_fn *finding, void *opaque,
                     struct lam_check_result *out, struct lam_error *err)
{
    struct vdi *v = format;
    struct lam_check_result all = { 0 };
    char text[96];
    int rc = tables_check(&v->t, finding, opaque, &all, err);

    if (rc < 0)
        return rc;
    out->corruptions = all.corruptions;
    /* Until the next flush the header is behind. */
    if (v->t.header_dirty || all.allocated_clusters == v->allocated)
        return 0;
    /* Who believes a number that is too low writes over blocks; one that is too
     * high costs space. */
    bool low = v->allocated < all.allocated_clusters;
    snprintf(text, sizeof text, "ERROR: allocated blocks mismatch, is %" PRIu64
             ", should be %" PRIu32, all.allocated_clusters, v->allocated);
    out->corruptions += low;
    out->leaks += low ? 0 : v->allocated - all.allocated_clusters;
    if (finding)
        finding(opaque, low ? LAM_FINDING_CORRUPTION : LAM_FINDING_LEAK, text);
    return 0;
}

/* ------------------------------------------------------------ creating */

static void put_uuid(uint8_t *uuid)
{
    if (getrandom(uuid, 16, 0) != 16)
        memset(uuid, 0x5a, 16);
    /* Version 4, its first parts little-endian. */
    uuid[7] = (uint8_t)((uuid[7] & 0x0f) | 0x40);
    uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

static void encode_header(uint8_t *head, uint64_t size, uint32_t blocks,
                          uint64_t data, bool is_static)
{
    static const char text[] = "<<< lamella VM Virtual Disk Image >>>\n";

    memcpy(head + VH_TEXT, text, sizeof text - 1);
    le32_put(head + VH_SIGNATURE, VDI_MAGIC);
    le32_put(head + VH_VERSION, VDI_VERSION);
    le32_put(head + VH_HEADER_SIZE, VDI_HEADER_SIZE);
    le32_put(head + VH_TYPE, is_static ? VDI_STATIC : VDI_DYNAMIC);
    le32_put(head + VH_MAP_OFFSET, VDI_MAP_START);
    le32_put(head + VH_DATA_OFFSET, (uint32_t)data);
    le32_put(head + VH_SECTOR_SIZE, 512);
    le64_put(head + VH_DISK_SIZE, size);
    le32_put(head + VH_BLOCK_SIZE, (uint32_t)VDI_BLOCK);
    le32_put(head + VH_BLOCKS, blocks);
    le32_put(head + VH_ALLOCATED, is_static ? blocks : 0);
    put_uuid(head + VH_UUID_IMAGE);
    put_uuid(head + VH_UUID_SNAPSHOT);
}

/* Header and map, in pieces of the map. */
static int write_map(struct lam_io *io, uint32_t blocks, uint64_t bytes,
                     bool is_static, struct lam_error *err)
{
    const uint64_t piece = 64 * LAM_KIB;
    lam_autofree uint8_t *map = malloc(piece);
    int rc = 0;

    if (!map)
        return lam_fail(err, ENOMEM, "no memory for a block map");
    for (uint64_t at = 0; at < bytes && rc == 0; at += piece) {
        memset(map, 0, piece);
        for (uint64_t i = at / 4; i < (at + piece) / 4 && i < blocks; i++)
            le32_put(map + (i - at / 4) * 4, is_static ? (uint32_t)i
                                                       : BLOCK_ABSENT);
        rc = lam_io_write(io, map, min_u64(piece, bytes - at),
                          VDI_MAP_START + at, err);
    }
    return rc;
}

static int vdi_create(struct lam_io *io, struct lam_io *data,
                      const struct lam_create_options *options,
                      struct lam_error *err)
{
    uint64_t size = align_up(options->size, 512);
    uint64_t blocks = div_up(size, VDI_BLOCK);
    uint64_t bytes = align_up(blocks * 4, 512);
    uint8_t head[VH_BYTES] = { 0 };
    bool is_static;

    (void)data;
    int rc = option_bool(options, "static", false, &is_static, err);
    if (rc == 0 && blocks > MAX_BLOCKS)
        rc = lam_fail(err, EFBIG, "Unsupported VDI image size (size is 0x%"
                      PRIx64 ", max supported is 0x%" PRIx64 ")", size,
                      MAX_BLOCKS * VDI_BLOCK);
    uint64_t start = VDI_MAP_START + bytes;
    uint64_t end = start + (is_static ? blocks * VDI_BLOCK : 0);
    if (rc == 0)
        rc = lam_io_truncate(io, end, err);
    if (rc == 0 && is_static && options->preallocation != LAM_PREALLOC_OFF)
        rc = lam_io_preallocate(io, start, end - start, options->preallocation,
                                err);
    if (rc == 0)
        rc = write_map(io, (uint32_t)blocks, bytes, is_static, err);
    if (rc < 0)
        return rc;
    encode_header(head, size, (uint32_t)blocks, start, is_static);
    return lam_io_write(io, head, sizeof head, 0, err);
}

static const struct lam_option_info create_options[] = {
    { "size", LAM_OPTION_SIZE, NULL, "Virtual disk size" },
    { "static", LAM_OPTION_BOOL, "off", "VDI static (pre-allocated) image" },
};

const struct format_ops format_vdi = {
    .name = "vdi",
    TABLES_OPS,
    .options = create_options,
    .nb_options = LAM_ARRAY_SIZE(create_options),
    .probe = vdi_probe,
    .open = vdi_open,
    .close = vdi_close,
    .set_writable = tables_set_writable,
    .is_flat = vdi_is_flat,
    .check = vdi_check,
    .create = vdi_create,
};
