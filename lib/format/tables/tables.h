/* SPDX-License-Identifier: MIT */
/*
 * tables.h - disks whose clusters are looked up in a table, or in tables that a
 * table lists: what VDI, Parallels, qcow and QED have in common.
 *
 * Entries are kept in memory by pages, a part of the table or of a second-level
 * table each; changed ones go to disk at flush, at close and when they have to
 * make room, in this order:
 *
 * 1. Data are on disk before an entry that shows them.
 * 2. A new second-level table is on disk before the entry that names it.
 *
 * So a crash leaves space that nobody uses, and never an entry that points at
 * what was not written.  New clusters are taken behind all others.
 *
 * Locks, in order: flush_lock; lock (the pages, l1); alloc_lock.  Claims are
 * taken with lock held shared.  Data move under none of them.
 */
#ifndef LAM_FORMAT_TABLES_H
#define LAM_FORMAT_TABLES_H

#include "format/format.h"
#include "format/inflight.h"

enum entry_kind { ENTRY_ABSENT, ENTRY_ZERO, ENTRY_DATA, ENTRY_COMPRESSED };

struct entry {
    enum entry_kind kind;
    uint64_t host;              /* of DATA and COMPRESSED */
    uint32_t host_length;       /* of COMPRESSED */
};

struct tables;

/* What a format says about its tables. */
struct tables_layout {
    const char *name;
    unsigned entry_bytes;       /* 4 or 8, also those of the first level */
    bool big_endian;
    bool absent_is_zero;        /* the format has no backing files */
    bool has_zero;              /* there is an entry that says zero */
    bool holes_fragment;        /* check: a gap between clusters counts, and
                                   entries that are wrong count as stored */
    bool whole_clusters;        /* check: a part at the end is none */
    bool ignores_leaks;         /* check: space that nobody uses is no matter */
    bool leaks_at_end;          /* check: only behind the last cluster it is */
    bool strict_places;         /* clusters begin where one may, or are wrong */
    bool parts_clusters;        /* repair: who shares one gets a copy */
    uint64_t absent, zero;      /* those entries */
    struct entry (*decode)(const struct tables *t, uint64_t raw);
    /* Of a cluster at @host, where one may begin. */
    uint64_t (*encode)(const struct tables *t, uint64_t host);
    /* Durably, before the first change; or NULL. */
    int (*begin_changes)(struct tables *t, struct lam_error *err);
    /* What has to be on disk before the new entries are; NULL: nothing. */
    int (*store_header)(struct tables *t, struct lam_error *err);
};

struct page {
    uint64_t number;
    bool dirty;
    uint64_t used;              /* when, in lookups; for eviction */
    uint8_t *bytes;             /* as on disk */
};

struct tables {
    /* The format fills these in, and calls tables_init(). */
    const struct tables_layout *layout;
    struct lam_io *io;
    _Atomic uint64_t size;      /* of the disk, bytes */
    uint64_t cluster;           /* bytes; a multiple of 512 */
    uint64_t data_start;        /* host; in front of it no data can lie */
    uint64_t align_base;        /* clusters begin at multiples from here */
    uint64_t host_limit;        /* entries reach no further; 0: no limit */
    bool is_two_level;
    uint64_t table_offset;      /* host; of the only or first-level table */
    uint64_t table_entries;     /* two levels: of a second-level table */
    bool has_backing;
    bool writable;
    bool for_check;             /* opened although L1 entries are wrong */
    bool ahead, ahead_sparse;   /* as in struct format_open; the format cuts */
    uint64_t ahead_bytes;       /* the file when it is done, tables_cut() */
    struct crypt *crypt;        /* or NULL; owned by the format */

    /* The rest is tables_init()'s. */
    uint64_t page_bytes, page_entries, nb_pages, pages_per_table;
    struct page **pages;        /* NULL: not in memory */
    uint64_t nb_loaded, max_loaded;
    uint64_t evictions;         /* pages that have left */
    bool held;                  /* a flush is writing: none may leave */
    _Atomic uint64_t clock;
    uint64_t *l1;               /* host offsets of second-level tables, 0: none;
                                   two levels only */
    uint64_t nb_l1;
    bool *l1_dirty;
    uint64_t *l1_wrong;         /* what such an entry is; l1 has 0 for it */
    bool changed;               /* begin_changes() has been called */
    bool header_dirty;
    pthread_rwlock_t lock;
    pthread_mutex_t flush_lock, alloc_lock;
    uint64_t next_free;         /* host; what is behind is nobody's */
    uint64_t touched_end;       /* what is behind has never been written to */
    struct inflight claims;
};

