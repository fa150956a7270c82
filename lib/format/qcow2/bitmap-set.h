/* SPDX-License-Identifier: MIT */
/*
 * bitmap-set.h - the persistent bitmaps of an open image (format document 9).
 *
 * What is stored and what is in memory:
 *
 *  1. A bitmap that is not in_use on disk is stored as it is; nobody changes
 *     the guest's data without either recording it or having it in_use.  So
 *     before the first change those that record become in_use, on disk.
 *  2. Contents go to new clusters, and one write of the header switches to a
 *     new directory.  It clears in_use only of what it stores completely.
 *  3. Old tables and data lose their clusters after the switch is on disk.
 *
 * Killed at any point, a bitmap is complete or in_use; at worst clusters leak.
 *
 * The list itself and all flags change under alloc_lock and the set's lock
 * both, so either is enough to look; contents are under the set's lock, a leaf
 * that may be held while reading contents from disk.
 */
#ifndef LAM_QCOW2_BITMAP_SET_H
#define LAM_QCOW2_BITMAP_SET_H

#include <pthread.h>
#include <stdatomic.h>

#include "format/format.h"
#include "format/qcow2/bits.h"

struct qcow2;

struct qcow2_bitmap {
    char *name;
    uint8_t granularity_bits;
    bool recording;             /* the auto flag */
    bool inconsistent;          /* was found in_use: can only be removed */
    bool in_use;                /* we have made it so on disk */
    uint64_t table_offset;      /* what is stored; 0: nothing yet */
    uint32_t table_entries;
    bool loaded;                /* bits is valid */
    bool stale;                 /* ... and not what is stored */
    struct bits bits;
    /* Between writing and switching (bitmap-store.c). */
    bool written;
    uint64_t new_table_offset;
    uint32_t new_table_entries;
};

struct bitmap_set {
    pthread_mutex_t lock;
    struct qcow2_bitmap **items;
    size_t count;
    bool known;                 /* the directory has been read */
    atomic_bool recording;      /* one or more record */
};

void bitmaps_init(struct bitmap_set *set);
void bitmaps_deinit(struct bitmap_set *set);

/* Read the directory, if that has not been done.  -EUCLEAN as the genuine tool
 * refuses the image.  No lock of the set held. */
int bitmaps_open(struct qcow2 *q, struct lam_error *err);

/* NULL: there is none. */
struct qcow2_bitmap *bitmaps_find(const struct bitmap_set *set,
                                  const char *name);

/* The contents, if they are not there yet.  Under the set's lock. */
int bitmap_load(struct qcow2 *q, struct qcow2_bitmap *b, struct lam_error *err);

void bitmap_free(struct qcow2_bitmap *b);

/* Something recorded has changed: look again whether anything records. */
void bitmaps_count_recording(struct bitmap_set *set);

/*
 * Before the first change of guest data or mapping: bitmaps that record are
 * loaded and become in_use.  Under alloc_lock.
 */
int bitmaps_before_change(struct qcow2 *q, struct lam_error *err);

/* Slow part of bitmaps_mark(). */
int bitmaps_record(struct qcow2 *q, uint64_t offset, uint64_t length,
                   struct lam_error *err);

/* The size cannot change with inconsistent bitmaps.  No lock held. */
int bitmaps_check_resize(struct qcow2 *q, struct lam_error *err);

/* A new size comes, which has been checked: all others become
 * in_use.  No lock held; bitmaps_resized() follows the change of q->size. */
int bitmaps_prepare_resize(struct qcow2 *q, struct lam_error *err);
void bitmaps_resized(struct qcow2 *q);

/* ------------------------------------------------------- bitmap-store.c */

/*
 * Store the directory, and the contents of what is not in_use; with @all of
 * everything, so that nothing is in_use any more.  @removed: its clusters are
 * dropped afterwards, or NULL.  After a failure nothing has changed, or the
 * image is FAILED.  Under alloc_lock.
 */
int bitmaps_store(struct qcow2 *q, bool all, const struct qcow2_bitmap *removed,
                  struct lam_error *err);

/* The directory as it is in memory, over the stored one: flags only. */
int bitmaps_store_flags(struct qcow2 *q, struct lam_error *err);

/* At close: everything, if anything is in_use.  No lock held. */
int bitmaps_store_last(struct qcow2 *q, struct lam_error *err);

/* ------------------------------------------------------ bitmap-change.c */

extern const struct format_bitmap_ops qcow2_bitmap_ops;

#endif
