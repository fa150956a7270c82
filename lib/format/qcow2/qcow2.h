/* SPDX-License-Identifier: MIT */
/*
 * qcow2.h - struct qcow2: one open image, and who may touch what.
 *
 * Invariants of the file (format document 7.3), kept by flush.c:
 *
 *  1. An on-disk entry points at a cluster only after its refcount is on disk.
 *  2. Data and COW regions are on disk before the L2 entry that shows them.
 *  3. A refcount drops only after the last entry that needs it is gone.
 *  4. A refcount block is on disk before the table entry that names it.
 *
 * So a crash leaks clusters and never corrupts.
 *
 * Locks, in the order in which they are taken:
 *
 *   write-back slot  (flush.c) one ordered write-back at a time; I/O
 *   alloc_lock       refcounts, their table and cache, host allocation, header
 *                    fields, creation of L2 tables; I/O is done under it
 *   lock             L1, the L2 cache and its slices' contents, pending
 *                    releases; no I/O under it
 *   inflight.lock, epoch.lock, codecs.lock, inflated.lock, bitmaps.lock,
 *   failure_lock: leaves
 */
#ifndef LAM_QCOW2_QCOW2_H
#define LAM_QCOW2_QCOW2_H

#include "base/cleanup.h"
#include "format/format.h"
#include "format/inflight.h"
#include "format/qcow2/bitmap-set.h"
#include "format/qcow2/cache.h"
#include "format/qcow2/clean.h"
#include "format/qcow2/entry.h"
#include "format/qcow2/header.h"
#include "format/qcow2/inflated.h"
#include "format/qcow2/l2.h"
#include "format/qcow2/overlap.h"

enum qcow2_state {
    QCOW2_READ_ONLY,
    QCOW2_WRITABLE,
    QCOW2_FAILED,       /* metadata could not be written: reads go on */
};

/* Host bytes that an entry used until now: each touched cluster loses one
 * reference (release.c). */
struct release {
    uint64_t offset, length;
    uint64_t guest;             /* if kept: whose they are */
    bool discard;               /* tell the host */
    bool table;                 /* an L2 table: may be in the cache */
    bool kept;                  /* they stay the guest's: only the host is
                                   told (trim.c) */
};

struct release_batch {
    struct release_batch *next;
    size_t count;
    struct release items[];
};

/* Requests under way, in two generations; see release.c. */
struct epoch {
    pthread_mutex_t lock;
    pthread_cond_t ended;       /* a generation has no requests left */
    unsigned current;           /* 0 or 1 */
    uint64_t active[2];
};

/* Refcounts and free host space; all under alloc_lock. */
struct allocator {
    uint64_t *table;            /* refcount table entries, native */
    size_t table_entries;
    uint64_t next_block;        /* index after the last block present */
    size_t dirty_from, dirty_to;/* table entries to write */
    struct cache cache;
    uint64_t hint;              /* no cluster below is free */
    uint64_t touched;           /* no cluster from here on has been given out
                                   since open */
    uint64_t byte_cursor;       /* where the next payload may go; 0: nowhere */
    uint64_t payload_end;       /* of the last payload in the file; 0: none of
                                   ours, or its cluster has gone */
    bool barrier_due;           /* table entries of blocks not yet synced */
};

struct flusher {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool busy;
    bool idle;                  /* ... with nothing to write, by who stopped
                                   write-backs while nobody changes a table */
    uint64_t started, done;     /* numbers of flushes */
    int result;                 /* of the last one done */
    struct lam_error *error;    /* of a failed one; or NULL: no memory for it */
};

struct codec_pool {
    pthread_mutex_t lock;
    struct codec **items;
    size_t count, capacity;
};

struct qcow2 {
    struct lam_io *io;          /* borrowed */
    struct lam_io *data_io;     /* external data file, or == io; borrowed */
    struct qcow2_header header;
    struct qcow2_geometry g;
    struct l2_context l2_context;
    bool metadata_only;
    bool data_file;             /* guest data lies in an external data file */
    atomic_bool has_backing;
    bool unmap;
    bool pass_request, pass_snapshot, pass_other;   /* see format.h */
    bool no_unref;
    bool lazy;                  /* refcounts may lag behind the dirty bit */
    _Atomic uint64_t size;      /* virtual */
    atomic_int state;           /* enum qcow2_state */
    atomic_bool changed;        /* the header admits that we write */
    atomic_bool wrote_payload;  /* compressed, since open */

    pthread_mutex_t alloc_lock;
    struct allocator alloc;
    struct overlap overlap;         /* under alloc_lock */
    struct release_batch *written;  /* drop on disk, but for a barrier */
    struct release_batch *durable;  /* drop on disk */
    struct release_batch *draining; /* old requests are ending */

