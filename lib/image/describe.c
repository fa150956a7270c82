/* SPDX-License-Identifier: MIT */
/*
 * describe.c - a list of keys → the image that it describes.
 *
 * A node of a format ("driver": "qcow2") stands on a node of a protocol
 * ("file": {"driver": "file", ...}), with a window in between if that one is
 * wrapped in "raw" with an offset or a size.  Options we do not know are
 * errors; those that only tune the genuine tool are checked and dropped.
 */
#include "image/describe.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/debug.h"
#include "format/format.h"

enum { MAX_NODES = 1024, PREFIX_MAX = 1024 };

struct parser {
    struct keylist *keys;
    unsigned nb_nodes;
};

/* Options that change speed or memory and nothing a guest could see. */
static const char *const tuning_common[] = {
    "node-name", "auto-read-only", "force-share",
};
static const char *const tuning_file[] = {
    "locking", "aio", "aio-max-batch", "drop-cache", "x-check-cache-dropped",
};

static void drop_options(struct parser *p, const char *prefix,
                         const char *const *names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        keylist_find(p->keys, prefix, names[i]);
}

static int take_string(struct parser *p, const char *prefix, const char *key,
                       char **out, struct lam_error *err)
{
    const struct keyitem *item = keylist_find(p->keys, prefix, key);
    if (!item)
        return 0;
    if (!item->value)
        return lam_fail(err, EINVAL, "Invalid parameter type for '%s%s', "
                        "expected: string", prefix, key);
    free(*out);
    *out = strdup(item->value);
    return *out ? 0 : lam_fail(err, ENOMEM, "no memory for '%s%s'", prefix,
                               key);
}

static int take_switch(struct parser *p, const char *prefix, const char *key,
                       enum node_switch *out, struct lam_error *err)
{
    const struct keyitem *item = keylist_find(p->keys, prefix, key);
    if (!item)
        return 0;
    const char *value = item->value ? item->value : "";
    if (!strcmp(value, "on") || !strcmp(value, "true"))
        *out = NODE_ON;
    else if (!strcmp(value, "off") || !strcmp(value, "false"))
        *out = NODE_OFF;
    else
        return lam_fail(err, EINVAL, "Parameter '%s' expects 'on' or 'off'",
                        key);
    return 0;
}

static int take_bytes_given(struct parser *p, const char *prefix,
                            const char *key, uint64_t *out, bool *given,
                            struct lam_error *err)
{
    return keylist_take_bytes(p->keys, prefix, key, out, given, err);
}

static int take_bytes(struct parser *p, const char *prefix, const char *key,
                      uint64_t *out, struct lam_error *err)
{
    return take_bytes_given(p, prefix, key, out, NULL, err);
}

static int set_detect_zeroes(struct node *n, const char *mode,
                             struct lam_error *err)
{
    static const char *const modes[] = {
        [LAM_DETECT_ZEROES_OFF] = "off", [LAM_DETECT_ZEROES_ON] = "on",
        [LAM_DETECT_ZEROES_UNMAP] = "unmap",
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(modes); i++)
        if (!strcmp(mode, modes[i])) {
            n->has_detect_zeroes = true;
            n->detect_zeroes = (enum lam_detect_zeroes)i;
            return 0;
        }
    return lam_fail(err, EINVAL, "invalid parameter value: %s", mode);
}

/* What images and files have in common; said at either, it counts for both. */
static int take_common(struct parser *p, const char *prefix, struct node *n,
                       struct lam_error *err)
{
    lam_autofree char *discard = NULL, *detect = NULL;
    int rc = take_switch(p, prefix, "read-only", &n->read_only, err);
    if (rc == 0)
        rc = take_switch(p, prefix, "cache.direct", &n->direct, err);
    if (rc == 0)
        rc = take_switch(p, prefix, "cache.no-flush", &n->no_flush, err);
    if (rc == 0)
        rc = take_string(p, prefix, "discard", &discard, err);
    if (rc == 0)
        rc = take_string(p, prefix, "detect-zeroes", &detect, err);
    if (rc < 0)
        return rc;

