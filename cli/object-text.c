/* SPDX-License-Identifier: MIT */
/*
 * object-text.c - the key=value form of --object as a tree.
 *
 * Dots nest, and what has only numbers for keys is a list.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "object.h"

static int no_memory(struct lam_error *err)
{
    return option_fail(err, ENOMEM, "no memory for an object");
}

static bool is_index(const char *text, size_t length)
{
    return length && length < 10 && strspn(text, "0123456789") >= length;
}

/* "limits.iops-total", "rules.0.match": words, or numbers behind a dot. */
static bool is_key(const char *text, size_t length)
{
    static const char in_words[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    const char *end = text + length, *part = text;

    while (part <= end) {
        size_t n = strspn(part, in_words);
        if (n > (size_t)(end - part))
            n = (size_t)(end - part);
        bool word = n && isalpha((unsigned char)*part);
        if (!word && (part == text || !is_index(part, n)))
            return false;
        part += n;
        if (part == end)
            return true;
        if (*part++ != '.')
            return false;
    }
    return false;
}

static int inconsistent(const char *key, size_t length, struct lam_error *err)
{
    return option_fail(err, EINVAL, "Parameters '%.*s.*' used inconsistently",
                       (int)length, key);
}

/* Moves *@tree to what is behind the part of @key that begins at @from and is
 * @length bytes long. */
static int descend(struct json_object **tree, const char *key, size_t from,
                   size_t length, struct lam_error *err)
{
    char *part = strndup(key + from, length);
    struct json_object *below = NULL;
    int rc = 0;

    if (!part)
        return no_memory(err);
    if (!json_object_object_get_ex(*tree, part, &below)) {
        below = json_object_new_object();
        if (!below || json_object_object_add(*tree, part, below) < 0)
            rc = no_memory(err);
    } else if (!json_object_is_type(below, json_type_object)) {
        rc = inconsistent(key, from + length, err);
    }
    free(part);
    *tree = below;
    return rc;
}

/* No member of any object lies deeper than three.  What is nested is walked
 * recursively, with the path of each part. */
static int check_depth(const char *key, struct lam_error *err)
{
    enum { MAX_PARTS = 32, SHOWN = 40 };
    int parts = 1;

    for (const char *c = key; *c; c++)
        parts += *c == '.';
    return parts <= MAX_PARTS ? 0
        : option_fail(err, EINVAL, "Parameter '%.*s...' has %d parts (limit: "
                      "%d)", SHOWN, key, parts, MAX_PARTS);
}

/* The last one of a key counts. */
static int put(struct json_object *tree, const char *key, const char *value,
               struct lam_error *err)
{
    size_t from = 0, length;
    struct json_object *old = NULL;
    int rc = check_depth(key, err);

    while (rc == 0 && key[from + (length = strcspn(key + from, "."))]) {
        rc = descend(&tree, key, from, length, err);
        from += length + 1;
    }
    if (rc < 0)
        return rc;
    if (json_object_object_get_ex(tree, key + from, &old) &&
        json_object_is_type(old, json_type_object))
        return inconsistent(key, from + strlen(key + from), err);
    struct json_object *text = json_object_new_string(value);
    return text && json_object_object_add(tree, key + from, text) == 0
        ? 0 : no_memory(err);
}

/* One "key=value" of @text; what follows its comma in *@rest. */
static int take_pair(struct json_object *tree, const char *text,
                     const char **rest, struct lam_error *err)
{
    size_t length = strcspn(text, "=,");
    char *key = malloc(strlen(text) + 2);
    int rc = 0;

    if (!key)
        return no_memory(err);
    memcpy(key, text, length);
    key[length] = '\0';
    if (!is_key(key, length))
        rc = option_fail(err, EINVAL, "Invalid parameter '%s'", key);
    else if (text[length] != '=')
        rc = option_fail(err, EINVAL, "Expected '=' after parameter '%s'", key);
    if (rc == 0) {
        char *value = key + length + 1, *to = value;
        for (text += length + 1; *text; *to++ = *text++) {
            if (*text == ',' && *++text != ',')
                break;
        }
        *to = '\0';
        *rest = text;
        rc = put(tree, key, value, err);
    }
    free(key);
    return rc;
}

/* ------------------------------------------------------------------- lists */

/* The value that @tree has as its @index-th, borrowed: "0" and "00" both. */
static struct json_object *find_index(struct json_object *tree, size_t index)
{
    json_object_object_foreach(tree, key, value) {
        if (strtoul(key, NULL, 10) == index)
            return value;
    }
    return NULL;
}

static int to_list(struct json_object **tree, const char *path,
                   struct lam_error *err)
{
    size_t count = (size_t)json_object_object_length(*tree);
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; list && i < count; i++) {
        struct json_object *value = find_index(*tree, i);
        if (!value) {
            json_object_put(list);
            return option_fail(err, EINVAL, "Parameter '%s.%zu' missing", path,
                               i);
        }
        if (json_object_array_add(list, json_object_get(value)) < 0)
            break;
    }
    if (!list || json_object_array_length(list) < count) {
        json_object_put(list);
        return no_memory(err);
    }
    *tree = list;
    return 0;
}

static int find_lists(struct json_object *tree, const char *path,
                      struct json_object **list, struct lam_error *err);

/* The value of @key in @tree, and all below it. */
static int find_lists_in(struct json_object *tree, const char *path,
                         const char *key, struct json_object *value,
                         struct lam_error *err)
{
    struct json_object *list = NULL;
    char *name = NULL;

    if (!json_object_is_type(value, json_type_object))
        return 0;
    if (asprintf(&name, "%s%s%s", path, *path ? "." : "", key) < 0)
        return no_memory(err);
    int rc = find_lists(value, name, &list, err);
    if (rc == 0 && list && json_object_object_add(tree, key, list) < 0)
        rc = no_memory(err);
    free(name);
    return rc;
}

/* *@list: what stands for @tree, if that is a list. */
static int find_lists(struct json_object *tree, const char *path,
                      struct json_object **list, struct lam_error *err)
{
    size_t indices = 0, count = (size_t)json_object_object_length(tree);

    json_object_object_foreach(tree, key, value) {
        int rc = find_lists_in(tree, path, key, value, err);
        if (rc < 0)
            return rc;
        indices += is_index(key, strlen(key));
    }
    if (!indices)
        return 0;
    if (indices < count)
        return inconsistent(path, strlen(path), err);
    *list = tree;
    return to_list(list, path, err);
}

int object_from_text(const char *text, struct json_object **out,
                     struct lam_error *err)
{
    struct json_object *tree = json_object_new_object(), *list = NULL;
    size_t first = strcspn(text, "=,");
    int rc = tree ? 0 : no_memory(err);

    if (rc == 0 && first && text[first] != '=') {
        char *type = strndup(text, first);
        rc = type ? put(tree, "qom-type", type, err) : no_memory(err);
        free(type);
        text += first + (text[first] == ',');
    }
    while (rc == 0 && *text)
        rc = take_pair(tree, text, &text, err);
    if (rc == 0)
        rc = find_lists(tree, "", &list, err);
    if (rc < 0)
        json_object_put(tree);
    else
        *out = tree;
    return rc;
}
