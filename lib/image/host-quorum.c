/* SPDX-License-Identifier: MIT */
/*
 * host-quorum.c - nodes that stand on several others, which are to hold the
 * same: quorum and blkverify.
 */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/host.h"
#include "io/quorum.h"

/* The nodes below while they are opened. */
struct children {
    struct lam_io *ios[IO_QUORUM_MAX];
    unsigned count;
};

static void close_children(struct children *c)
{
    while (c->count > 0)
        lam_io_close(c->ios[--c->count]);
}

/* An image has its locks; a file that stands here as it is gets them now. */
static int add_child(const struct host_node *n, struct children *c,
                     struct lam_io *io, struct lam_error *err)
{
    const struct host_opening *h = n->opening;
    bool unlocked = h->unlocked
        || h->request->options->flags & LAM_OPEN_FORCE_SHARE
        || n->traits.force_share == NODE_ON;

    c->ios[c->count++] = io;
    return unlocked ? 0 : lam_io_lock(io, false, err);
}

/* ------------------------------------------------------------------- quorum */

/* Names last as long as whoever is told of them. */
#define TEN_NAMES(tens)                                                     \
    "children." #tens "0", "children." #tens "1", "children." #tens "2",    \
    "children." #tens "3", "children." #tens "4", "children." #tens "5",    \
    "children." #tens "6", "children." #tens "7", "children." #tens "8",    \
    "children." #tens "9"

static const char *const names[] = {
    TEN_NAMES(), TEN_NAMES(1), TEN_NAMES(2), "children.30", "children.31",
};

_Static_assert(LAM_ARRAY_SIZE(names) == IO_QUORUM_MAX,
               "each child has a name");

static bool has_node(const struct node *node, const char *name)
{
    return keylist_below(&node->keys, name) || node_has_child(node, name);
}

/* A key of something in "children" that is none of the first @count nodes. */
static bool is_stray(const char *key, unsigned count)
{
    static const char prefix[] = "children.";
    size_t length = sizeof prefix - 1;
    char *end;

    if (strlen(key) < length || memcmp(key, prefix, length))
        return false;
    if (key[length] < '0' || key[length] > '9')
        return true;
    return strtoul(key + length, &end, 10) >= count || (*end && *end != '.');
}

/* The names must count from 0 without gaps, and nothing else be there. */
static int count_nodes(const struct node *node, unsigned *count,
                       struct lam_error *err)
{
    unsigned n = 0;

    while (n < IO_QUORUM_MAX && has_node(node, names[n]))
        n++;
    for (size_t i = 0; i < node->keys.count; i++) {
        if (!is_stray(node->keys.items[i].key, n))
            continue;
        if (n == IO_QUORUM_MAX)
            return lam_fail(err, EINVAL, "a quorum has at most %d children",
                            IO_QUORUM_MAX);
        return lam_fail(err, EINVAL, "Option children is not a valid array");
    }
    *count = n;
    return n ? 0 : lam_fail(err, EINVAL, "Number of provided children must be "
                            "1 or more");
}

static int take_threshold(struct host_node *n, unsigned count,
                          struct io_quorum_options *o, struct lam_error *err)
{
    uint64_t threshold = 0;
    int rc = node_take_number(n->node, "vote-threshold", &threshold, err);

    if (rc < 0)
        return rc;
    if (!threshold || threshold > INT64_MAX)
        return lam_fail(err, ERANGE, "Parameter 'vote-threshold' expects a "
                        "value >= 1");
    if (threshold > count)
        return lam_fail(err, ERANGE, "threshold may not exceed children count");
    o->threshold = (unsigned)threshold;
    return 0;
}

static int take_pattern(struct host_node *n, struct io_quorum_options *o,
                        struct lam_error *err)
{
    const char *pattern = node_take_text(n->node, "read-pattern");

    if (pattern && strcmp(pattern, "fifo") && strcmp(pattern, "quorum"))
        return lam_fail(err, EINVAL, "Please set read-pattern as fifo or "
                        "quorum");
    if (pattern && !strcmp(pattern, "fifo"))
        o->pattern = IO_QUORUM_FIFO;
    return 0;
}

/* Both only mean something where there are votes. */
static int take_switches(struct host_node *n, unsigned count,
                         struct io_quorum_options *o, struct lam_error *err)
{
    enum node_switch verify = NODE_UNSET, rewrite = NODE_UNSET;
    int rc = node_take_switch(n->node, "blkverify", &verify, err);

    if (rc == 0 && o->pattern == IO_QUORUM_VOTE && verify == NODE_ON
        && (count != 2 || o->threshold != 2))
        rc = lam_fail(err, EINVAL, "blkverify=on can only be set if there are "
                      "exactly two files and vote-threshold is 2");
    if (rc == 0)
        rc = node_take_switch(n->node, "rewrite-corrupted", &rewrite, err);
    if (rc < 0 || o->pattern == IO_QUORUM_FIFO)
        return rc;
    if (verify == NODE_ON && rewrite == NODE_ON)
        return lam_fail(err, EINVAL, "rewrite-corrupted=on cannot be used with "
                        "blkverify=on");
    o->rewrite = rewrite == NODE_ON;
    return 0;
}