/* Checks the layout against the file's length and reads the first level.  The
 * caller frees with tables_deinit() also after a failure. */
int tables_init(struct tables *t, struct lam_error *err);
void tables_deinit(struct tables *t);

/* Writes what has changed, and frees; the image is gone whatever the result. */
int tables_close(struct tables *t, struct lam_error *err);

/* Gives back what was taken ahead behind the last cluster. */
int tables_cut(struct tables *t, struct lam_error *err);

/* A larger disk from now on; two levels only, and the caller sees to the
 * header.  No request may be under way behind the old end. */
int tables_grow(struct tables *t, uint64_t size, struct lam_error *err);

/* Claims the cluster at @offset whatever is stored for it. */
void tables_claim(struct tables *t, uint64_t offset, struct claim *claim);

/* Clusters of the disk. */
uint64_t tables_clusters(const struct tables *t);

/* The raw entry of cluster @index; @lock is held.  -EAGAIN: its page is not in
 * memory, load it without the lock and look again. */
int tables_lookup(struct tables *t, uint64_t index, uint64_t *raw);
int tables_load(struct tables *t, uint64_t index, struct lam_error *err);
/* What it says, judged: -EUCLEAN. */
int tables_decode(struct tables *t, uint64_t index, uint64_t raw,
                  struct entry *entry, struct lam_error *err);
/* Set the entries of @count clusters. */
int tables_set(struct tables *t, uint64_t index, uint64_t count, uint64_t raw,
               uint64_t step, struct lam_error *err);

uint64_t tables_raw(const struct tables *t, const uint8_t *bytes);
void tables_put_raw(const struct tables *t, uint8_t *bytes, uint64_t raw);

/* @bytes of host space behind all else, at a place where a cluster may begin if
 * @aligned.  *@fresh: it reads as zero.  -ENOSPC. */
int tables_allocate(struct tables *t, uint64_t bytes, bool aligned,
                    uint64_t *host, bool *fresh, struct lam_error *err);

/* The ops of format.h, for a format whose state begins with a struct tables. */
uint64_t tables_size(void *format);
uint64_t tables_cluster_size(void *format);
uint64_t tables_zero_unit(void *format);
int tables_map(void *format, uint64_t offset, uint64_t length,
               struct lam_extents *out, struct lam_error *err);
int tables_write_begin(void *format, uint64_t offset, uint64_t length,
                       struct format_allocation *a, struct lam_error *err);
int tables_write_finish(void *format, struct format_allocation *a,
                        struct lam_error *err);
void tables_write_cancel(void *format, struct format_allocation *a);
int tables_zero(void *format, uint64_t offset, uint64_t length, unsigned flags,
                struct lam_error *err);
int tables_flush(void *format, struct lam_error *err);
int tables_set_writable(void *format, bool writable, struct lam_error *err);
struct crypt *tables_crypt(void *format);

/* Those of them that all such formats have, for the table of ops. */
#define TABLES_OPS                                                          \
    .size = tables_size,                                                    \
    .cluster_size = tables_cluster_size,                                    \
    .zero_unit = tables_zero_unit,                                          \
    .map = tables_map,                                                      \
    .write_begin = tables_write_begin,                                      \
    .write_finish = tables_write_finish,                                    \
    .write_cancel = tables_write_cancel,                                    \
    .zero = tables_zero,                                                    \
    .flush = tables_flush

/* Before the first change of anything. */
int tables_begin_changes(struct tables *t, struct lam_error *err);

/* What check() finds in the entries: overlaps, places outside the file, space
 * that nobody uses.  Fills in @out. */
int tables_check(struct tables *t, lam_finding_fn *finding, void *opaque,
                 struct lam_check_result *out, struct lam_error *err);

/* The same, and what points outside the file points nowhere afterwards; two
 * users of a cluster get one each where the layout says so.  In memory: the
 * caller flushes. */
int tables_repair(struct tables *t, lam_finding_fn *finding, void *opaque,
                  struct lam_check_result *out, struct lam_error *err);

#endif
