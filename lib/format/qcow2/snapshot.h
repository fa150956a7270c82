/* SPDX-License-Identifier: MIT */
/*
 * snapshot.h - the table of internal snapshots (format document 8).
 */
#ifndef LAM_QCOW2_SNAPSHOT_H
#define LAM_QCOW2_SNAPSHOT_H

#include "format/qcow2/header.h"
#include "format/format.h"

/* Offsets in an entry; every field big-endian. */
enum {
    SN_L1_OFFSET = 0,
    SN_L1_SIZE = 8,
    SN_ID_LENGTH = 12,
    SN_NAME_LENGTH = 14,
    SN_DATE_SEC = 16,
    SN_DATE_NSEC = 20,
    SN_VM_CLOCK = 24,
    SN_VM_STATE_32 = 32,
    SN_EXTRA_LENGTH = 36,
    SN_HEAD = 40,
    SN_VM_STATE_64 = 40,            /* the extra data */
    SN_DISK_SIZE = 48,
    SN_ICOUNT = 56,
    SN_EXTRA = 24,                  /* bytes of it that we write */
};

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
    uint64_t stored_length;     /* bytes of it, without padding */
};

struct qcow2_snapshots {
    struct qcow2_snapshot *items;
    size_t count;
    uint64_t table_length;      /* bytes of the table */
    bool passes_end;            /* ... of which the file has not got all */
};

/* Load and validate all entries.  @out is to be freed also after a failure. */
int snapshots_load(struct lam_io *io, const struct qcow2_header *h,
                   struct qcow2_snapshots *out, struct lam_error *err);
/* For a repair: the entries before the first that cannot be read, which may be
 * fewer than the header says (why, is in *@err); extra data of any length. */
int snapshots_salvage(struct lam_io *io, const struct qcow2_header *h,
                      struct qcow2_snapshots *out, struct lam_error *err);
void snapshots_deinit(struct qcow2_snapshots *snapshots);

/* By id first, then by name; NULL if there is none. */
const struct qcow2_snapshot *snapshots_find(const struct qcow2_snapshots *s,
                                            const char *id_or_name);

/*
 * The table without entry @without (or SIZE_MAX) and with @with (or NULL) at
 * its end, as it is to be stored.  Entries that stay keep all their bytes,
 * those of extra data that we do not know included, up to 1,024 of them; what
 * has less than 24 bytes of it gets them.  *@out is NULL if no entry is left.
 */
int snapshots_encode(struct lam_io *io, const struct qcow2_header *h,
                     const struct qcow2_snapshots *list, size_t without,
                     const struct qcow2_snapshot *with, uint8_t **out,
                     size_t *length, struct lam_error *err);

/* The highest numeric id and one more, in decimal. */
int snapshots_next_id(const struct qcow2_snapshots *list, char id[24],
                      struct lam_error *err);

/* Copies for lam_image_info(). */
int snapshots_info(const struct qcow2_snapshots *s,
                   struct lam_image_info *info, struct lam_error *err);

/* snapshot-change.c */

struct bulk;
struct qcow2;

/* The L1 table of @s may be read as a whole. */
int snapshot_check_l1(const struct qcow2 *q, const struct qcow2_snapshot *s,
                      struct lam_error *err);

/* The same snapshots in a new table, each with 24 bytes of extra data at least,
 * and with the L1 tables at @l1_offsets, unless that is NULL. */
int snapshots_renew(struct bulk *b, const struct qcow2_snapshots *list,
                    const uint64_t *l1_offsets, struct lam_error *err);

extern const struct format_snapshot_ops qcow2_snapshot_ops;

#endif
