/* SPDX-License-Identifier: MIT */
/*
 * map.c - guest range → extents of a VHDX.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "format/vhdx/vhdx.h"

uint64_t vhdx_entry(struct vhdx *v, uint64_t index)
{
    pthread_rwlock_rdlock(&v->lock);
    uint64_t entry = v->table[index];
    pthread_rwlock_unlock(&v->lock);
    return entry;
}

/* The bits of the sectors from @first on; the lowest of a byte comes first
 * [2.4]. */
static int load_bits(struct vhdx *v, uint64_t block, uint64_t first,
                     uint64_t count, uint8_t *bits, struct lam_error *err)
{
    uint64_t per_block = v->m.block_size / v->m.logical_sector;
    uint64_t sector = block % v->chunk_ratio * per_block + first;
    uint64_t entry = vhdx_entry(v, vhdx_bitmap_entry_of(&v->m, block));
    uint64_t from = sector / 8, to = (sector + count + 7) / 8;

    if (vhdx_entry_state(entry) != VHDX_FULLY_PRESENT)
        return lam_fail(err, EUCLEAN, "block %" PRIu64 " is partly present, and"
                        " there is no bitmap of its sectors", block);
    return lam_io_read(v->io, bits, to - from, vhdx_entry_offset(entry) + from,
                       err);
}

static int map_partial(struct vhdx *v, uint64_t block, uint64_t host,
                       uint64_t offset, uint64_t length,
                       struct lam_extents *out, struct lam_error *err)
{
    uint32_t size = v->m.logical_sector;
    uint64_t skip = offset % v->m.block_size;
    uint64_t first = skip / size / 8 * 8;
    uint64_t count = div_up(skip + length, size) - first;
    lam_autofree uint8_t *bits = malloc(count / 8 + 2);

    if (!bits)
        return lam_fail(err, ENOMEM, "no memory for a bitmap of sectors");
    int rc = load_bits(v, block, first, count, bits, err);
    while (length > 0 && rc == 0) {
        uint64_t i = skip / size - first;
        uint64_t n = min_u64(length, size - skip % size);
        bool here = bits[i / 8] & (1 << i % 8);
        rc = extents_add(out, here ? LAM_EXTENT_DATA : LAM_EXTENT_UNALLOCATED,
                         offset, n, host + skip, err);
        offset += n;
        skip += n;
        length -= n;
    }
    return rc;
}

static int map_block(struct vhdx *v, uint64_t offset, uint64_t length,
                     struct lam_extents *out, struct lam_error *err)
{
    uint64_t block = offset / v->m.block_size;
    uint64_t entry = vhdx_entry(v, vhdx_entry_of_block(&v->m, block));
    uint64_t host = vhdx_entry_offset(entry);

    switch (vhdx_entry_state(entry)) {
    case VHDX_NOT_PRESENT:
        return extents_add(out, v->m.has_parent ? LAM_EXTENT_UNALLOCATED
                                                : LAM_EXTENT_ZERO,
                           offset, length, 0, err);
    case VHDX_UNDEFINED:
    case VHDX_ZERO:
    case VHDX_UNMAPPED:
    case VHDX_UNMAPPED_OLD:
        return extents_add(out, LAM_EXTENT_ZERO, offset, length, 0, err);
    case VHDX_FULLY_PRESENT:
        return extents_add(out, LAM_EXTENT_DATA, offset, length,
                           host + offset % v->m.block_size, err);
    case VHDX_PARTIALLY_PRESENT:
        if (v->m.has_parent)
            return map_partial(v, block, host, offset, length, out, err);
        break;
    }
    return lam_fail(err, EUCLEAN, "block %" PRIu64 ": state %u has no meaning "
                    "here", block, (unsigned)vhdx_entry_state(entry));
}

int vhdx_map(void *format, uint64_t offset, uint64_t length,
             struct lam_extents *out, struct lam_error *err)
{
    struct vhdx *v = format;
    int rc = 0;

    while (length > 0 && rc == 0) {
        uint64_t n = min_u64(length, v->m.block_size -
                                     offset % v->m.block_size);
        rc = map_block(v, offset, n, out, err);
        offset += n;
        length -= n;
    }
    return rc;
}
