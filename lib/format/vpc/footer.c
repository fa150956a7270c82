/* SPDX-License-Identifier: MIT */
/*
 * footer.c - decode and encode the footer and the header of a VHD.
 */
#include "format/vpc/footer.h"

#include <inttypes.h>
#include <string.h>

#include "base/arith.h"
#include "base/bytes.h"

enum {                          /* every field big-endian */
    VF_COOKIE = 0,              /* "conectix" */
    VF_FEATURES = 8,            /* u32  bit 1 is always set */
    VF_VERSION = 12,            /* u32  0x00010000 */
    VF_DATA_OFFSET = 16,        /* u64 */
    VF_TIMESTAMP = 24,          /* u32 */
    VF_CREATOR = 28,            /* 4 letters */
    VF_CREATOR_VERSION = 32,    /* u32 */
    VF_CREATOR_OS = 36,         /* 4 letters */
    VF_ORIGINAL_SIZE = 40,      /* u64  bytes */
    VF_CURRENT_SIZE = 48,       /* u64  bytes */
    VF_GEOMETRY = 56,           /* u16 cylinders, u8 heads, u8 sectors */
    VF_TYPE = 60,               /* u32 */
    VF_CHECKSUM = 64,           /* u32 */
    VF_UUID = 68,               /* 16 bytes */
};

enum {
    VH_COOKIE = 0,              /* "cxsparse" */
    VH_DATA_OFFSET = 8,         /* u64  all ones */
    VH_TABLE_OFFSET = 16,       /* u64 */
    VH_VERSION = 24,            /* u32  0x00010000 */
    VH_ENTRIES = 28,            /* u32 */
    VH_BLOCK_SIZE = 32,         /* u32 */
    VH_CHECKSUM = 36,           /* u32 */
    VH_PARENT_NAME = 64,
    VH_LOCATORS = 576,          /* 24 bytes each: */
    VL_BYTES = 24,
    VL_PLATFORM = 0,            /* u32 */
    VL_LENGTH = 8,              /* u32 */
    VL_OFFSET = 16,             /* u64 */
};

static const uint32_t VERSION = 0x00010000;

uint32_t vpc_checksum(const uint8_t *bytes, uint32_t length, uint32_t at)
{
    uint32_t sum = 0;

    for (uint32_t i = 0; i < length; i++)
        if (i < at || i >= at + 4)
            sum += bytes[i];
    return ~sum;
}

bool vpc_is_footer(const uint8_t *bytes)
{
    return !memcmp(bytes + VF_COOKIE, "conectix", 8);
}

int vpc_footer_decode(const uint8_t *bytes, struct vpc_footer *out,
                      struct lam_error *err)
{
    if (!vpc_is_footer(bytes))
        return lam_fail(err, EINVAL, "invalid VPC image");
    if (be32_get(bytes + VF_CHECKSUM) !=
        vpc_checksum(bytes, VPC_FOOTER_BYTES, VF_CHECKSUM))
        return lam_fail(err, EUCLEAN, "Incorrect header checksum");

    *out = (struct vpc_footer){
        .data_offset = be64_get(bytes + VF_DATA_OFFSET),
        .timestamp = be32_get(bytes + VF_TIMESTAMP),
        .creator_version = be32_get(bytes + VF_CREATOR_VERSION),
        .original_size = be64_get(bytes + VF_ORIGINAL_SIZE),
        .current_size = be64_get(bytes + VF_CURRENT_SIZE),
        .geometry = {
            .cylinders = be16_get(bytes + VF_GEOMETRY),
            .heads = bytes[VF_GEOMETRY + 2],
            .sectors = bytes[VF_GEOMETRY + 3],
        },
        .type = be32_get(bytes + VF_TYPE),
    };
    memcpy(out->creator, bytes + VF_CREATOR, sizeof out->creator);
    memcpy(out->creator_os, bytes + VF_CREATOR_OS, sizeof out->creator_os);
    memcpy(out->uuid, bytes + VF_UUID, sizeof out->uuid);
    return 0;
}

