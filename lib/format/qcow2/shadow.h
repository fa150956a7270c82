/* SPDX-License-Identifier: MIT */
/*
 * shadow.h - refcounts as they are to become, beside those in force.
 *
 * A command that changes many references at once changes them here: blocks
 * that it touches are copied in memory and go to new places, with a new table
 * that names them.  Nothing in the file refers to any of it until the header
 * does, so that one write of the header makes the whole change, and giving up
 * means forgetting the copies: no reference raised, nothing leaked.
 *
 * Everything runs under alloc_lock with write-backs kept out, and between
 * shadow_init() and shadow_deinit() nobody else allocates.  Memory: the blocks
 * touched, for 64 KiB clusters and 16 bits 32 MiB a TiB of host file.
 */
#ifndef LAM_QCOW2_SHADOW_H
#define LAM_QCOW2_SHADOW_H

#include "format/qcow2/qcow2.h"

struct shadow_block {
    uint8_t *bytes;             /* NULL: as in force */
    uint64_t place;             /* host offset it goes to; 0: none yet */
};

struct shadow {
    struct qcow2 *q;
    uint64_t *table;            /* native, as in force; new blocks are 0 */
    struct shadow_block *blocks;/* one a table entry */
    size_t entries;
    uint64_t cursor;            /* cluster from which to look for free ones */
    uint64_t lowest_freed;      /* cluster */
    uint64_t table_place, table_clusters;
    uint64_t *quiet;            /* clusters of tables that became free */
    size_t nb_quiet, quiet_capacity;
};

/* Dirty refcounts are written first.  To be deinitialised also after a
 * failure; that changes nothing else unless the shadow was installed. */
int shadow_init(struct shadow *s, struct qcow2 *q, struct lam_error *err);
void shadow_deinit(struct shadow *s);

int shadow_get(struct shadow *s, uint64_t cluster, uint64_t *value,
               struct lam_error *err);

/*
 * One reference more (@delta 1) or less (-1) on each cluster that [host,
 * host + length) touches.  -EINVAL if a counter would overflow, -EUCLEAN if
 * one is 0: what is referenced must be counted.
 */
int shadow_add(struct shadow *s, uint64_t host, uint64_t length, int delta,
               struct lam_error *err);

/* A reference less on the clusters of a table.  Tables come and go in single
 * clusters: they stay allocated on the host, for the next one. */
int shadow_drop_table(struct shadow *s, uint64_t host, uint64_t length,
                      struct lam_error *err);

/* The L2 table at @table, the last reference to which this change has dropped,
 * has one again. */
int shadow_take_back(struct shadow *s, uint64_t table, struct lam_error *err);

/*
 * Reserve contiguous clusters that are free now and were before: @want of
 * them if @exact, else one at least.  What this change frees is needed until
 * the header is written, and is not given out.
 */
int shadow_alloc(struct shadow *s, uint64_t want, bool exact, uint64_t *host,
                 uint64_t *got, struct lam_error *err);

/* Gives back a part of what shadow_alloc() gave. */
int shadow_unalloc(struct shadow *s, uint64_t host, uint64_t length,
                   struct lam_error *err);

/* Places for the blocks and the table; nothing may be changed afterwards. */
int shadow_place(struct shadow *s, struct lam_error *err);

/* Writes them there. */
int shadow_write(struct shadow *s, struct lam_error *err);

/* The header names them.  Guest data that is free from now on may go from the
 * host; for this nobody may be reading it any more. */
void shadow_discard(struct shadow *s);

/* They are in force. */
void shadow_install(struct shadow *s);

#endif
