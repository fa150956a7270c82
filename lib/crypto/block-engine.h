/* SPDX-License-Identifier: MIT */
/*
 * block-engine.h - a library that has block ciphers, as block.c sees it.
 */
#ifndef LAM_CRYPTO_BLOCK_ENGINE_H
#define LAM_CRYPTO_BLOCK_ENGINE_H

#include <stdbool.h>

#include "crypto/block.h"

struct block_engine {
    /* -ENOTSUP by name if the library, or this build, has no such cipher. */
    int (*new)(enum cipher_algorithm algorithm, const uint8_t *key,
               void **state, struct lam_error *err);
    void (*free)(void *state);
    /* Any number of threads at once. */
    bool (*run)(void *state, enum cipher_direction direction, uint8_t *buf,
                size_t length);
};

extern const struct block_engine block_libcrypto, block_nettle;

#endif
