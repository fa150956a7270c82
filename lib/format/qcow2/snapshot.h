/* SPDX-License-Identifier: MIT */
/*
 * snapshot.h - the table of internal snapshots (format document 8).
 */
#ifndef LAM_QCOW2_SNAPSHOT_H
#define LAM_QCOW2_SNAPSHOT_H

#include "format/qcow2/header.h"
#include "io/io.h"

struct qcow2_snapshot {
    uint64_t l1_offset;
    uint32_t l1_size;           /* entries */
    uint32_t date_sec, date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t vm_state_size;
    uint64_t disk_size;         /* header size if not recorded */
    uint64_t icount;            /* UINT64_MAX: not recorded */
    uint32_t extra_length;      /* as stored */
    char *id, *name;            /* NUL-terminated copies */
    uint64_t table_offset;      /* of this entry within the table */
};

struct qcow2_snapshots {
    struct qcow2_snapshot *items;
    size_t count;
    uint64_t table_length;      /* bytes of the table */
};

/* Load and validate all entries.  @out is to be freed also after a failure. */
int snapshots_load(struct lam_io *io, const struct qcow2_header *h,
                   struct qcow2_snapshots *out, struct lam_error *err);
void snapshots_deinit(struct qcow2_snapshots *snapshots);

/* By id first, then by name; NULL if there is none. */
const struct qcow2_snapshot *snapshots_find(const struct qcow2_snapshots *s,
                                            const char *id_or_name);

/* Copies for lam_image_info(). */
int snapshots_info(const struct qcow2_snapshots *s,
                   struct lam_image_info *info, struct lam_error *err);

#endif
