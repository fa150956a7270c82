/* SPDX-License-Identifier: MIT */
/*
 * cipher-names.c - what ciphers are called, and how long their keys are.
 */
#include <string.h>

#include "base/arith.h"
#include "crypto/cipher.h"
#include "crypto/names.h"

static const struct {
    const char *name, *family;
    size_t key_bytes;
} ciphers[CIPHER_COUNT] = {
    [CIPHER_AES_128] = { "aes-128", "aes", 16 },
    [CIPHER_AES_192] = { "aes-192", "aes", 24 },
    [CIPHER_AES_256] = { "aes-256", "aes", 32 },
    [CIPHER_DES] = { "des", "", 8 },
    [CIPHER_3DES] = { "3des", "", 24 },
    [CIPHER_CAST5_128] = { "cast5-128", "cast5", 16 },
    [CIPHER_SERPENT_128] = { "serpent-128", "serpent", 16 },
    [CIPHER_SERPENT_192] = { "serpent-192", "serpent", 24 },
    [CIPHER_SERPENT_256] = { "serpent-256", "serpent", 32 },
    [CIPHER_TWOFISH_128] = { "twofish-128", "twofish", 16 },
    [CIPHER_TWOFISH_192] = { "twofish-192", "twofish", 24 },
    [CIPHER_TWOFISH_256] = { "twofish-256", "twofish", 32 },
    [CIPHER_SM4] = { "sm4", "sm4", 16 },
};

static const char *const modes[CIPHER_MODE_COUNT] = {
    [CIPHER_ECB] = "ecb", [CIPHER_CBC] = "cbc", [CIPHER_XTS] = "xts",
    [CIPHER_CTR] = "ctr",
};

const char *cipher_name(enum cipher_algorithm algorithm)
{
    assert(algorithm < CIPHER_COUNT);
    return ciphers[algorithm].name;
}

const char *cipher_family(enum cipher_algorithm algorithm)
{
    assert(algorithm < CIPHER_COUNT);
    return ciphers[algorithm].family;
}

const char *cipher_mode_name(enum cipher_mode mode)
{
    assert(mode < CIPHER_MODE_COUNT);
    return modes[mode];
}

int cipher_find(const char *name, enum cipher_algorithm *algorithm)
{
    for (size_t i = 0; i < CIPHER_COUNT; i++) {
        if (!strcmp(ciphers[i].name, name)) {
            *algorithm = (enum cipher_algorithm)i;
            return 0;
        }
    }
    return -EINVAL;
}

int cipher_mode_find(const char *name, size_t length, enum cipher_mode *mode)
{
    int i = names_find(modes, CIPHER_MODE_COUNT, name, length);

    if (i < 0)
        return -EINVAL;
    *mode = (enum cipher_mode)i;
    return 0;
}

int cipher_of_family(const char *family, size_t key_bytes,
                     enum cipher_algorithm *algorithm)
{
    for (size_t i = 0; i < CIPHER_COUNT; i++) {
        if (*family && !strcmp(ciphers[i].family, family) &&
            ciphers[i].key_bytes == key_bytes) {
            *algorithm = (enum cipher_algorithm)i;
            return 0;
        }
    }
    return -EINVAL;
}

size_t cipher_key_bytes(enum cipher_algorithm algorithm, enum cipher_mode mode)
{
    assert(algorithm < CIPHER_COUNT);
    return ciphers[algorithm].key_bytes * (mode == CIPHER_XTS ? 2 : 1);
}

size_t cipher_block_bytes(enum cipher_algorithm algorithm)
{
    switch (algorithm) {
    case CIPHER_DES:
    case CIPHER_3DES:
    case CIPHER_CAST5_128:
        return 8;
    default:
        return CIPHER_IV_BYTES;
    }
}
