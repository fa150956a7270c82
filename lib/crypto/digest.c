/* SPDX-License-Identifier: MIT */
/*
 * digest.c - a message digest that is fed piece by piece, by libcrypto but for
 * one.
 */
#include "crypto/digest.h"

#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "crypto/blake3.h"
#include "crypto/libcrypto.h"

/* What people compare disk images by, and libcrypto's name for it; NULL: our
 * own. */
static const struct { const char *name, *libcrypto; } algorithms[] = {
    { "sha256", "SHA256" },     { "sha512", "SHA512" },
    { "blake3", NULL },
    { "blake2b512", "BLAKE2B512" }, { "sha384", "SHA384" },
    { "sha224", "SHA224" },     { "sha3-256", "SHA3-256" },
    { "sha3-512", "SHA3-512" }, { "blake2s256", "BLAKE2S256" },
    { "sha1", "SHA1" },         { "md5", "MD5" },
};

struct digest_stream {
    EVP_MD_CTX *ctx;
    const EVP_MD *md;
    const char *name;
    struct blake3 *blake3;      /* instead of the first two */
};

const char *digest_stream_name(size_t i)
{
    return i < LAM_ARRAY_SIZE(algorithms) ? algorithms[i].name : NULL;
}

static int failed(const struct digest_stream *s, struct lam_error *err)
{
    return lam_fail(err, EIO, "digest '%s' failed", s->name);
}

static int open_context(struct digest_stream *s, const char *name,
                        struct lam_error *err)
{
    const struct libcrypto *lib;

    if (!name) {
        s->blake3 = malloc(sizeof *s->blake3);
        if (!s->blake3)
            return lam_fail(err, ENOMEM, "no memory for a digest");
        blake3_init(s->blake3);
        return 0;
    }
    int rc = libcrypto_load(&lib, err);
    if (rc < 0)
        return rc;
    s->md = lib->EVP_get_digestbyname(name);
    s->ctx = lib->EVP_MD_CTX_new();
    if (!s->ctx)
        return lam_fail(err, ENOMEM, "no memory for a digest");
    /* A policy of the machine may forbid some. */
    if (!s->md || lib->EVP_DigestInit_ex(s->ctx, s->md, NULL) != 1)
        return lam_fail(err, ENOTSUP, "libcrypto does not offer digest '%s' "
                        "here", s->name);
    return 0;
}

int digest_stream_new(const char *name, size_t length,
                      struct digest_stream **out, struct lam_error *err)
{
    size_t i = 0;

    while (i < LAM_ARRAY_SIZE(algorithms) &&
           (strlen(algorithms[i].name) != length ||
            memcmp(algorithms[i].name, name, length)))
        i++;
    if (i == LAM_ARRAY_SIZE(algorithms))
        return lam_fail(err, ENOTSUP, "unknown digest '%.*s'",
                        (int)min_u64(length, 64), name);

    struct digest_stream *s = calloc(1, sizeof *s);
    if (!s)
        return lam_fail(err, ENOMEM, "no memory for a digest");
    s->name = algorithms[i].name;
    int rc = open_context(s, algorithms[i].libcrypto, err);
    if (rc < 0)
        digest_stream_free(s);
    else
        *out = s;
    return rc;
}

void digest_stream_free(struct digest_stream *s)
{
    if (!s)
        return;
    if (s->ctx)
        libcrypto()->EVP_MD_CTX_free(s->ctx);
    free(s->blake3);
    free(s);
}

int digest_stream_update(struct digest_stream *s, const void *bytes,
                         size_t length, struct lam_error *err)
{
    if (s->blake3) {
        blake3_update(s->blake3, bytes, length);
        return 0;
    }
    return libcrypto()->EVP_DigestUpdate(s->ctx, bytes, length) == 1
        ? 0 : failed(s, err);
}

int digest_stream_finish(struct digest_stream *s, uint8_t *out, size_t *size,
                         struct lam_error *err)
{
    if (s->blake3) {
        blake3_finish(s->blake3, out);
        blake3_init(s->blake3);
        *size = BLAKE3_BYTES;
        return 0;
    }
    const struct libcrypto *lib = libcrypto();
    unsigned length = 0;

    if (lib->EVP_DigestFinal_ex(s->ctx, out, &length) != 1 ||
        lib->EVP_DigestInit_ex(s->ctx, s->md, NULL) != 1)
        return failed(s, err);
    *size = length;
    return 0;
}