    if (discard) {
        bool on = !strcmp(discard, "unmap") || !strcmp(discard, "on");
        if (!on && strcmp(discard, "ignore") && strcmp(discard, "off"))
            return lam_fail(err, EINVAL, "Invalid discard option");
        n->unmap = on ? NODE_ON : NODE_OFF;
    }
    rc = detect ? set_detect_zeroes(n, detect, err) : 0;
    if (rc < 0)
        return rc;
    drop_options(p, prefix, tuning_common, LAM_ARRAY_SIZE(tuning_common));
    return 0;
}

static int check_all_used(struct parser *p, const char *prefix,
                          const char *kind, const char *driver,
                          struct lam_error *err)
{
    const char *key = keylist_unused(p->keys, prefix);
    if (!key)
        return 0;
    return lam_fail(err, EINVAL, "%s '%s' does not support the option '%s'",
                    kind, driver, key);
}

static const char *known_protocol(const char *driver)
{
    static const char *const known[] = { "file", "host_device" };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(known); i++)
        if (!strcmp(driver, known[i]))
            return known[i];
    return NULL;
}

static int unknown_driver(const char *driver, struct lam_error *err)
{
    return lam_fail(err, ENOTSUP, "Unknown driver '%s'", driver);
}

static int sub_prefix(const char *prefix, const char *name,
                      char out[PREFIX_MAX], struct lam_error *err)
{
    int length = snprintf(out, PREFIX_MAX, "%s%s.", prefix, name);
    if (length < 0 || length >= PREFIX_MAX)
        return lam_fail(err, EINVAL, "image nodes are nested too deeply");
    return 0;
}

/* The keys of a node whose driver is a protocol: host file or device. */
static int parse_protocol(struct parser *p, const char *prefix, struct node *n,
                          const char *driver, struct lam_error *err)
{
    n->protocol = known_protocol(driver);
    if (!n->protocol)
        return unknown_driver(driver, err);
    int rc = take_string(p, prefix, "filename", &n->filename, err);
    if (rc == 0)
        rc = take_common(p, prefix, n, err);
    if (rc < 0)
        return rc;
    if (!n->filename || !*n->filename)
        return lam_fail(err, EINVAL, "The '%s' block driver requires a file "
                        "name", driver);
    drop_options(p, prefix, tuning_file, LAM_ARRAY_SIZE(tuning_file));
    return check_all_used(p, prefix, "Block protocol", driver, err);
}

static int parse_child(struct parser *p, const char *prefix, const char *child,
                       struct node *n, bool may_wrap, struct lam_error *err);

/* "file": {"driver": "raw", "offset": N, "file": {...}}: part of a file, as
 * for a disk inside a tar archive. */
static int parse_window(struct parser *p, const char *prefix, struct node *n,
                        struct lam_error *err)
{
    int rc = take_bytes(p, prefix, "offset", &n->window_offset, err);
    if (rc == 0)
        rc = take_bytes(p, prefix, "size", &n->window_size, err);
    if (rc == 0)
        rc = take_common(p, prefix, n, err);
    if (rc == 0)
        rc = parse_child(p, prefix, "file", n, false, err);
    return rc < 0 ? rc : check_all_used(p, prefix, "Block format", "raw", err);
}

/* "file": {"driver": "blkdebug", "image": {...}, ...} */
static int parse_debug(struct parser *p, const char *prefix, struct node *n,
                       bool may_wrap, struct lam_error *err)
{
    if (n->debug)
        return lam_fail(err, ENOTSUP, "a blkdebug node on another one is not "
                        "supported");
    int rc = debug_from_keys(p->keys, prefix, &n->debug, err);
    if (rc == 0)
        rc = take_common(p, prefix, n, err);
    if (rc == 0)
        rc = parse_child(p, prefix, "image", n, may_wrap, err);
    return rc < 0 ? rc : check_all_used(p, prefix, "Block protocol", "blkdebug",
                                        err);
}

