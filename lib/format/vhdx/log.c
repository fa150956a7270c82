/* SPDX-License-Identifier: MIT */
/*
 * log.c - entries of a VHDX's log, as bytes.
 */
#include "format/vhdx/log.h"

#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"

enum {
    XE_CHECKSUM = 4,            /* u32  of the whole entry */
    XE_LENGTH = 8,              /* u32 */
    XE_TAIL = 12,               /* u32 */
    XE_SEQUENCE = 16,           /* u64  not 0 */
    XE_COUNT = 24,              /* u32 */
    XE_GUID = 32,               /* as the header's, or it is of another time */
    XE_FLUSHED = 48,            /* u64 */
    XE_LAST = 56,               /* u64 */

    XD_TRAILING = 4,            /* 4 bytes */
    XD_LEADING = 8,             /* 8 bytes; of "zero" a u64, the length */
    XD_OFFSET = 16,             /* u64 */
    XD_SEQUENCE = 24,           /* u64  the entry's */

    XS_HIGH = 4,                /* u32 */
    XS_DATA = 8,
    XS_LOW = 4092,              /* u32 */
};

static uint32_t descriptor_sectors(uint32_t count)
{
    uint64_t bytes = VHDX_LOG_HEADER + (uint64_t)count * VHDX_LOG_DESCRIPTOR;

    return (uint32_t)div_up(bytes, VHDX_LOG_SECTOR);
}

bool vhdx_log_peek(const uint8_t *bytes, struct vhdx_log_entry *out)
{
    *out = (struct vhdx_log_entry){
        .length = le32_get(bytes + XE_LENGTH),
        .tail = le32_get(bytes + XE_TAIL),
        .sequence = le64_get(bytes + XE_SEQUENCE),
        .count = le32_get(bytes + XE_COUNT),
        .flushed = le64_get(bytes + XE_FLUSHED),
        .last = le64_get(bytes + XE_LAST),
    };
    memcpy(out->guid.bytes, bytes + XE_GUID, sizeof out->guid.bytes);
    return !memcmp(bytes, "loge", 4) && out->sequence && out->length &&
           is_aligned(out->length, VHDX_LOG_SECTOR) &&
           is_aligned(out->tail, VHDX_LOG_SECTOR) &&
           descriptor_sectors(out->count) <= out->length / VHDX_LOG_SECTOR;
}

static uint32_t checksum(const uint8_t *bytes, uint32_t length)
{
    static const uint8_t zero[4];
    uint32_t crc = crc32c(0, bytes, XE_CHECKSUM);

    crc = crc32c(crc, zero, sizeof zero);
    return crc32c(crc, bytes + XE_CHECKSUM + 4, length - XE_CHECKSUM - 4);
}

static const uint8_t *descriptor(const uint8_t *bytes, uint32_t i)
{
    return bytes + VHDX_LOG_HEADER + (size_t)i * VHDX_LOG_DESCRIPTOR;
}

static bool is_data(const uint8_t *d)
{
    return !memcmp(d, "desc", 4);
}

static bool descriptor_is_sound(const uint8_t *d, uint64_t sequence)
{
    uint64_t offset = le64_get(d + XD_OFFSET);
    uint64_t length = is_data(d) ? VHDX_LOG_SECTOR : le64_get(d + XD_LEADING);

    return (is_data(d) || !memcmp(d, "zero", 4)) &&
           le64_get(d + XD_SEQUENCE) == sequence &&
           is_aligned(offset, VHDX_LOG_SECTOR) &&
           is_aligned(length, VHDX_LOG_SECTOR) &&
           offset <= INT64_MAX && length <= INT64_MAX - offset;
}

static bool sector_is_sound(const uint8_t *s, uint64_t sequence)
{
    return !memcmp(s, "data", 4) &&
           le32_get(s + XS_HIGH) == (uint32_t)(sequence >> 32) &&
           le32_get(s + XS_LOW) == (uint32_t)sequence;
}

bool vhdx_log_is_whole(const struct vhdx_log_entry *entry,
                       const uint8_t *bytes)
{
    uint32_t at = descriptor_sectors(entry->count);

    if (le32_get(bytes + XE_CHECKSUM) != checksum(bytes, entry->length))
        return false;
    for (uint32_t i = 0; i < entry->count; i++) {
        const uint8_t *d = descriptor(bytes, i);
        if (!descriptor_is_sound(d, entry->sequence))
            return false;
        if (!is_data(d))
            continue;
        if (at >= entry->length / VHDX_LOG_SECTOR ||
            !sector_is_sound(bytes + (size_t)at * VHDX_LOG_SECTOR,
                             entry->sequence))
            return false;
        at++;
    }
    return at == entry->length / VHDX_LOG_SECTOR;
}

void vhdx_log_change(const struct vhdx_log_entry *entry, const uint8_t *bytes,
                     uint32_t i, uint32_t *nb_data,
                     struct vhdx_log_change *out)
{
    const uint8_t *d = descriptor(bytes, i);
    size_t sector = descriptor_sectors(entry->count) + *nb_data;

    out->offset = le64_get(d + XD_OFFSET);
    out->zero = !is_data(d);
    out->length = out->zero ? le64_get(d + XD_LEADING) : VHDX_LOG_SECTOR;
    if (out->zero)
        return;
    ++*nb_data;
    memcpy(out->bytes, bytes + sector * VHDX_LOG_SECTOR, VHDX_LOG_SECTOR);
    memcpy(out->bytes, d + XD_LEADING, XS_DATA);
    memcpy(out->bytes + XS_LOW, d + XD_TRAILING, 4);
}

uint32_t vhdx_log_length(uint32_t count)
{
    return (descriptor_sectors(count) + count) * VHDX_LOG_SECTOR;
}

void vhdx_log_encode(const struct vhdx_log_entry *entry,
                     const uint64_t *offsets, const uint8_t *sectors,
                     uint8_t *bytes)
{
    uint8_t *s = bytes +
                 (size_t)descriptor_sectors(entry->count) * VHDX_LOG_SECTOR;

    memset(bytes, 0, entry->length);
    memcpy(bytes, "loge", 4);
    le32_put(bytes + XE_LENGTH, entry->length);
    le32_put(bytes + XE_TAIL, entry->tail);
    le64_put(bytes + XE_SEQUENCE, entry->sequence);
    le32_put(bytes + XE_COUNT, entry->count);
    memcpy(bytes + XE_GUID, entry->guid.bytes, sizeof entry->guid.bytes);
    le64_put(bytes + XE_FLUSHED, entry->flushed);
    le64_put(bytes + XE_LAST, entry->last);
    for (uint32_t i = 0; i < entry->count; i++) {
        uint8_t *d = bytes + VHDX_LOG_HEADER + (size_t)i * VHDX_LOG_DESCRIPTOR;
        const uint8_t *from = sectors + (size_t)i * VHDX_LOG_SECTOR;
        memcpy(d, "desc", 4);
        memcpy(d + XD_TRAILING, from + XS_LOW, 4);
        memcpy(d + XD_LEADING, from, XS_DATA);
        le64_put(d + XD_OFFSET, offsets[i]);
        le64_put(d + XD_SEQUENCE, entry->sequence);
        memcpy(s, from, VHDX_LOG_SECTOR);
        memcpy(s, "data", 4);
        le32_put(s + XS_HIGH, (uint32_t)(entry->sequence >> 32));
        le32_put(s + XS_LOW, (uint32_t)entry->sequence);
        s += VHDX_LOG_SECTOR;
    }
    le32_put(bytes + XE_CHECKSUM, checksum(bytes, entry->length));
}
