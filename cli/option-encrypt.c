/* SPDX-License-Identifier: MIT */
/*
 * option-encrypt.c - the -o options that say how a new image is encrypted.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "option.h"

/* @name behind @prefix, "encrypt." or none. */
static const char *get(const struct keyvals *kv, const char *prefix,
                       const char *name)
{
    char key[64];

    snprintf(key, sizeof key, "%s%s", prefix, name);
    return keyvals_get(kv, key);
}

static bool any_given(const struct keyvals *kv, const char *prefix)
{
    for (size_t i = 0; i < kv->count; i++) {
        if (!strncmp(kv->items[i].key, prefix, strlen(prefix)))
            return true;
    }
    return false;
}

static bool is_on(const char *value)
{
    bool on = false;

    return value && parse_bool(value, &on) == 0 && on;
}

static int apply_format(const struct keyvals *kv,
                        struct lam_encryption_options *o, struct lam_error *err)
{
    const char *alias = keyvals_get(kv, "encryption");

    o->format = keyvals_get(kv, "encrypt.format");
    if (is_on(alias) && o->format)
        return option_fail(err, EINVAL, "'encrypt.format' and its alias "
                           "'encryption' can't be used at the same time");
    if (is_on(alias))
        o->format = "aes";
    if (!o->format && any_given(kv, "encrypt."))
        return option_fail(err, EINVAL, "Parameter 'encrypt.format' is "
                           "missing");
    return 0;
}

int encryption_options_apply(const char *format, const struct keyvals *kv,
                             struct lam_encryption_options *o,
                             struct lam_error *err)
{
    bool luks = !strcmp(format, "luks");
    const char *prefix = luks ? "" : "encrypt.";
    int rc = luks ? 0 : apply_format(kv, o, err);

    if (rc < 0)
        return rc;
    o->key_secret = get(kv, prefix, "key-secret");
    o->cipher_alg = get(kv, prefix, "cipher-alg");
    o->cipher_mode = get(kv, prefix, "cipher-mode");
    o->ivgen_alg = get(kv, prefix, "ivgen-alg");
    o->ivgen_hash_alg = get(kv, prefix, "ivgen-hash-alg");
    o->hash_alg = get(kv, prefix, "hash-alg");
    const char *time = get(kv, prefix, "iter-time");
    if (time)
        o->iter_time = strtoull(time, NULL, 0);
    if (luks && is_on(keyvals_get(kv, "detached-header")))
        return option_fail(err, ENOTSUP, "Parameter 'detached-header' is "
                           "unexpected");
    return 0;
}
