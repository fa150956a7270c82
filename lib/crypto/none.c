/* SPDX-License-Identifier: MIT */
/*
 * none.c - in place of block.c, hash.c and digest.c in a build without
 * libcrypto: images that are encrypted are described by `info` and not opened.
 */
#include <string.h>

#include "crypto/block.h"
#include "crypto/digest.h"
#include "crypto/hash.h"

static int not_built(struct lam_error *err)
{
    return lam_fail(err, ENOTSUP, "encryption is not supported: built without "
                    "libcrypto");
}

int block_new(enum cipher_algorithm algorithm, const uint8_t *key,
              struct block_cipher **out, struct lam_error *err)
{
    (void)algorithm, (void)key, (void)out;
    return not_built(err);
}

void block_free(struct block_cipher *block)
{
    (void)block;
}

int block_run(struct block_cipher *block, enum cipher_direction direction,
              uint8_t *buf, size_t length, struct lam_error *err)
{
    (void)block, (void)direction, (void)buf, (void)length;
    return not_built(err);
}

int hash_check(enum hash_algorithm hash, struct lam_error *err)
{
    (void)hash;
    return not_built(err);
}

int hash_digest(enum hash_algorithm hash, const void *head, size_t head_length,
                const void *body, size_t body_length, uint8_t *out,
                struct lam_error *err)
{
    (void)hash, (void)head, (void)head_length, (void)body, (void)body_length;
    (void)out;
    return not_built(err);
}

int hash_pbkdf2(enum hash_algorithm hash, const void *secret,
                size_t secret_length, const uint8_t *salt, size_t salt_length,
                uint64_t iterations, uint8_t *out, size_t out_length,
                struct lam_error *err)
{
    (void)hash, (void)secret, (void)secret_length, (void)salt;
    (void)salt_length, (void)iterations, (void)out, (void)out_length;
    return not_built(err);
}

int hash_pbkdf2_rate(enum hash_algorithm hash, size_t out_length,
                     uint64_t milliseconds, uint64_t *per_second,
                     struct lam_error *err)
{
    (void)hash, (void)out_length, (void)milliseconds, (void)per_second;
    return not_built(err);
}

const char *digest_stream_name(size_t i)
{
    (void)i;
    return NULL;
}

int digest_stream_new(const char *name, size_t length,
                      struct digest_stream **out, struct lam_error *err)
{
    (void)name, (void)length, (void)out;
    return lam_fail(err, ENOTSUP, "digests are not supported: built without "
                    "libcrypto");
}

void digest_stream_free(struct digest_stream *s)
{
    (void)s;
}

int digest_stream_update(struct digest_stream *s, const void *bytes,
                         size_t length, struct lam_error *err)
{
    (void)s, (void)bytes, (void)length;
    return not_built(err);
}

int digest_stream_finish(struct digest_stream *s, uint8_t *out, size_t *size,
                         struct lam_error *err)
{
    (void)s, (void)out, (void)size;
    return not_built(err);
}
