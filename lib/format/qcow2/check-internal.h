/* SPDX-License-Identifier: MIT */
/*
 * check-internal.h - what the phases of a check share.
 *
 *     check.c         order of the phases, comparison, COPIED
 *     check-count.c   who references what: header, L2 tables, refcount
 *                     structures, bitmaps
 *     check-l1.c      L1 tables of the disk and of snapshots
 *     check-l2.c      one L2 table: its findings and its references
 *     check-copied.c  COPIED bits of the active tables; overlapping tables
 *
 * The phases of a plain check only read.  A repair (@fix) runs the same phases
 * and puts right what each finds:
 *
 *     repair.c            order of the phases, counters, header bits
 *     repair-rebuild.c    new refcount blocks and a new table
 *     repair-entries.c    entries with unaligned offsets
 *     repair-reserved.c   reserved bits of entries
 *     repair-snapshots.c  entries of the snapshot table
 */
#ifndef LAM_QCOW2_CHECK_INTERNAL_H
#define LAM_QCOW2_CHECK_INTERNAL_H

#include "format/qcow2/check.h"
#include "format/qcow2/entry.h"
#include "format/qcow2/qcow2.h"
#include "format/qcow2/refmap.h"
#include "format/qcow2/snapshot.h"

/* An L2 table, and how many L1 entries name it.  A table is walked once,
 * whatever the number of snapshots that share it. */
struct check_l2 {
    uint64_t offset;
    uint64_t references;        /* from all L1 tables */
    uint64_t active;            /* from the active one */
    uint64_t errors;            /* corruptions that were found in it */
};

enum { CHECK_BLOCK_SLOTS = 64 };

enum { CHECK_MOST_TOLD = 100000 };

struct check {
    struct lam_io *io;
    const struct qcow2_header *h;
    struct qcow2_geometry g;
    bool data_file;
    uint64_t file_length;
    uint64_t data_end;          /* of the data file; UINT64_MAX: not known */
    lam_finding_fn *finding;
    void *opaque;
    uint64_t told;              /* findings, at most CHECK_MOST_TOLD + 1 */
    struct lam_check_result *out;

    struct refmap refs;         /* what we counted */
    struct refmap beyond;       /* ... of guest data behind the end of the file,
                                   if this is a repair; no leaves: nothing */
    uint64_t *reft;             /* refcount table, native; offsets unchecked */
    uint64_t reft_entries;
    /* Refcount blocks last read, direct-mapped by their index. */
    struct {
        uint8_t *bytes;
        uint64_t index;
        bool dirty;             /* repaired, not yet written */
    } slot[CHECK_BLOCK_SLOTS];
    bool rebuild;               /* refcount structures cannot be trusted */
    /* A table that may refer to anything could not be read: what seems to be
     * a leak need not be one. */
    bool incomplete;
    uint64_t refcount_errors;   /* corruptions that a rebuild mends */

    bool copied_wrong;          /* some COPIED bit is: check_copied() says
                                   which one, after the comparison */
    unsigned fix;               /* LAM_REPAIR_..., 0: report only */
    uint64_t entry_fixes;       /* entries that repair-entries.c is to mend */
    bool reserved_bits;         /* some entry has such bits set */
    int write_error;            /* the first failure of a write, and why */
    struct lam_error write_failure;

    struct qcow2_snapshots snapshots;
    struct lam_error why_lost;  /* ... the header counts more than these */
    struct check_l2 *l2;        /* sorted, once collected */
    size_t nb_l2, l2_capacity, l2_sorted;
    uint8_t *cluster;           /* one table of one cluster */
};

/* @fix: LAM_REPAIR_..., 0 to report only. */
int check_init(struct check *c, struct lam_io *io,
               const struct qcow2_header *h, unsigned fix,
               lam_finding_fn *finding, void *opaque,
               struct lam_check_result *out, struct lam_error *err);
void check_deinit(struct check *c);

/* Looks for references behind the end of the data file, too; may be NULL. */
void check_set_data(struct check *c, struct lam_io *data);

