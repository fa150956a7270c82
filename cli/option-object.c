/* SPDX-License-Identifier: MIT */
/*
 * option-object.c - --object: secrets, by which encrypted images are opened,
 * and groups that share limits.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "option.h"

/* The members of a secret; false if @item is none. */
static bool take_member(struct lam_secret *secret, const struct keyval *item,
                        const char **format)
{
    const struct { const char *key; const char **to; } members[] = {
        { "id", &secret->id }, { "data", &secret->data },
        { "file", &secret->file }, { "format", format },
        { "keyid", &secret->keyid }, { "iv", &secret->iv },
    };

    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        if (!strcmp(item->key, members[i].key)) {
            *members[i].to = item->value;
            return true;
        }
    }
    return false;
}

static bool is_identifier(const char *text)
{
    if (!isalpha((unsigned char)*text))
        return false;
    while (*text && (isalnum((unsigned char)*text) || strchr("-._", *text)))
        text++;
    return *text == '\0';
}

/* @kv: "qom-type" first, which the caller has judged. */
static int add_secret(const struct cli *cli, const struct keyvals *kv,
                      struct lam_error *err)
{
    struct lam_secret secret = LAM_SECRET_INIT;
    const char *format = "raw";

    for (size_t i = 0; i < kv->count; i++) {
        if (strcmp(kv->items[i].key, "qom-type") &&
            !take_member(&secret, &kv->items[i], &format))
            return option_fail(err, EINVAL, "Parameter '%s' is unexpected",
                               kv->items[i].key);
    }
    if (!secret.id)
        return option_fail(err, EINVAL, "Parameter 'id' is missing");
    if (!is_identifier(secret.id))
        return option_fail(err, EINVAL, "Parameter 'id' expects an identifier\n"
                           "Identifiers consist of letters, digits, '-', '.', "
                           "'_', starting with a letter.");
    secret.base64 = !strcmp(format, "base64");
    if (!secret.base64 && strcmp(format, "raw"))
        return option_fail(err, EINVAL, "Parameter 'format' does not accept "
                           "value '%s'", format);
    return lam_keyring_add(cli->keyring, &secret, err);
}

bool object_help(const char *text)
{
    static const char secret[] =
        "secret options:\n"
        "  data=<string>\n"
        "  file=<string>\n"
        "  format=<QCryptoSecretFormat>\n"
        "  iv=<string>\n"
        "  keyid=<string>\n";
    size_t type = strcspn(text, ",");

    if (*text == '{' || !keyvals_ask_help(text))
        return false;
    if (type == 6 && !strncmp(text, "secret", type)) {
        fputs(secret, stdout);
    } else if (type == 14 && !strncmp(text, "throttle-group", type)) {
        throttle_help();
    } else {
        fputs("List of user creatable objects:\n"
              "  secret\n"
              "  throttle-group\n", stdout);
    }
    return true;
}

static bool is_known(const char *type)
{
    static const char *const known[] = {
        "secret_keyring", "tls-creds-anon", "tls-creds-psk", "tls-creds-x509",
        "tls-cipher-suites", "authz-list", "authz-simple",
    };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (!strcmp(type, known[i]))
            return true;
    }
    return false;
}

static int add_object(const struct cli *cli, const struct keyvals *kv,
                      struct lam_error *err)
{
    const char *type = keyvals_get(kv, "qom-type");

    if (!type)
        return option_fail(err, EINVAL, "Parameter 'qom-type' is missing");
    if (!strcmp(type, "secret"))
        return add_secret(cli, kv, err);
    if (!strcmp(type, "throttle-group"))
        return throttle_option(cli, kv, err);
    if (is_known(type))
        return option_fail(err, ENOTSUP, "--object %s: not available yet; "
                           "'secret' and 'throttle-group' are", type);
    return option_fail(err, EINVAL, "Parameter 'qom-type' does not accept "
                       "value '%s'", type);
}

static int parse_list(struct keyvals *kv, const char *text,
                      struct lam_error *err)
{
    size_t first = strcspn(text, "=,");
    char *full = NULL;

    /* The first word is the type, without its key. */
    if (asprintf(&full, "%s%s", text[first] == '=' ? "" : "qom-type=",
                 text) < 0)
        return option_fail(err, ENOMEM, "no memory for an option list");
    int rc = keyvals_parse(kv, full, err);
    free(full);
    return rc;
}

int object_option(const struct cli *cli, const char *text,
                  struct lam_error *err)
{
    struct keyvals kv = { 0 };
    int rc = *text == '{' ? object_from_json(&kv, text, err)
                          : parse_list(&kv, text, err);

    if (rc == 0)
        rc = add_object(cli, &kv, err);
    keyvals_deinit(&kv);
    return rc;
}
