/* SPDX-License-Identifier: MIT */
/*
 * overlap.h - what a write must never reach: the image's own tables (format
 * document 7.8).
 *
 * A host cluster is judged when it is about to be written to for the first
 * time: when it is allocated, when the slice with the entry that names it is
 * loaded for writing, when a table is.  Later writes go where these have been.
 *
 * Everything here runs under alloc_lock.  Memory: 16 to 32 bytes an L2 table
 * and refcount block.
 */
#ifndef LAM_QCOW2_OVERLAP_H
#define LAM_QCOW2_OVERLAP_H

#include <stddef.h>
#include <stdint.h>

#include "format/format.h"

struct qcow2;

enum overlap_class {
    OVERLAP_HEADER = 1 << 0,
    OVERLAP_ACTIVE_L1 = 1 << 1,
    OVERLAP_ACTIVE_L2 = 1 << 2,
    OVERLAP_REFCOUNT_TABLE = 1 << 3,
    OVERLAP_REFCOUNT_BLOCK = 1 << 4,
    OVERLAP_SNAPSHOT_TABLE = 1 << 5,
    OVERLAP_INACTIVE_L1 = 1 << 6,
    OVERLAP_INACTIVE_L2 = 1 << 7,
    OVERLAP_BITMAP_DIRECTORY = 1 << 8,
};

/* Host offsets of tables, hashed.  Some may have gone since: what is found is
 * looked up once more in the tables themselves. */
struct overlap {
    unsigned checked;           /* classes, OVERLAP_... */
    uint64_t *slots;            /* 0: empty; a power of two of them */
    size_t capacity, used;
    uint64_t *inactive_l1;      /* pairs: offset, entries */
    size_t nb_inactive_l1;
};

/* Collects the tables: those of the level, and of the classes @on but not
 * @off.  A bulk change does it again. */
int overlap_load(struct qcow2 *q, enum lam_overlap_check level, unsigned on,
                 unsigned off, struct lam_error *err);
void overlap_reload(struct qcow2 *q);
void overlap_deinit(struct overlap *o);

/* A new L2 table or refcount block. */
void overlap_add(struct qcow2 *q, uint64_t host);

/*
 * Before [host, host + length), whole clusters, are written to for the first
 * time as something of class @own (0: guest data, or a new table).  A hit
 * marks the image corrupt, disables it and answers -EIO.
 */
int overlap_check(struct qcow2 *q, unsigned own, uint64_t host, uint64_t length,
                  struct lam_error *err);

#endif
