/* SPDX-License-Identifier: MIT */
/*
 * block.c - block ciphers, each by the library that has it.
 *
 * OpenSSL never had Twofish and Serpent, and CAST5 only where somebody loads
 * its legacy provider: these are nettle's.
 */
#include "crypto/block.h"

#include <stdlib.h>

#include "base/arith.h"
#include "crypto/block-engine.h"

struct block_cipher {
    enum cipher_algorithm algorithm;
    const struct block_engine *engine;
    void *state;
};

static const struct block_engine *engine_of(enum cipher_algorithm algorithm)
{
    switch (algorithm) {
    case CIPHER_CAST5_128:
    case CIPHER_SERPENT_128:
    case CIPHER_SERPENT_192:
    case CIPHER_SERPENT_256:
    case CIPHER_TWOFISH_128:
    case CIPHER_TWOFISH_192:
    case CIPHER_TWOFISH_256:
        return &block_nettle;
    default:
        return &block_libcrypto;
    }
}

int block_new(enum cipher_algorithm algorithm, const uint8_t *key,
              struct block_cipher **out, struct lam_error *err)
{
    struct block_cipher *b = calloc(1, sizeof *b);

    if (!b)
        return lam_fail(err, ENOMEM, "no memory for a cipher");
    b->algorithm = algorithm;
    b->engine = engine_of(algorithm);
    int rc = b->engine->new(algorithm, key, &b->state, err);
    if (rc < 0)
        free(b);
    else
        *out = b;
    return rc;
}

void block_free(struct block_cipher *b)
{
    if (!b)
        return;
    b->engine->free(b->state);
    free(b);
}

int block_run(struct block_cipher *b, enum cipher_direction direction,
              uint8_t *buf, size_t length, struct lam_error *err)
{
    assert(length % cipher_block_bytes(b->algorithm) == 0);
    return b->engine->run(b->state, direction, buf, length)
        ? 0 : lam_fail(err, EIO, "cipher '%s' failed",
                       cipher_name(b->algorithm));
}
