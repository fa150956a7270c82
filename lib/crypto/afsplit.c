/* SPDX-License-Identifier: MIT */
/*
 * afsplit.c - the anti-forensic splitter of LUKS (format document 10.2).
 */
#include "crypto/afsplit.h"

#include <string.h>

#include "base/arith.h"
#include "base/bytes.h"

static void xor_into(uint8_t *out, const uint8_t *in, size_t length)
{
    for (size_t i = 0; i < length; i++)
        out[i] ^= in[i];
}

/* Piece j of the block, as long as a digest (the last may be shorter), becomes
 * the digest of j and the piece. */
static int diffuse(enum hash_algorithm hash, uint8_t *block, size_t length,
                   struct lam_error *err)
{
    uint8_t digest[HASH_MAX_BYTES];
    size_t size = hash_size(hash);
    uint32_t j = 0;
    int rc = 0;

    for (size_t at = 0; at < length && rc == 0; at += size, j++) {
        size_t n = min_u64(size, length - at);
        uint8_t number[4];

        be32_put(number, j);
        rc = hash_digest(hash, number, sizeof number, block + at, n, digest,
                         err);
        if (rc == 0)
            memcpy(block + at, digest, n);
    }
    crypto_wipe(digest, sizeof digest);
    return rc;
}

/* @block, zero at first: what all stripes but the last come to. */
static int fold(enum hash_algorithm hash, const uint8_t *material,
                size_t length, uint32_t stripes, uint8_t *block,
                struct lam_error *err)
{
    memset(block, 0, length);
    for (uint32_t i = 0; i + 1 < stripes; i++) {
        xor_into(block, material + i * length, length);
        int rc = diffuse(hash, block, length, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int afsplit_split(enum hash_algorithm hash, const uint8_t *key, size_t length,
                  uint32_t stripes, uint8_t *out, struct lam_error *err)
{
    uint8_t *last = out + (size_t)(stripes - 1) * length;

    assert(stripes > 0);
    int rc = crypto_random(out, (size_t)(stripes - 1) * length, err);
    if (rc == 0)
        rc = fold(hash, out, length, stripes, last, err);
    if (rc == 0)
        xor_into(last, key, length);
    return rc;
}

int afsplit_merge(enum hash_algorithm hash, const uint8_t *material,
                  size_t length, uint32_t stripes, uint8_t *key,
                  struct lam_error *err)
{
    assert(stripes > 0);
    int rc = fold(hash, material, length, stripes, key, err);
    if (rc == 0)
        xor_into(key, material + (size_t)(stripes - 1) * length, length);
    return rc;
}
