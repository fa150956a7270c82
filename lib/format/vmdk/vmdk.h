/* SPDX-License-Identifier: MIT */
/*
 * vmdk.h - an open VMDK: extents, and the grain tables of the sparse ones.
 *
 * A disk is a row of extents.  A flat one is a range of a file, a zero one is
 * nothing, a sparse one has a grain directory (GD), whose entries name grain
 * tables (GT), whose entries name grains; a second directory with tables of
 * its own (RGD) says the same.  A stream-optimized extent is a sparse one whose
 * grains are compressed.
 *
 * Order on disk:
 *
 * 1. A grain's data are on disk before the entry that shows them: entries
 *    change in memory, and go to disk with a flush, behind a barrier.
 * 2. A grain table is on disk before the directory's entry that names it.
 * 3. Of two tables the redundant one is written first.
 * 4. The content ID has changed before anything else does, so that overlays
 *    notice.
 *
 * So a crash leaves grains that nothing refers to, and no more.
 *
 * Locks, outermost first: flush_lock; the claims (held from begin to finish);
 * lock, for tables and directories in memory; alloc_lock, for where a file
 * ends.
 */
#ifndef LAM_FORMAT_VMDK_VMDK_H
#define LAM_FORMAT_VMDK_VMDK_H

#include <pthread.h>

#include "base/arith.h"
#include "format/format.h"
#include "format/inflight.h"
#include "format/vmdk/descriptor.h"
#include "format/vmdk/header.h"

/* A grain table in memory. */
struct vmdk_table {
    uint32_t *entries;          /* h.gtes; NULL: not in memory */
    unsigned users;             /* stays in memory */
    bool dirty;
    atomic_bool recent;         /* used since the clock came by */
};

struct vmdk_sparse {
    struct vmdk_header h;
    uint64_t grain_size;        /* bytes */
    bool compressed;
    bool zeroed;                /* an entry of 1 is a zero grain */
    bool footer;                /* the directory is at the end */
    uint64_t nb_tables;
    uint32_t *gd, *rgd;         /* sectors; @rgd NULL: there is none */
    struct vmdk_table *tables;  /* one an entry of the directory */
    uint64_t nb_loaded, hand;   /* the clock's */
    bool gd_dirty;
    uint64_t overlap;           /* where tables lie on each other; 0: nowhere */
    struct range *metadata;     /* bytes of the file, ascending, apart */
    size_t nb_metadata;
    uint64_t end;               /* where the next grain goes; alloc_lock */
};

struct vmdk_extent {
    enum vmdk_line_type type;
    enum vmdk_access access;
    struct range guest;         /* bytes of the disk */
    const char *name;           /* the descriptor's; NULL: this file, or ZERO */
    struct lam_io *io;          /* NULL: ZERO */
    bool owns_io;               /* the first one that names the file */
    bool odd;                   /* every other one; map.c */
    uint64_t file_offset;       /* flat: bytes */
    struct vmdk_sparse *sparse; /* or NULL */
};

struct vmdk {
    struct lam_io *io;          /* the file with the descriptor */
    bool writable, metadata_only;
    struct vmdk_descriptor d;
    uint64_t descriptor_offset; /* bytes */
    struct vmdk_extent *extents;
    size_t nb_extents;
    uint64_t size;              /* of the disk, bytes */
    uint64_t grain_size;        /* the largest one's; 0: no sparse extent */
    bool compressed;            /* all extents are */

    pthread_mutex_t flush_lock;
    struct inflight inflight;
    pthread_rwlock_t lock;
    pthread_mutex_t alloc_lock;
    pthread_mutex_t cid_lock;
    _Atomic bool cid_changed;
};

/* The extent that holds the guest byte at @offset. */
struct vmdk_extent *vmdk_extent_at(const struct vmdk *v, uint64_t offset);

/* Reads a sparse extent from @e->io.  Without @tables only its header. */
int vmdk_sparse_open(struct vmdk_extent *e, bool tables,
                     struct lam_error *err);
void vmdk_sparse_free(struct vmdk_sparse *s);

/* Bytes of guest data in the grain at @offset of @e: the last is cut. */
uint64_t vmdk_grain_length(const struct vmdk_extent *e, uint64_t offset);

/* True if [offset, offset + length) of the file touches a table or header. */
bool vmdk_hits_metadata(const struct vmdk_sparse *s, uint64_t offset,
                        uint64_t length);

/* --------------------------------------------------------------- table.c */

/*
 * The table of the grain at @offset (bytes, within the extent); *@out is NULL
 * if there is none.  The caller holds the lock for writing; it stays valid
 * while the lock is held, or while it has users.
 */
int vmdk_table_load(struct vmdk_extent *e, uint64_t offset,
                    struct vmdk_table **out, struct lam_error *err);

/* The same without I/O, under the lock in any mode; false: it has to be
 * loaded. */