void vpc_footer_encode(const struct vpc_footer *footer, uint8_t *bytes)
{
    memset(bytes, 0, VPC_FOOTER_BYTES);
    memcpy(bytes + VF_COOKIE, "conectix", 8);
    be32_put(bytes + VF_FEATURES, 2);
    be32_put(bytes + VF_VERSION, VERSION);
    be64_put(bytes + VF_DATA_OFFSET, footer->data_offset);
    be32_put(bytes + VF_TIMESTAMP, footer->timestamp);
    memcpy(bytes + VF_CREATOR, footer->creator, sizeof footer->creator);
    be32_put(bytes + VF_CREATOR_VERSION, footer->creator_version);
    memcpy(bytes + VF_CREATOR_OS, footer->creator_os,
           sizeof footer->creator_os);
    be64_put(bytes + VF_ORIGINAL_SIZE, footer->original_size);
    be64_put(bytes + VF_CURRENT_SIZE, footer->current_size);
    be16_put(bytes + VF_GEOMETRY, footer->geometry.cylinders);
    bytes[VF_GEOMETRY + 2] = footer->geometry.heads;
    bytes[VF_GEOMETRY + 3] = footer->geometry.sectors;
    be32_put(bytes + VF_TYPE, footer->type);
    memcpy(bytes + VF_UUID, footer->uuid, sizeof footer->uuid);
    be32_put(bytes + VF_CHECKSUM,
             vpc_checksum(bytes, VPC_FOOTER_BYTES, VF_CHECKSUM));
}

uint64_t vpc_footer_size(const struct vpc_footer *footer)
{
    return vpc_footer_size_by(footer, !memcmp(footer->creator, "qemu", 4) ||
                                      !memcmp(footer->creator, "vpc ", 4));
}

uint64_t vpc_footer_size_by(const struct vpc_footer *footer, bool geometry)
{
    if (!geometry || vpc_geometry_is_largest(footer->geometry))
        return footer->current_size / VPC_SECTOR * VPC_SECTOR;
    return vpc_geometry_sectors(footer->geometry) * VPC_SECTOR;
}

int vpc_header_decode(const uint8_t *bytes, struct vpc_header *out,
                      struct lam_error *err)
{
    if (memcmp(bytes + VH_COOKIE, "cxsparse", 8))
        return lam_fail(err, EINVAL, "Invalid header magic");
    *out = (struct vpc_header){
        .table_offset = be64_get(bytes + VH_TABLE_OFFSET),
        .entries = be32_get(bytes + VH_ENTRIES),
        .block_size = be32_get(bytes + VH_BLOCK_SIZE),
    };
    memcpy(out->parent_name, bytes + VH_PARENT_NAME, VPC_NAME_BYTES);
    for (int i = 0; i < VPC_LOCATORS; i++) {
        const uint8_t *l = bytes + VH_LOCATORS + i * VL_BYTES;
        out->locators[i] = (struct vpc_locator){
            .platform = be32_get(l + VL_PLATFORM),
            .length = be32_get(l + VL_LENGTH),
            .offset = be64_get(l + VL_OFFSET),
        };
    }
    if (!is_power_of_two(out->block_size) || out->block_size < VPC_SECTOR)
        return lam_fail(err, EINVAL, "Invalid block size %" PRIu32,
                        out->block_size);
    return 0;
}

void vpc_header_encode(const struct vpc_header *header, uint8_t *bytes)
{
    memset(bytes, 0, VPC_HEADER_BYTES);
    memcpy(bytes + VH_COOKIE, "cxsparse", 8);
    be64_put(bytes + VH_DATA_OFFSET, UINT64_MAX);
    be64_put(bytes + VH_TABLE_OFFSET, header->table_offset);
    be32_put(bytes + VH_VERSION, VERSION);
    be32_put(bytes + VH_ENTRIES, header->entries);
    be32_put(bytes + VH_BLOCK_SIZE, header->block_size);
    be32_put(bytes + VH_CHECKSUM,
             vpc_checksum(bytes, VPC_HEADER_BYTES, VH_CHECKSUM));
}