    pthread_rwlock_t lock;
    uint64_t *l1;               /* native */
    size_t l1_size;             /* entries */
    size_t l1_dirty_from, l1_dirty_to;
    struct cache l2;
    atomic_uint dense_tables;   /* in which the host knew of no hole (scan.c) */
    struct release_batch *pending;  /* drop in memory only */
    atomic_size_t nb_pending;       /* ranges */

    struct inflight inflight;
    struct epoch epoch;
    struct flusher flusher;
    struct codec_pool codecs;
    struct inflated inflated;
    struct cleaner cleaner;
    struct bitmap_set bitmaps;
    char *next_backing, *next_format;   /* the disk names them (backing.c) */
    struct luks_volume *luks;   /* header and master key; under alloc_lock */
    struct crypt *crypt;        /* guest data pass through it; or NULL */
    pthread_mutex_t failure_lock;
    struct lam_error *failure;  /* why FAILED; set before the state; or NULL:
                                   no memory for it */
};

/* 2 or 3, which an amendment may be about to change.  No lock held. */
static inline unsigned qcow2_version(struct qcow2 *q)
{
    pthread_rwlock_rdlock(&q->lock);
    unsigned version = q->header.version;
    pthread_rwlock_unlock(&q->lock);
    return version;
}

/* The external data file; NULL if there is none, or it is not open. */
static inline struct lam_io *qcow2_open_data(const struct qcow2 *q)
{
    return q->data_file && q->data_io != q->io ? q->data_io : NULL;
}

/* ------------------------------------------------------------ update.c */

/* Why nothing can be written, or 0. */
int qcow2_check_writable(struct qcow2 *q, struct lam_error *err);

/* Before the first change: clears the autoclear bits of what we do not keep
 * up to date.  Cheap when it is done. */
int qcow2_before_change(struct qcow2 *q, struct lam_error *err);

/* The fields that may change while an image is open, as they are in a file. */
void qcow2_put_fields(const struct qcow2_header *h, uint8_t *buf);

/* Writes header bytes [from, to) from q->header.  Under alloc_lock. */
int qcow2_write_header(struct qcow2 *q, size_t from, size_t to,
                       struct lam_error *err);

/* The same where these bytes decide which of two states the image is in:
 * synced, and after a failure, when nobody knows which one the disk names, the
 * image is FAILED. */
int qcow2_switch_header(struct qcow2 *q, size_t from, size_t to,
                        struct lam_error *err);

/* The dirty bit, synced.  Under alloc_lock. */
int qcow2_set_dirty_bit(struct qcow2 *q, bool dirty, struct lam_error *err);

/* From now on writing is refused with @err's message. */
void qcow2_fail(struct qcow2 *q, const struct lam_error *err);

/* Keeps a copy in *@kept, NULL or what was kept before; not if there is no
 * memory. */
void qcow2_keep_error(struct lam_error **kept, const struct lam_error *err);
void qcow2_set_state(struct qcow2 *q, enum qcow2_state state);

/* --------------------------------------------------- header-rewrite.c */

/* The whole first cluster from q->header, synced, so that after a crash it is
 * what it was or what it becomes (the exceptions: header-rewrite.c).  -ENOSPC:
 * it does not fit, nothing has changed; once writing has begun a failure makes
 * the image FAILED.  Under alloc_lock. */
int qcow2_rewrite_header(struct qcow2 *q, struct lam_error *err);

/* The same with the names of another backing file, which q->header has not.
 * Requests go on: alloc_lock is not held, nor while the disk syncs. */
int qcow2_rewrite_names(struct qcow2 *q, char *name, char *format,
                        struct lam_error *err);

/* ------------------------------------------------------- bitmap-set.c */

/* Guest bytes that are about to change, after qcow2_before_change(). */
static inline int bitmaps_mark(struct qcow2 *q, uint64_t offset,
                               uint64_t length, struct lam_error *err)
{
    if (!atomic_load_explicit(&q->bitmaps.recording, memory_order_relaxed))
        return 0;
    return bitmaps_record(q, offset, length, err);
}

/* ----------------------------------------------------------------- map.c */

/* Host offset of the L2 entry of guest @offset in @table. */
static inline uint64_t l2_entry_host(const struct qcow2 *q, uint64_t table,
                                     uint64_t offset)
{
    return table + l2_index(&q->g, offset) * q->g.l2_entry_size;
}

/* Guest bytes that one L2 slice covers; a power of two. */
static inline uint64_t l2_slice_cover(const struct qcow2 *q)
{
    return (q->l2.slice_size / q->g.l2_entry_size) << q->g.cluster_bits;
}

