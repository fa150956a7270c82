/* SPDX-License-Identifier: MIT */
/*
 * keylist.c - descriptions of images as a flat list of keys and values.
 */
#include "image/keylist.h"

#include <json-c/json.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/arith.h"
#include "base/cleanup.h"

/* More than any description needs; names can come from hostile headers. */
enum { MAX_ITEMS = 4096, MAX_NESTING = 64 };

void keylist_deinit(struct keylist *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i].key);
        free(list->items[i].value);
    }
    free(list->items);
    *list = (struct keylist)KEYLIST_INIT;
}

static int no_memory(struct lam_error *err)
{
    return lam_fail(err, ENOMEM, "no memory for the description of an image");
}

/* Takes @key and @value over, also on failure. */
static int append(struct keylist *list, char *key, char *value,
                  struct lam_error *err)
{
    lam_autofree char *own_key = key, *own_value = value;

    if (!key)
        return no_memory(err);
    if (list->count == MAX_ITEMS)
        return lam_fail(err, EINVAL, "more than %d options", MAX_ITEMS);
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 16;
        struct keyitem *items = realloc(list->items, capacity * sizeof *items);
        if (!items)
            return no_memory(err);
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = (struct keyitem){
        lam_take(&own_key), lam_take(&own_value), false,
    };
    return 0;
}

static char *join(const char *prefix, const char *key)
{
    char *joined;
    return asprintf(&joined, "%s%s", prefix, key) < 0 ? NULL : joined;
}

/* ------------------------------------------------------------------- JSON */

static int flatten(struct keylist *list, const char *prefix,
                   struct json_object *object, unsigned nesting,
                   struct lam_error *err);

