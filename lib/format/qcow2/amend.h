/* SPDX-License-Identifier: MIT */
/*
 * amend.h - another version, refcount width or feature for an image that is
 * there (format document 17, 5.4).
 *
 * Each step is one bulk change (bulk.h): killed at any point the image is what
 * it was before a step or what it is after it.
 */
#ifndef LAM_QCOW2_AMEND_H
#define LAM_QCOW2_AMEND_H

#include "format/qcow2/bulk.h"

/* Steps of one amendment that take their time, in guest or host clusters. */
struct amend_progress {
    lam_progress_fn *fn;        /* or NULL */
    void *opaque;
};

static inline void amend_tell(const struct amend_progress *p, uint64_t done,
                              uint64_t total)
{
    if (p->fn && total)
        p->fn(p->opaque, done, total);
}

/* Refuses what qcow2_amend() would refuse, and a size that cannot be. */
int qcow2_amend_check(void *format, const struct lam_amend_options *options,
                      struct lam_error *err);

int qcow2_amend(void *format, const struct lam_amend_options *options,
                struct lam_error *err);

/* ---------------------------------------------------------- amend-zero.c */

/*
 * No table of the disk or of a snapshot has a zero cluster any more, for
 * version 2 has no such thing: they are unallocated, or where a backing file
 * would show they are normal clusters, many sharing one that holds zeroes.
 * *@changed: bulk_commit() is due.  Refuses a compressed cluster if
 * @no_compressed.
 */
int amend_remove_zeroes(struct bulk *b, bool no_compressed, bool *changed,
                        const struct amend_progress *progress,
                        struct lam_error *err);

/* Whether that would be refused; changes nothing. */
int amend_check_entries(struct bulk *b, bool no_compressed,
                        struct lam_error *err);

/* ------------------------------------------------------ amend-refcounts.c */

/* -EINVAL: some refcount does not fit.  Changes nothing. */
int amend_check_width(struct bulk *b, unsigned order, struct lam_error *err);

/* Refcounts of 1 << @order bits from now on.  Commits. */
int amend_refcount_width(struct bulk *b, unsigned order,
                         const struct amend_progress *progress,
                         struct lam_error *err);

#endif
