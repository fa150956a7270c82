/* SPDX-License-Identifier: MIT */
/*
 * host-log.c - the blklogwrites node: what is written to "file" is logged in
 * "log".
 */
#include "image/host.h"
#include "io/log-writes.h"

static int take_options(struct node *node, struct io_log_options *o,
                        struct lam_error *err)
{
    enum node_switch append = NODE_UNSET;
    bool sized = node_take_text(node, "log-sector-size");
    int rc = node_take_switch(node, "log-append", &append, err);

    if (rc == 0)
        rc = node_take_bytes(node, "log-sector-size", &o->sector_size, err);
    if (rc == 0)
        rc = node_take_number(node, "log-super-update-interval", &o->interval,
                              err);
    o->append = append == NODE_ON;
    if (rc == 0 && o->append && sized)
        rc = lam_fail(err, EINVAL, "log-append and log-sector-size are "
                      "mutually exclusive");
    return rc;
}

static int open_log(struct host_node *n, struct lam_io **out,
                    struct lam_error *err)
{
    struct node *child = NULL;
    int rc = node_take_child(n->node, "log", &child, err);

    if (rc == 0 && !child)
        rc = lam_fail(err, EINVAL, "A block device must be specified for "
                      "\"log\"");
    if (rc == 0)
        rc = host_open(n->opening, child, &n->traits, "log", false, n->view,
                       out, err);
    node_free(child);
    return rc;
}

static int log_open(struct host_node *n, struct lam_io **out,
                    struct lam_error *err)
{
    struct io_log_options o = { .sector_size = 512, .interval = 4096 };
    struct lam_io *inner, *log;
    int rc = take_options(n->node, &o, err);

    if (rc == 0)
        rc = host_open_child(n, "file", &inner, err);
    if (rc < 0)
        return rc;
    rc = open_log(n, &log, err);
    if (rc < 0) {
        lam_io_close(inner);
        return rc;
    }
    return lam_io_log_new(inner, log, &o, out, err);
}

static const char *const shown[] = {
    "log", "log-sector-size", "driver", "log-append", "file", NULL
};

const struct host_driver host_log_writes = {
    .name = "blklogwrites", .shown = shown, .open = log_open,
};
