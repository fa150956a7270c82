/* SPDX-License-Identifier: MIT */
/*
 * host-debug.c - the blkdebug node: rules by which what it stands on fails.
 */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/host.h"
#include "io/blkdebug.h"

static int no_memory(struct lam_error *err)
{
    return lam_fail(err, ENOMEM, "no memory for rules");
}

/* "blkdebug:[CONFIG]:FILE" */
static int parse_debug(struct node *node, const char *name,
                       struct lam_error *err)
{
    const char *config = !strncmp(name, "blkdebug:", 9) ? name + 9 : NULL;
    const char *colon = config ? strchr(config, ':') : NULL;

    if (!config)
        return lam_fail(err, EINVAL, "File name string must start with "
                        "'blkdebug:'");
    if (!colon)
        return lam_fail(err, EINVAL, "blkdebug requires both config file and "
                        "image path");
    if (colon > config) {
        lam_autofree char *path = strndup(config, (size_t)(colon - config));
        int rc = path ? keylist_add(&node->keys, "config", path, KEY_STRING,
                                    err) : no_memory(err);
        if (rc < 0)
            return rc;
    }
    return keylist_add(&node->keys, "x-image", colon + 1, KEY_STRING, err);
}

/* -------------------------------------------------------------------- rules */

static const char *const sections[] = {
    [BLKDEBUG_INJECT_ERROR] = "inject-error",
    [BLKDEBUG_SET_STATE] = "set-state",
};

/* The first key that begins with @prefix and nobody asked for, without it. */
static const char *find_unused(const struct node *node, const char *prefix)
{
    size_t length = strlen(prefix);

    for (size_t i = 0; i < node->keys.count; i++) {
        const struct keyitem *item = &node->keys.items[i];
        if (!item->used && !strncmp(item->key, prefix, length))
            return item->key + length;
    }
    return NULL;
}

/* A key that no rule of this kind has; @lone: the rule stands in no list. */
static int unknown_key(const struct blkdebug_rule *rule, const char *key,
                       bool lone, struct lam_error *err)
{
    const char *section = sections[rule->action];

    return lone ? lam_fail(err, EINVAL, "Unknown option '%s' for [%s]", key,
                           section)
                : lam_fail(err, EINVAL, "[%s] section doesn't support the "
                           "option '%s'", section, key);
}

/* The kind of requests counts only where there is an event. */
static int finish_rule(struct blkdebug_rule *rule, const char *kind,
                       struct lam_error *err)
{
    int rc = blkdebug_check_rule(rule, err);

    return rc < 0 || !kind ? rc : blkdebug_set(rule, "iotype", kind, err);
}

/* One rule from all keys that begin with @prefix; *@found: there were any. */
static int take_rule(struct node *node, const char *prefix,
                     enum blkdebug_action action, struct blkdebug_options *o,
                     bool *found, struct lam_error *err)
{
    bool lone = strlen(prefix) == strlen(sections[action]) + 1;
    struct blkdebug_rule *rule = NULL;
    const char *key, *kind = NULL;
    int rc = 0;

    *found = false;
    while (rc == 0 && (key = find_unused(node, prefix))) {
        const char *value = node_take_text(node, key - strlen(prefix));
        if (!rule)
            rule = blkdebug_add_rule(o, action);
        if (!rule)
            return no_memory(err);
        *found = true;
        if (!value)
            value = "";
        if (!blkdebug_has_key(action, key))
            rc = unknown_key(rule, key, lone, err);
        else if (!strcmp(key, "iotype"))
            kind = value;
        else
            rc = blkdebug_set(rule, key, value, err);
    }
    return rc < 0 || !rule ? rc : finish_rule(rule, kind, err);
}

/* Some option of a rule stands right behind @prefix. */
static bool is_lone(const struct node *node, const char *prefix,
                    enum blkdebug_action action)
{
    size_t length = strlen(prefix);

    for (size_t i = 0; i < node->keys.count; i++) {
        const char *key = node->keys.items[i].key;
        if (!strncmp(key, prefix, length)
            && blkdebug_has_key(action, key + length))
            return true;
    }
    return false;
}

/* A list of rules, "inject-error.0.event", or a single one. */
static int take_rules(struct node *node, enum blkdebug_action action,
                      struct blkdebug_options *o, struct lam_error *err)
{
    char all[32], one[48];
    bool found = true;
    int rc = 0;

    snprintf(all, sizeof all, "%s.", sections[action]);
    if (is_lone(node, all, action))
        return take_rule(node, all, action, o, &found, err);
    for (unsigned i = 0; rc == 0 && found; i++) {
        snprintf(one, sizeof one, "%s%u.", all, i);
        rc = take_rule(node, one, action, o, &found, err);
    }
    const char *key = rc == 0 ? find_unused(node, all) : NULL;
    return !key ? rc : lam_fail(err, EINVAL, "Unused option '%s' for [%s]",
                                key, sections[action]);
}

/* ----------------------------------------------------------- other options */

/* Who else may use the image is not ours to say: checked only.  *@writes: one
 * of them is about writing. */
