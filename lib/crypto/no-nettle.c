/* SPDX-License-Identifier: MIT */
/*
 * no-nettle.c - in place of block-nettle.c in a build without libnettle.
 */
#include "crypto/block-engine.h"

static int none_new(enum cipher_algorithm algorithm, const uint8_t *key,
                    void **state, struct lam_error *err)
{
    (void)key, (void)state;
    return lam_fail(err, ENOTSUP, "Algorithm '%s' not supported: built without "
                    "libnettle", cipher_name(algorithm));
}

/* Never called: there is nothing to free or to run. */
static void none_free(void *state)
{
    (void)state;
}

static bool none_run(void *state, enum cipher_direction direction, uint8_t *buf,
                     size_t length)
{
    (void)state, (void)direction, (void)buf, (void)length;
    return false;
}

const struct block_engine block_nettle = { none_new, none_free, none_run };
