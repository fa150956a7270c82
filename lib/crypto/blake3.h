/* SPDX-License-Identifier: MIT */
/*
 * blake3.h - the BLAKE3 hash, of any number of bytes fed piece by piece.
 */
#ifndef LAM_CRYPTO_BLAKE3_H
#define LAM_CRYPTO_BLAKE3_H

#include <stddef.h>
#include <stdint.h>

enum {
    BLAKE3_BYTES = 32,
    BLAKE3_CHUNK = 1024,        /* a leaf of the tree */
    BLAKE3_WORDS = 8,           /* of a chaining value */
    BLAKE3_DEPTH = 56,          /* subtrees on the way: 2^64 bytes */
};

struct blake3 {
    uint32_t stack[BLAKE3_DEPTH][BLAKE3_WORDS];
    unsigned depth;             /* of the stack */
    uint64_t chunks;            /* that the stack stands for */
    size_t fill;                /* of the chunk at hand */
    uint8_t chunk[BLAKE3_CHUNK];
};

void blake3_init(struct blake3 *b);
void blake3_update(struct blake3 *b, const void *bytes, size_t length);
/* The hash of all so far; @b stays as it is. */
void blake3_finish(const struct blake3 *b, uint8_t out[BLAKE3_BYTES]);

#endif
