/* SPDX-License-Identifier: MIT */
/*
 * bulk.h - a change of many references that one write of the header makes.
 *
 * Everything that changes is written beside what is in force: L2 tables and L1
 * (bulk-tables.c), the snapshot table, refcounts (shadow.c).  A barrier; then
 * bytes 24 to 71 of the header, which lie in one sector, name all of the new at
 * once; a barrier again.  Killed at any point the image is what it was or what
 * it was to become, to the last counter: nothing even leaks.
 *
 * Between bulk_begin() and bulk_end() no mapping changes: writers wait, reads
 * go on.  The caller sees to it that no write in place is under way (the image
 * layer's whole_units) and that there is only one bulk change at a time.
 */
#ifndef LAM_QCOW2_BULK_H
#define LAM_QCOW2_BULK_H

#include "format/qcow2/shadow.h"

struct bulk {
    struct qcow2 *q;
    struct claim claim;
    struct shadow refs;
    uint64_t file_length;       /* at the beginning */
    bool switched;              /* the header may name the new state */

    /* The state to be; bulk_begin() makes it what is. */
    uint64_t size, l1_offset, snapshots_offset;
    uint64_t *l1;               /* native; NULL: the active one stays */
    size_t l1_size;             /* entries */
    uint32_t nb_snapshots;

    uint64_t *dropped_l1;       /* of a snapshot that goes; owned */
    size_t dropped_l1_size;
};

/* bulk_end() is due also after a failure. */
int bulk_begin(struct bulk *b, struct qcow2 *q, struct lam_error *err);

/* Do it.  After a failure either nothing has changed, or the image is FAILED,
 * since nobody knows what the disk has. */
int bulk_commit(struct bulk *b, struct lam_error *err);

/* What was written is on disk, or the image is FAILED. */
int bulk_barrier(struct bulk *b, struct lam_error *err);

/* Let the others go on. */
void bulk_end(struct bulk *b);

/* --------------------------------------------------------- bulk-tables.c */

/* How much of a table of @length bytes is written to the @room it has: what is
 * behind it in its last cluster takes no space on the host. */
static inline uint64_t bulk_table_bytes(uint64_t length, uint64_t room)
{
    return min_u64(align_up(length, 4 * LAM_KIB), room);
}

/* L1 table as stored, native. */
int bulk_load_l1(struct bulk *b, uint64_t offset, size_t entries,
                 uint64_t **out, struct lam_error *err);

/* Writes a table to a new place, *@host; 0 entries have none. */
int bulk_write_l1(struct bulk *b, const uint64_t *l1, size_t entries,
                  uint64_t *host, struct lam_error *err);

/* The same, and that is to be the active one.  Takes @l1 over. */
int bulk_set_l1(struct bulk *b, uint64_t *l1, size_t entries,
                struct lam_error *err);

/* Host offset of the L2 table that L1 entry @i names; 0: none. */
int bulk_table_of(const struct bulk *b, const uint64_t *l1, size_t i,
                  uint64_t *table, struct lam_error *err);

int bulk_read_table(struct bulk *b, uint64_t table, uint8_t *buf,
                    struct lam_error *err);

/* L2 tables on their way to a run of clusters reserved for them. */
struct gather {
    struct bulk *b;
    uint8_t *buf;               /* freed by whoever called gather_init() */
    uint64_t capacity;          /* tables */
    uint64_t host, got, used;   /* the run; tables in the buffer */
};

int gather_init(struct gather *t, struct bulk *b, struct lam_error *err);

/* Where the next table is to be made. */
uint8_t *gather_next(struct gather *t);

/* It is there; *@host is its place in the file. */
int gather_add(struct gather *t, uint64_t *host, struct lam_error *err);

/* Writes those that wait, and gives back the rest of the run. */
int gather_flush(struct gather *t, struct lam_error *err);

/* All that is reachable from @l1, stored at @offset, loses a reference. */
int bulk_drop_l1(struct bulk *b, const uint64_t *l1, size_t entries,
                 uint64_t offset, struct lam_error *err);

/*
 * The active L1 is to be a copy of @l1: host clusters get one more reference,
 * so no entry has COPIED.  Where one had, the L2 table is copied, too; the
 * others, to which nobody wrote since the last snapshot, are shared.  @l1 and
 * its tables stay as they are, for a snapshot.
 */
int bulk_copy_l1(struct bulk *b, const uint64_t *l1, size_t entries,
                 struct lam_error *err);

/* References to what the active tables have may have gone: where COPIED is
 * to be set again, tables are copied, or those of the dropped L1, whose
 * references have been dropped before, are taken back where they are equal. */
int bulk_renew_copied(struct bulk *b, struct lam_error *err);

#endif
