/* SPDX-License-Identifier: MIT */
/*
 * check-internal.h - what the phases of a check share.
 *
 *     check.c         order of the phases, comparison, COPIED
 *     check-count.c   who references what: header, L1 and L2 tables, refcount
 *                     structures, bitmaps
 *     check-l2.c      one L2 table: its findings and its references
 *
 * The phases only read and take notes, so that a repair can follow them.
 */
#ifndef LAM_QCOW2_CHECK_INTERNAL_H
#define LAM_QCOW2_CHECK_INTERNAL_H

#include "format/qcow2/check.h"
#include "format/qcow2/entry.h"
#include "format/qcow2/refmap.h"
#include "format/qcow2/snapshot.h"

/* An L2 table, and how many L1 entries name it.  A table is walked once,
 * whatever the number of snapshots that share it. */
struct check_l2 {
    uint64_t offset;
    uint64_t references;        /* from all L1 tables */
    uint64_t active;            /* from the active one */
};

enum { CHECK_BLOCK_SLOTS = 64 };

struct check {
    struct lam_io *io;
    const struct qcow2_header *h;
    struct qcow2_geometry g;
    bool data_file;
    uint64_t file_length;
    lam_finding_fn *finding;
    void *opaque;
    struct lam_check_result *out;

    struct refmap refs;         /* what we counted */
    uint64_t *reft;             /* refcount table, native; offsets unchecked */
    uint64_t reft_entries;
    /* Refcount blocks last read, direct-mapped by their index. */
    struct {
        uint8_t *bytes;
        uint64_t index;
    } slot[CHECK_BLOCK_SLOTS];
    bool rebuild;               /* refcount structures cannot be trusted */

    struct qcow2_snapshots snapshots;
    struct check_l2 *l2;        /* sorted, once collected */
    size_t nb_l2, l2_capacity, l2_sorted;
    uint8_t *cluster;           /* one table of one cluster */
};

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

/* All references of the image. */
int check_count(struct check *c, struct lam_error *err);

/* Findings and references of the L2 table in c->cluster. */
int check_l2_table(struct check *c, const struct check_l2 *l2,
                   struct lam_error *err);

/* The refcount of @cluster on disk; false if its block cannot be had. */
bool check_refcount(struct check *c, uint64_t cluster, uint64_t *refcount);

#endif
