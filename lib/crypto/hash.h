/* SPDX-License-Identifier: MIT */
/*
 * hash.h - message digests, key derivation and random bytes.
 */
#ifndef LAM_CRYPTO_HASH_H
#define LAM_CRYPTO_HASH_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Those that LUKS headers may name. */
enum hash_algorithm {
    HASH_MD5, HASH_SHA1, HASH_SHA224, HASH_SHA256, HASH_SHA384, HASH_SHA512,
    HASH_RIPEMD160, HASH_SM3, HASH_COUNT,
};

enum { HASH_MAX_BYTES = 64 };

/* "sha256"; static. */
const char *hash_name(enum hash_algorithm hash);

/* The hash called by the first @length bytes of @name, or -EINVAL (no message:
 * the caller knows what the name is for). */
int hash_find(const char *name, size_t length, enum hash_algorithm *hash);

/* Bytes of a digest. */
size_t hash_size(enum hash_algorithm hash);

/* -ENOTSUP by name if this build has no such hash. */
int hash_check(enum hash_algorithm hash, struct lam_error *err);

/* @out, hash_size() bytes: the digest of @head and @body in a row. */
int hash_digest(enum hash_algorithm hash, const void *head, size_t head_length,
                const void *body, size_t body_length, uint8_t *out,
                struct lam_error *err);

/* PBKDF2 with HMAC. */
int hash_pbkdf2(enum hash_algorithm hash, const void *secret,
                size_t secret_length, const uint8_t *salt, size_t salt_length,
                uint64_t iterations, uint8_t *out, size_t out_length,
                struct lam_error *err);

/* Iterations of the above for @out_length bytes in a second of processor time
 * of this machine.  For a use of @milliseconds no more time is taken to find
 * out, and never much. */
int hash_pbkdf2_rate(enum hash_algorithm hash, size_t out_length,
                     uint64_t milliseconds, uint64_t *per_second,
                     struct lam_error *err);

/* Bytes that nobody can guess. */
int crypto_random(void *buf, size_t length, struct lam_error *err);

/* Overwrites a secret; the compiler does not leave it out. */
void crypto_wipe(void *buf, size_t length);

/* True if two secrets are the same, in a time that does not tell where they
 * differ. */
int crypto_equal(const void *a, const void *b, size_t length);

#endif
