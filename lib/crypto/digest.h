/* SPDX-License-Identifier: MIT */
/*
 * digest.h - a message digest that is fed piece by piece.
 */
#ifndef LAM_CRYPTO_DIGEST_H
#define LAM_CRYPTO_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum { DIGEST_MAX_BYTES = 64 };

struct digest_stream;

/* The name of the @i-th algorithm that can be had, best known first; NULL
 * after the last. */
const char *digest_stream_name(size_t i);

/* -ENOTSUP if this build has none called @name (@length characters of it). */
int digest_stream_new(const char *name, size_t length,
                      struct digest_stream **out, struct lam_error *err);
/* NULL: no-op. */
void digest_stream_free(struct digest_stream *s);

static inline void digest_stream_cleanup(struct digest_stream **s)
{
    digest_stream_free(*s);
}

int digest_stream_update(struct digest_stream *s, const void *bytes,
                         size_t length, struct lam_error *err);
/* Writes *@size bytes, DIGEST_MAX_BYTES at most, to @out; the stream begins
 * anew. */
int digest_stream_finish(struct digest_stream *s, uint8_t *out, size_t *size,
                         struct lam_error *err);

#endif
