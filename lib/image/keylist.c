/* SPDX-License-Identifier: MIT */
/*
 * keylist.c - descriptions of images as a flat list of keys and values.
 */
#include "image/keylist.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

/* More than any description needs; names can come from hostile headers. */
enum { MAX_ITEMS = 4096 };

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

static int make_room(struct keylist *list, struct lam_error *err)
{
    if (list->count == MAX_ITEMS)
        return lam_fail(err, EINVAL, "more than %d options", MAX_ITEMS);
    if (list->count < list->capacity)
        return 0;
    size_t capacity = list->capacity ? 2 * list->capacity : 16;
    struct keyitem *items = realloc(list->items, capacity * sizeof *items);
    if (!items)
        return no_memory(err);
    list->items = items;
    list->capacity = capacity;
    return 0;
}

int keylist_add(struct keylist *list, const char *key, const char *value,
                enum key_kind kind, struct lam_error *err)
{
    lam_autofree char *own_key = strdup(key);
    lam_autofree char *own_value = value ? strdup(value) : NULL;
    int rc = make_room(list, err);

    if (rc < 0)
        return rc;
    if (!own_key || (value && !own_value))
        return no_memory(err);
    list->items[list->count++] = (struct keyitem){
        lam_take(&own_key), lam_take(&own_value), kind, false,
    };
    return 0;
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

/* A word without a value: the first one is a node's name. */
static int add_bare(struct keylist *list, const char *word, bool first,
                    struct lam_error *err)
{
    if (first)
        return keylist_add(list, "file", word, KEY_STRING, err);
    bool off = !strncmp(word, "no", 2);
    return keylist_add(list, off ? word + 2 : word, off ? "off" : "on",
                       KEY_STRING, err);
}

int keylist_from_options(struct keylist *list, const char *text,
                         struct lam_error *err)
{
    for (bool first = true; *text; first = false) {
        lam_autofree char *item = take_item(text, &text);
        if (!item)
            return no_memory(err);
        char *equals = strchr(item, '=');
        if (equals)
            *equals = '\0';
        int rc = equals ? keylist_add(list, item, equals + 1, KEY_STRING, err)
                        : add_bare(list, item, first, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ------------------------------------------------------------------ lookup */

struct keyitem *keylist_find(struct keylist *list, const char *key)
{
    struct keyitem *found = NULL;
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->items[i].key, key))
            continue;
        found = &list->items[i];
        found->used = true;
    }
    return found;
}

/* What follows "@name." in @key; NULL if it does not begin with that. */
static const char *after(const char *key, const char *name)
{
    size_t length = strlen(name);
    return !strncmp(key, name, length) && key[length] == '.'
        ? key + length + 1 : NULL;
}

const struct keyitem *keylist_below(const struct keylist *list,
                                    const char *name)
{
    for (size_t i = 0; i < list->count; i++)
        if (after(list->items[i].key, name))
            return &list->items[i];
    return NULL;
}

int keylist_split(struct keylist *list, const char *name,
                  struct keylist *below, struct lam_error *err)
{
    size_t kept = 0;

    for (size_t i = 0; i < list->count; i++) {
        struct keyitem *item = &list->items[i];
        const char *rest = after(item->key, name);
        if (!rest) {
            list->items[kept++] = *item;
            continue;
        }
        int rc = keylist_add(below, rest, item->value, item->kind, err);
        free(item->key);
        free(item->value);
        if (rc < 0) {
            memmove(&list->items[kept], &list->items[i + 1],
                    (list->count - i - 1) * sizeof *item);
            list->count = kept + list->count - i - 1;
            return rc;
        }
    }
    list->count = kept;
    return 0;
}

const char *keylist_unused_below(const struct keylist *list, const char *name)
{
    size_t length = strlen(name);

    for (size_t i = 0; i < list->count; i++) {
        const struct keyitem *item = &list->items[i];
        if (!item->used && !strncmp(item->key, name, length) &&
            item->key[length] == '.')
            return item->key + length + 1;
    }
    return NULL;
}

const char *keylist_unused(const struct keylist *list)
{
    for (size_t i = 0; i < list->count; i++)
        if (!list->items[i].used)
            return list->items[i].key;
    return NULL;
}
