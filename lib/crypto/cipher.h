/* SPDX-License-Identifier: MIT */
/*
 * cipher.h - ciphers as LUKS names them: algorithm, mode and key.
 */
#ifndef LAM_CRYPTO_CIPHER_H
#define LAM_CRYPTO_CIPHER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* All that headers may name, whether or not we have them. */
enum cipher_algorithm {
    CIPHER_AES_128, CIPHER_AES_192, CIPHER_AES_256, CIPHER_DES, CIPHER_3DES,
    CIPHER_CAST5_128, CIPHER_SERPENT_128, CIPHER_SERPENT_192,
    CIPHER_SERPENT_256, CIPHER_TWOFISH_128, CIPHER_TWOFISH_192,
    CIPHER_TWOFISH_256, CIPHER_SM4, CIPHER_COUNT,
};

enum cipher_mode { CIPHER_ECB, CIPHER_CBC, CIPHER_XTS, CIPHER_CTR,
                   CIPHER_MODE_COUNT };

enum cipher_direction { CIPHER_DECRYPT, CIPHER_ENCRYPT };

enum { CIPHER_IV_BYTES = 16, CIPHER_MAX_KEY = 64 };

/* "aes-256", "xts"; static. */
const char *cipher_name(enum cipher_algorithm algorithm);
const char *cipher_mode_name(enum cipher_mode mode);

/* By those names, or -EINVAL (no message). */
int cipher_find(const char *name, enum cipher_algorithm *algorithm);
int cipher_mode_find(const char *name, size_t length, enum cipher_mode *mode);

/* "aes" of "aes-256": what LUKS headers have. */
const char *cipher_family(enum cipher_algorithm algorithm);
/* The member of @family whose key has @key_bytes, or -EINVAL (no message). */
int cipher_of_family(const char *family, size_t key_bytes,
                     enum cipher_algorithm *algorithm);

/* Bytes of key in @mode: XTS has two keys. */
size_t cipher_key_bytes(enum cipher_algorithm algorithm, enum cipher_mode mode);

/* Bytes of a block, and of an IV: 16 or 8. */
size_t cipher_block_bytes(enum cipher_algorithm algorithm);

struct cipher;

/* -ENOTSUP by name if this build has no such cipher; -EINVAL for a mode that
 * does not go with it. */
int cipher_new(enum cipher_algorithm algorithm, enum cipher_mode mode,
               const uint8_t *key, size_t key_bytes, struct cipher **out,
               struct lam_error *err);
void cipher_free(struct cipher *cipher);

/*
 * cipher_run() - en- or decrypt @buf in place.
 *
 * Every @unit bytes begin anew with an IV of their own from @ivs, 16 bytes
 * each, which are used up.  @unit is a multiple of cipher_block_bytes(), and
 * @length of @unit.
 * Any number of threads may use a cipher at once.
 */
int cipher_run(struct cipher *cipher, enum cipher_direction direction,
               uint8_t *buf, size_t length, size_t unit, uint8_t *ivs,
               struct lam_error *err);

#endif