bool vmdk_table_cached(struct vmdk_sparse *s, uint64_t offset,
                       struct vmdk_table **out);

/* The same, and makes one if there is none. */
int vmdk_table_make(struct vmdk *v, struct vmdk_extent *e, uint64_t offset,
                    struct vmdk_table **out, struct lam_error *err);

static inline uint64_t vmdk_table_index(const struct vmdk_sparse *s,
                                        uint64_t offset)
{
    return offset / (s->grain_size * s->h.gtes);
}

static inline size_t vmdk_entry_index(const struct vmdk_sparse *s,
                                      uint64_t offset)
{
    return offset / s->grain_size % s->h.gtes;
}

/* All tables of @e that changed, and then its directories. */
int vmdk_write_tables(struct vmdk *v, struct vmdk_extent *e,
                      struct lam_error *err);

/* Takes @length bytes at the end of the file, whole sectors. */
int vmdk_reserve(struct vmdk *v, struct vmdk_extent *e, uint64_t length,
                 uint64_t *host, struct lam_error *err);

/* Is the entry of the grain at @offset possible?  -EUCLEAN. */
int vmdk_check_entry(const struct vmdk_extent *e, uint64_t offset,
                     uint32_t entry, struct lam_error *err);

/* ------------------------------------------------------ what format.h says */

int vmdk_map(void *format, uint64_t offset, uint64_t length,
             struct lam_extents *out, struct lam_error *err);
int vmdk_read_compressed(void *format, const struct lam_extent *extent,
                         void *cluster, struct lam_error *err);
int vmdk_read_compressed_part(void *format, const struct lam_extent *extent,
                              void *buf, struct lam_error *err);
int vmdk_write_begin(void *format, uint64_t offset, uint64_t length,
                     struct format_allocation *a, struct lam_error *err);
int vmdk_write_finish(void *format, struct format_allocation *a,
                      struct lam_error *err);
void vmdk_write_cancel(void *format, struct format_allocation *a);
int vmdk_write_compressed(void *format, uint64_t offset, const uint8_t *data,
                          uint64_t length, struct lam_error *err);
uint64_t vmdk_zero_unit(void *format);
int vmdk_zero(void *format, uint64_t offset, uint64_t length, unsigned flags,
              struct lam_error *err);
int vmdk_flush(void *format, struct lam_error *err);
int vmdk_info(void *format, struct lam_image_info *info,
              struct lam_error *err);
int vmdk_check(void *format, lam_finding_fn *finding, void *opaque,
               struct lam_check_result *out, struct lam_error *err);

/* What a grain's entry says, and where a run of such begins. */
enum vmdk_grain_state { VMDK_GRAIN_ABSENT, VMDK_GRAIN_ZERO, VMDK_GRAIN_STORED };

enum vmdk_grain_state vmdk_grain_state(const struct vmdk_sparse *s,
                                       uint32_t entry);

/* -EROFS and the like unless data of @e may change; the content ID has changed
 * afterwards (invariant 4). */
int vmdk_begin_change(struct vmdk *v, const struct vmdk_extent *e,
                      struct lam_error *err);

/* ------------------------------------------------------------------ cid.c */

/* Invariant 4; only the first call does anything. */
int vmdk_change_cid(struct vmdk *v, struct lam_error *err);
int vmdk_adopt_backing(void *format, const struct format_ops *ops,
                       void *below, struct lam_error *err);

/* Has @v a parent, and may an image of @ops be that? */
bool vmdk_is_parent(const struct vmdk *v, const struct format_ops *ops);

/* ------------------------------------------------------------------ run.c */

/* Grains of one extent whose entries one thread is about to change. */
struct vmdk_run {
    struct claim claim;         /* bytes of the disk */
    struct vmdk_extent *e;
    struct vmdk_table *table;   /* in use until the run is dropped */
    uint64_t offset;            /* of the first grain, within the extent */
    uint64_t length;            /* up to the end of the last one, or of the
                                   extent */
    enum vmdk_grain_state state;
    uint64_t host;              /* of a run that is stored: contiguous */
};

/*
 * The run of grains in one state that begins with the one at @offset (within
 * @e) and reaches at most to @end; all in one table.  What is not stored is
 * claimed, and its table made, until vmdk_run_drop(); what is stored is not.
 */
int vmdk_run_begin(struct vmdk *v, struct vmdk_extent *e, uint64_t offset,
                   uint64_t end, struct vmdk_run *run, struct lam_error *err);

/* Its grains are one after the other from @host on; or all zero grains, with
 * VMDK_GTE_ZERO as @first and no @step. */
void vmdk_run_set(struct vmdk *v, struct vmdk_run *run, uint32_t first,
                  uint32_t step);
void vmdk_run_drop(struct vmdk *v, struct vmdk_run *run);

#endif
