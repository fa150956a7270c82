/* SPDX-License-Identifier: MIT */
/*
 * block-nettle.c - block ciphers by nettle: key schedules that nothing changes
 * after they are made, so all threads share one.
 */
#include "crypto/block-engine.h"

#include <assert.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "crypto/hash.h"
#include "crypto/libnettle.h"

struct schedule {
    void (*run[2])(const void *key, size_t length, uint8_t *to,
                   const uint8_t *from);        /* by direction */
    union {
        struct serpent_ctx serpent;
        struct twofish_ctx twofish;
        struct cast128_ctx cast128;
    } key;
};

/* Functions that differ in the type of their key alone. */
#define RUN(name)                                                           \
    static void run_##name(const void *key, size_t length, uint8_t *to,     \
                           const uint8_t *from)                             \
    {                                                                       \
        libnettle()->nettle_##name(key, length, to, from);                  \
    }
RUN(serpent_encrypt)
RUN(serpent_decrypt)
RUN(twofish_encrypt)
RUN(twofish_decrypt)
RUN(cast128_encrypt)
RUN(cast128_decrypt)
#undef RUN

static void set_key(struct schedule *s, enum cipher_algorithm algorithm,
                    const uint8_t *key)
{
    size_t bytes = cipher_key_bytes(algorithm, CIPHER_ECB);

    switch (algorithm) {
    case CIPHER_SERPENT_128:
    case CIPHER_SERPENT_192:
    case CIPHER_SERPENT_256:
        libnettle()->nettle_serpent_set_key(&s->key.serpent, bytes, key);
        s->run[CIPHER_ENCRYPT] = run_serpent_encrypt;
        s->run[CIPHER_DECRYPT] = run_serpent_decrypt;
        break;
    case CIPHER_TWOFISH_128:
    case CIPHER_TWOFISH_192:
    case CIPHER_TWOFISH_256:
        libnettle()->nettle_twofish_set_key(&s->key.twofish, bytes, key);
        s->run[CIPHER_ENCRYPT] = run_twofish_encrypt;
        s->run[CIPHER_DECRYPT] = run_twofish_decrypt;
        break;
    default:
        assert(algorithm == CIPHER_CAST5_128);
        libnettle()->nettle_cast128_set_key(&s->key.cast128, key);
        s->run[CIPHER_ENCRYPT] = run_cast128_encrypt;
        s->run[CIPHER_DECRYPT] = run_cast128_decrypt;
    }
}

static int nettle_new(enum cipher_algorithm algorithm, const uint8_t *key,
                      void **state, struct lam_error *err)
{
    const struct libnettle *lib;
    int rc = libnettle_load(&lib, err);

    if (rc < 0)
        return lam_error_prefix(err, rc, "Algorithm '%s' not supported",
                                cipher_name(algorithm));
    struct schedule *s = malloc(sizeof *s);
    if (!s)
        return lam_fail(err, ENOMEM, "no memory for a cipher");
    set_key(s, algorithm, key);
    *state = s;
    return 0;
}

static void nettle_free(void *state)
{
    crypto_wipe(state, sizeof(struct schedule));
    free(state);
}

static bool nettle_run(void *state, enum cipher_direction direction,
                       uint8_t *buf, size_t length)
{
    const struct schedule *s = state;

    s->run[direction](&s->key, length, buf, buf);
    return true;
}

const struct block_engine block_nettle = { nettle_new, nettle_free,
                                           nettle_run };
