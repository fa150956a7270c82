/* SPDX-License-Identifier: MIT */
/*
 * hash.c - message digests, key derivation and random bytes, by libcrypto.
 */
#include "crypto/hash.h"

#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <time.h>

#include "base/arith.h"
#include "base/cleanup.h"
#include "crypto/libcrypto.h"
#include "crypto/names.h"

static int find_md(enum hash_algorithm hash, const struct libcrypto **lib,
                   const EVP_MD **md, struct lam_error *err)
{
    static const char *const names[] = {
        [HASH_MD5] = "MD5", [HASH_SHA1] = "SHA1", [HASH_SHA224] = "SHA224",
        [HASH_SHA256] = "SHA256", [HASH_SHA384] = "SHA384",
        [HASH_SHA512] = "SHA512", [HASH_RIPEMD160] = "RIPEMD160",
        [HASH_SM3] = "SM3",
    };

    int rc = libcrypto_load(lib, err);
    if (rc < 0)
        return rc;
    *md = (*lib)->EVP_get_digestbyname(names[hash]);
    return *md ? 0 : lam_fail(err, ENOTSUP, "hash '%s' is not supported",
                              hash_name(hash));
}

static int failed(enum hash_algorithm hash, struct lam_error *err)
{
    return lam_fail(err, EIO, "hash '%s' failed", hash_name(hash));
}

int hash_check(enum hash_algorithm hash, struct lam_error *err)
{
    const struct libcrypto *lib;
    const EVP_MD *md;

    return find_md(hash, &lib, &md, err);
}

static void free_ctx(EVP_MD_CTX **ctx)
{
    if (*ctx)
        libcrypto()->EVP_MD_CTX_free(*ctx);
}

int hash_digest(enum hash_algorithm hash, const void *head, size_t head_length,
                const void *body, size_t body_length, uint8_t *out,
                struct lam_error *err)
{
    const struct libcrypto *lib;
    const EVP_MD *md;
    int rc = find_md(hash, &lib, &md, err);
    if (rc < 0)
        return rc;

    EVP_MD_CTX *ctx lam_cleanup(free_ctx) = lib->EVP_MD_CTX_new();
    if (!ctx)
        return lam_fail(err, ENOMEM, "no memory for a hash");
    return lib->EVP_DigestInit_ex(ctx, md, NULL) == 1
        && lib->EVP_DigestUpdate(ctx, head, head_length) == 1
        && lib->EVP_DigestUpdate(ctx, body, body_length) == 1
        && lib->EVP_DigestFinal_ex(ctx, out, NULL) == 1 ? 0
                                                        : failed(hash, err);
}

int hash_pbkdf2(enum hash_algorithm hash, const void *secret,
                size_t secret_length, const uint8_t *salt, size_t salt_length,
                uint64_t iterations, uint8_t *out, size_t out_length,
                struct lam_error *err)
{
    const struct libcrypto *lib;
    const EVP_MD *md;
    int rc = find_md(hash, &lib, &md, err);

    if (rc < 0)
        return rc;
    if (iterations < 1 || iterations > INT_MAX || secret_length > INT_MAX)
        return lam_fail(err, EINVAL, "PBKDF2 with %" PRIu64 " iterations "
                        "(limits: 1 to %d)", iterations, INT_MAX);
    return lib->PKCS5_PBKDF2_HMAC(secret, (int)secret_length, salt,
                                  (int)salt_length, (int)iterations, md,
                                  (int)out_length, out) == 1
        ? 0 : failed(hash, err);
}

/* Processor time of this thread: what others do on the machine must not make
 * a passphrase weaker. */
static double cpu_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int hash_pbkdf2_rate(enum hash_algorithm hash, size_t out_length,
                     uint64_t milliseconds, uint64_t *per_second,
                     struct lam_error *err)
{
    const double enough = (double)min_u64(milliseconds, 100) / 1000;
    uint8_t out[256];
    const uint8_t salt[32] = { 1 };
    double taken = 0;
    uint64_t iterations = 1 << 13;

    if (out_length > sizeof out)
        return lam_fail(err, EINVAL, "a key of %zu bytes is too long",
                        out_length);
    for (;; iterations *= 2) {
        double start = cpu_seconds();
        int rc = hash_pbkdf2(hash, "password", 8, salt, sizeof salt,
                             iterations, out, out_length, err);
        if (rc < 0)
            return rc;
        taken = cpu_seconds() - start;
        if (taken >= enough)
            break;
    }
    *per_second = (uint64_t)((double)iterations / taken);
    return 0;
}
