/* SPDX-License-Identifier: MIT */
/*
 * block.h - a block cipher under one key: many blocks at a time, each for
 * itself.  The modes are built on this in cipher.c.
 */
#ifndef LAM_CRYPTO_BLOCK_H
#define LAM_CRYPTO_BLOCK_H

#include "crypto/cipher.h"

struct block_cipher;

/* @key has the length that @algorithm wants.  -ENOTSUP by name if this build
 * has no such cipher. */
int block_new(enum cipher_algorithm algorithm, const uint8_t *key,
              struct block_cipher **out, struct lam_error *err);
void block_free(struct block_cipher *block);

/* In place; @length is a multiple of cipher_block_bytes().  Any number of
 * threads at once. */
int block_run(struct block_cipher *block, enum cipher_direction direction,
              uint8_t *buf, size_t length, struct lam_error *err);

#endif
