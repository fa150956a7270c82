/* SPDX-License-Identifier: MIT */
/*
 * entry.h - the bits of L1, L2 and refcount table entries (format document
 * 3.2 to 3.4, 4.1, 5.1).  Values are in native byte order.  Pure.
 */
#ifndef LAM_QCOW2_ENTRY_H
#define LAM_QCOW2_ENTRY_H

#include "format/qcow2/geometry.h"

#define QCOW2_COPIED        (UINT64_C(1) << 63)
#define QCOW2_COMPRESSED    (UINT64_C(1) << 62)
#define QCOW2_ZERO          UINT64_C(1)
#define QCOW2_OFFSET_MASK   UINT64_C(0x00fffffffffffe00)
#define QCOW2_REFT_MASK     UINT64_C(0xfffffffffffffe00)

#define QCOW2_L1_RESERVED   UINT64_C(0x7f000000000001ff)
#define QCOW2_L2_RESERVED   UINT64_C(0x3f000000000001fe)
#define QCOW2_REFT_RESERVED UINT64_C(0x00000000000001ff)

/* Second word of an extended entry: low half allocated, high half zero. */
#define QCOW2_ALL_ALLOCATED UINT64_C(0x00000000ffffffff)
#define QCOW2_ALL_ZERO      UINT64_C(0xffffffff00000000)

/* Types of a cluster; with extended L2 the words refine them by subcluster. */
enum qcow2_cluster_type {
    QCOW2_UNALLOCATED,
    QCOW2_ZERO_PLAIN,
    QCOW2_ZERO_ALLOC,
    QCOW2_NORMAL,
    QCOW2_COMPRESSED_CLUSTER,
};

/* An L2 entry as it stands in a table; @bitmap is 0 without extended L2. */
struct qcow2_l2_entry {
    uint64_t word;
    uint64_t bitmap;
};

static inline uint64_t entry_offset(uint64_t word)
{
    return word & QCOW2_OFFSET_MASK;
}

static inline bool entry_copied(uint64_t word)
{
    return word & QCOW2_COPIED;
}

/* The table of format document 3.3, row by row.  @data_file: an external data
 * file is in use, where host offset 0 is a real one. */
static inline enum qcow2_cluster_type
entry_type(const struct qcow2_geometry *g, uint64_t word, bool data_file)
{
    if (word & QCOW2_COMPRESSED)
        return QCOW2_COMPRESSED_CLUSTER;
    if ((word & QCOW2_ZERO) && !g->extended_l2)
        return entry_offset(word) ? QCOW2_ZERO_ALLOC : QCOW2_ZERO_PLAIN;
    if (entry_offset(word))
        return QCOW2_NORMAL;
    if (data_file && entry_copied(word))
        return QCOW2_NORMAL;
    return QCOW2_UNALLOCATED;
}

static inline uint64_t compressed_offset(const struct qcow2_geometry *g,
                                         uint64_t word)
{
    return word & ((UINT64_C(1) << compressed_offset_bits(g)) - 1);
}

/* 512-byte sectors after the one that holds the first byte. */
static inline uint64_t compressed_extra_sectors(const struct qcow2_geometry *g,
                                                uint64_t word)
{
    return (word >> compressed_offset_bits(g)) &
           ((UINT64_C(1) << (g->cluster_bits - 8)) - 1);
}

/* Bytes that may belong to the payload: up to the end of its last sector. */
static inline uint64_t compressed_length(const struct qcow2_geometry *g,
                                         uint64_t word)
{
    return (compressed_extra_sectors(g, word) + 1) * QCOW2_SECTOR -
           (compressed_offset(g, word) & (QCOW2_SECTOR - 1));
}

/* The caller has checked that @offset fits the field and length the sectors. */
static inline uint64_t compressed_entry(const struct qcow2_geometry *g,
                                        uint64_t offset, uint64_t length)
{
    uint64_t extra = (offset + length - 1) / QCOW2_SECTOR -
                     offset / QCOW2_SECTOR;

    assert(length > 0 && !(offset >> compressed_offset_bits(g)));
    assert(!(extra >> (g->cluster_bits - 8)));
    return QCOW2_COMPRESSED | extra << compressed_offset_bits(g) | offset;
}

/* True if any subcluster is INVALID (format document 3.4): then all is. */
static inline bool subclusters_invalid(uint64_t bitmap, bool has_host)
{
    uint64_t allocated = bitmap & QCOW2_ALL_ALLOCATED;

    return has_host ? (allocated & (bitmap >> 32)) != 0 : allocated != 0;
}

#endif
