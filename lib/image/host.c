/* SPDX-License-Identifier: MIT */
/*
 * host.c - a node → the host object that an image stands on: the drivers that
 * read something themselves, windows, and images that others stand on.
 */
#include "image/host.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "crypto/keyring.h"
#include "image/image-io.h"
#include "io/filter.h"
#include "io/null.h"
#include "io/window.h"

/* Deeper than anybody means it; names can come from hostile headers. */
enum { MAX_NESTING = 64 };

static int no_memory(struct lam_error *err)
{
    return lam_fail(err, ENOMEM, "no memory for the name of an image");
}

/* --------------------------------------------------------- for all drivers */

bool host_is_writable(const struct host_node *n)
{
    const struct layer_request *r = n->opening->request;

    return r->top && r->options->flags & LAM_OPEN_WRITE
        && n->traits.read_only != NODE_ON;
}

/* Syncing after each write is ours to do: the image layer flushes once when
 * data and metadata are written, and not the host object at each step. */
enum lam_cache_mode host_cache(const struct lam_open_options *options,
                               const struct traits *traits)
{
    enum lam_cache_mode cache = options->cache;
    bool direct = cache == LAM_CACHE_NONE || cache == LAM_CACHE_DIRECTSYNC;
    bool no_flush = traits->no_flush == NODE_UNSET
        ? cache == LAM_CACHE_UNSAFE : traits->no_flush == NODE_ON;

    if (traits->direct != NODE_UNSET)
        direct = traits->direct == NODE_ON;
    if (no_flush)
        return direct ? LAM_CACHE_NONE : LAM_CACHE_UNSAFE;
    return direct ? LAM_CACHE_NONE : LAM_CACHE_WRITEBACK;
}

/* ------------------------------------------------------- files and devices */

static int parse_file(struct node *node, const char *name,
                      struct lam_error *err)
{
    /* Be it relative, absolute or behind two slashes that start a URL: the
     * path's own slashes may be many. */
    if (!strncmp(name, "file:", 5))
        name += 5;
    else if (!strncmp(name, "host_device:", 12))
        name += 12;
    else if (!strncmp(name, "host_cdrom:", 11))
        name += 11;
    lam_autofree char *path = name_of_path(name);
    if (!path)
        return lam_fail(err, ENOMEM, "no memory for the name of an image");
    return keylist_add(&node->keys, "filename", path, KEY_STRING, err);
}

static int take_choice(struct node *node, const char *key,
                       const char *const *names, const char **out,
                       struct lam_error *err)
{
    const char *text = node_take_text(node, key);

    while (text && *names && strcmp(text, *names))
        names++;
    if (text && !*names)
        return lam_fail(err, EINVAL, "invalid parameter value: %s", text);
    *out = text;
    return 0;
}

/* What tunes the genuine tool; our own engine is chosen elsewhere. */
static int take_file_options(struct host_node *n, enum lam_cache_mode cache,
                             struct lam_error *err)
{
    static const char *const switches[] = {
        "drop-cache", "x-check-cache-dropped",
    };
    static const char *const lockings[] = { "auto", "on", "off", NULL };
    static const char *const engines[] = { "threads", "native", "io_uring",
                                           NULL };
    const char *locking = NULL, *engine = NULL;
    const char *manager = node_take_text(n->node, "pr-manager");
    uint64_t batch;
    int rc = 0;

    for (size_t i = 0; i < LAM_ARRAY_SIZE(switches) && rc == 0; i++) {
        enum node_switch unused;
        rc = node_take_switch(n->node, switches[i], &unused, err);
    }
    if (rc == 0)
        rc = take_choice(n->node, "aio", engines, &engine, err);
    if (rc == 0)
        rc = node_take_number(n->node, "aio-max-batch", &batch, err);
    if (rc == 0)
        rc = take_choice(n->node, "locking", lockings, &locking, err);
    if (rc < 0)
        return rc;
    if (manager)
        rc = keyring_find_reservations(n->opening->request->options->keyring,
                                       manager, err);
    if (rc < 0)
        return rc;
    if (engine && !strcmp(engine, "native") && cache != LAM_CACHE_NONE)
        return lam_fail(err, EINVAL, "aio=native was specified, but it "
                        "requires cache.direct=on, which was not specified.");
    if (locking && !strcmp(locking, "off"))
        n->opening->unlocked = true;
    return 0;
}

static int no_device(const struct host_node *n, struct lam_error *err)
{
    return lam_fail(err, EINVAL, "'%s' driver requires '%s' to be either a "
                    "character or block device", n->driver->name, n->plain);
}

static int check_kind(const struct host_node *n, const struct lam_io *io,
                      struct lam_error *err)
{
    bool wants_device = strcmp(n->driver->name, "file");

