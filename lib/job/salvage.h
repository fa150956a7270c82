/* SPDX-License-Identifier: MIT */
/*
 * salvage.h - reads what can be had of a chunk of which not all can be read.
 */
#ifndef LAM_JOB_SALVAGE_H
#define LAM_JOB_SALVAGE_H

#include "job/walk.h"

/* What is lost is lost in pieces of this size. */
#define SALVAGE_UNIT 512

struct salvage {
    const struct lam_convert_options *convert;
    pthread_mutex_t lock;       /* held while the caller is told */
    _Atomic uint64_t bytes_lost;
};

void salvage_init(struct salvage *s, const struct lam_convert_options *convert);
void salvage_deinit(struct salvage *s);

/* True if a part of what failed with @rc may still be readable. */
bool salvage_applies(int rc);

/*
 * Read a data chunk into @buf, and put zeroes where that cannot be done; the
 * caller is told which.  -ECANCELED, -ENOMEM.
 */
int salvage_chunk(struct salvage *s, const struct walk_chunk *chunk,
                  uint8_t *buf, struct lam_error *err);

#endif
