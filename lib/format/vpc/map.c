/* SPDX-License-Identifier: MIT */
/*
 * map.c - guest range → extents of a VHD.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "format/vpc/vpc.h"

int vpc_block_offset(const struct vpc *v, uint32_t index, uint32_t entry,
                     uint64_t *offset, struct lam_error *err)
{
    uint64_t first = v->table_offset + (uint64_t)v->entries * 4;

    *offset = (uint64_t)entry * VPC_SECTOR;
    /* The table may lie behind blocks, but nothing lies inside of it, or
     * inside the copy of the footer. */
    bool on_table = *offset < first &&
                    *offset + vpc_block_bytes(v) > v->table_offset;
    if (*offset >= VPC_FOOTER_BYTES && !on_table)
        return 0;
    return lam_fail(err, EUCLEAN, "block %" PRIu32 ": the table entry names "
                    "offset %" PRIu64 ", which holds metadata", index,
                    *offset);
}

/* Of a block that exists, the part at @skip: sector by sector what the bitmap
 * says. */
static int map_bitmap(struct vpc *v, uint64_t block, uint64_t offset,
                      uint64_t skip, uint64_t length, struct lam_extents *out,
                      struct lam_error *err)
{
    lam_autofree uint8_t *bitmap = malloc(v->bitmap_bytes);
    if (!bitmap)
        return lam_fail(err, ENOMEM, "no memory for a bitmap of %" PRIu64
                        " bytes", v->bitmap_bytes);
    int rc = lam_io_read(v->io, bitmap, v->bitmap_bytes, block, err);

    while (length > 0 && rc == 0) {
        uint64_t sector = skip / VPC_SECTOR;
        uint64_t n = min_u64(length, VPC_SECTOR - skip % VPC_SECTOR);
        bool here = bitmap[sector / 8] & (0x80 >> sector % 8);
        rc = extents_add(out, here ? LAM_EXTENT_DATA : LAM_EXTENT_UNALLOCATED,
                         offset, n, block + v->bitmap_bytes + skip, err);
        offset += n;
        skip += n;
        length -= n;
    }
    return rc;
}

static int map_block(struct vpc *v, uint64_t offset, uint64_t length,
                     struct lam_extents *out, struct lam_error *err)
{
    uint32_t index = (uint32_t)(offset / v->block_size);
    uint64_t skip = offset % v->block_size, block;

    pthread_rwlock_rdlock(&v->lock);
    uint32_t entry = v->table[index];
    pthread_rwlock_unlock(&v->lock);
    if (entry == VPC_UNUSED)
        return extents_add(out, v->differencing ? LAM_EXTENT_UNALLOCATED
                                                : LAM_EXTENT_ZERO,
                           offset, length, 0, err);
    int rc = vpc_block_offset(v, index, entry, &block, err);
    if (rc < 0)
        return rc;
    if (v->differencing)
        return map_bitmap(v, block, offset, skip, length, out, err);
    return extents_add(out, LAM_EXTENT_DATA, offset, length,
                       block + v->bitmap_bytes + skip, err);
}

int vpc_map(void *format, uint64_t offset, uint64_t length,
            struct lam_extents *out, struct lam_error *err)
{
    struct vpc *v = format;
    int rc = 0;

    if (v->fixed)
        return extents_add(out, LAM_EXTENT_DATA, offset, length, offset, err);
    while (length > 0 && rc == 0) {
        uint64_t n = min_u64(length, v->block_size - offset % v->block_size);
        rc = map_block(v, offset, n, out, err);
        offset += n;
        length -= n;
    }
    return rc;
}