/* One finding: counted @times, told once. */
void check_found(struct check *c, enum lam_finding_kind kind, uint64_t times,
                 const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* Reads what the file has of [offset, offset + length); the rest is zero. */
int check_read(struct check *c, void *buf, uint64_t length, uint64_t offset,
               struct lam_error *err);

/* @weight references to each cluster that [offset, offset + length) touches;
 * a finding instead if it passes the end of the file by a cluster or more. */
int check_reference(struct check *c, uint64_t offset, uint64_t length,
                    uint64_t weight, struct lam_error *err);

/* The two halves of it: false after that finding; and the counting, of what is
 * known to be in the file. */
bool check_in_file(struct check *c, uint64_t offset, uint64_t length,
                   uint64_t weight);
int check_add_references(struct check *c, uint64_t offset, uint64_t length,
                         uint64_t weight, struct lam_error *err);

/* References from a table that the file has not got are not counted. */
void check_note_presence(struct check *c, uint64_t offset, uint64_t length);

/* References to the L1 tables, and the list of L2 tables that they name. */
int check_active_l1(struct check *c, struct lam_error *err);
int check_snapshot_l1s(struct check *c, struct lam_error *err);

/* Sort that list and make one item of those that name the same table. */
void check_collect_l2(struct check *c);

/* All references of the image. */
int check_count(struct check *c, struct lam_error *err);

/* Findings and references of the L2 table in c->cluster. */
int check_l2_table(struct check *c, const struct check_l2 *l2,
                   struct lam_error *err);

/* One finding that the repair under way mends: "Repairing ..." and counted as
 * mended if @fix says so, else as check_found() with "ERROR ...". */
void check_mended(struct check *c, bool fix, uint64_t times, const char *fmt,
                  ...) __attribute__((format(printf, 4, 5)));

/* Findings of the comparison; with @fix the counters of what it covers
 * (LAM_REPAIR_...) are put right in the cached blocks. */
void check_compare(struct check *c, unsigned fix);

/* Compares the bit of an entry of an active table with the refcount on disk. */
void check_look_at_copied(struct check *c, uint64_t word, bool in_data_file);

/* COPIED bits of the active tables, and what else needs the guest's view. */
int check_copied(struct check *c, struct lam_error *err);

/* Tables on which something else lies, where the refcounts agree to that. */
void check_overlaps(struct check *c);

/* All of a check, after check_init(). */
int check_all(struct check *c, struct lam_error *err);

/* The refcount of @cluster on disk; false if its block cannot be had. */
bool check_refcount(struct check *c, uint64_t cluster, uint64_t *refcount);

/* In the cached block, to be written by check_write_blocks().  The block is
 * there and the value fits. */
void check_set_refcount(struct check *c, uint64_t cluster, uint64_t refcount);
int check_write_blocks(struct check *c, struct lam_error *err);

/* Forgets cached blocks; nothing is dirty. */
void check_forget_blocks(struct check *c);

/* Writes of a repair.  The first failure sticks. */
int check_write(struct check *c, const void *buf, uint64_t length,
                uint64_t offset, struct lam_error *err);

/* ---- repair-entries.c ---- */

/* The L2 table at @table; NULL if no L1 entry names it. */
const struct check_l2 *check_find_l2(const struct check *c, uint64_t table);

/* True if what is at @table is an L2 table and nothing else: it may be
 * written to.  All is counted. */
bool check_owns_l2(const struct check *c, uint64_t table);

/* Unaligned offsets of clusters that show no data: the entries lose them. */
int repair_entries(struct check *c, struct lam_error *err);

/* ---- check-copied.c ---- */

/* Nothing but one table lies on the clusters of [offset, offset + length), and
 * they are there. */
bool check_owns(const struct check *c, uint64_t offset, uint64_t length);

/* ---- repair-reserved.c ---- */

/* All else is repaired, as it can be.  @done is the check that did it. */
int repair_reserved_bits(struct check *done, struct qcow2 *q,
                         struct lam_error *err);

/* ---- repair-snapshots.c ---- */

/* Entries of the snapshot table with too little extra data or too much. */
size_t check_odd_snapshots(const struct check *c);

/* The header counts those snapshots alone whose entries could be read. */
int repair_snapshot_count(struct check *c, struct qcow2 *q,
                          struct lam_error *err);

/* Gives them what they lack, if nothing else is wrong any more. */
int repair_snapshots(struct check *c, struct qcow2 *q, struct lam_error *err);

/* ---- repair-rebuild.c ---- */

/* New refcount blocks and a new table from the counted references, in force
 * when it returns 0; and the old ones are free. */
int repair_rebuild(struct check *c, struct qcow2 *q, struct lam_error *err);

#endif
