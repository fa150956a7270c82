/* SPDX-License-Identifier: MIT */
/*
 * layout.c - decode, judge and encode the structures of a VHDX.
 */
#include "format/vhdx/layout.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"

enum {
    XH_CHECKSUM = 4,            /* u32; in all that are summed up */
    XH_SEQUENCE = 8,            /* u64 */
    XH_FILE_WRITE = 16,         /* GUIDs */
    XH_DATA_WRITE = 32,
    XH_LOG = 48,
    XH_LOG_VERSION = 64,        /* u16  0 */
    XH_VERSION = 66,            /* u16  1 */
    XH_LOG_LENGTH = 68,         /* u32  a multiple of 1 MiB */
    XH_LOG_OFFSET = 72,         /* u64  a multiple of 1 MiB */

    XR_COUNT = 8,               /* u32 */
    XR_ENTRIES = 16,            /* 32 bytes each: */
    XR_ENTRY_BYTES = 32,
    XR_OFFSET = 16,             /* u64, after a GUID */
    XR_LENGTH = 24,             /* u32 */
    XR_REQUIRED = 28,           /* u32  bit 0 */

    XM_COUNT = 10,              /* u16 */
    XM_ENTRIES = 32,            /* 32 bytes each: */
    XM_ENTRY_BYTES = 32,
    XM_OFFSET = 16,             /* u32, from the start of the region */
    XM_LENGTH = 20,             /* u32 */
    XM_FLAGS = 24,              /* u32 */
    XM_IS_DISK = 1 << 1,        /* of the disk, not of the file */
    XM_REQUIRED = 1 << 2,
};

static const struct vhdx_guid guid_table = { {
    0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
    0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08 } };
static const struct vhdx_guid guid_metadata = { {
    0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
    0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e } };
static const struct vhdx_guid guid_parameters = { {
    0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d,
    0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b } };
static const struct vhdx_guid guid_size = { {
    0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48,
    0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8 } };
static const struct vhdx_guid guid_page83 = { {
    0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45,
    0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46 } };
static const struct vhdx_guid guid_logical = { {
    0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47,
    0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f } };
static const struct vhdx_guid guid_physical = { {
    0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44,
    0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56 } };
static const struct vhdx_guid guid_locator = { {
    0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45,
    0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c } };

bool vhdx_guid_is_zero(const struct vhdx_guid *guid)
{
    static const struct vhdx_guid zero;
    return vhdx_guid_equal(guid, &zero);
}

bool vhdx_guid_equal(const struct vhdx_guid *a, const struct vhdx_guid *b)
{
    return !memcmp(a->bytes, b->bytes, sizeof a->bytes);
}

static struct vhdx_guid guid_get(const uint8_t *bytes)
{
    struct vhdx_guid g;

    memcpy(g.bytes, bytes, sizeof g.bytes);
    return g;
}

static void guid_put(uint8_t *bytes, const struct vhdx_guid *guid)
{
    memcpy(bytes, guid->bytes, sizeof guid->bytes);
}

/* The four bytes of the checksum itself count as zero. */
static uint32_t checksum(const uint8_t *bytes, size_t length)
{
    static const uint8_t zero[4];
    uint32_t crc = crc32c(0, bytes, XH_CHECKSUM);

    crc = crc32c(crc, zero, sizeof zero);
    return crc32c(crc, bytes + XH_CHECKSUM + 4, length - XH_CHECKSUM - 4);
}

static bool is_whole(const uint8_t *bytes, size_t length, const char *signature)
{
    return !memcmp(bytes, signature, 4) &&
           le32_get(bytes + XH_CHECKSUM) == checksum(bytes, length);
}

/* ------------------------------------------------------ identifier, header */

bool vhdx_is_identifier(const uint8_t *bytes)
{
    return !memcmp(bytes, "vhdxfile", 8);
}

void vhdx_identifier_encode(const char *creator, uint8_t *bytes)
{
    memset(bytes, 0, VHDX_IDENTIFIER_BYTES);
    memcpy(bytes, "vhdxfile", 8);
    for (size_t i = 0; creator[i] && i < 255; i++)
        le16_put(bytes + 8 + 2 * i, (uint8_t)creator[i]);
}

