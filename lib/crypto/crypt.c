/* SPDX-License-Identifier: MIT */
/*
 * crypt.c - the payload of an encrypted image.
 */
#include "crypto/crypt.h"

#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "crypto/keyring.h"

struct crypt {
    enum crypt_basis basis;
    struct cipher *cipher;
    struct ivgen ivgen;
};

int crypt_new(const struct crypt_spec *spec, const uint8_t *key,
              size_t key_bytes, enum crypt_basis basis, struct crypt **out,
              struct lam_error *err)
{
    struct crypt *c = calloc(1, sizeof *c);

    if (!c)
        return lam_fail(err, ENOMEM, "no memory for a cipher");
    c->basis = basis;
    int rc = cipher_new(spec->cipher, spec->mode, key, key_bytes, &c->cipher,
                        err);
    if (rc == 0)
        rc = ivgen_init(&c->ivgen, spec->ivgen, spec->ivgen_hash, spec->cipher,
                        key, key_bytes, err);
    if (rc < 0)
        crypt_free(c);
    else
        *out = c;
    return rc;
}

void crypt_free(struct crypt *c)
{
    if (!c)
        return;
    cipher_free(c->cipher);
    ivgen_deinit(&c->ivgen);
    free(c);
}

int crypt_new_legacy(const char *passphrase, struct crypt **out,
                     struct lam_error *err)
{
    static const struct crypt_spec spec = {
        .cipher = CIPHER_AES_128, .mode = CIPHER_CBC, .ivgen = IVGEN_PLAIN64,
    };
    uint8_t key[16] = { 0 };

    memcpy(key, passphrase, min_u64(strlen(passphrase), sizeof key));
    int rc = crypt_new(&spec, key, sizeof key, CRYPT_GUEST, out, err);
    crypto_wipe(key, sizeof key);
    return rc;
}

int crypt_check_legacy(const struct lam_keyring *keyring, const char *secret,
                       struct lam_error *err)
{
    const char *passphrase;
    struct crypt *crypt;
    int rc = keyring_passphrase(keyring, secret, "encrypt.key-secret",
                                &passphrase, err);

    if (rc == 0)
        rc = crypt_new_legacy(passphrase, &crypt, err);
    if (rc == 0)
        crypt_free(crypt);
    return rc;
}

int crypt_run(struct crypt *c, enum cipher_direction direction, void *buf,
              uint64_t length, uint64_t guest, uint64_t host,
              struct lam_error *err)
{
    enum { BATCH = 64 };        /* sectors: what stays in a near cache */
    uint64_t at = c->basis == CRYPT_GUEST ? guest : host;
    uint8_t ivs[BATCH * CIPHER_IV_BYTES], *p = buf;
    int rc = 0;

    assert(((at | length) & (CRYPT_SECTOR - 1)) == 0);
    while (length > 0 && rc == 0) {
        uint64_t n = min_u64(length, BATCH * CRYPT_SECTOR);
        rc = ivgen_run(&c->ivgen, at / CRYPT_SECTOR, n / CRYPT_SECTOR, ivs,
                       err);
        if (rc == 0)
            rc = cipher_run(c->cipher, direction, p, n, CRYPT_SECTOR, ivs,
                            err);
        p += n;
        at += n;
        length -= n;
    }
    return rc;
}