/* What the node at @prefix stands on, its "file" or "image". */
static int parse_child(struct parser *p, const char *prefix, const char *child,
                       struct node *n, bool may_wrap, struct lam_error *err)
{
    lam_autofree char *reference = NULL, *driver = NULL;
    int rc = take_string(p, prefix, child, &reference, err);
    if (rc < 0)
        return rc;
    if (reference)
        return lam_fail(err, ENOTSUP, "Cannot find device='%s' nor "
                        "node-name='%s'", reference, reference);
    if (!keylist_has_below(p->keys, prefix, child))
        return lam_fail(err, EINVAL, "A block device must be specified for "
                        "\"%s\"", child);

    char below[PREFIX_MAX];
    rc = sub_prefix(prefix, child, below, err);
    if (rc == 0)
        rc = take_string(p, below, "driver", &driver, err);
    if (rc < 0)
        return rc;
    if (driver && !strcmp(driver, "raw") && may_wrap)
        return parse_window(p, below, n, err);
    if (driver && !strcmp(driver, "blkdebug"))
        return parse_debug(p, below, n, may_wrap, err);
    return parse_protocol(p, below, n, driver ? driver : "file", err);
}

static int parse_image(struct parser *p, const char *prefix, struct node **out,
                       struct lam_error *err);

static int parse_backing(struct parser *p, const char *prefix, struct node *n,
                         struct lam_error *err)
{
    const struct keyitem *item = keylist_find(p->keys, prefix, "backing");
    if (item && (!item->value || !*item->value)) {
        n->no_backing = true;
        return 0;
    }
    if (item)
        return lam_fail(err, ENOTSUP, "Cannot find device='%s' nor "
                        "node-name='%s'", item->value, item->value);
    if (!keylist_has_below(p->keys, prefix, "backing"))
        return 0;

    char below[PREFIX_MAX];
    int rc = sub_prefix(prefix, "backing", below, err);
    return rc < 0 ? rc : parse_image(p, below, &n->backing, err);
}

static int parse_data_file(struct parser *p, const char *prefix, struct node *n,
                           struct lam_error *err)
{
    lam_autofree char *driver = NULL;
    char below[PREFIX_MAX];

    if (!keylist_has_below(p->keys, prefix, "data-file"))
        return 0;
    n->data_file = calloc(1, sizeof *n->data_file);
    if (!n->data_file)
        return lam_fail(err, ENOMEM, "no memory for an image node");
    int rc = sub_prefix(prefix, "data-file", below, err);
    if (rc == 0)
        rc = take_string(p, below, "driver", &driver, err);
    if (rc < 0)
        return rc;
    return parse_protocol(p, below, n->data_file, driver ? driver : "file",
                          err);
}

/* Entries that nobody has used for so many seconds are dropped. */
static int take_clean_interval(struct parser *p, const char *prefix,
                               struct node_caches *caches,
                               struct lam_error *err)
{
    const struct keyitem *item = keylist_find(p->keys, prefix,
                                              "cache-clean-interval");
    char *end;

    if (!item)
        return 0;
    const char *text = item->value ? item->value : "";
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end)
        return lam_fail(err, EINVAL, "Parameter 'cache-clean-interval' expects "
                        "a number");
    if (errno || value > UINT32_MAX)
        return lam_fail(err, EINVAL, "Cache clean interval too big");
    caches->has_clean_interval = true;
    caches->clean_interval = value;
    return 0;
}

/* Sizes of the caches; format document 17. */
static int parse_caches(struct parser *p, const char *prefix, struct node *n,
                        struct lam_error *err)
{
    struct node_caches *c = &n->caches;
    int rc = take_bytes_given(p, prefix, "cache-size", &c->total,
                              &c->has_total, err);

