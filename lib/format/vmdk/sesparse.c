/* SPDX-License-Identifier: MIT */
/*
 * sesparse.c - the space-efficient sparse extents of newer ESX servers.
 *
 * Two headers: one that never changes, and one that does.  All numbers have 64
 * bits.  The directory's entries number grain tables, and theirs number grains,
 * in a region of the file for each; the upper four bits say of what kind an
 * entry is.  In memory an entry is the number, shifted so that absent is 0, as
 * in the other kinds of extent.
 */
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "format/vmdk/header.h"

enum {                              /* every field a u64 */
    SC_MAGIC            = 0,
    SC_VERSION          = 8,
    SC_CAPACITY         = 16,       /* places and sizes count sectors */
    SC_GRAIN_SIZE       = 24,
    SC_TABLE_SIZE       = 32,
    SC_FLAGS            = 40,
    SC_RESERVED         = 48,       /* four of them */
    SC_VOLATILE_OFFSET  = 80,
    SC_GD_OFFSET        = 128,
    SC_GD_SIZE          = 136,
    SC_GT_OFFSET        = 144,
    SC_GT_SIZE          = 152,
    SC_GRAINS_OFFSET    = 192,
    SC_GRAINS_SIZE      = 200,
    SC_PADDING          = 208,      /* zeroes to the end of the sector */
};

enum {
    SV_MAGIC            = 0,
    SV_REPLAY           = 24,       /* u8  the journal has to be replayed */
    SV_PADDING          = 32,
};

#define SE_VOLATILE_MAGIC UINT64_C(0xcafecafe)
#define SE_VERSION UINT64_C(0x0000000200000001)

enum { KIND_ABSENT = 0, KIND_UNMAPPED = 1, KIND_ZERO = 2, KIND_STORED = 3 };
enum { GRAIN_SECTORS = 8, TABLE_SECTORS = 64 };

bool vmdk_is_se(const uint8_t *head, size_t length)
{
    return length >= 8 && le64_get(head + SC_MAGIC) == VMDK_SE_MAGIC;
}

static bool all_zero(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (bytes[i])
            return false;
    return true;
}

static int judge(const uint8_t *buf, struct lam_error *err)
{
    uint64_t version = le64_get(buf + SC_VERSION);
    uint64_t grain = le64_get(buf + SC_GRAIN_SIZE);
    uint64_t table = le64_get(buf + SC_TABLE_SIZE);
    uint64_t flags = le64_get(buf + SC_FLAGS);

    if (!vmdk_is_se(buf, VMDK_HEADER_SIZE))
        return lam_fail(err, EINVAL, "Bad const header magic: 0x%016" PRIx64,
                        le64_get(buf + SC_MAGIC));
    if (version != SE_VERSION)
        return lam_fail(err, ENOTSUP, "Unsupported version: 0x%016" PRIx64,
                        version);
    if (grain != GRAIN_SECTORS)
        return lam_fail(err, ENOTSUP, "Unsupported grain size: %" PRIu64,
                        grain);
    if (table != TABLE_SECTORS)
        return lam_fail(err, ENOTSUP, "Unsupported grain table size: %" PRIu64,
                        table);
    if (flags)
        return lam_fail(err, ENOTSUP, "Unsupported flags: 0x%016" PRIx64,
                        flags);
    if (!all_zero(buf + SC_RESERVED, SC_VOLATILE_OFFSET - SC_RESERVED))
        return lam_fail(err, ENOTSUP, "Unsupported reserved bits: 0x%016" PRIx64
                        " 0x%016" PRIx64 " 0x%016" PRIx64 " 0x%016" PRIx64,
                        le64_get(buf + SC_RESERVED),
                        le64_get(buf + SC_RESERVED + 8),
                        le64_get(buf + SC_RESERVED + 16),
                        le64_get(buf + SC_RESERVED + 24));
    if (!all_zero(buf + SC_PADDING, VMDK_HEADER_SIZE - SC_PADDING))
        return lam_fail(err, ENOTSUP, "Unsupported non-zero const header "
                        "padding");
    return 0;
}

