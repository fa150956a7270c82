/* SPDX-License-Identifier: MIT */
/*
 * name.c - what a user or a header calls an image → a node, and its options.
 */
#include "image/name.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/arith.h"
#include "base/cleanup.h"

void node_free(struct node *node)
{
    if (!node)
        return;
    keylist_deinit(&node->keys);
    free(node->driver);
    free(node->plain);
    free(node);
}

static int no_memory(struct lam_error *err)
{
    return lam_fail(err, ENOMEM, "no memory for the name of an image");
}

bool name_has_protocol(const char *name)
{
    size_t length = strcspn(name, ":/");
    return name[length] == ':';
}

char *name_of_path(const char *path)
{
    char *name;

    return asprintf(&name, "%s%s", name_has_protocol(path) ? "./" : "",
                    path) < 0 ? NULL : name;
}

bool name_resolves(const char *overlay, const char *backing)
{
    return *backing == '/' || name_has_protocol(backing) || !overlay ||
           strncmp(overlay, "nbd", 3) || !name_has_protocol(overlay);
}

char *name_resolve(const char *overlay, const char *backing)
{
    const char *slash = overlay ? strrchr(overlay, '/') : NULL;
    char *joined;

    if (!slash || *backing == '/' || name_has_protocol(backing))
        return strdup(backing);
    int length = (int)(slash + 1 - overlay);
    return asprintf(&joined, "%.*s%s", length, overlay, backing) < 0 ? NULL
                                                                     : joined;
}

/* ------------------------------------------------------------------- nodes */

static struct node *plain_node(const char *name)
{
    struct node *node = calloc(1, sizeof *node);

    if (node)
        node->plain = strdup(name);
    if (node && node->plain)
        return node;
    node_free(node);
    return NULL;
}

int node_from_path(const char *path, struct node **out, struct lam_error *err)
{
    lam_autofree char *name = NULL;

    /* A colon in it must not become a protocol's. */
    if (asprintf(&name, "%s%s", name_has_protocol(path) ? "file:" : "",
                 path) < 0) {
        name = NULL;
        return no_memory(err);
    }
    *out = plain_node(name);
    return *out ? 0 : no_memory(err);
}

/* The keys are complete: which driver do they name? */
static int set_driver(struct node *node, struct lam_error *err)
{
    const struct keyitem *item = keylist_find(&node->keys, "driver");

    if (!item || item->kind != KEY_STRING)
        return 0;
    node->driver = strdup(item->value);
    return node->driver ? 0 : no_memory(err);
}

typedef int read_fn(struct keylist *list, const char *text,
                    struct lam_error *err);

static int read_node(read_fn *read, const char *text, struct node **out,
                     struct lam_error *err)
{
    struct node *node = calloc(1, sizeof *node);
    if (!node)
        return no_memory(err);
    int rc = read(&node->keys, text, err);
    if (rc == 0)
        rc = set_driver(node, err);
    if (rc < 0)
        node_free(node);
    else
        *out = node;
    return rc;
}

int node_from_name(const char *name, struct node **out, struct lam_error *err)
{
    if (!strncmp(name, "json:", 5))
        return read_node(keylist_from_json, name + 5, out, err);
    *out = plain_node(name);
    return *out ? 0 : no_memory(err);
}

int node_from_options(const char *text, struct node **out,
                      struct lam_error *err)
{
    return read_node(keylist_from_options, text, out, err);
}

bool node_has_child(const struct node *node, const char *name)
{
    for (size_t i = 0; i < node->keys.count; i++)
        if (!strcmp(node->keys.items[i].key, name))
            return true;
    return keylist_below(&node->keys, name);
}

int node_take_child(struct node *node, const char *name, struct node **out,
                    struct lam_error *err)
{
    const struct keyitem *named = keylist_find(&node->keys, name);
    bool below = keylist_below(&node->keys, name);

    *out = NULL;
    /* Anything but a string is the same as nothing. */
    if (named && named->kind == KEY_STRING)
        return below ? lam_fail(err, EINVAL, "Cannot reference an existing "
                                "block device with additional options or a new "
                                "filename")
                     : lam_fail(err, ENODEV, "Cannot find device='%s' nor "
                                "node-name='%s'", named->value, named->value);
    if (!below)
        return 0;
    struct node *child = calloc(1, sizeof *child);
    if (!child)
        return no_memory(err);
    int rc = keylist_split(&node->keys, name, &child->keys, err);
    if (rc == 0)
        rc = set_driver(child, err);
    if (rc < 0)
        node_free(child);
    else
        *out = child;
    return rc;
}

