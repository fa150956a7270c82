/* SPDX-License-Identifier: MIT */
/*
 * alloc.h - refcounts, and host clusters: find, reserve, drop.
 *
 * Everything here runs under alloc_lock, and may read and write refcount
 * blocks under it.  A raised refcount may go to disk at any time: too high is
 * a leak.  A refcount is lowered only by who knows that no entry on disk needs
 * it (release.c), or that none ever did (a reservation given back).
 */
#ifndef LAM_QCOW2_ALLOC_H
#define LAM_QCOW2_ALLOC_H

#include "format/qcow2/qcow2.h"

/* Loads the refcount table; @budget is the cache's, in bytes, 0: default. */
int alloc_open(struct qcow2 *q, uint64_t budget, struct lam_error *err);
void alloc_close(struct qcow2 *q);

/* The stored refcount of host cluster number @cluster. */
int refcount_read(struct qcow2 *q, uint64_t cluster, uint64_t *value,
                  struct lam_error *err);

/*
 * Reserve up to @want contiguous clusters, the first ones that are free:
 * *@host is the first's offset, *@got (at least 1) how many.  Their refcounts
 * are 1.  -ENOSPC, -EUCLEAN and so on leave everything as it was.
 */
int alloc_clusters(struct qcow2 *q, uint64_t want, uint64_t *host,
                   uint64_t *got, struct lam_error *err);

/* Exactly @want contiguous clusters, for a table. */
int alloc_contiguous(struct qcow2 *q, uint64_t want, uint64_t *host,
                     struct lam_error *err);

/* The same, none of them before cluster @from. */
int alloc_contiguous_from(struct qcow2 *q, uint64_t from, uint64_t want,
                          uint64_t *host, struct lam_error *err);

/*
 * @length bytes for a compressed payload: one more reference on each cluster
 * they touch.  @sector_offset: where in its sector the first byte must lie, so
 * that a payload whose end only its sectors tell keeps their number; or
 * ALLOC_ANYWHERE.
 */
enum { ALLOC_ANYWHERE = 512 };
int alloc_bytes(struct qcow2 *q, uint64_t length, unsigned sector_offset,
                uint64_t *host, struct lam_error *err);

/* The same at @host, which lies in what has been given out for payloads, right
 * behind it, or less than a cluster on.  False: not possible there; the next
 * payload begins elsewhere. */
bool alloc_extend(struct qcow2 *q, uint64_t host, uint64_t length);

/* One reference less on each cluster that [host, host + length) touches; those
 * that nobody needs any more are free at once.  A failure only leaks.
 * @freed, unless NULL, is called for each run of clusters that became free. */
typedef void alloc_freed_fn(struct qcow2 *q, uint64_t host, uint64_t length,
                            const void *opaque);
void alloc_drop(struct qcow2 *q, uint64_t host, uint64_t length,
                alloc_freed_fn *freed, const void *opaque);

/* Write dirty refcount blocks; then, behind a barrier, what is new in the
 * refcount table. */
int alloc_write_back(struct qcow2 *q, struct lam_error *err);
bool alloc_is_dirty(const struct qcow2 *q);

/* The first cluster of [from, end) whose refcount is not 0, or @end. */
int alloc_find_used(struct qcow2 *q, uint64_t from, uint64_t end,
                    uint64_t *cluster, struct lam_error *err);

/*
 * @clusters clusters in one piece behind all that is in use, reserved, with
 * refcount blocks enough for @tables further ones, and a new refcount table.
 * *@host is 0 where that does not fit.  Takes alloc_lock.
 */
int grow_behind(struct qcow2 *q, uint64_t clusters, uint64_t tables,
                uint64_t *host, struct lam_error *err);

/* ---- between alloc.c, alloc-bytes.c, grow.c and shrink.c ---- */

/* One more reference on a cluster that has a refcount block. */
int refcount_raise(struct qcow2 *q, uint64_t cluster, struct lam_error *err);

/* One reference less; true if that was the last one. */
bool refcount_lower(struct qcow2 *q, uint64_t cluster);

/* Free clusters from @first on, at most @want; stops where no block is. */
int alloc_count_free(struct qcow2 *q, uint64_t first, uint64_t want,
                     uint64_t *n, struct lam_error *err);

/* One reference on each of clusters [first, first + n), all of which have
 * refcount blocks. */
int alloc_reserve(struct qcow2 *q, uint64_t first, uint64_t n,
                  struct lam_error *err);

/* Refcount table entry @i, in memory: written by alloc_write_back(). */
void alloc_set_block(struct qcow2 *q, uint64_t i, uint64_t block);

/* Those of them that are not on disk yet. */
int grow_write_entries(struct qcow2 *q, struct lam_error *err);

/* A refcount block at cluster @at, which lies in its range and is free. */
int grow_add_block(struct qcow2 *q, uint64_t at, struct lam_error *err);

/* New blocks behind everything that is covered now, and @want clusters after
 * them, which get refcount 1.  Grows the table if need be. */
int grow_append(struct qcow2 *q, uint64_t want, uint64_t *host,
                struct lam_error *err);

/* Makes room for @entries refcount table entries. */
int grow_table(struct qcow2 *q, uint64_t entries, struct lam_error *err);

/* A refcount block at cluster @at, in which the counters of clusters [from, to)
 * are 1.  Nothing names it yet. */
int grow_write_block(struct qcow2 *q, uint64_t at, uint64_t from, uint64_t to,
                     struct lam_error *err);

/* The refcount table @*table, which is taken over, goes to @clusters clusters
 * from cluster @at on, and the header names it; the last of its blocks is
 * entry @nb_blocks - 1.  All that it names has been written. */
int grow_use_table(struct qcow2 *q, uint64_t **table, uint64_t at,
                   uint64_t clusters, uint64_t nb_blocks,
                   struct lam_error *err);

/* Somebody is going to write to clusters [first, first + n): from now on what
 * lies behind the file's end there may be there all the same, since a write
 * that fails may have gone half-way. */
void alloc_touch(struct qcow2 *q, uint64_t first, uint64_t n);

/* -ENOSPC unless clusters [first, first + n) can exist in the file. */
int alloc_check_place(struct qcow2 *q, uint64_t first, uint64_t n,
                      struct lam_error *err);

#endif
