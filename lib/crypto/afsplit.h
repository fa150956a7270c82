/* SPDX-License-Identifier: MIT */
/*
 * afsplit.h - the anti-forensic splitter of LUKS (format document 10.2): a key
 * spread over so many bytes that erasing any of them loses it.
 */
#ifndef LAM_CRYPTO_AFSPLIT_H
#define LAM_CRYPTO_AFSPLIT_H

#include "crypto/hash.h"

/* @key of @length bytes into @out of @length * @stripes bytes. */
int afsplit_split(enum hash_algorithm hash, const uint8_t *key, size_t length,
                  uint32_t stripes, uint8_t *out, struct lam_error *err);

/* And back. */
int afsplit_merge(enum hash_algorithm hash, const uint8_t *material,
                  size_t length, uint32_t stripes, uint8_t *key,
                  struct lam_error *err);

#endif
