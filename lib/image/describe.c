/* SPDX-License-Identifier: MIT */
/*
 * describe.c - what a node's options mean: to every driver, and to the formats.
 *
 * What we do not know is an error; what only tunes the genuine tool is checked
 * and dropped.
 */
#include "image/describe.h"

#include <inttypes.h>
#include <string.h>

#include "base/arith.h"
#include "base/cleanup.h"

static int choose(const char *text, const char *const *names, size_t count,
                  unsigned *out)
{
    for (size_t i = 0; i < count; i++)
        if (names[i] && !strcmp(text, names[i])) {
            *out = (unsigned)i;
            return 0;
        }
    return -EINVAL;
}

/* ------------------------------------------------------------------ traits */

struct traits traits_below(const struct traits *above)
{
    struct traits t = *above;

    t.has_detect_zeroes = false;
    return t;
}

static int take_discard(struct node *node, struct traits *t,
                        struct lam_error *err)
{
    const char *text = node_take_text(node, "discard");

    if (!text)
        return 0;
    bool on = !strcmp(text, "unmap") || !strcmp(text, "on");
    if (!on && strcmp(text, "ignore") && strcmp(text, "off"))
        return lam_fail(err, EINVAL, "Invalid discard option");
    t->unmap = on ? NODE_ON : NODE_OFF;
    return 0;
}

static int take_detect_zeroes(struct node *node, struct traits *t,
                              struct lam_error *err)
{
    static const char *const modes[] = {
        [LAM_DETECT_ZEROES_OFF] = "off", [LAM_DETECT_ZEROES_ON] = "on",
        [LAM_DETECT_ZEROES_UNMAP] = "unmap",
    };
    const char *text = node_take_text(node, "detect-zeroes");
    unsigned mode;

    if (!text)
        return 0;
    if (choose(text, modes, LAM_ARRAY_SIZE(modes), &mode) < 0)
        return lam_fail(err, EINVAL, "invalid parameter value: %s", text);
    t->has_detect_zeroes = true;
    t->detect_zeroes = (enum lam_detect_zeroes)mode;
    return 0;
}

/* Nodes have names only for as long as nobody can use them. */
static int check_node_name(struct node *node, struct lam_error *err)
{
    static const char letters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    static const char others[] = "0123456789-._";
    const char *name = node_take_text(node, "node-name");
    enum { MAX_NAME = 31 };

    if (!name)
        return 0;
    bool good = *name && strchr(letters, *name);
    for (const char *c = name; *c && good; c++)
        good = strchr(letters, *c) || strchr(others, *c);
    if (!good)
        return lam_fail(err, EINVAL, "Invalid node-name: '%s'", name);
    return strlen(name) <= MAX_NAME ? 0
        : lam_fail(err, EINVAL, "Node name too long");
}

int describe_traits(struct node *node, struct traits *t, struct lam_error *err)
{
    const struct { const char *key; enum node_switch *value; } switches[] = {
        { "read-only", &t->read_only },
        { "auto-read-only", &t->auto_read_only },
        { "cache.direct", &t->direct },
        { "cache.no-flush", &t->no_flush },
        { "force-share", &t->force_share },
    };
    int rc = 0;

    for (size_t i = 0; i < LAM_ARRAY_SIZE(switches) && rc == 0; i++)
        rc = node_take_switch(node, switches[i].key, switches[i].value, err);
    if (rc == 0 && t->force_share == NODE_ON && t->read_only == NODE_OFF)
        rc = lam_fail(err, EINVAL, "force-share=on can only be used with "
                      "read-only images");
    if (rc == 0)
        rc = take_discard(node, t, err);
    if (rc == 0)
        rc = take_detect_zeroes(node, t, err);
    return rc < 0 ? rc : check_node_name(node, err);
}

int describe_rest(const struct node *node, const char *driver, bool protocol,
                  struct lam_error *err)
{
    const char *key = keylist_unused(&node->keys);

    if (!key)
        return 0;
    return protocol
        ? lam_fail(err, EINVAL, "Block protocol '%s' doesn't support the "
                   "option '%s'", driver, key)
        : lam_fail(err, EINVAL, "Block format '%s' does not support the option "
                   "'%s'", driver, key);
}

/* ------------------------------------------------------------------- qcow2 */

/* Entries that nobody has used for so many seconds are dropped. */
static int take_clean_interval(struct node *node, struct format_open *o,
                               struct lam_error *err)
{
    uint64_t value = o->cache_clean_interval;
    int rc = node_take_number(node, "cache-clean-interval", &value, err);

