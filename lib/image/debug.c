/* SPDX-License-Identifier: MIT */
/*
 * debug.c - the blkdebug node of an image's description.
 */
#include "image/debug.h"

#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"

static int no_memory(struct lam_error *err)
{
    return lam_fail(err, ENOMEM, "no memory for rules");
}

void debug_free(struct node_debug *debug)
{
    if (!debug)
        return;
    blkdebug_options_deinit(&debug->options);
    free(debug->config);
    free(debug);
}

int debug_from_name(const char *name, struct node_debug **out,
                    const char **file, struct lam_error *err)
{
    const char *config = strchr(name, ':') + 1;
    const char *colon = strchr(config, ':');

    if (!colon)
        return lam_fail(err, EINVAL, "blkdebug requires both config file and "
                        "image path");
    struct node_debug *debug = calloc(1, sizeof *debug);
    if (debug && colon > config)
        debug->config = strndup(config, (size_t)(colon - config));
    if (!debug || (colon > config && !debug->config)) {
        debug_free(debug);
        return no_memory(err);
    }
    *out = debug;
    *file = colon + 1;
    return 0;
}

/* -------------------------------------------------------------------- rules */

static const char *const sections[] = {
    [BLKDEBUG_INJECT_ERROR] = "inject-error",
    [BLKDEBUG_SET_STATE] = "set-state",
};

/* One rule from all keys that begin with @prefix; *@found: there were any. */
static int take_rule(struct keylist *keys, const char *prefix,
                     enum blkdebug_action action, struct node_debug *debug,
                     bool *found, struct lam_error *err)
{
    struct blkdebug_rule *rule = NULL;
    const char *key;
    int rc = 0;

    *found = false;
    while (rc == 0 && (key = keylist_unused(keys, prefix))) {
        const struct keyitem *item = keylist_find(keys, prefix, key);
        if (!rule)
            rule = blkdebug_add_rule(&debug->options, action);
        if (!rule)
            return no_memory(err);
        *found = true;
        rc = blkdebug_has_key(action, key)
            ? blkdebug_set(rule, key, item->value ? item->value : "", err)
            : lam_fail(err, EINVAL, "[%s] section doesn't support the option "
                       "'%s'", sections[action], key);
    }
    return rc < 0 || !rule ? rc : blkdebug_check_rule(rule, err);
}

/* A list of rules, "inject-error.0.event", or a single one. */
static int take_rules(struct keylist *keys, const char *prefix,
                      enum blkdebug_action action, struct node_debug *debug,
                      struct lam_error *err)
{
    lam_autofree char *all = NULL;
    bool found = true;
    int rc = 0;

    if (asprintf(&all, "%s%s.", prefix, sections[action]) < 0) {
        all = NULL;
        return no_memory(err);
    }
    const char *key = keylist_unused(keys, all);
    if (key && !strchr(key, '.'))
        return take_rule(keys, all, action, debug, &found, err);
    for (unsigned i = 0; rc == 0 && found; i++) {
        lam_autofree char *one = NULL;
        if (asprintf(&one, "%s%u.", all, i) < 0) {
            one = NULL;
            return no_memory(err);
        }
        rc = take_rule(keys, one, action, debug, &found, err);
    }
    key = rc == 0 ? keylist_unused(keys, all) : NULL;
    return !key ? rc : lam_fail(err, EINVAL, "Unused option '%s' for [%s]",
                                key, sections[action]);
}

/* ----------------------------------------------------------- other options */

/* Who else may use the image is not ours to say: checked only. */
static int take_permissions(struct keylist *keys, const char *prefix,
                            const char *list, struct lam_error *err)
{
    static const char *const names[] = {
        "consistent-read", "write", "write-unchanged", "resize",
    };

    for (unsigned i = 0; i < LAM_ARRAY_SIZE(names); i++) {
        lam_autofree char *key = NULL;
        if (asprintf(&key, "%s.%u", list, i) < 0) {
            key = NULL;
            return no_memory(err);
        }
        const struct keyitem *item = keylist_find(keys, prefix, key);
        bool known = !item;
        for (size_t k = 0; !known && k < LAM_ARRAY_SIZE(names); k++)
            known = item->value && !strcmp(item->value, names[k]);
        if (!known)
            return lam_fail(err, EINVAL, "Parameter '%s' does not accept value "
                            "'%s'", key, item->value ? item->value : "");
    }
    return 0;
}

static int take_sizes(struct keylist *keys, const char *prefix,
                      struct blkdebug_options *o, struct lam_error *err)
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
        rc = keylist_take_bytes(keys, prefix, sizes[i].key, sizes[i].value,
                                NULL, err);
    return rc;
}

static int fill(struct keylist *keys, const char *prefix,
                struct node_debug *debug, struct lam_error *err)
{
    const struct keyitem *config = keylist_find(keys, prefix, "config");

    if (config && config->value) {
        debug->config = strdup(config->value);
        if (!debug->config)
            return no_memory(err);
    }
    int rc = take_rules(keys, prefix, BLKDEBUG_INJECT_ERROR, debug, err);
    if (rc == 0)
        rc = take_rules(keys, prefix, BLKDEBUG_SET_STATE, debug, err);
    if (rc == 0)
        rc = take_permissions(keys, prefix, "take-child-perms", err);
    if (rc == 0)
        rc = take_permissions(keys, prefix, "unshare-child-perms", err);
    return rc < 0 ? rc : take_sizes(keys, prefix, &debug->options, err);
}

int debug_from_keys(struct keylist *keys, const char *prefix,
                    struct node_debug **out, struct lam_error *err)
{
    struct node_debug *debug = calloc(1, sizeof *debug);

    if (!debug)
        return no_memory(err);
    int rc = fill(keys, prefix, debug, err);
    if (rc < 0)
        debug_free(debug);
    else
        *out = debug;
    return rc;
}

/* --------------------------------------------------------------- the object */

/* The rules of the file come first. */
static int all_rules(const struct node_debug *debug,
                     struct blkdebug_options *out, struct lam_error *err)
{
    const struct blkdebug_options *own = &debug->options;
    int rc = 0;

    *out = *own;
    out->rules = NULL;
    out->nb_rules = out->capacity = 0;
    if (debug->config)
        rc = blkdebug_read_config(out, debug->config, err);
    for (size_t i = 0; rc == 0 && i < own->nb_rules; i++) {
        struct blkdebug_rule *rule = blkdebug_add_rule(out,
                                                       own->rules[i].action);
        if (!rule)
            rc = no_memory(err);
        else
            *rule = own->rules[i];
    }
    return rc;
}

int debug_open(const struct node_debug *debug, struct lam_io *inner,
               struct lam_io **out, struct lam_error *err)
{
    struct blkdebug_options options;
    int rc = all_rules(debug, &options, err);

    if (rc < 0) {
        blkdebug_options_deinit(&options);
        lam_io_close(inner);
        return rc;
    }
    return lam_io_blkdebug_new(inner, &options, out, err);
}
