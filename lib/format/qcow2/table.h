/* SPDX-License-Identifier: MIT */
/*
 * table.h - L2 tables for writing: ours alone, loaded, and checked.
 */
#ifndef LAM_QCOW2_TABLE_H
#define LAM_QCOW2_TABLE_H

#include "format/qcow2/qcow2.h"

/* Where guest @offset's entry is. */
struct l2_place {
    uint64_t table;         /* host offset of the L2 table; 0: none */
    bool owned;             /* the table may be changed in place */
    uint64_t host;          /* of the entry's slice, if there is a table */
    struct slice *slice;    /* if it is in memory and verified, else NULL */
};

/* Look without loading.  Under lock, shared. */
int l2_find(struct qcow2 *q, uint64_t offset, struct l2_place *out,
            struct lam_error *err);

/* Make the L2 table of guest @offset exist and belong to the active L1 alone:
 * new, or a copy of a shared one.  No lock held. */
int l2_own_table(struct qcow2 *q, uint64_t offset, struct lam_error *err);

/* L1 entry @i has changed.  Under lock, exclusive. */
void l1_mark_dirty(struct qcow2 *q, uint64_t i);

/* L1 entry @i names the table at @table, which is written, from now on; what
 * it named before is released (@old, may be NULL).  Takes the lock. */
void l2_link_table(struct qcow2 *q, uint64_t i, uint64_t table,
                   struct release_batch *old);

/* Load, pin and verify the slice at host offset @host, which is guest
 * @offset's.  No lock held. */
int l2_load_verified(struct qcow2 *q, uint64_t host, uint64_t offset,
                     struct slice **out, struct lam_error *err);

/* The two together: *@out is pinned and may be changed. */
int l2_open_for_change(struct qcow2 *q, uint64_t offset, struct slice **out,
                       struct lam_error *err);

/* -EUCLEAN unless entry @e of guest @offset is fit to be changed: no reserved
 * bits, alignment, and no host cluster that holds the image's own tables. */
int l2_check_entry(const struct qcow2 *q, uint64_t offset,
                   struct qcow2_l2_entry e, struct lam_error *err);

#endif
