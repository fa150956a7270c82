/* SPDX-License-Identifier: MIT */
/*
 * trim.h - host space that a discarded cluster keeps, on its way to be a hole.
 *
 * With discard-no-unref, and in an external data file that is not raw, the
 * guest's cluster has its place for good: a discard frees no reference, it
 * only tells the host.  That must wait until the entry that shows nothing is on
 * disk, as for clusters that are released (release.h), and must not hit what
 * is written there afterwards: the range is claimed, and looked up once more.
 */
#ifndef LAM_QCOW2_TRIM_H
#define LAM_QCOW2_TRIM_H

#include "format/qcow2/qcow2.h"

/* Entry @e becomes @new, which shows nothing of the cluster that @e has. */
bool trim_is_due(const struct qcow2 *q, struct qcow2_l2_entry e,
                 struct qcow2_l2_entry new);

/* The cluster of @e, which is @guest's, may go from the host.  @batch has room
 * for one range an entry. */
void trim_add(const struct qcow2 *q, struct release_batch *batch,
              uint64_t guest, struct qcow2_l2_entry e);

/* True if zeroes are put into the data file at once instead. */
bool trim_zeroes_data(const struct qcow2 *q);

/* The entries are on disk, and the requests from before have ended.  What
 * somebody has claimed meanwhile is put into *@later.  Under alloc_lock. */
void trim_now(struct qcow2 *q, const struct release *r,
              struct release_batch **later);

#endif