static int open_children(struct host_node *n, unsigned count,
                         struct children *c, struct lam_error *err)
{
    for (unsigned i = 0; i < count; i++) {
        struct node *node = NULL;
        struct lam_io *io = NULL;
        int rc = node_take_child(n->node, names[i], &node, err);
        if (rc == 0 && !node)
            rc = lam_fail(err, EINVAL, "Option children is not a valid array");
        if (rc == 0)
            rc = host_open_image_child(n, node, names[i], &io, err);
        node_free(node);
        if (rc == 0)
            rc = add_child(n, c, io, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int quorum_open(struct host_node *n, struct lam_io **out,
                       struct lam_error *err)
{
    struct io_quorum_options o = { .name = "quorum", .same_length = true };
    struct children c = { .count = 0 };
    unsigned count = 0;
    int rc = count_nodes(n->node, &count, err);

    if (rc == 0)
        rc = take_threshold(n, count, &o, err);
    if (rc == 0)
        rc = take_pattern(n, &o, err);
    if (rc == 0)
        rc = take_switches(n, count, &o, err);
    if (rc == 0)
        rc = open_children(n, count, &c, err);
    for (unsigned i = 0; i < c.count && rc == 0 && o.rewrite; i++)
        if (!c.ios[i]->writable)
            rc = lam_fail(err, EROFS, "Block node is read-only");
    if (rc < 0) {
        close_children(&c);
        return rc;
    }
    return lam_io_quorum_new(c.ios, c.count, &o, out, err);
}

static const char *const shown_quorum[] = {
    "read-pattern", "children", "driver", "blkverify", "rewrite-corrupted",
    "vote-threshold", NULL
};

const struct host_driver host_quorum = {
    .name = "quorum", .shown = shown_quorum, .open = quorum_open,
};

/* ---------------------------------------------------------------- blkverify */

/* "blkverify:RAW:TEST" */
static int parse_verify(struct node *node, const char *name,
                        struct lam_error *err)
{
    const char *raw = !strncmp(name, "blkverify:", 10) ? name + 10 : NULL;
    const char *colon = raw ? strchr(raw, ':') : NULL;

    if (!raw)
        return keylist_add(&node->keys, "x-image", name, KEY_STRING, err);
    if (!colon)
        return lam_fail(err, EINVAL, "blkverify requires raw copy and original "
                        "image path");
    lam_autofree char *path = strndup(raw, (size_t)(colon - raw));
    int rc = path ? keylist_add(&node->keys, "x-raw", path, KEY_STRING, err)
        : lam_fail(err, ENOMEM, "no memory for the name of an image");
    return rc < 0 ? rc
        : keylist_add(&node->keys, "x-image", colon + 1, KEY_STRING, err);
}

/* The node that is called @name, or whose plain name @key has. */
static int take_node(struct host_node *n, const char *name, const char *key,
                     struct node **out, struct lam_error *err)
{
    const char *plain = node_take_text(n->node, key);

    if (plain)
        return node_from_name(plain, out, err);
    int rc = node_take_child(n->node, name, out, err);
    if (rc == 0 && !*out)
        rc = lam_fail(err, EINVAL, "A block device must be specified for "
                      "\"%s\"", name);
    return rc;
}

static int open_raw(struct host_node *n, struct children *c,
                    struct lam_error *err)
{
    struct node *node = NULL;
    struct lam_io *io = NULL;
    int rc = take_node(n, "raw", "x-raw", &node, err);

    if (rc == 0)
        rc = host_open(n->opening, node, &n->traits, "raw", false, n->view,
                       &io, err);
    node_free(node);
    return rc < 0 ? rc : add_child(n, c, io, err);
}

static int open_test(struct host_node *n, struct children *c,
                     struct lam_error *err)
{
    struct node *node = NULL;
    struct lam_io *io = NULL;
    int rc = take_node(n, "test", "x-image", &node, err);

    if (rc == 0)
        rc = host_open_image_child(n, node, "test", &io, err);
    node_free(node);
    return rc < 0 ? rc : add_child(n, c, io, err);
}

static int set_plain(struct host_node *n, struct lam_error *err)
{
    const struct node_view *test = n->view->below, *raw = test->next;

    if (!raw->plain || !test->plain)
        return 0;
    if (asprintf(&n->own_plain, "blkverify:%s:%s", raw->shown,
                 test->shown) < 0) {
        n->own_plain = NULL;
        return lam_fail(err, ENOMEM, "no memory for the name of an image");
    }
    n->plain = n->own_plain;
    return 0;
}

static int verify_open(struct host_node *n, struct lam_io **out,
                       struct lam_error *err)
{
    const struct io_quorum_options o = {
        .name = "blkverify", .threshold = 2, .leader = 1,
    };
    struct children c = { .count = 0 };
    int rc = open_raw(n, &c, err);

    if (rc == 0)
        rc = open_test(n, &c, err);
    if (rc == 0)
        rc = set_plain(n, err);
    if (rc < 0) {
        close_children(&c);
        return rc;
    }
    return lam_io_quorum_new(c.ios, c.count, &o, out, err);
}

static const char *const shown_verify[] = { "test", "driver", "raw", NULL };

const struct host_driver host_blkverify = {
    .name = "blkverify", .prefix = "blkverify:", .protocol = true,
    .shown = shown_verify, .parse_name = parse_verify, .open = verify_open,
};
