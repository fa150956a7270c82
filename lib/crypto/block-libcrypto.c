/* SPDX-License-Identifier: MIT */
/*
 * block-libcrypto.c - block ciphers by libcrypto.
 *
 * A context belongs to one thread at a time: there are as many as there have
 * been threads at once, kept in a list.
 */
#include "crypto/block-engine.h"

#include <string.h>

#include "base/arith.h"
#include "base/cleanup.h"
#include "crypto/hash.h"
#include "crypto/libcrypto.h"

struct context {
    EVP_CIPHER_CTX *evp[2];     /* by direction */
    struct context *next;
};

struct evp_cipher {
    const EVP_CIPHER *evp;
    uint8_t key[CIPHER_MAX_KEY];
    pthread_mutex_t lock;       /* guards idle */
    struct context *idle;
};

static void context_free(struct context *c)
{
    if (!c)
        return;
    libcrypto()->EVP_CIPHER_CTX_free(c->evp[CIPHER_DECRYPT]);
    libcrypto()->EVP_CIPHER_CTX_free(c->evp[CIPHER_ENCRYPT]);
    free(c);
}

static bool init_direction(const struct evp_cipher *b, struct context *c,
                           int direction)
{
    const struct libcrypto *lib = libcrypto();
    EVP_CIPHER_CTX *evp = c->evp[direction] = lib->EVP_CIPHER_CTX_new();

    return evp && lib->EVP_CipherInit_ex(evp, b->evp, NULL, b->key, NULL,
                                         direction == CIPHER_ENCRYPT) == 1
        && lib->EVP_CIPHER_CTX_set_padding(evp, 0) == 1;
}

static struct context *context_new(const struct evp_cipher *b)
{
    struct context *c = calloc(1, sizeof *c);

    if (c && init_direction(b, c, CIPHER_DECRYPT) &&
        init_direction(b, c, CIPHER_ENCRYPT))
        return c;
    context_free(c);
    return NULL;
}

static struct context *context_get(struct evp_cipher *b)
{
    struct context *c;
    {
        LAM_LOCKED(&b->lock);
        c = b->idle;
        if (c)
            b->idle = c->next;
    }
    return c ? c : context_new(b);
}

static void context_put(struct evp_cipher *b, struct context *c)
{
    LAM_LOCKED(&b->lock);
    c->next = b->idle;
    b->idle = c;
}

static void evp_free(void *state)
{
    struct evp_cipher *b = state;

    while (b->idle) {
        struct context *next = b->idle->next;
        context_free(b->idle);
        b->idle = next;
    }
    pthread_mutex_destroy(&b->lock);
    crypto_wipe(b->key, sizeof b->key);
    free(b);
}

static int evp_new(enum cipher_algorithm algorithm, const uint8_t *key,
                   void **state, struct lam_error *err)
{
    static const char *const names[CIPHER_COUNT] = {
        [CIPHER_AES_128] = "AES-128-ECB", [CIPHER_AES_192] = "AES-192-ECB",
        [CIPHER_AES_256] = "AES-256-ECB", [CIPHER_SM4] = "SM4-ECB",
    };
    const char *name = names[algorithm];
    const struct libcrypto *lib;
    int rc = libcrypto_load(&lib, err);
    if (rc < 0)
        return rc;
    const EVP_CIPHER *evp = name ? lib->EVP_get_cipherbyname(name) : NULL;
    if (!evp)
        return lam_fail(err, ENOTSUP, "Algorithm '%s' not supported",
                        cipher_name(algorithm));
    struct evp_cipher *b = calloc(1, sizeof *b);
    if (!b)
        return lam_fail(err, ENOMEM, "no memory for a cipher");
    b->evp = evp;
    memcpy(b->key, key, (size_t)lib->EVP_CIPHER_get_key_length(evp));
    pthread_mutex_init(&b->lock, NULL);
    b->idle = context_new(b);
    if (!b->idle) {
        evp_free(b);
        return lam_fail(err, ENOMEM, "no memory for a cipher");
    }
    *state = b;
    return 0;
}

static bool evp_run(void *state, enum cipher_direction direction, uint8_t *buf,
                    size_t length)
{
    static const size_t PIECE = 1 << 20;        /* libcrypto counts in int */
    struct evp_cipher *b = state;
    struct context *c = context_get(b);
    bool good = c;

    for (size_t at = 0; at < length && good; at += PIECE) {
        int done;
        good = libcrypto()->EVP_CipherUpdate(
            c->evp[direction], buf + at, &done, buf + at,
            (int)min_u64(PIECE, length - at)) == 1;
    }
    if (c)
        context_put(b, c);
    return good;
}

const struct block_engine block_libcrypto = { evp_new, evp_free, evp_run };
