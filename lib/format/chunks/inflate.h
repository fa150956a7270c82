/* SPDX-License-Identifier: MIT */
/*
 * inflate.h - the bytes of a compressed chunk.
 */
#ifndef LAM_FORMAT_CHUNKS_INFLATE_H
#define LAM_FORMAT_CHUNKS_INFLATE_H

#include "format/chunks/chunks.h"

/* @payload has chunk->host_length bytes, @out room for chunk->length. */
int chunk_inflate(const struct chunk *chunk, const uint8_t *payload,
                  uint8_t *out, struct lam_error *err);

/* -ENOTSUP if this build cannot. */
int chunk_can_inflate(enum chunk_kind kind, struct lam_error *err);

#endif