/* The guest cluster's place in the slice, as a byte offset into its data. */
static inline size_t l2_slice_byte(const struct qcow2 *q, uint64_t offset)
{
    return (size_t)((l2_index(&q->g, offset) * q->g.l2_entry_size) &
                    (q->l2.slice_size - 1));
}

/* L2 table of guest @offset: 0 if there is none.  Under lock. */
int l1_lookup(const struct qcow2 *q, uint64_t offset, uint64_t *table,
              bool *copied, struct lam_error *err);

/* How much of @guest, not empty, lies before the first L2 table.  Under
 * lock. */
uint64_t l1_blank(const struct qcow2 *q, struct range guest);

/* Load the L2 slice at @host and pin it.  A read succeeds even where dirty
 * slices cannot be written to make room.  No lock held. */
int l2_load(struct qcow2 *q, uint64_t host, bool for_read, struct slice **out,
            struct lam_error *err);

int qcow2_map(void *format, uint64_t offset, uint64_t length,
              struct lam_extents *out, struct lam_error *err);
int qcow2_map_cached(void *format, uint64_t offset, uint64_t length,
                     struct lam_extents *out);
uint64_t qcow2_long_run(void *format, uint64_t offset, uint64_t length,
                        bool *blank);

/* ---------------------------------------------------------------- scan.c */

int qcow2_map_once(void *format, uint64_t offset, uint64_t length,
                   struct lam_extents *out, struct lam_error *err);

/* ------------------------------------------------------------- payload.c */

int qcow2_read_compressed(void *format, const struct lam_extent *extent,
                          void *cluster, struct lam_error *err);
/* As codec_inflate_part(). */
int qcow2_read_beginning(struct qcow2 *q, const struct lam_extent *extent,
                         void *cluster, size_t wanted, size_t *made,
                         struct lam_error *err);
int qcow2_write_compressed(void *format, uint64_t offset, const uint8_t *data,
                           uint64_t length, struct lam_error *err);
void codec_pool_deinit(struct codec_pool *pool);
/* Those of now are not good for what is compressed from now on. */
void codec_pool_empty(struct codec_pool *pool);
extern const struct format_payload_ops qcow2_payloads;

/* ---------------------------------------------------------------- pack.c */

/* See struct format_payload_ops. */
int qcow2_place_payloads(void *format, const struct format_payload *items,
                         size_t *count, unsigned flags, void **token,
                         struct lam_error *err);
int qcow2_store_payloads(void *format, void *token, const uint8_t *buf,
                         struct lam_error *err);
void qcow2_cancel_payloads(void *format, void *token);

/* Both at once, and all of them. */
int qcow2_write_payloads(struct qcow2 *q, const struct format_payload *items,
                         size_t count, const uint8_t *buf, unsigned flags,
                         struct lam_error *err);

/* --------------------------------------------------------------- flush.c */

/* The ordered write-back.  @durable: all is on disk at the end; otherwise it
 * only makes slices clean.  No lock held. */
int qcow2_write_back(struct qcow2 *q, bool durable, struct lam_error *err);
int qcow2_flush(void *format, struct lam_error *err);

/* Keep write-backs out, and let them in again. */
void flusher_stop(struct qcow2 *q);
void flusher_resume(struct qcow2 *q);

/* Stopped, and until the others go on nothing can become dirty: a reader that
 * wants room in the cache need not wait for its turn. */
void flusher_declare_idle(struct qcow2 *q);

/* Last write-back: releases included, dirty bit cleared. */
int qcow2_write_back_last(struct qcow2 *q, struct lam_error *err);

/* --------------------------------------------------------------- write.c */

int qcow2_write_begin(void *format, uint64_t offset, uint64_t length,
                      struct format_allocation *a, struct lam_error *err);
int qcow2_write_in_place(void *format, uint64_t offset, uint64_t length,
                         struct format_allocation *a);
int qcow2_write_finish(void *format, struct format_allocation *a,
                       struct lam_error *err);
void qcow2_write_cancel(void *format, struct format_allocation *a);

/* ---------------------------------------------------------------- zero.c */

int qcow2_zero(void *format, uint64_t offset, uint64_t length, unsigned flags,
               struct lam_error *err);
int qcow2_discard(void *format, uint64_t offset, uint64_t length,
                  struct lam_error *err);

/* Whole clusters are unallocated from now on: what is below them shows again,
 * so this is for what lies behind the end, or for emptying an overlay.  The
 * data file is left alone. */
int qcow2_forget(struct qcow2 *q, uint64_t offset, uint64_t length,
                 struct lam_error *err);

/* -------------------------------------------------------------- resize.c */

int qcow2_vmstate_place(void *format, uint64_t offset, uint64_t length,
                        uint64_t *place, struct lam_error *err);

int qcow2_truncate(void *format, const struct format_resize *to,
                   struct lam_error *err);

#endif
