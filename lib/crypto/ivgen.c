/* SPDX-License-Identifier: MIT */
/*
 * ivgen.c - sector numbers → initialisation vectors (format document 10.2).
 */
#include "crypto/ivgen.h"

#include <endian.h>
#include <string.h>

#include "base/arith.h"
#include "crypto/names.h"

static const char *const names[IVGEN_COUNT] = {
    [IVGEN_PLAIN] = "plain", [IVGEN_PLAIN64] = "plain64",
    [IVGEN_ESSIV] = "essiv",
};

const char *ivgen_name(enum ivgen_algorithm ivgen)
{
    assert(ivgen < IVGEN_COUNT);
    return names[ivgen];
}

int ivgen_find(const char *name, size_t length, enum ivgen_algorithm *ivgen)
{
    int i = names_find(names, IVGEN_COUNT, name, length);

    if (i < 0)
        return -EINVAL;
    *ivgen = (enum ivgen_algorithm)i;
    return 0;
}

int ivgen_essiv_cipher(enum hash_algorithm hash, enum cipher_algorithm cipher,
                       enum cipher_algorithm *out, struct lam_error *err)
{
    static const struct { const char *family, *title; } titles[] = {
        { "aes", "AES" }, { "serpent", "Serpent" }, { "twofish", "Twofish" },
    };
    const char *family = cipher_family(cipher);

    *out = cipher;
    if (cipher_key_bytes(cipher, CIPHER_ECB) == hash_size(hash))
        return 0;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(titles); i++) {
        if (strcmp(family, titles[i].family))
            continue;
        return cipher_of_family(family, hash_size(hash), out) == 0 ? 0
            : lam_fail(err, EINVAL, "No %s cipher with key size %zu available",
                       titles[i].title, hash_size(hash));
    }
    return lam_fail(err, EINVAL, "Cipher %s not supported with essiv",
                    cipher_name(cipher));
}

int ivgen_init(struct ivgen *gen, enum ivgen_algorithm ivgen,
               enum hash_algorithm hash, enum cipher_algorithm cipher,
               const uint8_t *key, size_t key_bytes, struct lam_error *err)
{
    uint8_t digest[HASH_MAX_BYTES];
    enum cipher_algorithm salted;

    *gen = (struct ivgen){ ivgen, NULL };
    if (ivgen != IVGEN_ESSIV)
        return 0;
    int rc = ivgen_essiv_cipher(hash, cipher, &salted, err);
    if (rc == 0)
        rc = hash_digest(hash, NULL, 0, key, key_bytes, digest, err);
    if (rc == 0)
        rc = block_new(salted, digest, &gen->essiv, err);
    crypto_wipe(digest, sizeof digest);
    return rc;
}

void ivgen_deinit(struct ivgen *gen)
{
    block_free(gen->essiv);
    gen->essiv = NULL;
}

int ivgen_run(struct ivgen *gen, uint64_t first, size_t count, uint8_t *ivs,
              struct lam_error *err)
{
    memset(ivs, 0, count * CIPHER_IV_BYTES);
    for (size_t i = 0; i < count; i++) {
        uint64_t sector = first + i;
        if (gen->algorithm == IVGEN_PLAIN)
            sector &= UINT32_MAX;
        sector = htole64(sector);
        memcpy(ivs + i * CIPHER_IV_BYTES, &sector, sizeof sector);
    }
    return gen->essiv ? block_run(gen->essiv, CIPHER_ENCRYPT, ivs,
                                  count * CIPHER_IV_BYTES, err) : 0;
}