    return wants_device && !io->limits.is_block_device ? no_device(n, err) : 0;
}

/* Nor is it opened: a terminal or a tape may do something when it is. */
static int check_said(const struct host_node *n, struct lam_error *err)
{
    bool wants_device = strcmp(n->driver->name, "file");
    struct stat st;

    if (!n->driver_said || stat(n->plain, &st) < 0)
        return 0;
    if (wants_device)
        return S_ISDIR(st.st_mode) ? no_device(n, err) : 0;
    return S_ISREG(st.st_mode) ? 0
        : lam_fail(err, EINVAL, "'file' driver requires '%s' to be a regular "
                   "file", n->plain);
}

static int file_open(struct host_node *n, struct lam_io **out,
                     struct lam_error *err)
{
    const struct layer_request *r = n->opening->request;
    const struct gate_pass *pass = r->pass;
    struct lam_io_open_options o = LAM_IO_OPEN_INIT;
    const char *name = node_take_text(n->node, "filename");

    if (!name || !*name)
        return lam_fail(err, EINVAL, "The '%s' block driver requires a file "
                        "name", n->driver->name);
    o.writable = host_is_writable(n);
    o.lock = false;             /* see take_locks() in layer.c */
    o.exclusive = r->top && r->options->flags & LAM_OPEN_EXCLUSIVE;
    o.unmap = n->traits.unmap == NODE_ON;
    o.cache = host_cache(r->options, &n->traits);
    /* A filter asks the file below it for more than it tells us. */
    if (!r->top && n->pooled)
        o.pool = r->pool;
    o.characters = r->options->policy == LAM_POLICY_TRUST;
    if (pass && pass->dirfd >= 0) {
        o.beneath = true;
        o.dirfd = pass->dirfd;
        o.regular_only = pass->regular_only;
    }
    n->plain = name;
    int rc = take_file_options(n, o.cache, err);
    if (rc == 0 && !o.beneath)
        rc = check_said(n, err);
    if (rc == 0)
        rc = lam_io_open(o.beneath ? pass->path : name, &o, out, err);
    if (rc < 0)
        return rc;
    rc = check_kind(n, *out, err);
    if (rc < 0)
        lam_io_close(*out);
    else if ((*out)->limits.is_block_device && !n->driver_said)
        n->driver = host_driver_find("host_device");
    return rc;
}

/* ----------------------------------------------------------------- nothing */

static int check_null(const char *name, const char *only, struct lam_error *err)
{
    return !strcmp(name, only) ? 0
        : lam_fail(err, EINVAL, "The only allowed filename for this driver is "
                   "'%s'", only);
}

static int parse_null_co(struct node *node, const char *name,
                         struct lam_error *err)
{
    (void)node;
    return check_null(name, "null-co://", err);
}

static int parse_null_aio(struct node *node, const char *name,
                          struct lam_error *err)
{
    (void)node;
    return check_null(name, "null-aio://", err);
}

static int null_open(struct host_node *n, struct lam_io **out,
                     struct lam_error *err)
{
    bool co = !strcmp(n->driver->name, "null-co");
    struct io_null_options o = { .size = LAM_GIB };
    enum node_switch zeroes = NODE_UNSET;
    const char *latency = node_take_text(n->node, "latency-ns");

    n->plain = co ? "null-co://" : "null-aio://";
    int rc = node_take_bytes(n->node, "size", &o.size, err);
    if (rc == 0)
        rc = node_take_switch(n->node, "read-zeroes", &zeroes, err);
    if (rc == 0 && latency && *latency == '-')
        rc = lam_fail(err, EINVAL, "latency-ns is invalid");
    if (rc == 0)
        rc = node_take_number(n->node, "latency-ns", &o.latency_ns, err);
    if (rc < 0)
        return rc;
    o.writable = host_is_writable(n);
    o.cache = host_cache(n->opening->request->options, &n->traits);
    return io_null_new(n->driver->name, &o, out, err);
}

/* ----------------------------------------------------------------- windows */

static int raw_open(struct host_node *n, struct lam_io **out,
                    struct lam_error *err)
{
    bool sized = node_take_text(n->node, "size");
    uint64_t offset = 0, size = 0;
    struct lam_io *inner;
    int rc = host_open_child(n, "file", &inner, err);

    if (rc < 0)
        return rc;
    rc = node_take_bytes(n->node, "offset", &offset, err);
    if (rc == 0)
        rc = node_take_bytes(n->node, "size", &size, err);
    if (rc < 0) {
        lam_io_close(inner);
        return rc;
    }
    if (n->view->below->protocol && n->view->below->plain)
        n->plain = n->view->below->shown;
    return sized ? lam_io_window_new(inner, offset, size, out, err)
                 : lam_io_through_new(inner, offset, out, err);
}

/* ----------------------------------------------------------------- drivers */

