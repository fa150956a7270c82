/* SPDX-License-Identifier: MIT */
/*
 * crypt.h - the payload of an encrypted image: sectors of 512 bytes, each with
 * an IV out of its number.
 */
#ifndef LAM_CRYPTO_CRYPT_H
#define LAM_CRYPTO_CRYPT_H

#include <stdbool.h>

#include "crypto/ivgen.h"

enum { CRYPT_SECTOR = 512 };

/* All that says how bytes are encrypted, but the key. */
struct crypt_spec {
    enum cipher_algorithm cipher;
    enum cipher_mode mode;
    enum ivgen_algorithm ivgen;
    bool has_ivgen_hash;        /* it is named, whether or not it is used */
    enum hash_algorithm ivgen_hash;
};

/* Sectors count from the start of the guest's disk, or of the host file. */
enum crypt_basis { CRYPT_GUEST, CRYPT_HOST };

struct crypt;

int crypt_new(const struct crypt_spec *spec, const uint8_t *key,
              size_t key_bytes, enum crypt_basis basis, struct crypt **out,
              struct lam_error *err);
void crypt_free(struct crypt *crypt);

/* The method of images before LUKS: AES-128 in CBC, the first 16 bytes of the
 * passphrase are the key.  No salt, nothing that tells a wrong passphrase. */
int crypt_new_legacy(const char *passphrase, struct crypt **out,
                     struct lam_error *err);

/* Could that be, with @secret of @keyring?  An image that is created needs
 * neither: it is told before there is one. */
int crypt_check_legacy(const struct lam_keyring *keyring, const char *secret,
                       struct lam_error *err);

/*
 * En- or decrypt @buf in place: guest bytes from @guest on, which lie in the
 * host file at @host.  All three are multiples of 512.  Any number of threads
 * at once.
 */
int crypt_run(struct crypt *crypt, enum cipher_direction direction, void *buf,
              uint64_t length, uint64_t guest, uint64_t host,
              struct lam_error *err);

#endif