bool vhdx_header_decode(const uint8_t *bytes, struct vhdx_header *out)
{
    *out = (struct vhdx_header){
        .sequence = le64_get(bytes + XH_SEQUENCE),
        .file_write = guid_get(bytes + XH_FILE_WRITE),
        .data_write = guid_get(bytes + XH_DATA_WRITE),
        .log = guid_get(bytes + XH_LOG),
        .log_version = le16_get(bytes + XH_LOG_VERSION),
        .version = le16_get(bytes + XH_VERSION),
        .log_length = le32_get(bytes + XH_LOG_LENGTH),
        .log_offset = le64_get(bytes + XH_LOG_OFFSET),
    };
    return is_whole(bytes, VHDX_HEADER_BYTES, "head") && out->version == 1;
}

void vhdx_header_encode(const struct vhdx_header *header, uint8_t *bytes)
{
    memset(bytes, 0, VHDX_HEADER_BYTES);
    memcpy(bytes, "head", 4);
    le64_put(bytes + XH_SEQUENCE, header->sequence);
    guid_put(bytes + XH_FILE_WRITE, &header->file_write);
    guid_put(bytes + XH_DATA_WRITE, &header->data_write);
    guid_put(bytes + XH_LOG, &header->log);
    le16_put(bytes + XH_LOG_VERSION, header->log_version);
    le16_put(bytes + XH_VERSION, header->version);
    le32_put(bytes + XH_LOG_LENGTH, header->log_length);
    le64_put(bytes + XH_LOG_OFFSET, header->log_offset);
    le32_put(bytes + XH_CHECKSUM, checksum(bytes, VHDX_HEADER_BYTES));
}

/* ---------------------------------------------------------------- regions */

static int take_region(const uint8_t *e, struct vhdx_region *out,
                       const char *name, struct lam_error *err)
{
    uint64_t offset = le64_get(e + XR_OFFSET);
    uint32_t length = le32_get(e + XR_LENGTH);

    if (out->length)
        return lam_fail(err, EUCLEAN, "there are two %s regions", name);
    if (offset < VHDX_UNIT || !is_aligned(offset, VHDX_UNIT) ||
        offset > INT64_MAX - UINT32_MAX)
        return lam_fail(err, EUCLEAN, "%s region: offset %" PRIu64 " is not a "
                        "multiple of 1 MiB from 1 MiB on", name, offset);
    if (!length)
        return lam_fail(err, EUCLEAN, "%s region: length is 0", name);
    *out = (struct vhdx_region){ offset, length };
    return 0;
}

static int take_region_entry(const uint8_t *e, struct vhdx_regions *out,
                             struct lam_error *err)
{
    struct vhdx_guid guid = guid_get(e);

    if (vhdx_guid_equal(&guid, &guid_table))
        return take_region(e, &out->table, "BAT", err);
    if (vhdx_guid_equal(&guid, &guid_metadata))
        return take_region(e, &out->metadata, "metadata", err);
    if (le32_get(e + XR_REQUIRED) & 1)
        return lam_fail(err, ENOTSUP, "there is a required region of an unknown"
                        " kind at offset %" PRIu64, le64_get(e + XR_OFFSET));
    return 0;
}

int vhdx_regions_decode(const uint8_t *bytes, struct vhdx_regions *out,
                        struct lam_error *err)
{
    *out = (struct vhdx_regions){ { 0, 0 }, { 0, 0 } };
    if (!is_whole(bytes, VHDX_TABLE_BYTES, "regi"))
        return lam_fail(err, EUCLEAN, "region table: wrong signature or "
                        "checksum");
    uint32_t count = le32_get(bytes + XR_COUNT);
    if (count > VHDX_MAX_ENTRIES)
        return lam_fail(err, EUCLEAN, "region table: %" PRIu32 " entries, the "
                        "limit is %d", count, VHDX_MAX_ENTRIES);
    int rc = 0;
    for (uint32_t i = 0; i < count && rc == 0; i++)
        rc = take_region_entry(bytes + XR_ENTRIES + i * XR_ENTRY_BYTES, out,
                               err);
    if (rc == 0 && (!out->table.length || !out->metadata.length))
        rc = lam_fail(err, EUCLEAN, "region table: there is no %s region",
                      out->table.length ? "metadata" : "BAT");
    return rc;
}