static int flatten_array(struct keylist *list, const char *prefix,
                         struct json_object *array, unsigned nesting,
                         struct lam_error *err)
{
    for (size_t i = 0; i < json_object_array_length(array); i++) {
        lam_autofree char *key = NULL;
        if (asprintf(&key, "%s.%zu", prefix, i) < 0)
            return no_memory(err);
        int rc = flatten(list, key, json_object_array_get_idx(array, i),
                         nesting + 1, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int flatten_object(struct keylist *list, const char *prefix,
                          struct json_object *object, unsigned nesting,
                          struct lam_error *err)
{
    json_object_object_foreach(object, name, value) {
        lam_autofree char *stem = join(prefix, *prefix ? "." : "");
        lam_autofree char *key = stem ? join(stem, name) : NULL;
        if (!key)
            return no_memory(err);
        int rc = flatten(list, key, value, nesting + 1, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int flatten(struct keylist *list, const char *prefix,
                   struct json_object *object, unsigned nesting,
                   struct lam_error *err)
{
    if (nesting > MAX_NESTING)
        return lam_fail(err, EINVAL, "JSON nested deeper than %d", MAX_NESTING);

    switch (json_object_get_type(object)) {
    case json_type_object:
        return flatten_object(list, prefix, object, nesting, err);
    case json_type_array:
        return flatten_array(list, prefix, object, nesting, err);
    case json_type_null:
        return append(list, strdup(prefix), NULL, err);
    case json_type_boolean:
    case json_type_int:
    case json_type_double:
    case json_type_string:
        break;
    }
    const char *text = json_object_get_string(object);
    if (json_object_is_type(object, json_type_boolean))
        text = json_object_get_boolean(object) ? "on" : "off";
    else if (json_object_is_type(object, json_type_string)
             && strlen(text) != (size_t)json_object_get_string_len(object))
        return lam_fail(err, EINVAL, "'%s' holds a NUL character", prefix);
    char *value = strdup(text);
    return value ? append(list, strdup(prefix), value, err) : no_memory(err);
}

static int parse_json(struct keylist *list, struct json_tokener *tokener,
                      const char *text, struct lam_error *err)
{
    size_t length = strlen(text);
    if (length > INT32_MAX)
        return lam_fail(err, EINVAL, "JSON of %zu bytes", length);

    struct json_object *object =
        json_tokener_parse_ex(tokener, text, (int)length);
    enum json_tokener_error code = json_tokener_get_error(tokener);
    size_t parsed = json_tokener_get_parse_end(tokener);
    int rc;
    if (code != json_tokener_success)
        rc = lam_fail(err, EINVAL, "Could not parse the JSON options: %s",
                      code == json_tokener_continue
                          ? "unexpected end" : json_tokener_error_desc(code));
    else if (text[parsed + strspn(text + parsed, " \t\r\n")])
        rc = lam_fail(err, EINVAL, "Could not parse the JSON options: "
                      "text after the end of the object");
    else if (!json_object_is_type(object, json_type_object))
        rc = lam_fail(err, EINVAL, "Invalid JSON object given");
    else
        rc = flatten(list, "", object, 0, err);
    json_object_put(object);
    return rc;
}

int keylist_from_json(struct keylist *list, const char *text,
                      struct lam_error *err)
{
    struct json_tokener *tokener = json_tokener_new_ex(MAX_NESTING);
    if (!tokener)
        return no_memory(err);
    int rc = parse_json(list, tokener, text, err);
    json_tokener_free(tokener);
    return rc;
}

/* ------------------------------------------------------------ key=value,... */

/* Copy up to the next single comma, ",," becoming one; *@next is what follows
 * it. */
static char *take_item(const char *text, const char **next)
{
    char *item = malloc(strlen(text) + 1), *end = item;
    if (!item)
        return NULL;
    while (*text) {
        if (*text == ',' && *++text != ',') {
            *end = '\0';
            *next = text;
            return item;
        }
        *end++ = *text++;
    }
    *end = '\0';
    *next = text;
    return item;
}

int keylist_from_options(struct keylist *list, const char *text,
                         struct lam_error *err)
{
    while (*text) {
        lam_autofree char *item = take_item(text, &text);
        if (!item)
            return no_memory(err);
        char *equals = strchr(item, '=');
        if (equals)
            *equals = '\0';
        if (!*item)
            return lam_fail(err, EINVAL, "Invalid parameter ''");
        char *value = strdup(equals ? equals + 1 : "on");
        if (!value)
            return no_memory(err);
        int rc = append(list, strdup(item), value, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ------------------------------------------------------------------ lookup */

/* What follows @prefix@key in @text; NULL if it does not begin with them. */
static const char *after(const char *text, const char *prefix, const char *key)
{
    size_t a = strlen(prefix), b = strlen(key);
    if (strncmp(text, prefix, a) || strncmp(text + a, key, b))
        return NULL;
    return text + a + b;
}

struct keyitem *keylist_find(struct keylist *list, const char *prefix,
                             const char *key)
{
    struct keyitem *found = NULL;
    for (size_t i = 0; i < list->count; i++) {
        const char *rest = after(list->items[i].key, prefix, key);
        if (rest && !*rest) {
            found = &list->items[i];
            found->used = true;
        }
    }
    return found;
}

bool keylist_has_below(const struct keylist *list, const char *prefix,
                       const char *key)
{
    for (size_t i = 0; i < list->count; i++) {
        const char *rest = after(list->items[i].key, prefix, key);
        if (rest && *rest == '.')
            return true;
    }
    return false;
}

const char *keylist_unused(const struct keylist *list, const char *prefix)
{
    for (size_t i = 0; i < list->count; i++) {
        const char *rest = after(list->items[i].key, prefix, "");
        if (rest && !list->items[i].used)
            return rest;
    }
    return NULL;
}

/* ------------------------------------------------------------------ values */

/* Bytes, with a suffix K, M, G, T, P or E. */
static int parse_bytes(const char *text, uint64_t *out)
{
    static const char suffixes[] = "KMGTPE";
    char *end;

    if (*text < '0' || *text > '9')
        return -EINVAL;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno)
        return -errno;
    if (*end) {
        char upper = (char)(*end >= 'a' ? *end - 'a' + 'A' : *end);
        const char *suffix = strchr(suffixes, upper);
        uint64_t unit = suffix ? UINT64_C(1) << (10 * (suffix - suffixes + 1))
                               : 1;
        if ((!suffix && upper != 'B') || end[1]
            || mul_overflows(value, unit, &value))
            return -EINVAL;
    }
    *out = value;
    return 0;
}

int keylist_take_bytes(struct keylist *list, const char *prefix,
                       const char *key, uint64_t *out, bool *given,
                       struct lam_error *err)
{
    const struct keyitem *item = keylist_find(list, prefix, key);
    if (given)
        *given = item;
    if (!item)
        return 0;
    if (!item->value || parse_bytes(item->value, out) < 0)
        return lam_fail(err, EINVAL, "Parameter '%s' expects a non-negative "
                        "number below 2^64", key);
    return 0;
}
