/* SPDX-License-Identifier: MIT */
/*
 * ivgen.h - sector numbers → initialisation vectors (format document 10.2).
 */
#ifndef LAM_CRYPTO_IVGEN_H
#define LAM_CRYPTO_IVGEN_H

#include "crypto/block.h"
#include "crypto/hash.h"

enum ivgen_algorithm { IVGEN_PLAIN, IVGEN_PLAIN64, IVGEN_ESSIV, IVGEN_COUNT };

/* "plain64"; static. */
const char *ivgen_name(enum ivgen_algorithm ivgen);
/* By the first @length bytes of @name, or -EINVAL (no message). */
int ivgen_find(const char *name, size_t length, enum ivgen_algorithm *ivgen);

struct ivgen {
    enum ivgen_algorithm algorithm;
    struct block_cipher *essiv;     /* under the hash of the key */
};

/* @cipher is the payload's, of which ESSIV takes the family. */
int ivgen_init(struct ivgen *gen, enum ivgen_algorithm ivgen,
               enum hash_algorithm hash, enum cipher_algorithm cipher,
               const uint8_t *key, size_t key_bytes, struct lam_error *err);
void ivgen_deinit(struct ivgen *gen);

/* The cipher whose key is a digest of @hash: -EINVAL if there is none. */
int ivgen_essiv_cipher(enum hash_algorithm hash, enum cipher_algorithm cipher,
                       enum cipher_algorithm *out, struct lam_error *err);

/* 16 bytes for each of @count sectors from @first on, into @ivs. */
int ivgen_run(struct ivgen *gen, uint64_t first, size_t count, uint8_t *ivs,
              struct lam_error *err);

#endif