    if (rc == 0 && value > UINT32_MAX)
        rc = lam_fail(err, EINVAL, "Cache clean interval too big");
    o->cache_clean_interval = value;
    return rc;
}

/* UINT64_MAX: not said. */
struct cache_sizes { uint64_t total, l2, refcount; };

static int check_sizes(const struct cache_sizes *s, struct lam_error *err)
{
    if (s->total == UINT64_MAX)
        return 0;
    if (s->l2 != UINT64_MAX && s->refcount != UINT64_MAX)
        return lam_fail(err, EINVAL, "cache-size, l2-cache-size and "
                        "refcount-cache-size may not be set at the same time");
    if (s->l2 != UINT64_MAX && s->l2 > s->total)
        return lam_fail(err, EINVAL, "l2-cache-size may not exceed cache-size");
    if (s->refcount != UINT64_MAX && s->refcount > s->total)
        return lam_fail(err, EINVAL, "refcount-cache-size may not exceed "
                        "cache-size");
    return 0;
}

/* A size that is said for both together goes to the one that is not said. */
static void set_sizes(const struct cache_sizes *s, struct format_open *o)
{
    bool total = s->total != UINT64_MAX, l2 = s->l2 != UINT64_MAX;
    bool refcount = s->refcount != UINT64_MAX;

    if (l2)
        o->l2_cache_size = max_u64(s->l2, 1);
    if (refcount)
        o->refcount_cache_size = max_u64(s->refcount, 1);
    if (total && l2)
        o->refcount_cache_size = max_u64(s->total - s->l2, 1);
    else if (total && refcount)
        o->l2_cache_size = max_u64(s->total - s->refcount, 1);
    else if (total)
        o->cache_size = max_u64(s->total, 1);
}

/* All that a size can say is more than there is. */
static int take_size(struct node *node, const char *key, uint64_t *size,
                     struct lam_error *err)
{
    int rc = node_take_bytes(node, key, size, err);

    if (rc == 0 && *size == UINT64_MAX && node_take_text(node, key))
        *size = UINT64_MAX - 1;
    return rc;
}

/* Sizes of the caches; format document 17. */
static int take_caches(struct node *node, struct format_open *o,
                       struct lam_error *err)
{
    struct cache_sizes s = { UINT64_MAX, UINT64_MAX, UINT64_MAX };
    uint64_t entry = UINT64_MAX;
    int rc = take_size(node, "cache-size", &s.total, err);

    if (rc == 0)
        rc = take_size(node, "l2-cache-size", &s.l2, err);
    if (rc == 0)
        rc = take_size(node, "refcount-cache-size", &s.refcount, err);
    if (rc == 0)
        rc = take_size(node, "l2-cache-entry-size", &entry, err);
    if (entry != UINT64_MAX)    /* 0 is as wrong as 1 */
        o->l2_entry_size = max_u64(entry, 1);
    if (rc == 0)
        rc = take_clean_interval(node, o, err);
    if (rc == 0)
        rc = check_sizes(&s, err);
    if (rc == 0)
        set_sizes(&s, o);
    return rc;
}

/* The switches of single classes, over what the template says. */
static int take_overlap_classes(struct node *node, struct format_open *o,
                                struct lam_error *err)
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
        int rc = node_take_switch(node, keys[i], &value, err);

        if (rc < 0)
            return rc;
        if (value != NODE_UNSET)
            *(value == NODE_ON ? &o->overlap_on : &o->overlap_off) |= 1u << i;
    }
    return 0;
}

/* "overlap-check", or "overlap-check.template" as the long form has it. */
static int take_overlap_check(struct node *node, struct format_open *o,
                              struct lam_error *err)
{
    static const char *const names[] = {
        [LAM_OVERLAP_CACHED] = "cached", [LAM_OVERLAP_NONE] = "none",
        [LAM_OVERLAP_CONSTANT] = "constant", [LAM_OVERLAP_ALL] = "all",
    };
    const char *level = node_take_text(node, "overlap-check");
    const char *template = node_take_text(node, "overlap-check.template");
    unsigned check;

    if (level && template && strcmp(level, template))
        return lam_fail(err, EINVAL, "Conflicting values for qcow2 options "
                        "'overlap-check' ('%s') and 'overlap-check.template' "
                        "('%s')", level, template);
    if (!level)
        level = template;
    if (level && choose(level, names, LAM_ARRAY_SIZE(names), &check) < 0)
        return lam_fail(err, EINVAL, "Unsupported value '%s' for qcow2 option "
                        "'overlap-check'. Allowed are any of the following: "
                        "none, constant, cached, all", level);
    if (level)
        o->overlap_check = (enum lam_overlap_check)check;
    return take_overlap_classes(node, o, err);
}

