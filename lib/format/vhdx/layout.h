/* SPDX-License-Identifier: MIT */
/*
 * layout.h - the structures of a VHDX ([MS-VHDX], sections in brackets below).
 * Pure; little-endian.
 *
 *     0        file type identifier [2.2.1]
 *     64 KiB   header, and at 128 KiB another [2.2.2]: of those that are whole,
 *              the one with the higher sequence number is in force
 *     192 KiB  region table, and at 256 KiB the same again [2.2.3]
 *     1 MiB    log, metadata, table of blocks and blocks, in any order and at
 *              multiples of 1 MiB
 */
#ifndef LAM_VHDX_LAYOUT_H
#define LAM_VHDX_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arith.h"
#include "base/error.h"

enum {
    VHDX_UNIT = 1024 * 1024,    /* what everything is aligned to */
    VHDX_PART = 64 * 1024,      /* each structure of the first 1 MiB */
    VHDX_IDENTIFIER_BYTES = 8 + 512,
    VHDX_HEADER_BYTES = 4096,   /* that are summed up */
    VHDX_TABLE_BYTES = 64 * 1024,   /* of regions; of metadata */
    VHDX_MAX_ENTRIES = 2047,    /* in either table */
    VHDX_MAX_BLOCK = 256 * 1024 * 1024,
    VHDX_BITMAP_BLOCK = 1024 * 1024,
};

#define VHDX_MAX_SIZE (64 * LAM_TIB)

struct vhdx_guid {
    uint8_t bytes[16];
};

bool vhdx_guid_is_zero(const struct vhdx_guid *guid);
bool vhdx_guid_equal(const struct vhdx_guid *a, const struct vhdx_guid *b);

/* ---------------------------------------------------------------- header */

struct vhdx_header {
    uint64_t sequence;
    struct vhdx_guid file_write, data_write;
    struct vhdx_guid log;       /* zero: nothing to replay */
    uint16_t log_version, version;
    uint32_t log_length;
    uint64_t log_offset;
};

bool vhdx_is_identifier(const uint8_t *bytes);
void vhdx_identifier_encode(const char *creator, uint8_t *bytes);

/* False unless signature, checksum and version are right. */
bool vhdx_header_decode(const uint8_t *bytes, struct vhdx_header *out);
void vhdx_header_encode(const struct vhdx_header *header, uint8_t *bytes);

/* --------------------------------------------------------------- regions */

struct vhdx_region {
    uint64_t offset;
    uint32_t length;
};

struct vhdx_regions {
    struct vhdx_region table;   /* of blocks ("BAT") */
    struct vhdx_region metadata;
};

/* -EUCLEAN; -ENOTSUP for a region that has to be understood and is not. */
int vhdx_regions_decode(const uint8_t *bytes, struct vhdx_regions *out,
                        struct lam_error *err);
void vhdx_regions_encode(const struct vhdx_regions *regions, uint8_t *bytes);

/* -------------------------------------------------------------- metadata */

struct vhdx_metadata {
    uint32_t block_size;
    bool leave_allocated;       /* a fixed disk */
    bool has_parent;
    uint64_t size;
    uint32_t logical_sector, physical_sector;
    struct vhdx_guid page83;
    size_t locator, locator_length;     /* in the region; 0: none */
};

/* @bytes are the region, or as much of it as there is. */
int vhdx_metadata_decode(const uint8_t *bytes, size_t length,
                         struct vhdx_metadata *out, struct lam_error *err);
/* Without a parent; VHDX_UNIT bytes. */
void vhdx_metadata_encode(const struct vhdx_metadata *metadata,
                          uint8_t *bytes);

/* ------------------------------------------------------ table of blocks */

enum vhdx_state {               /* of a block of the disk */
    VHDX_NOT_PRESENT = 0,
    VHDX_UNDEFINED = 1,
    VHDX_ZERO = 2,
    VHDX_UNMAPPED = 3,
    VHDX_UNMAPPED_OLD = 5,      /* in drafts of the format */
    VHDX_FULLY_PRESENT = 6,
    VHDX_PARTIALLY_PRESENT = 7,
};

static inline enum vhdx_state vhdx_entry_state(uint64_t entry)
{
    return (enum vhdx_state)(entry & 7);
}

static inline uint64_t vhdx_entry_offset(uint64_t entry)
{
    return entry & ~(uint64_t)(VHDX_UNIT - 1);
}

/* Blocks of the disk that share a block of sector bitmaps, whose entry comes
 * after theirs. */
static inline uint64_t vhdx_chunk_ratio(const struct vhdx_metadata *m)
{
    return (UINT64_C(1) << 23) * m->logical_sector / m->block_size;
}

static inline uint64_t vhdx_nb_blocks(const struct vhdx_metadata *m)
{
    return div_up(m->size, m->block_size);
}

static inline uint64_t vhdx_entry_of_block(const struct vhdx_metadata *m,
                                           uint64_t block)
{
    return block + block / vhdx_chunk_ratio(m);
}

/* Of the sector bitmaps of @block. */
static inline uint64_t vhdx_bitmap_entry_of(const struct vhdx_metadata *m,
                                            uint64_t block)
{
    uint64_t ratio = vhdx_chunk_ratio(m);
    return block / ratio * (ratio + 1) + ratio;
}

/* How many the disk needs: without a parent, bitmaps behind the last block may
 * be missing. */
static inline uint64_t vhdx_nb_entries(const struct vhdx_metadata *m)
{
    uint64_t blocks = vhdx_nb_blocks(m);

    if (!blocks)
        return 0;
    return m->has_parent ? vhdx_bitmap_entry_of(m, blocks - 1) + 1
                         : vhdx_entry_of_block(m, blocks - 1) + 1;
}

#endif