    if (rc == 0)
        rc = take_bytes_given(p, prefix, "l2-cache-size", &c->l2, &c->has_l2,
                              err);
    if (rc == 0)
        rc = take_bytes_given(p, prefix, "refcount-cache-size", &c->refcount,
                              &c->has_refcount, err);
    if (rc == 0)
        rc = take_bytes(p, prefix, "l2-cache-entry-size", &c->l2_entry, err);
    if (rc == 0)
        rc = take_clean_interval(p, prefix, c, err);
    if (rc < 0 || !c->has_total)
        return rc;
    if (c->has_l2 && c->l2 > c->total)
        return lam_fail(err, EINVAL, "l2-cache-size may not exceed cache-size");
    if (c->has_refcount && c->refcount > c->total)
        return lam_fail(err, EINVAL, "refcount-cache-size may not exceed "
                        "cache-size");
    if (c->has_l2 && c->has_refcount)
        return lam_fail(err, EINVAL, "cache-size, l2-cache-size and "
                        "refcount-cache-size may not be set at the same time");
    return 0;
}

static int set_overlap_check(struct node *n, const char *value,
                             struct lam_error *err)
{
    static const char *const names[] = {
        [LAM_OVERLAP_CACHED] = "cached",
        [LAM_OVERLAP_NONE] = "none",
        [LAM_OVERLAP_CONSTANT] = "constant",
        [LAM_OVERLAP_ALL] = "all",
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(names); i++) {
        if (!strcmp(value, names[i])) {
            n->overlap_check = (enum lam_overlap_check)i;
            return 0;
        }
    }
    return lam_fail(err, EINVAL, "Unsupported value '%s' for qcow2 option "
                    "'overlap-check'. Allowed are any of the following: none, "
                    "constant, cached, all", value);
}

/* The switches of single classes, over what the template says. */
static int take_overlap_classes(struct parser *p, const char *prefix,
                                struct node *n, struct lam_error *err)
{
    /* In the order of the bits of enum overlap_class. */
    static const char *const keys[] = {
        "overlap-check.main-header", "overlap-check.active-l1",
        "overlap-check.active-l2", "overlap-check.refcount-table",
        "overlap-check.refcount-block", "overlap-check.snapshot-table",
        "overlap-check.inactive-l1", "overlap-check.inactive-l2",
        "overlap-check.bitmap-directory",
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(keys); i++) {
        enum node_switch value = NODE_UNSET;
        int rc = take_switch(p, prefix, keys[i], &value, err);

        if (rc < 0)
            return rc;
        if (value != NODE_UNSET)
            *(value == NODE_ON ? &n->overlap_on : &n->overlap_off) |= 1u << i;
    }
    return 0;
}

/* "overlap-check", or "overlap-check.template" as the long form has it. */
static int take_overlap_check(struct parser *p, const char *prefix,
                              struct node *n, struct lam_error *err)
{
    lam_autofree char *level = NULL, *template = NULL;
    int rc = take_string(p, prefix, "overlap-check", &level, err);

    if (rc == 0)
        rc = take_string(p, prefix, "overlap-check.template", &template, err);
    if (rc == 0 && level && template && strcmp(level, template))
        rc = lam_fail(err, EINVAL, "Conflicting values for qcow2 options "
                      "'overlap-check' ('%s') and 'overlap-check.template' "
                      "('%s')", level, template);
    if (rc == 0 && (level || template))
        rc = set_overlap_check(n, level ? level : template, err);
    return rc < 0 ? rc : take_overlap_classes(p, prefix, n, err);
}

/* What of a discard reaches the host, and whether it costs the guest its
 * cluster (format document 7.10). */
static int take_discards(struct parser *p, const char *prefix, struct node *n,
                         struct lam_error *err)
{
    const struct { const char *key; enum node_switch *value; } switches[] = {
        { "pass-discard-request", &n->pass_request },
        { "pass-discard-snapshot", &n->pass_snapshot },
        { "pass-discard-other", &n->pass_other },
        { "discard-no-unref", &n->no_unref },
    };
    int rc = 0;