/* ----------------------------------------------------------------- options */

const char *node_take_text(struct node *node, const char *key)
{
    const struct keyitem *item = keylist_find(&node->keys, key);
    return item ? item->value : NULL;
}

int node_take_switch(struct node *node, const char *key, enum node_switch *out,
                     struct lam_error *err)
{
    const char *value = node_take_text(node, key);

    if (!value)
        return 0;
    if (!strcmp(value, "on") || !strcmp(value, "true") || !strcmp(value, "yes")
        || !strcmp(value, "y"))
        *out = NODE_ON;
    else if (!strcmp(value, "off") || !strcmp(value, "false")
             || !strcmp(value, "no") || !strcmp(value, "n"))
        *out = NODE_OFF;
    else
        return lam_fail(err, EINVAL, "Parameter '%s' expects 'on' or 'off'",
                        key);
    return 0;
}

/* The bytes that ".5" is of a unit of 2^@shift, to the nearest one. */
static uint64_t fraction_bytes(const char *text, size_t length, int shift)
{
    double fraction = 0, weight = 1;

    for (size_t i = 1; i < length; i++) {
        weight /= 10;
        fraction += weight * (text[i] - '0');
    }
    return (uint64_t)(fraction * (double)(UINT64_C(1) << shift) + 0.5);
}

/* The power of two that the letter @suffix stands for; -1: none. */
static int suffix_shift(char suffix)
{
    static const char suffixes[] = "BKMGTPE";
    char upper = (char)(suffix >= 'a' ? suffix - 'a' + 'A' : suffix);
    const char *found = suffix ? strchr(suffixes, upper) : suffixes;

    return found ? 10 * (int)(found - suffixes) : -1;
}

static int parse_hex(const char *text, uint64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 16);
    return *end ? -EINVAL : -errno;
}

/* -ERANGE: a number, but not one of those that fit. */
static int parse_bytes(const char *text, uint64_t *out)
{
    char *end;

    if (*text == '-')
        return text[1] && !text[1 + strspn(text + 1, "0123456789")] ? -ERANGE
                                                                   : -EINVAL;
    if (*text == '+')
        text++;
    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
        return parse_hex(text, out);
    if (*text != '.' && (*text < '0' || *text > '9'))
        return -EINVAL;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    int rc = -errno;
    size_t digits = *end == '.' ? 1 + strspn(end + 1, "0123456789") : 0;
    int shift = suffix_shift(end[digits]);
    if (shift < 0 || (end[digits] && end[digits + 1]) || digits == 1
        || (digits && !shift))
        return -EINVAL;
    if (rc < 0 || mul_overflows(value, UINT64_C(1) << shift, &value)
        || add_overflows(value, fraction_bytes(end, digits, shift), out))
        return -ERANGE;
    return 0;
}

int node_take_bytes(struct node *node, const char *key, uint64_t *out,
                    struct lam_error *err)
{
    const char *value = node_take_text(node, key);

    int rc = value ? parse_bytes(value, out) : 0;

    if (rc == 0)
        return 0;
    /* Larger numbers of JSON are no whole ones. */
    const struct keyitem *item = keylist_find(&node->keys, key);
    if (rc == -ERANGE && (item->kind != KEY_NUMBER || *value == '-'))
        return lam_fail(err, EINVAL, "Value '%s' is out of range for parameter "
                        "'%s'", value, key);
    return lam_fail(err, EINVAL, "Parameter '%s' expects a non-negative number "
                    "below 2^64", key);
}

int node_take_number(struct node *node, const char *key, uint64_t *out,
                     struct lam_error *err)
{
    const char *value = node_take_text(node, key);
    char *end;

    if (!value)
        return 0;
    errno = 0;
    unsigned long long number = strtoull(value, &end, 0);
    if (end == value || *end)
        return lam_fail(err, EINVAL, "Parameter '%s' expects a number", key);
    if (errno)
        return lam_fail(err, EINVAL, "Value '%s' is too large for parameter "
                        "'%s'", value, key);
    *out = number;
    return 0;
}
