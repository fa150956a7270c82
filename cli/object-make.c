/* SPDX-License-Identifier: MIT */
/*
 * object-make.c - --object: secrets, credentials, and names.
 *
 * The trees have been checked: what has to be there is, and of the right kind.
 */
#include <errno.h>
#include <string.h>

#include "object.h"

int object_make_secret(const struct cli *cli, struct json_object *tree,
                       struct lam_error *err)
{
    struct lam_secret secret = LAM_SECRET_INIT;
    const char *format = object_text(tree, "format");

    secret.id = object_text(tree, "id");
    secret.data = object_text(tree, "data");
    secret.file = object_text(tree, "file");
    secret.keyid = object_text(tree, "keyid");
    secret.iv = object_text(tree, "iv");
    secret.base64 = format && !strcmp(format, "base64");
    if (!strcmp(object_text(tree, "qom-type"), "secret_keyring")) {
        secret.serial = (int32_t)object_number(tree, "serial", 0);
        if (!secret.serial)
            return option_fail(err, EINVAL,
                               "'serial' should not be equal to 0");
    }
    return lam_keyring_add(cli->keyring, &secret, err);
}

int object_make_tls(const struct cli *cli, struct json_object *tree,
                    struct lam_error *err)
{
    struct lam_tls_credentials tls = LAM_TLS_CREDENTIALS_INIT;
    const char *type = object_text(tree, "qom-type");
    const char *endpoint = object_text(tree, "endpoint");

    tls.id = object_text(tree, "id");
    tls.kind = !strcmp(type, "tls-creds-psk") ? LAM_TLS_PSK
             : !strcmp(type, "tls-creds-x509") ? LAM_TLS_X509
                                               : LAM_TLS_ANONYMOUS;
    tls.for_server = endpoint && !strcmp(endpoint, "server");
    tls.folder = object_text(tree, "dir");
    tls.priority = object_text(tree, "priority");
    tls.user = object_text(tree, "username");
    tls.key_secret = object_text(tree, "passwordid");
    tls.verify_peer = object_switch(tree, "verify-peer", true);
    tls.check_certificates = object_switch(tree, "sanity-check", true);
    return lam_keyring_add_tls(cli->keyring, &tls, err);
}

int object_make_name(const struct cli *cli, struct json_object *tree,
                     struct lam_error *err)
{
    return lam_keyring_reserve(cli->keyring, object_text(tree, "id"),
                               LAM_NAME_OTHER, err);
}

int object_make_reservations(const struct cli *cli, struct json_object *tree,
                             struct lam_error *err)
{
    return lam_keyring_add_reservations(cli->keyring, object_text(tree, "id"),
                                        object_text(tree, "path"), err);
}

/* --------------------------------------------------------------- main-loop */

/* How many requests a loop of events takes together, and its threads: there is
 * no such loop here, so the numbers only have to be ones. */
int object_make_main_loop(const struct cli *cli, struct json_object *tree,
                          struct lam_error *err)
{
    static const char *const numbers[] = {
        "aio-max-batch", "thread-pool-max", "thread-pool-min",
    };
    const char *id = object_text(tree, "id");

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        if (object_number(tree, numbers[i], 0) < 0)
            return option_fail(err, EINVAL, "%s value must be in range [0, "
                               "%lld]", numbers[i], (long long)INT64_MAX);
    }
    int rc = lam_keyring_reserve(cli->keyring, id, LAM_NAME_MAIN_LOOP, err);
    if (rc < 0)
        return rc;
    int64_t least = object_number(tree, "thread-pool-min", 0);
    int64_t most = object_number(tree, "thread-pool-max", 64);
    return most && least <= most && most <= INT32_MAX ? 0
        : option_fail(err, EINVAL,
                      "bad thread-pool-min/thread-pool-max values");
}