static const char *const shown_file[] = { "driver", "filename", NULL };
static const char *const shown_null[] = {
    "read-zeroes", "driver", "size", NULL
};
static const char *const shown_raw[] = {
    "offset", "driver", "size", "file", NULL
};

static const struct host_driver host_file = {
    .name = "file", .prefix = "file:", .protocol = true, .makes_files = true,
    .shown = shown_file, .parse_name = parse_file, .open = file_open,
};
static const struct host_driver host_device = {
    .name = "host_device", .prefix = "host_device:", .protocol = true,
    .uses_files = true, .shown = shown_file, .parse_name = parse_file,
    .open = file_open,
};
static const struct host_driver host_cdrom = {
    .name = "host_cdrom", .prefix = "host_cdrom:", .protocol = true,
    .uses_files = true, .shown = shown_file, .parse_name = parse_file,
    .open = file_open,
};
static const struct host_driver host_null_co = {
    .name = "null-co", .prefix = "null-co:", .protocol = true,
    .shown = shown_null, .parse_name = parse_null_co, .open = null_open,
};
static const struct host_driver host_null_aio = {
    .name = "null-aio", .prefix = "null-aio:", .protocol = true,
    .shown = shown_null, .parse_name = parse_null_aio, .open = null_open,
};
static const struct host_driver host_raw = {
    .name = "raw", .shown = shown_raw, .open = raw_open,
};

/* All but raw, which is a format where it stands at the top. */
static const struct host_driver *const drivers[] = {
    &host_file, &host_device, &host_cdrom, &host_null_co, &host_null_aio,
    &host_throttle, &host_preallocate, &host_copy_on_read, &host_compress,
    &host_blkdebug, &host_quorum, &host_blkverify,
    &host_nbd, &host_nbd_tcp, &host_nbd_unix,
    &host_http, &host_https, &host_ftp, &host_ftps, &host_log_writes,
    &host_before_write, &host_snapshot_access,
};

const struct host_driver *host_driver_find(const char *name)
{
    for (size_t i = 0; i < LAM_ARRAY_SIZE(drivers); i++)
        if (!strcmp(drivers[i]->name, name))
            return drivers[i];
    return NULL;
}

const struct host_driver *host_driver_of(const char *plain)
{
    for (size_t i = 0; i < LAM_ARRAY_SIZE(drivers); i++) {
        const char *prefix = drivers[i]->prefix;
        if (prefix && !strncmp(plain, prefix, strlen(prefix)))
            return drivers[i];
    }
    return name_has_protocol(plain) ? NULL : &host_file;
}

/* ------------------------------------------------------------------ opening */

/* Another image as something to stand on. */
static int open_image(struct host_node *n, struct lam_io **out,
                      struct lam_error *err)
{
    const struct layer_request *r = n->opening->request;
    struct lam_open_options o = *r->options;
    struct lam_image *image;

    o.format = NULL;
    o.snapshot = NULL;
    o.key_secret = NULL;
    o.flags &= ~(unsigned)(LAM_OPEN_METADATA | LAM_OPEN_NO_BACKING
                           | LAM_OPEN_CHECK | LAM_OPEN_IMAGE_OPTS
                           | LAM_OPEN_WRITE);
    if (host_is_writable(n))
        o.flags |= LAM_OPEN_WRITE;
    if (n->traits.force_share == NODE_ON)
        o.flags |= LAM_OPEN_FORCE_SHARE;
    /* It goes down the chain, and our caller's has to stay. */
    struct node *node = calloc(1, sizeof *node);
    if (!node)
        return no_memory(err);
    *node = *n->node;
    *n->node = (struct node){ .plain = NULL };
    int rc = image_open_node(&node, &n->traits, &o, &image, err);
    node_free(node);
    if (rc < 0)
        return rc;
    n->view->image = image;
    rc = view_copy_name(n->view, image->view, err);
    if (rc < 0) {
        lam_image_close(image, NULL);
        return rc;
    }
    return image_io_new(image, out, err);
}

static int open_driver(struct host_node *n, struct lam_io **out,
                       struct lam_error *err)
{
    struct lam_io *io;
    int rc = n->driver->open(n, &io, err);

    if (rc < 0)
        return rc;
    rc = describe_rest(n->node, n->driver->name, n->driver->protocol, err);
    n->view->io = io;
    n->view->protocol = n->driver->protocol;
    if (rc == 0)
        rc = view_set_driver(n->view, n->driver->name, err);
    if (rc == 0)
        rc = view_name(n->view, n->node, n->driver->shown, n->plain, err);
    if (rc < 0)
        lam_io_close(io);
    else
        *out = io;
    return rc;
}

