/* SPDX-License-Identifier: MIT */
/*
 * geometry.h - the numbers that follow from cluster size and widths, and the
 * conversions between offsets and table indices (format document 3.1, 5.1).
 *
 * The only file that turns a guest offset into an index.  Pure.
 */
#ifndef LAM_QCOW2_GEOMETRY_H
#define LAM_QCOW2_GEOMETRY_H

#include "base/arith.h"

enum {
    QCOW2_MIN_CLUSTER_BITS = 9,
    QCOW2_MAX_CLUSTER_BITS = 21,
    QCOW2_MIN_CLUSTER_BITS_EXTENDED = 14,
    QCOW2_SUBCLUSTERS = 32,
    QCOW2_MAX_L1_ENTRIES = 4194304,         /* 32 MiB */
    QCOW2_MAX_REFCOUNT_TABLE = 8 << 20,     /* bytes */
    QCOW2_MAX_SNAPSHOTS = 65536,
    QCOW2_MAX_SNAPSHOT_TABLE = 64 << 20,    /* bytes */
    QCOW2_MAX_SNAPSHOT_EXTRA = 1024,        /* bytes an entry */
    QCOW2_MAX_BACKING_NAME = 1023,
    QCOW2_MAX_FORMAT_NAME = 15,
    QCOW2_MAX_BITMAPS = 65535,
    QCOW2_SECTOR = 512,
};

struct qcow2_geometry {
    unsigned cluster_bits;
    unsigned refcount_order;    /* refcount width is 1 << order bits */
    bool extended_l2;

    uint64_t cluster_size;
    unsigned l2_entry_size;     /* 8 or 16 bytes */
    uint64_t l2_entries;        /* in one L2 table, which is one cluster */
    uint64_t l2_cover;          /* guest bytes of one L2 table */
    uint64_t subcluster_size;   /* cluster_size without extended L2 */
    unsigned refcount_bits;
    uint64_t refblock_entries;  /* counters in one refcount block */
    uint64_t refcount_max;
};

static inline struct qcow2_geometry
qcow2_geometry_make(unsigned cluster_bits, unsigned refcount_order,
                    bool extended_l2)
{
    struct qcow2_geometry g = {
        .cluster_bits = cluster_bits,
        .refcount_order = refcount_order,
        .extended_l2 = extended_l2,
        .cluster_size = UINT64_C(1) << cluster_bits,
        .l2_entry_size = extended_l2 ? 16 : 8,
        .refcount_bits = 1u << refcount_order,
    };
    assert(cluster_bits >= QCOW2_MIN_CLUSTER_BITS &&
           cluster_bits <= QCOW2_MAX_CLUSTER_BITS && refcount_order <= 6);
    g.l2_entries = g.cluster_size / g.l2_entry_size;
    g.l2_cover = g.l2_entries << cluster_bits;
    g.subcluster_size = extended_l2 ? g.cluster_size / QCOW2_SUBCLUSTERS
                                    : g.cluster_size;
    g.refblock_entries = (g.cluster_size * 8) >> refcount_order;
    g.refcount_max = refcount_order == 6 ? UINT64_MAX
                   : (UINT64_C(1) << g.refcount_bits) - 1;
    return g;
}

/* l2_cover and refblock_entries are powers of two; the compiler cannot know. */
static inline uint64_t l1_index(const struct qcow2_geometry *g, uint64_t guest)
{
    return guest >> __builtin_ctzll(g->l2_cover);
}

static inline uint64_t l2_index(const struct qcow2_geometry *g, uint64_t guest)
{
    return (guest >> g->cluster_bits) & (g->l2_entries - 1);
}

static inline uint64_t in_cluster(const struct qcow2_geometry *g, uint64_t off)
{
    return off & (g->cluster_size - 1);
}

/* L1 entries that a disk of @size bytes needs. */
static inline uint64_t l1_needed(const struct qcow2_geometry *g, uint64_t size)
{
    return div_up(size, g->l2_cover);
}

/* Number of the host cluster that holds @host. */
static inline uint64_t host_cluster(const struct qcow2_geometry *g,
                                    uint64_t host)
{
    return host >> g->cluster_bits;
}

static inline uint64_t reft_index(const struct qcow2_geometry *g,
                                  uint64_t cluster)
{
    return cluster >> (g->cluster_bits + 3 - g->refcount_order);
}

static inline uint64_t refblock_index(const struct qcow2_geometry *g,
                                      uint64_t cluster)
{
    return cluster & (g->refblock_entries - 1);
}

/* Compressed descriptor (format document 4.1): bits of the offset field. */
static inline unsigned compressed_offset_bits(const struct qcow2_geometry *g)
{
    return 70 - g->cluster_bits;
}

#endif