static void put_region(uint8_t *e, const struct vhdx_guid *guid,
                       const struct vhdx_region *region)
{
    guid_put(e, guid);
    le64_put(e + XR_OFFSET, region->offset);
    le32_put(e + XR_LENGTH, region->length);
    le32_put(e + XR_REQUIRED, 1);
}

void vhdx_regions_encode(const struct vhdx_regions *regions, uint8_t *bytes)
{
    memset(bytes, 0, VHDX_TABLE_BYTES);
    memcpy(bytes, "regi", 4);
    le32_put(bytes + XR_COUNT, 2);
    put_region(bytes + XR_ENTRIES, &guid_table, &regions->table);
    put_region(bytes + XR_ENTRIES + XR_ENTRY_BYTES, &guid_metadata,
               &regions->metadata);
    le32_put(bytes + XH_CHECKSUM, checksum(bytes, VHDX_TABLE_BYTES));
}

/* --------------------------------------------------------------- metadata */

enum { ITEM_PARAMETERS, ITEM_SIZE, ITEM_PAGE83, ITEM_LOGICAL, ITEM_PHYSICAL,
       ITEM_LOCATOR, NB_ITEMS };

static const struct {
    const struct vhdx_guid *guid;
    const char *name;
    uint32_t length, flags;
} items[NB_ITEMS] = {
    { &guid_parameters, "file parameters", 8, XM_REQUIRED },
    { &guid_size, "virtual disk size", 8, XM_REQUIRED | XM_IS_DISK },
    { &guid_page83, "page 83 data", 16, XM_REQUIRED | XM_IS_DISK },
    { &guid_logical, "logical sector size", 4, XM_REQUIRED | XM_IS_DISK },
    { &guid_physical, "physical sector size", 4, XM_REQUIRED | XM_IS_DISK },
    { &guid_locator, "parent locator", 20, XM_REQUIRED },
};

/* Where each is in the region; 0: it is not there. */
struct found {
    uint32_t offset[NB_ITEMS], length[NB_ITEMS];
};

static int find_item(const uint8_t *e, size_t length, struct found *found,
                     struct lam_error *err)
{
    struct vhdx_guid guid = guid_get(e);
    uint32_t at = le32_get(e + XM_OFFSET), bytes = le32_get(e + XM_LENGTH);
    size_t i = 0;

    while (i < NB_ITEMS && !vhdx_guid_equal(&guid, items[i].guid))
        i++;
    if (i == NB_ITEMS)
        return le32_get(e + XM_FLAGS) & XM_REQUIRED
            ? lam_fail(err, ENOTSUP, "there is a required metadata item of an "
                       "unknown kind") : 0;
    if (found->offset[i])
        return lam_fail(err, EUCLEAN, "metadata: there are two items '%s'",
                        items[i].name);
    /* Some leave the length out: what is needed has to be there. */
    bytes = (uint32_t)max_u64(bytes, items[i].length);
    if (at < VHDX_TABLE_BYTES || at > length || bytes > length - at)
        return lam_fail(err, EUCLEAN, "metadata: item '%s' of %" PRIu32
                        " bytes at offset %" PRIu32 " is not in the region of "
                        "%zu bytes", items[i].name, bytes, at, length);
    found->offset[i] = at;
    found->length[i] = bytes;
    return 0;
}

