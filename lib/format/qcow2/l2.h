/* SPDX-License-Identifier: MIT */
/*
 * l2.h - a run of L2 entries in native form → extents.  Pure.
 */
#ifndef LAM_QCOW2_L2_H
#define LAM_QCOW2_L2_H

#include "extent/extent.h"
#include "format/qcow2/entry.h"

/* What the decision table needs to know beside the entries. */
struct l2_context {
    const struct qcow2_geometry *geometry;
    unsigned version;
    bool data_file;             /* guest data lies in an external data file */
    bool encrypted;             /* data clusters are */
};

/* Entry @index of @table, big-endian bytes, and back. */
struct qcow2_l2_entry l2_get(const struct qcow2_geometry *g,
                             const uint8_t *table, uint64_t index);
void l2_put(const struct qcow2_geometry *g, uint8_t *table, uint64_t index,
            struct qcow2_l2_entry entry);

/*
 * Appends the extents of guest [offset, offset + length), whose entries start
 * at @table (the entry of the cluster that holds @offset is the first).
 * -EUCLEAN names guest offset and entry: unaligned host offset, zero bit in
 * version 2, INVALID subclusters, compressed with a data file, data-file offset
 * that is not the guest offset.
 */
int l2_extents(const struct l2_context *ctx, const uint8_t *table,
               uint64_t offset, uint64_t length, struct lam_extents *out,
               struct lam_error *err);

#endif