/* Which driver a node is for.  NULL in *@driver: a format. */
static int choose_driver(struct node *node, const struct host_driver **driver,
                         struct lam_error *err)
{
    *driver = NULL;
    if (node->plain) {
        *driver = host_driver_of(node->plain);
        if (!*driver)
            return lam_fail(err, ENOTSUP, "Unknown protocol '%.*s'",
                            (int)strcspn(node->plain, ":"), node->plain);
        return (*driver)->parse_name(node, node->plain, err);
    }
    if (!node->driver) {
        if (!node_take_text(node, "filename"))
            return lam_fail(err, EINVAL, "Must specify either driver or file");
        *driver = &host_file;
        return 0;
    }
    *driver = !strcmp(node->driver, "raw") ? &host_raw
                                           : host_driver_find(node->driver);
    if (*driver || format_find(node->driver))
        return 0;
    return lam_fail(err, ENOTSUP, "Unknown driver '%s'", node->driver);
}

static int open_node(struct host_node *n, struct lam_io **out,
                     struct lam_error *err)
{
    struct host_opening *h = n->opening;
    int rc = describe_traits(n->node, &n->traits, err);

    if (rc < 0)
        return rc;
    if (++h->depth > MAX_NESTING)
        return lam_fail(err, EINVAL, "image nodes are nested deeper than %d",
                        MAX_NESTING);
    h->unlocked |= n->traits.force_share == NODE_ON;
    h->auto_read_only |= n->traits.auto_read_only == NODE_ON;
    h->read_only |= n->traits.read_only == NODE_ON;
    if (n->traits.has_detect_zeroes) {
        h->has_detect_zeroes = true;
        h->detect_zeroes = n->traits.detect_zeroes;
    }
    rc = n->driver ? open_driver(n, out, err) : open_image(n, out, err);
    h->depth--;
    return rc;
}

/* @n but for its view, which is going to be below @above and called @child. */
static int open_below(struct host_node *n, const char *child,
                      struct node_view *above, struct lam_io **out,
                      struct lam_error *err)
{
    const char *driver = n->driver ? n->driver->name
                       : n->node->driver ? n->node->driver : "";
    int rc = view_new(child, driver, &n->view, err);

    if (rc < 0)
        return rc;
    rc = open_node(n, out, err);
    free(n->own_plain);
    if (rc < 0)
        view_free(n->view);
    else
        view_add(above, n->view);
    return rc;
}

int host_open(struct host_opening *opening, struct node *node,
              const struct traits *above, const char *child, bool pooled,
              struct node_view *view, struct lam_io **out,
              struct lam_error *err)
{
    struct host_node n = {
        .opening = opening,
        .node = node,
        .traits = traits_below(above),
        .pooled = pooled,
        .driver_said = node->driver,
    };
    int rc = choose_driver(node, &n.driver, err);

    return rc < 0 ? rc : open_below(&n, child, view, out, err);
}

int host_open_image_child(struct host_node *above, struct node *node,
                          const char *name, struct lam_io **out,
                          struct lam_error *err)
{
    struct host_node n = {
        .opening = above->opening,
        .node = node,
        .traits = traits_below(&above->traits),
    };

    if (node->driver)
        return host_open(above->opening, node, &above->traits, name, false,
                         above->view, out, err);
    if (!node->plain && !node_has_child(node, "file"))
        return lam_fail(err, EINVAL, "Must specify either driver or file");
    return open_below(&n, name, above->view, out, err);
}

int host_open_as(struct host_opening *opening, struct node *node,
                 const struct host_driver *driver, const struct traits *traits,
                 struct node_view *view, struct lam_io **out,
                 struct lam_error *err)
{
    struct host_node n = {
        .opening = opening,
        .node = node,
        .driver = driver,
        .traits = *traits,
        .driver_said = true,
        .view = view,
    };
    int rc = 0;

    /* "-f null-co disk.img": the name is for that driver to read, unless it has
     * none of its own and stands on what is called so. */
    if (node->plain && driver->parse_name)
        rc = driver->parse_name(node, node->plain, err);
    if (rc == 0)
        rc = open_driver(&n, out, err);
    free(n.own_plain);
    return rc;
}

int host_take_child(struct node *node, const char *name, struct node **out,
                    struct lam_error *err)
{
    if (node->plain)
        return node_from_name(node->plain, out, err);
    int rc = node_take_child(node, name, out, err);
    if (rc == 0 && !*out)
        rc = lam_fail(err, EINVAL, "A block device must be specified for "
                      "\"%s\"", name);
    return rc;
}

int host_open_child(struct host_node *n, const char *name, struct lam_io **out,
                    struct lam_error *err)
{
    struct node *child = NULL;
    int rc = host_take_child(n->node, name, &child, err);

    if (rc == 0)
        rc = host_open(n->opening, child, &n->traits, name, false, n->view, out,
                       err);
    node_free(child);
    return rc;
}
