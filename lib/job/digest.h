/* SPDX-License-Identifier: MIT */
/*
 * digest.h - a digest of all guest bytes that a copy moves, in their order,
 * while workers move them in any.
 */
#ifndef LAM_JOB_DIGEST_H
#define LAM_JOB_DIGEST_H

#include "lamella.h"

/* Blocks of the "-tree" digests. */
#define DIGEST_BLOCK (UINT64_C(1) << 20)

struct digest;

/*
 * @name is one of lam_digest_name().  @workers will put chunks of @chunk_max
 * bytes of data at most.  *@cancel may be NULL.
 */
int digest_new(const char *name, unsigned workers, uint64_t chunk_max,
               const volatile int *cancel, struct digest **out,
               struct lam_error *err);
void digest_free(struct digest *d);

/*
 * The chunk with this number: @length bytes at @offset that are in *@buf, or
 * zeroes if @buf is NULL.  Chunks follow each other without gaps.  *@buf is
 * kept, and another buffer of the same size put there.  Waits if this chunk is
 * far ahead of one that has not come; every number has to come, unless
 * digest_abort() says that none will.  Who waits then fails as the one who has
 * aborted did, for nobody knows which of them is heard first.
 */
int digest_put(struct digest *d, uint64_t sequence, uint64_t offset,
               uint64_t length, uint8_t **buf, struct lam_error *err);
void digest_abort(struct digest *d, int rc, const struct lam_error *err);

/* "NAME:HEX" once all chunks were put. */
int digest_finish(struct digest *d, char text[LAM_DIGEST_TEXT],
                  struct lam_error *err);

#endif
