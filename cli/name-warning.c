/* SPDX-License-Identifier: MIT */
/*
 * name-warning.c - what is out of date in the name of an image: the library
 * takes it and says nothing.
 */
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "option.h"

static bool names_backing(const char *key)
{
    size_t length = strlen(key);

    return !strcmp(key, "backing") ||
           (length > 8 && !strcmp(key + length - 8, ".backing"));
}

static void warn_empty(const struct cli *cli)
{
    cli_warning(cli, "Use of \"backing\": \"\" is deprecated; use \"backing\": "
                "null instead");
}

/* One of "key=value,key=value". */
static void look_at_item(const struct cli *cli, char *item, bool first)
{
    char *equals = strchr(item, '=');

    if (equals) {
        *equals = '\0';
        if (!equals[1] && names_backing(item))
            warn_empty(cli);
        return;
    }
    if (first || !*item)
        return;
    bool off = !strncmp(item, "no", 2);
    cli_warning(cli, "short-form boolean option '%s' deprecated\n"
                "Please use %s=%s instead", item, off ? item + 2 : item,
                off ? "off" : "on");
}

static void look_at_options(const struct cli *cli, const char *text)
{
    /* Who asks for help is not taught. */
    char *item = keyvals_ask_help(text) ? NULL : malloc(strlen(text) + 1);

    for (bool first = true; item && *text; first = false) {
        char *end = item;
        while (*text) {
            if (*text == ',' && *++text != ',')
                break;
            *end++ = *text++;
        }
        *end = '\0';
        look_at_item(cli, item, first);
    }
    free(item);
}

static void look_at_json(const struct cli *cli, struct json_object *object)
{
    if (!json_object_is_type(object, json_type_object))
        return;
    json_object_object_foreach(object, key, value) {
        if (names_backing(key) &&
            json_object_is_type(value, json_type_string) &&
            !json_object_get_string_len(value))
            warn_empty(cli);
        look_at_json(cli, value);
    }
}

void warn_name(const struct cli *cli, const char *name, bool image_opts)
{
    if (image_opts) {
        look_at_options(cli, name);
    } else if (!strncmp(name, "json:", 5)) {
        struct json_object *root = json_tokener_parse(name + 5);
        look_at_json(cli, root);
        json_object_put(root);
    }
}