/* What of a discard reaches the host, and whether it costs the guest its
 * cluster (format document 7.10). */
static int take_discards(struct node *node, struct format_open *o,
                         struct lam_error *err)
{
    const struct { const char *key; bool *value; } switches[] = {
        { "pass-discard-request", &o->pass_request },
        { "pass-discard-snapshot", &o->pass_snapshot },
        { "pass-discard-other", &o->pass_other },
        { "discard-no-unref", &o->no_unref },
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(switches); i++) {
        enum node_switch value = NODE_UNSET;
        int rc = node_take_switch(node, switches[i].key, &value, err);

        if (rc < 0)
            return rc;
        if (value != NODE_UNSET)
            *switches[i].value = value == NODE_ON;
    }
    return 0;
}

static int take_lazy_refcounts(struct node *node, struct format_open *o,
                               struct lam_error *err)
{
    enum node_switch value = NODE_UNSET;
    int rc = node_take_switch(node, "lazy-refcounts", &value, err);

    if (value != NODE_UNSET)
        o->lazy_refcounts = value == NODE_ON ? LAM_SETTING_ON
                                             : LAM_SETTING_OFF;
    return rc;
}

static void take_encryption(struct node *node, struct format_open *o)
{
    const char *secret = node_take_text(node, "encrypt.key-secret");

    if (secret)
        o->key_secret = secret;
    o->encrypt_format = node_take_text(node, "encrypt.format");
    /* Nobody knows them.  The genuine tool minds only if it is encrypted. */
    for (const char *key; (key = keylist_unused_below(&node->keys, "encrypt"));
         keylist_find(&node->keys, key - strlen("encrypt.")))
        if (!o->encrypt_unknown)
            o->encrypt_unknown = key;
}

static int take_qcow2(struct node *node, struct format_open *o,
                      struct lam_error *err)
{
    int rc = take_lazy_refcounts(node, o, err);

    take_encryption(node, o);
    if (rc == 0)
        rc = take_caches(node, o, err);
    if (rc == 0)
        rc = take_overlap_check(node, o, err);
    return rc < 0 ? rc : take_discards(node, o, err);
}

/* -------------------------------------------------------------- all formats */

static int take_raw(struct node *node, struct format_open *o,
                    struct lam_error *err)
{
    int rc = node_take_bytes(node, "offset", &o->raw_offset, err);

    o->raw_sized = node_take_text(node, "size");
    return rc < 0 ? rc : node_take_bytes(node, "size", &o->raw_size, err);
}

static int take_vpc(struct node *node, struct format_open *o,
                    struct lam_error *err)
{
    const char *text = node_take_text(node, "force_size_calc");

    if (text && strcmp(text, "chs") && strcmp(text, "current_size"))
        return lam_fail(err, EINVAL, "Invalid size calculation mode: '%s'",
                        text);
    o->size_calc = text;
    return 0;
}

static int take_parallels(struct node *node, struct format_open *o,
                          struct lam_error *err)
{
    const char *mode = node_take_text(node, "prealloc-mode");
    bool sized = node_take_text(node, "prealloc-size");

    o->ahead = mode || sized;
    o->ahead_sparse = mode && !strcmp(mode, "truncate");
    o->ahead_bytes = 128 * LAM_MIB;
    int rc = node_take_bytes(node, "prealloc-size", &o->ahead_bytes, err);
    if (rc == 0 && mode && !o->ahead_sparse && strcmp(mode, "falloc"))
        rc = lam_fail(err, EINVAL, "invalid parameter value: %s", mode);
    return rc;
}

int describe_format(struct node *node, const struct format_ops *ops,
                    struct format_open *o, struct lam_error *err)
{
    if (ops == &format_raw)
        return take_raw(node, o, err);
    if (ops == &format_qcow2)
        return take_qcow2(node, o, err);
    if (!strcmp(ops->name, "vpc"))
        return take_vpc(node, o, err);
    if (!strcmp(ops->name, "parallels"))
        return take_parallels(node, o, err);
    /* The one that is all encrypted has no prefix. */
    if (ops->crypt && ops != &format_luks)
        take_encryption(node, o);
    const char *secret = ops == &format_luks
        ? node_take_text(node, "key-secret") : NULL;
    if (secret)
        o->key_secret = secret;
    return 0;
}
