/* SPDX-License-Identifier: MIT */
/*
 * hash-names.c - what hashes are called and how long they are; random bytes.
 * All that needs no libcrypto.
 */
#include <sys/random.h>

#include "base/arith.h"
#include "crypto/hash.h"
#include "crypto/names.h"

static const char *const names[HASH_COUNT] = {
    [HASH_MD5] = "md5", [HASH_SHA1] = "sha1", [HASH_SHA224] = "sha224",
    [HASH_SHA256] = "sha256", [HASH_SHA384] = "sha384",
    [HASH_SHA512] = "sha512", [HASH_RIPEMD160] = "ripemd160",
    [HASH_SM3] = "sm3",
};

const char *hash_name(enum hash_algorithm hash)
{
    assert(hash < HASH_COUNT);
    return names[hash];
}

int hash_find(const char *name, size_t length, enum hash_algorithm *hash)
{
    int i = names_find(names, HASH_COUNT, name, length);

    if (i < 0)
        return -EINVAL;
    *hash = (enum hash_algorithm)i;
    return 0;
}

size_t hash_size(enum hash_algorithm hash)
{
    static const size_t sizes[HASH_COUNT] = {
        [HASH_MD5] = 16, [HASH_SHA1] = 20, [HASH_SHA224] = 28,
        [HASH_SHA256] = 32, [HASH_SHA384] = 48, [HASH_SHA512] = 64,
        [HASH_RIPEMD160] = 20, [HASH_SM3] = 32,
    };

    assert(hash < HASH_COUNT);
    return sizes[hash];
}

int crypto_random(void *buf, size_t length, struct lam_error *err)
{
    uint8_t *p = buf;

    while (length > 0) {
        ssize_t n = getrandom(p, length, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return lam_fail_errno(err, errno, "Could not get random bytes");
        p += n;
        length -= (size_t)n;
    }
    return 0;
}

int crypto_equal(const void *a, const void *b, size_t length)
{
    const uint8_t *x = a, *y = b;
    uint8_t difference = 0;

    for (size_t i = 0; i < length; i++)
        difference |= x[i] ^ y[i];
    return difference == 0;
}

void crypto_wipe(void *buf, size_t length)
{
    if (buf)
        explicit_bzero(buf, length);
}
