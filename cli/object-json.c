/* SPDX-License-Identifier: MIT */
/*
 * object-json.c - --object '{"qom-type": "secret", "id": "s", ...}', as the
 * key=value list that says the same.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "option.h"

static struct json_object *parse(const char *text, struct lam_error *err)
{
    size_t length = strlen(text);
    struct json_tokener *tokener = length < INT32_MAX ? json_tokener_new()
                                                      : NULL;

    if (!tokener) {
        option_fail(err, ENOMEM, "no memory for an object");
        return NULL;
    }
    struct json_object *root =
        json_tokener_parse_ex(tokener, text, (int)length);
    enum json_tokener_error error = json_tokener_get_error(tokener);
    size_t end = json_tokener_get_parse_end(tokener);
    json_tokener_free(tokener);

    if (error == json_tokener_continue)
        option_fail(err, EINVAL, "JSON parse error, premature EOI");
    else if (error != json_tokener_success)
        option_fail(err, EINVAL, "JSON parse error, %s",
                    json_tokener_error_desc(error));
    else if (end < length && strspn(text + end, " \t\r\n") < length - end)
        option_fail(err, EINVAL, "Expecting at most one JSON value");
    else
        return root;
    json_object_put(root);
    return NULL;
}

/* What the members of both kinds of objects are; without an opinion on what is
 * no member. */
static enum json_type expected_type(const char *kind, const char *name)
{
    static const char *const strings[] = {
        "qom-type", "id", "data", "file", "format", "keyid", "iv",
    };

    if (!strcmp(kind, "throttle-group") &&
        (!strncmp(name, "limits.", 7) || !strncmp(name, "x-", 2)))
        return json_type_int;
    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++) {
        if (!strcmp(name, strings[i]))
            return json_type_string;
    }
    return json_type_null;
}

static int add_value(struct keyvals *kv, const char *kind, const char *name,
                     struct json_object *value, struct lam_error *err)
{
    enum json_type expected = expected_type(kind, name);
    bool wrong = expected != json_type_null &&
                 !json_object_is_type(value, expected);

    if (wrong)
        return option_fail(err, EINVAL, "Invalid parameter type for '%s', "
                           "expected: %s", name,
                           expected == json_type_int ? "integer" : "string");
    return keyvals_set(kv, name, value ? json_object_get_string(value) : "null",
                       err);
}

/* {"limits": {"iops-total": 5}} is limits.iops-total=5. */
static int add_members(struct keyvals *kv, const char *kind, const char *prefix,
                       struct json_object *object, struct lam_error *err)
{
    int rc = 0;

    json_object_object_foreach(object, key, value) {
        char *name = NULL;
        if (asprintf(&name, "%s%s", prefix, key) < 0)
            return option_fail(err, ENOMEM, "no memory for an object");
        if (!*prefix && json_object_is_type(value, json_type_object)) {
            char *inner = NULL;
            rc = asprintf(&inner, "%s.", name) < 0
                ? option_fail(err, ENOMEM, "no memory for an object")
                : add_members(kv, kind, inner, value, err);
            free(inner);
        } else {
            rc = add_value(kv, kind, name, value, err);
        }
        free(name);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int object_from_json(struct keyvals *kv, const char *text,
                     struct lam_error *err)
{
    struct json_object *root = parse(text, err), *type = NULL;

    if (!root)
        return -EINVAL;
    json_object_object_get_ex(root, "qom-type", &type);
    int rc = add_members(kv, type ? json_object_get_string(type) : "", "", root,
                         err);
    json_object_put(root);
    return rc;
}
