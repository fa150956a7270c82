/* SPDX-License-Identifier: MIT */
/*
 * inflated.h - compressed clusters that were inflated a moment ago.
 *
 * Who reads a little of a compressed cluster will want more of it: it is kept
 * inflated, up to a budget of bytes.  Who reads whole clusters (a conversion)
 * comes by once; nothing is kept for him.
 *
 * When the budget is used up, and clusters are dropped before anybody has come
 * back to them, one that is read here and there is worth no more than what is
 * asked for: it is inflated that far.  Whoever looks behind that, or reads on
 * where the last one was, has it inflated to the end.
 *
 * 1. An entry is named by what the L2 entry says: host offset and length of the
 *    payload.  The bytes there change only after all its references are gone
 *    and its cluster has been given out again; whoever gives it out forgets the
 *    entry first (inflated_forget(), called by alloc.c).  Requests that found
 *    the payload through an older mapping have ended before that (release.c).
 * 2. One thread inflates, others who want the same cluster wait for it.
 * 3. An entry with pins is neither replaced nor filled anew, but by the one who
 *    holds the only pin.
 */
#ifndef LAM_QCOW2_INFLATED_H
#define LAM_QCOW2_INFLATED_H

#include <pthread.h>
#include <stdatomic.h>

#include "extent/extent.h"

struct qcow2;

struct inflated_entry;

struct inflated {
    pthread_mutex_t lock;           /* guards all below; a leaf */
    pthread_cond_t loaded;
    struct inflated_entry *entries; /* made when first needed */
    struct inflated_entry **hash;   /* by the payload's first host cluster */
    size_t count, hash_mask;
    size_t hand;                    /* of the clock */
    uint64_t last_end;              /* guest offset: behind the last request */
    atomic_bool used;               /* there has been an entry */
};

void inflated_init(struct inflated *c);
void inflated_deinit(struct inflated *c);

/* Host clusters [first, first + n) are about to get new contents. */
void inflated_forget(struct qcow2 *q, uint64_t first, uint64_t n);

/* Drops what nobody has used since the last call. */
void inflated_clean(struct qcow2 *q);

/* format_ops.read_compressed_part */
int qcow2_read_compressed_part(void *format, const struct lam_extent *extent,
                               void *buf, struct lam_error *err);

#endif
