/* SPDX-License-Identifier: MIT */
/*
 * shrink.h - the mapping behind an end, and the file behind what is used.
 */
#ifndef LAM_QCOW2_SHRINK_H
#define LAM_QCOW2_SHRINK_H

#include "format/qcow2/qcow2.h"

/* -EUCLEAN if an entry from @from on (a multiple of the cluster size) is not
 * fit to be dropped.  Reads only. */
int shrink_check(struct qcow2 *q, uint64_t from, struct lam_error *err);

/*
 * Forget all that is mapped from @from on, a multiple of the cluster size at
 * or behind the end of the disk.  L2 tables that lie there altogether go with
 * it.  Durable, and the clusters free, when it returns 0; interrupted it may
 * have got anywhere.
 */
int shrink_drop_behind(struct qcow2 *q, uint64_t from, struct lam_error *err);

/* Refcount blocks that count nothing but themselves go; the file ends where
 * its last used cluster does. */
int shrink_file(struct qcow2 *q, struct lam_error *err);

/* The cluster behind the last one in use; UINT64_MAX if none is, not even the
 * header's.  Under alloc_lock. */
int shrink_used_end(struct qcow2 *q, uint64_t *end, struct lam_error *err);

/* The new, smaller size, and all of the above. */
int qcow2_shrink(struct qcow2 *q, uint64_t size, struct lam_error *err);

#endif
