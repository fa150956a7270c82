/* SPDX-License-Identifier: MIT */
/*
 * header.c - the header of a sparse extent: decode, judge, encode.
 */
#include "format/vmdk/header.h"

#include <inttypes.h>
#include <string.h>

#include "base/arith.h"
#include "base/bytes.h"
#include "format/vmdk/descriptor.h"

enum {
    H_MAGIC             = 0,        /* u32 */
    H_VERSION           = 4,        /* u32 */
    H_FLAGS             = 8,        /* u32 */
    H_CAPACITY          = 12,       /* u64, as all that follow */
    H_GRAIN_SIZE        = 20,
    H_DESCRIPTOR_OFFSET = 28,
    H_DESCRIPTOR_SIZE   = 36,
    H_GTES              = 44,       /* u32 */
    H_RGD_OFFSET        = 48,
    H_GD_OFFSET         = 56,
    H_OVERHEAD          = 64,
    H_UNCLEAN           = 72,       /* u8 */
    H_NEWLINES          = 73,       /* 4 bytes */
    H_COMPRESSION       = 77,       /* u16 */
};

enum {                              /* every field a u32 */
    C_VERSION           = 4,
    C_FLAGS             = 8,
    C_SECTORS           = 12,
    C_GRAIN_SIZE        = 16,
    C_GD_OFFSET         = 20,
    C_GD_ENTRIES        = 24,
};

static const char newlines[] = "\n \r\n";

/* 512 TiB with grains of 64 KiB: the directory takes 64 MiB. */
static const uint64_t MAX_TABLES = UINT64_C(1) << 24;

bool vmdk_is_header(const uint8_t *head, size_t length)
{
    return length >= 4 && le32_get(head + H_MAGIC) == VMDK_MAGIC;
}

bool vmdk_is_cowd(const uint8_t *head, size_t length)
{
    return length >= 4 && le32_get(head + H_MAGIC) == VMDK_COWD_MAGIC;
}

int vmdk_cowd_decode(const uint8_t *buf, struct vmdk_header *h,
                     struct lam_error *err)
{
    uint32_t entries = le32_get(buf + C_GD_ENTRIES);

    *h = (struct vmdk_header){
        .cowd = true,
        .version = le32_get(buf + C_VERSION),
        .flags = le32_get(buf + C_FLAGS) & VMDK_FLAG_NEWLINES,
        .capacity = le32_get(buf + C_SECTORS),
        .grain_size = le32_get(buf + C_GRAIN_SIZE),
        .gd_offset = le32_get(buf + C_GD_OFFSET),
        .gtes = VMDK_COWD_GTES,
    };
    if (h->version != 1)
        return lam_fail(err, ENOTSUP, "Unsupported COWD version %" PRIu32
                        " (limit: 1)", h->version);
    if (!h->grain_size || vmdk_nb_tables(h) <= entries)
        return 0;               /* the size is judged later */
    return lam_fail(err, EUCLEAN, "a grain directory of %" PRIu32 " entries is "
                    "too small for a capacity of %" PRIu64 " sectors", entries,
                    h->capacity);
}

int vmdk_header_decode(const uint8_t *buf, struct vmdk_header *h,
                       struct lam_error *err)
{
    if (!vmdk_is_header(buf, VMDK_HEADER_SIZE))
        return lam_fail(err, EINVAL, "Image not in VMDK format");
    *h = (struct vmdk_header){
        .version = le32_get(buf + H_VERSION),
        .flags = le32_get(buf + H_FLAGS),
        .capacity = le64_get(buf + H_CAPACITY),
        .grain_size = le64_get(buf + H_GRAIN_SIZE),
        .descriptor_offset = le64_get(buf + H_DESCRIPTOR_OFFSET),
        .descriptor_size = le64_get(buf + H_DESCRIPTOR_SIZE),
        .gtes = le32_get(buf + H_GTES),
        .rgd_offset = le64_get(buf + H_RGD_OFFSET),
        .gd_offset = le64_get(buf + H_GD_OFFSET),
        .overhead = le64_get(buf + H_OVERHEAD),
        .unclean = buf[H_UNCLEAN] != 0,
        .compression = le16_get(buf + H_COMPRESSION),
    };
    if (h->version < 1 || h->version > 3)
        return lam_fail(err, ENOTSUP, "Unsupported VMDK version %" PRIu32
                        " (limits: 1 and 3)", h->version);
    if (vmdk_has_flag(h, VMDK_FLAG_NEWLINES) &&
        memcmp(buf + H_NEWLINES, newlines, 4))
        return lam_fail(err, EUCLEAN, "the bytes 0a 20 0d 0a of the VMDK header"
                        " are %02x %02x %02x %02x: the file was copied as text",
                        buf[H_NEWLINES], buf[H_NEWLINES + 1],
                        buf[H_NEWLINES + 2], buf[H_NEWLINES + 3]);
    return 0;
}