    for (size_t i = 0; i < LAM_ARRAY_SIZE(switches) && rc == 0; i++)
        rc = take_switch(p, prefix, switches[i].key, switches[i].value, err);
    return rc;
}

/* All that only qcow2 knows. */
static int take_qcow2_options(struct parser *p, const char *prefix,
                              struct node *n, struct lam_error *err)
{
    int rc = parse_caches(p, prefix, n, err);

    if (rc == 0)
        rc = take_switch(p, prefix, "lazy-refcounts", &n->lazy_refcounts, err);
    if (rc == 0)
        rc = parse_backing(p, prefix, n, err);
    if (rc == 0)
        rc = parse_data_file(p, prefix, n, err);
    if (rc == 0)
        rc = take_string(p, prefix, "encrypt.key-secret", &n->key_secret, err);
    if (rc == 0)
        rc = take_string(p, prefix, "encrypt.format", &n->encrypt_format, err);
    if (rc == 0)
        rc = take_overlap_check(p, prefix, n, err);
    return rc < 0 ? rc : take_discards(p, prefix, n, err);
}

static int parse_format_options(struct parser *p, const char *prefix,
                                struct node *n, struct lam_error *err)
{
    bool raw = n->driver && !strcmp(n->driver, "raw");
    bool luks = n->driver && !strcmp(n->driver, "luks");
    bool qcow2 = !n->driver || !strcmp(n->driver, "qcow2");
    int rc = 0;

    if (raw) {
        rc = take_bytes(p, prefix, "offset", &n->raw_offset, err);
        if (rc == 0)
            rc = take_bytes(p, prefix, "size", &n->raw_size, err);
    } else if (qcow2) {
        rc = take_qcow2_options(p, prefix, n, err);
    }
    if (luks) {
        rc = take_string(p, prefix, "key-secret", &n->key_secret, err);
    }
    if (rc < 0)
        return rc;
    return check_all_used(p, prefix, "Block format",
                          n->driver ? n->driver : "qcow2", err);
}

static int fill_image(struct parser *p, const char *prefix, struct node *n,
                      struct lam_error *err)
{
    n->described = true;
    int rc = take_string(p, prefix, "driver", &n->driver, err);
    if (rc < 0)
        return rc;
    /* A bare file or device: its bytes, as raw shows them. */
    bool debug = n->driver && !strcmp(n->driver, "blkdebug");
    if (debug || (n->driver && known_protocol(n->driver))) {
        rc = debug ? parse_debug(p, prefix, n, true, err)
                   : parse_protocol(p, prefix, n, n->driver, err);
        free(n->driver);
        n->driver = strdup("raw");
        return rc < 0 || n->driver ? rc
            : lam_fail(err, ENOMEM, "no memory for an image node");
    }
    if (n->driver && !format_find(n->driver))
        return unknown_driver(n->driver, err);
    if (!n->driver && !keylist_has_below(p->keys, prefix, "file"))
        return lam_fail(err, EINVAL, "Must specify either driver or file");

    rc = parse_child(p, prefix, "file", n, true, err);
    if (rc == 0)
        rc = take_common(p, prefix, n, err);
    return rc < 0 ? rc : parse_format_options(p, prefix, n, err);
}

static int parse_image(struct parser *p, const char *prefix, struct node **out,
                       struct lam_error *err)
{
    if (++p->nb_nodes > MAX_NODES)
        return lam_fail(err, EINVAL, "more than %d image nodes", MAX_NODES);
    struct node *n = calloc(1, sizeof *n);
    if (!n)
        return lam_fail(err, ENOMEM, "no memory for an image node");
    int rc = fill_image(p, prefix, n, err);
    if (rc < 0)
        node_free(n);
    else
        *out = n;
    return rc;
}

int node_from_keys(struct keylist *keys, struct node **out,
                   struct lam_error *err)
{
    struct parser p = { .keys = keys };
    return parse_image(&p, "", out, err);
}
