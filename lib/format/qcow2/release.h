/* SPDX-License-Identifier: MIT */
/*
 * release.h - host space that entries have dropped, on its way to be free.
 *
 * A batch of dropped ranges goes through four lists:
 *
 *   pending   the entries have changed in memory
 *   written   ... and in the file, but for a barrier
 *   durable   ... and on disk: no crash brings the old entries back
 *   draining  requests that began before are ending: they may still be using
 *             what they found in the old entries
 *
 * and only then lose the clusters in it a reference each.
 */
#ifndef LAM_QCOW2_RELEASE_H
#define LAM_QCOW2_RELEASE_H

#include "format/qcow2/qcow2.h"

void epoch_init(struct epoch *e);
void epoch_deinit(struct epoch *e);
uint64_t epoch_enter(struct epoch *e);
void epoch_leave(struct epoch *e, uint64_t token);

/* Until all requests have ended that began before the call.  Those that begin
 * later do not hold it up. */
void epoch_drain(struct epoch *e);

/* Until all requests have ended that hold up what is draining. */
void epoch_wait_old(struct epoch *e);

/* An empty batch with room for @capacity ranges. */
struct release_batch *release_new(size_t capacity);

/* Adds what entry @e holds on the host; neighbours become one range.  The
 * caller has made room for one range an entry. */
void release_add_entry(const struct qcow2 *q, struct release_batch *batch,
                       struct qcow2_l2_entry e, bool discard);

/* The entries have just been changed in memory.  Under lock, exclusive. */
void release_pend(struct qcow2 *q, struct release_batch *batch);

/* So much is pending that a write-back is due.  No lock held. */
bool release_is_crowded(struct qcow2 *q);

/* Puts list @batches in front of @list. */
void release_join(struct release_batch **list, struct release_batch *batches);
void release_free_list(struct release_batch *list);

/* Free what nobody can need any more.  Under alloc_lock. */
void release_reap(struct qcow2 *q);

/* The clusters of a table that has moved, when nothing on disk names them any
 * more and nobody is reading them, lose a reference each.  Under alloc_lock. */
void release_table(struct qcow2 *q, uint64_t host, uint64_t length);

/* For a disk that is full: write back, and wait for the requests that began
 * before, of which the caller's must not be one.  -ENOSPC, says nothing, if
 * there is nothing to be had that way.  No lock held, no claim. */
int qcow2_reclaim(void *format, struct lam_error *err);

#endif