static int find_items(const uint8_t *bytes, size_t length, struct found *found,
                      struct lam_error *err)
{
    *found = (struct found){ { 0 }, { 0 } };
    if (length < VHDX_TABLE_BYTES || memcmp(bytes, "metadata", 8))
        return lam_fail(err, EUCLEAN, "metadata: the table is missing");
    uint16_t count = le16_get(bytes + XM_COUNT);
    if (count > VHDX_MAX_ENTRIES)
        return lam_fail(err, EUCLEAN, "metadata: %u items, the limit is %d",
                        (unsigned)count, VHDX_MAX_ENTRIES);
    int rc = 0;
    for (uint16_t i = 0; i < count && rc == 0; i++)
        rc = find_item(bytes + XM_ENTRIES + i * XM_ENTRY_BYTES, length, found,
                       err);
    for (size_t i = 0; i < ITEM_LOCATOR && rc == 0; i++)
        if (!found->offset[i])
            rc = lam_fail(err, ENOTSUP, "metadata: there is no item '%s'",
                          items[i].name);
    return rc;
}

static int judge(const struct vhdx_metadata *m, struct lam_error *err)
{
    if (!is_power_of_two(m->block_size) || m->block_size < VHDX_UNIT ||
        m->block_size > VHDX_MAX_BLOCK)
        return lam_fail(err, EUCLEAN, "block size %" PRIu32 " is not a power "
                        "of two from 1 MiB to 256 MiB", m->block_size);
    if (m->logical_sector != 512 && m->logical_sector != 4096)
        return lam_fail(err, ENOTSUP, "logical sector size %" PRIu32 " is "
                        "neither 512 nor 4096", m->logical_sector);
    if (m->size > VHDX_MAX_SIZE)
        return lam_fail(err, EUCLEAN, "virtual disk size %" PRIu64 " is beyond "
                        "the limit of 64 TiB", m->size);
    if (m->has_parent && !m->locator)
        return lam_fail(err, EUCLEAN, "there is a parent, and no parent "
                        "locator");
    return 0;
}

int vhdx_metadata_decode(const uint8_t *bytes, size_t length,
                         struct vhdx_metadata *out, struct lam_error *err)
{
    struct found f;
    int rc = find_items(bytes, length, &f, err);

    if (rc < 0)
        return rc;
    uint32_t flags = le32_get(bytes + f.offset[ITEM_PARAMETERS] + 4);
    *out = (struct vhdx_metadata){
        .block_size = le32_get(bytes + f.offset[ITEM_PARAMETERS]),
        .leave_allocated = flags & 1,
        .has_parent = flags & 2,
        /* Whole sectors count. */
        .size = le64_get(bytes + f.offset[ITEM_SIZE]) / 512 * 512,
        .page83 = guid_get(bytes + f.offset[ITEM_PAGE83]),
        .logical_sector = le32_get(bytes + f.offset[ITEM_LOGICAL]),
        .physical_sector = le32_get(bytes + f.offset[ITEM_PHYSICAL]),
        .locator = f.offset[ITEM_LOCATOR],
        .locator_length = f.length[ITEM_LOCATOR],
    };
    return judge(out, err);
}

/* The next item; *@at is where its bytes go. */
static uint8_t *put_item(uint8_t *bytes, size_t i, uint32_t *at)
{
    uint8_t *e = bytes + XM_ENTRIES + i * XM_ENTRY_BYTES;
    uint8_t *value = bytes + *at;

    guid_put(e, items[i].guid);
    le32_put(e + XM_OFFSET, *at);
    le32_put(e + XM_LENGTH, items[i].length);
    le32_put(e + XM_FLAGS, items[i].flags);
    *at += items[i].length;
    return value;
}

void vhdx_metadata_encode(const struct vhdx_metadata *m, uint8_t *bytes)
{
    uint32_t at = VHDX_TABLE_BYTES;

    memset(bytes, 0, VHDX_UNIT);
    memcpy(bytes, "metadata", 8);
    le16_put(bytes + XM_COUNT, ITEM_LOCATOR);
    uint8_t *value = put_item(bytes, ITEM_PARAMETERS, &at);
    le32_put(value, m->block_size);
    le32_put(value + 4, m->leave_allocated ? 1 : 0);
    le64_put(put_item(bytes, ITEM_SIZE, &at), m->size);
    guid_put(put_item(bytes, ITEM_PAGE83, &at), &m->page83);
    le32_put(put_item(bytes, ITEM_LOGICAL, &at), m->logical_sector);
    le32_put(put_item(bytes, ITEM_PHYSICAL, &at), m->physical_sector);
}