int vmdk_se_decode(const uint8_t *buf, struct vmdk_header *h,
                   struct lam_error *err)
{
    int rc = judge(buf, err);
    if (rc < 0)
        return rc;
    *h = (struct vmdk_header){
        .se = true,
        .version = 1,
        .capacity = le64_get(buf + SC_CAPACITY),
        .grain_size = GRAIN_SECTORS,
        .gtes = VMDK_SE_GTES,
        .volatile_offset = le64_get(buf + SC_VOLATILE_OFFSET),
        .gd_offset = le64_get(buf + SC_GD_OFFSET),
        .gt_offset = le64_get(buf + SC_GT_OFFSET),
        .host_tables = le64_get(buf + SC_GT_SIZE) / TABLE_SECTORS,
        .grains_offset = le64_get(buf + SC_GRAINS_OFFSET),
        .host_grains = le64_get(buf + SC_GRAINS_SIZE) / GRAIN_SECTORS,
    };
    uint64_t entries = le64_get(buf + SC_GD_SIZE);
    if (h->capacity > INT64_MAX / VMDK_SECTOR ||
        h->gd_offset == VMDK_GD_AT_END)
        return lam_fail(err, EFBIG, "L1 size too big: a capacity of %" PRIu64
                        " sectors", h->capacity);
    if (entries < div_up(vmdk_nb_tables(h) * 8, VMDK_SECTOR))
        return lam_fail(err, EUCLEAN, "a grain directory of %" PRIu64
                        " sectors is too small for a capacity of %" PRIu64
                        " sectors", entries, h->capacity);
    /* What an entry can name, in any file. */
    if (h->gt_offset > INT64_MAX / VMDK_SECTOR ||
        h->grains_offset > INT64_MAX / VMDK_SECTOR)
        return lam_fail(err, EUCLEAN, "grain tables at sector %" PRIu64 ", "
                        "grains at sector %" PRIu64 " (limit: %" PRId64 ")",
                        h->gt_offset, h->grains_offset,
                        INT64_MAX / VMDK_SECTOR);
    return 0;
}

int vmdk_se_judge_volatile(const uint8_t *buf, struct lam_error *err)
{
    if (le64_get(buf + SV_MAGIC) != SE_VOLATILE_MAGIC)
        return lam_fail(err, EUCLEAN, "Bad volatile header magic: 0x%016"
                        PRIx64, le64_get(buf + SV_MAGIC));
    if (buf[SV_REPLAY])
        return lam_fail(err, ENOTSUP, "Image is dirty, Replaying journal not "
                        "supported");
    if (!all_zero(buf + SV_PADDING, VMDK_HEADER_SIZE - SV_PADDING))
        return lam_fail(err, ENOTSUP, "Unsupported non-zero volatile header "
                        "padding");
    return 0;
}

/* ----------------------------------------------------------------- entries */

int vmdk_se_directory_entry(const struct vmdk_header *h, uint64_t raw,
                            uint32_t *out, struct lam_error *err)
{
    uint64_t index = raw & UINT32_MAX;

    *out = 0;
    if (!raw)
        return 0;
    if (raw >> 32 != (uint64_t)1 << 28 || index >= h->host_tables ||
        index == UINT32_MAX)
        return lam_fail(err, EUCLEAN, "an entry of the grain directory is 0x%"
                        PRIx64 "; there is room for %" PRIu64 " grain tables",
                        raw, h->host_tables);
    *out = (uint32_t)index + 1;
    return 0;
}

/* The number's lower bits come last: twelve of them, below the kind. */
int vmdk_se_table_entry(const struct vmdk_header *h, uint64_t raw,
                        uint32_t *out, struct lam_error *err)
{
    uint64_t kind = raw >> 60;
    uint64_t index = (raw >> 48 & 0xfff) |
                     (raw & ((UINT64_C(1) << 48) - 1)) << 12;

    *out = kind == KIND_ABSENT ? 0 : VMDK_GTE_ZERO;
    if (!raw || kind == KIND_UNMAPPED || kind == KIND_ZERO)
        return 0;
    if (kind != KIND_STORED || index >= h->host_grains ||
        index >= UINT32_MAX - 1)
        return lam_fail(err, EUCLEAN, "an entry is 0x%" PRIx64 "; there is "
                        "room for %" PRIu64 " grains (limit: 2^32 - 2)", raw,
                        h->host_grains);
    *out = (uint32_t)index + 2;
    return 0;
}
