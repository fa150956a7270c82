/* SPDX-License-Identifier: MIT */
/*
 * host-before.c - nodes copy-before-write, which copies what is about to be
 * overwritten in "file" to "target", and snapshot-access, which reads what was
 * there before.
 */
#include <inttypes.h>
#include <string.h>

#include "image/host.h"
#include "image/image-io.h"
#include "io/before-write.h"

enum {
    MIN_CLUSTER = 64 << 10,
    MAX_CLUSTER = 1 << 30,
};

/* What becomes of a write when the copy fails. */
static int take_on_error(struct node *node, bool *break_snapshot,
                         struct lam_error *err)
{
    const char *text = node_take_text(node, "on-cbw-error");

    *break_snapshot = text && !strcmp(text, "break-snapshot");
    if (text && !*break_snapshot && strcmp(text, "break-guest-write"))
        return lam_fail(err, EINVAL, "Parameter 'on-cbw-error' does not accept "
                        "value '%s'", text);
    return 0;
}

static int take_timeout(struct node *node, uint64_t *timeout,
                        struct lam_error *err)
{
    const char *text = node_take_text(node, "cbw-timeout");

    if (!text)
        return 0;
    if (text[0] != '-' && !strchr("0123456789", text[0]))
        return lam_fail(err, EINVAL, "Parameter 'cbw-timeout' expects integer");
    if (text[0] == '-'
        || node_take_number(node, "cbw-timeout", timeout, NULL) < 0
        || *timeout > UINT32_MAX)
        return lam_fail(err, EINVAL, "Parameter 'cbw-timeout' expects "
                        "uint32_t");
    return 0;
}

/* No node has a name here, so none has a bitmap that could be meant. */
static int refuse_bitmap(struct node *node, struct lam_error *err)
{
    const char *of = node_take_text(node, "bitmap.node");
    const char *name = node_take_text(node, "bitmap.name");

    if (node_take_text(node, "bitmap"))
        return lam_fail(err, EINVAL, "Invalid parameter type for 'bitmap', "
                        "expected: object");
    if (!of && !name)
        return 0;
    if (!of || !name)
        return lam_fail(err, EINVAL, "Parameter 'bitmap.%s' is missing",
                        of ? "name" : "node");
    return lam_fail(err, ENOENT, "Node '%s' not found", of);
}

static int take_cluster(struct node *node, uint64_t *cluster,
                        struct lam_error *err)
{
    uint64_t asked = 0;
    int rc = node_take_bytes(node, "min-cluster-size", &asked, err);

    if (rc < 0 || !asked)
        return rc;
    if (!is_power_of_two(asked))
        return lam_fail(err, EINVAL, "Cannot create block-copy-state: "
                        "min-cluster-size needs to be a power of 2");
    if (asked > MAX_CLUSTER)
        return lam_fail(err, EINVAL, "min-cluster-size %" PRIu64 " is larger "
                        "than %d", asked, MAX_CLUSTER);
    *cluster = max_u64(asked, MIN_CLUSTER);
    return 0;
}

static int take_options(struct node *node, struct io_before_options *o,
                        struct lam_error *err)
{
    int rc = take_on_error(node, &o->break_snapshot, err);

    if (rc == 0)
        rc = take_timeout(node, &o->timeout, err);
    if (rc == 0)
        rc = refuse_bitmap(node, err);
    return rc < 0 ? rc : take_cluster(node, &o->cluster, err);
}

static int open_target(struct host_node *n, struct node *target,
                       struct lam_io **out, struct lam_error *err)
{
    bool unlocked = n->opening->unlocked
        || n->opening->request->options->flags & LAM_OPEN_FORCE_SHARE;
    int rc = host_open(n->opening, target, &n->traits, "target", false, n->view,
                       out, err);

    if (rc < 0 || unlocked)
        return rc;
    rc = lam_io_lock(*out, false, err);
    if (rc < 0)
        lam_io_close(*out);
    return rc;
}

static int open_both(struct host_node *n, struct node *target,
                     struct io_before_options *o, struct lam_io **out,
                     struct lam_error *err)
{
    struct lam_io *inner, *copies;
    int rc = host_open_child(n, "file", &inner, err);

    if (rc < 0)
        return rc;
    rc = inner->writable ? open_target(n, target, &copies, err)
        : lam_fail(err, EROFS, "Block node is read-only");
    if (rc < 0) {
        lam_io_close(inner);
        return rc;
    }
    const struct lam_image *image = image_io_image(copies);
    if (image)
        o->cluster = max_u64(o->cluster, lam_image_cluster_size(image));
    return lam_io_before_write_new(inner, copies, o, out, err);
}

static int missing(const char *what, struct lam_error *err)
{
    return lam_fail(err, EINVAL, "Parameter '%s' is missing", what);
}

static int before_open(struct host_node *n, struct lam_io **out,
                       struct lam_error *err)
{
    struct io_before_options o = { .cluster = MIN_CLUSTER };
    struct node *target = NULL;
    int rc = 0;

    if (!n->node->plain && !node_has_child(n->node, "file"))
        return missing("file", err);
    if (!node_has_child(n->node, "target"))
        return missing("target", err);
    rc = node_take_child(n->node, "target", &target, err);
    if (rc == 0 && !target->driver)
        rc = missing("target.driver", err);
    if (rc == 0)
        rc = take_options(n->node, &o, err);
    if (rc == 0)
        rc = open_both(n, target, &o, out, err);
    node_free(target);
    return rc;
}

static const char *const shown_before[] = {
    "driver", "file", "target", "on-cbw-error", "cbw-timeout",
    "min-cluster-size", NULL
};

const struct host_driver host_before_write = {
    .name = "copy-before-write", .shown = shown_before, .open = before_open,
};

static int snapshot_open(struct host_node *n, struct lam_io **out,
                         struct lam_error *err)
{
    struct lam_io *inner;
    int rc = host_open_child(n, "file", &inner, err);

    if (rc < 0)
        return rc;
    if (n->view->below->plain)
        n->plain = n->view->below->shown;
    return lam_io_snapshot_access_new(inner, out, err);
}

static const char *const shown_snapshot[] = { "driver", "file", NULL };

const struct host_driver host_snapshot_access = {
    .name = "snapshot-access", .shown = shown_snapshot, .open = snapshot_open,
};