void vmdk_header_encode(const struct vmdk_header *h, uint8_t *buf)
{
    memset(buf, 0, VMDK_HEADER_SIZE);
    le32_put(buf + H_MAGIC, VMDK_MAGIC);
    le32_put(buf + H_VERSION, h->version);
    le32_put(buf + H_FLAGS, h->flags);
    le64_put(buf + H_CAPACITY, h->capacity);
    le64_put(buf + H_GRAIN_SIZE, h->grain_size);
    le64_put(buf + H_DESCRIPTOR_OFFSET, h->descriptor_offset);
    le64_put(buf + H_DESCRIPTOR_SIZE, h->descriptor_size);
    le32_put(buf + H_GTES, h->gtes);
    le64_put(buf + H_RGD_OFFSET, h->rgd_offset);
    le64_put(buf + H_GD_OFFSET, h->gd_offset);
    le64_put(buf + H_OVERHEAD, h->overhead);
    buf[H_UNCLEAN] = h->unclean;
    memcpy(buf + H_NEWLINES, newlines, 4);
    le16_put(buf + H_COMPRESSION, h->compression);
}

uint64_t vmdk_nb_tables(const struct vmdk_header *h)
{
    return div_up(h->capacity, h->grain_size * h->gtes);
}

static int check_kind(const struct vmdk_header *h, struct lam_error *err)
{
    unsigned least = h->cowd ? 1 : 8;
    bool other = h->cowd || h->se;

    if (!is_power_of_two(h->grain_size) || h->grain_size < least ||
        h->grain_size > 16384)
        return lam_fail(err, EUCLEAN, "Invalid granularity: a grain of %" PRIu64
                        " sectors is no power of two from %u to 16384",
                        h->grain_size, least);
    if (!other && h->gtes != VMDK_GTES)
        return lam_fail(err, ENOTSUP, "grain tables of %" PRIu32 " entries are "
                        "not supported (limit: %d)", h->gtes, VMDK_GTES);
    if (h->compression > 1 || (vmdk_has_flag(h, VMDK_FLAG_COMPRESSED) &&
                               h->compression != 1))
        return lam_fail(err, ENOTSUP, "Unsupported compression algorithm %u "
                        "(limit: 1)", h->compression);
    if (h->capacity > INT64_MAX / VMDK_SECTOR ||
        vmdk_nb_tables(h) > MAX_TABLES)
        return lam_fail(err, EFBIG, "L1 size too big: a capacity of %" PRIu64
                        " sectors needs more than %" PRIu64 " grain tables",
                        h->capacity, MAX_TABLES);
    return 0;
}

/* @offset and @sectors count sectors. */
static int check_inside(const char *what, uint64_t offset, uint64_t sectors,
                        uint64_t length, struct lam_error *err)
{
    uint64_t end;

    if (add_overflows(offset, sectors, &end) ||
        end > div_up(length, VMDK_SECTOR))
        return lam_fail(err, EUCLEAN, "%s at sector %" PRIu64 " of %" PRIu64
                        " sectors ends beyond the file's %" PRIu64 " bytes",
                        what, offset, sectors, length);
    if (offset < 1 && sectors)
        return lam_fail(err, EUCLEAN, "%s at sector %" PRIu64 " lies on the "
                        "header", what, offset);
    return 0;
}

/* Callers know a download that was cut off by these words. */
static int check_length(const struct vmdk_header *h, uint64_t length,
                        struct lam_error *err)
{
    uint64_t bytes;

    if (h->overhead <= div_up(length, VMDK_SECTOR))
        return 0;
    if (__builtin_mul_overflow(h->overhead, VMDK_SECTOR, &bytes))
        bytes = UINT64_MAX;
    return lam_fail(err, EUCLEAN, "File truncated, expecting at least %" PRIu64
                    " bytes", bytes);
}

int vmdk_header_validate(const struct vmdk_header *h, uint64_t length,
                         struct lam_error *err)
{
    int rc = check_kind(h, err);
    if (rc == 0)
        rc = check_length(h, length, err);
    if (rc < 0)
        return rc;

    uint64_t directory = div_up(vmdk_nb_tables(h) * (h->se ? 8 : 4),
                                VMDK_SECTOR);
    if (h->descriptor_offset && h->descriptor_size)
        rc = check_inside("the descriptor", h->descriptor_offset,
                          h->descriptor_size, length, err);
    if (rc == 0 && h->gd_offset != VMDK_GD_AT_END)
        rc = check_inside("the grain directory", h->gd_offset, directory,
                          length, err);
    if (rc == 0 && vmdk_has_flag(h, VMDK_FLAG_REDUNDANT) &&
        h->gd_offset != VMDK_GD_AT_END)
        rc = check_inside("the redundant grain directory", h->rgd_offset,
                          directory, length, err);
    if (rc == 0 && h->descriptor_size > VMDK_MAX_DESCRIPTOR / VMDK_SECTOR)
        rc = lam_fail(err, EFBIG, "a descriptor of %" PRIu64 " sectors is "
                      "beyond the limit of %d", h->descriptor_size,
                      VMDK_MAX_DESCRIPTOR / VMDK_SECTOR);
    return rc;
}