static int take_permissions(struct node *node, const char *list, bool *writes,
                            struct lam_error *err)
{
    static const char *const names[] = {
        "consistent-read", "write", "write-unchanged", "resize",
    };

    for (unsigned i = 0; i < LAM_ARRAY_SIZE(names); i++) {
        char key[48];
        snprintf(key, sizeof key, "%s.%u", list, i);
        const char *text = node_take_text(node, key);
        bool known = !text;
        for (size_t k = 0; !known && k < LAM_ARRAY_SIZE(names); k++)
            known = !strcmp(text, names[k]);
        *writes |= text && !strncmp(text, "write", 5);
        if (!known)
            return lam_fail(err, EINVAL, "Parameter 'null' does not accept "
                            "value '%s'", text);
    }
    return 0;
}

static int take_sizes(struct node *node, struct blkdebug_options *o,
                      struct lam_error *err)
{
    const struct { const char *key; uint64_t *value; } sizes[] = {
        { "align", &o->align },
        { "max-transfer", &o->max_transfer },
        { "opt-write-zero", &o->opt_write_zero },
        { "max-write-zero", &o->max_write_zero },
        { "opt-discard", &o->opt_discard },
        { "max-discard", &o->max_discard },
    };
    int rc = 0;

    for (size_t i = 0; i < LAM_ARRAY_SIZE(sizes) && rc == 0; i++)
        rc = node_take_bytes(node, sizes[i].key, sizes[i].value, err);
    return rc;
}

/* The rules of the file come first. */
static int take_options(struct node *node, struct blkdebug_options *o,
                        bool *writes, struct lam_error *err)
{
    bool others = false;
    const char *config = node_take_text(node, "config");
    int rc = config ? blkdebug_read_config(o, config, err) : 0;

    if (rc == 0)
        rc = take_rules(node, BLKDEBUG_INJECT_ERROR, o, err);
    if (rc == 0)
        rc = take_rules(node, BLKDEBUG_SET_STATE, o, err);
    if (rc == 0)
        rc = take_permissions(node, "take-child-perms", writes, err);
    if (rc == 0)
        rc = take_permissions(node, "unshare-child-perms", &others, err);
    return rc < 0 ? rc : take_sizes(node, o, err);
}

/* ----------------------------------------------------------------- opening */

/* The image of a plain name has a plain name, too. */
static int open_image(struct host_node *n, struct lam_io **out,
                      struct lam_error *err)
{
    const char *plain = node_take_text(n->node, "x-image");
    struct node *child = NULL;

    if (!plain)
        return host_open_child(n, "image", out, err);
    int rc = node_from_name(plain, &child, err);
    if (rc == 0)
        rc = host_open(n->opening, child, &n->traits, "image", false, n->view,
                       out, err);
    node_free(child);
    return rc;
}

/* Only rules of a file, on something with a plain name, can be named so. */
static int set_plain(struct host_node *n, struct lam_error *err)
{
    const struct node_view *below = n->view->below;
    const char *config = node_take_text(n->node, "config");

    if (!below->plain)
        return 0;
    if (asprintf(&n->own_plain, "blkdebug:%s:%s", config ? config : "",
                 below->shown) < 0) {
        n->own_plain = NULL;
        return no_memory(err);
    }
    n->plain = n->own_plain;
    return 0;
}

static int debug_open(struct host_node *n, struct lam_io **out,
                      struct lam_error *err)
{
    struct blkdebug_options options = { .rules = NULL };
    struct lam_io *inner = NULL;
    bool writes = false;
    int rc = take_options(n->node, &options, &writes, err);

    if (rc == 0)
        rc = open_image(n, &inner, err);
    if (rc == 0 && writes && !inner->writable)
        rc = lam_fail(err, EROFS, "Block node is read-only");
    if (rc == 0)
        rc = set_plain(n, err);
    if (rc < 0) {
        blkdebug_options_deinit(&options);
        lam_io_close(inner);
        return rc;
    }
    return lam_io_blkdebug_new(inner, &options, out, err);
}

/* Of the first two rules of a kind; what is said of others is left out. */
static const char *const shown_debug[] = {
    "set-state.1.event", "inject-error.0.state", "inject-error.1.state",
    "opt-write-zero", "inject-error.0.immediately",
    "inject-error.1.immediately", "set-state.0.event", "inject-error.0.once",
    "inject-error.1.once", "max-write-zero", "image", "max-transfer",
    "set-state.1.new_state", "driver", "set-state.1.state", "config",
    "inject-error.0.iotype", "inject-error.1.iotype", "set-state.0.new_state",
    "inject-error.0.event", "inject-error.0.errno", "inject-error.1.event",
    "inject-error.1.errno", "opt-discard", "set-state.0.state",
    "inject-error.0.sector", "inject-error.1.sector", "max-discard", "align",
    NULL
};

const struct host_driver host_blkdebug = {
    .name = "blkdebug", .prefix = "blkdebug:", .protocol = true,
    .shown = shown_debug, .parse_name = parse_debug, .open = debug_open,
};
