/* SPDX-License-Identifier: MIT */
/*
 * open.c - a name → a chain of open images.
 *
 * Layer after layer from the top, in a loop: a chain may have a thousand.  A
 * chain that comes back to a file it has already is refused, and so is one that
 * is too long.
 */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/cleanup.h"
#include "image/graph.h"
#include "image/layer.h"
#include "image/view.h"
#include "io/pool.h"

/* Files below the top that are open, and locked, when the chain has been
 * opened; and how many may be later on, if the process may have more. */
enum { FILES_AT_FIRST = 48, FILES_LATER = 4096 };

struct opening {
    const struct lam_open_options *options;
    struct lam_image *top, *bottom;
    unsigned depth, max_depth;
    struct lam_io_identity *seen;   /* one a layer */
    struct io_pool *pool;           /* of the files below the top */
    size_t seen_capacity;
};

static void opening_deinit(struct opening *o)
{
    image_free(o->top);
    io_pool_put(o->pool);
    free(o->seen);
}

static bool same_object(const struct lam_io_identity *a,
                        const struct lam_io_identity *b)
{
    return a->known && b->known && a->is_block_device == b->is_block_device
        && a->dev == b->dev && a->ino == b->ino;
}

/* Before it is locked: our own lock is not another process'. */
static int note_identity(void *opaque, const struct lam_image *image,
                         struct lam_error *err)
{
    struct opening *o = opaque;
    struct lam_io_identity id;

    lam_io_identity(image->io, &id);
    for (unsigned i = 0; i < o->depth; i++)
        if (same_object(&o->seen[i], &id))
            return lam_fail(err, ELOOP, "Backing file '%s' creates an infinite "
                            "loop.", image->name);
    if (o->depth == o->seen_capacity) {
        size_t capacity = o->seen_capacity ? 2 * o->seen_capacity : 16;
        struct lam_io_identity *seen = realloc(o->seen,
                                               capacity * sizeof *seen);
        if (!seen)
            return lam_fail(err, ENOMEM, "no memory for a chain of %zu images",
                            capacity);
        o->seen = seen;
        o->seen_capacity = capacity;
    }
    o->seen[o->depth] = id;
    return 0;
}

static int check_below(const struct lam_image *above,
                       const struct lam_image *below, struct lam_error *err)
{
    if (!above || !above->ops->accept_backing)
        return 0;
    return above->ops->accept_backing(above->format, below->ops, below->format,
                                      err);
}

static int add_layer(struct opening *o, const struct layer_request *r,
                     struct layer_below *below, struct lam_error *err)
{
    const struct lam_image *above = o->bottom;
    struct lam_image *image;

    if (o->depth == o->max_depth)
        return lam_fail(err, ELOOP, "the backing chain is longer than the limit"
                        " of %u images", o->max_depth);
    int rc = layer_open(r, &image, below, err);
    if (rc < 0)
        return rc;
    /* From here on the chain owns it. */
    if (o->bottom)
        o->bottom->backing = image;
    else
        o->top = image;
    o->bottom = image;
    o->depth++;
    return check_below(above, image, err);
}

/* The node of the layer below @above, as its header names it. */
static int admit_backing(struct opening *o, const struct lam_image *above,
                         const struct format_links *links,
                         struct gate_pass *pass, struct lam_error *err)
{
    if (!links->backing_file || !*links->backing_file)
        return 0;
    return gate_admit(o->options->policy, GATE_BACKING, above->path,
                      links->backing_file, pass, err);
}

/* What is said of it besides comes on top. */
static int merge(struct node *node, const struct node *said,
                 struct lam_error *err)
{
    int rc = 0;

    for (size_t i = 0; i < said->keys.count && rc == 0; i++) {
        const struct keyitem *item = &said->keys.items[i];
        rc = keylist_add(&node->keys, item->key, item->value, item->kind, err);
    }
    if (rc < 0 || !said->driver)
        return rc;
    free(node->driver);
    node->driver = strdup(said->driver);
    keylist_find(&node->keys, "driver");
    return node->driver ? 0
        : lam_fail(err, ENOMEM, "no memory for the name of an image");
}

/*
 * What @above's header names becomes part of the name it is shown by where
 * something else is below it.
 */
static int show_backing(struct lam_image *above, const struct node *node,
                        const struct lam_image *below,
                        const struct format_links *links,
                        struct lam_error *err)
{
    lam_autofree char *named = links->backing_file && *links->backing_file
        ? name_resolve(above->path, links->backing_file) : NULL;
    bool same = below ? named && !strcmp(named, below->shown) : !named;

    if (same)
        return 0;
    free(above->view->backing);
    above->view->backing = strdup(below ? below->view->json : "null");
    above->view->backing_by_keys = below && named && below->path &&
                                   below->view->path_and_keys &&
                                   !strcmp(named, below->path);
    if (!above->view->backing)
        return lam_fail(err, ENOMEM, "no memory for the name of an image");
    return layer_show(above, node, err);
}

/* The layer below the lowest so far, of which @node and @below say something;
 * they become those of the layer.  *@more is false if there is none. */
static int open_below(struct opening *o, struct node **node,
                      struct layer_below *below, bool *more,
                      struct lam_error *err)
{
    struct lam_image *above = o->bottom;
    struct gate_pass pass lam_cleanup(gate_pass_deinit) = GATE_PASS_INIT;
    struct layer_below next lam_cleanup(layer_below_deinit) = LAYER_BELOW_INIT;
    struct format_links links;
    struct layer_request r = {
        .options = o->options, .pool = o->pool, .admit = note_identity,
        .opaque = o,
    };
    struct node *said = below->node;
    bool instead = said && node_has_child(said, "file");

    image_links(above, &links);
    int rc = instead || below->none ? 0
        : admit_backing(o, above, &links, &pass, err);
    if (rc == 0 && pass.node && said)
        rc = merge(pass.node, said, err);
    r.node = pass.node ? pass.node : said;
    if (rc < 0 || !r.node || below->none) {
        *more = false;
        return rc < 0 || !below->none
            ? rc : show_backing(above, *node, NULL, &links, err);
    }
    r.pass = pass.node ? &pass : NULL;
    r.format = r.node->driver ? NULL : links.backing_format;
    rc = add_layer(o, &r, &next, err);
    if (rc == 0 && said)
        rc = show_backing(above, *node, o->bottom, &links, err);
    if (rc < 0)
        return rc;
    node_free(*node);
    *node = r.node;
    if (pass.node)
        pass.node = NULL;
    else
        below->node = NULL;
    layer_below_deinit(below);
    *below = next;
    next = (struct layer_below)LAYER_BELOW_INIT;
    return 0;
}

static int add_backing(struct opening *o, struct node **node,
                       struct layer_below *below, bool *more,
                       struct lam_error *err)
{
    if (below->rc < 0)
        return lam_fail(err, -below->rc, "%s", below->why.message);
    unsigned flags = o->options->flags;
    *more = (!o->bottom->metadata_only || flags & LAM_OPEN_CHAIN)
        && !(flags & LAM_OPEN_NO_BACKING);
    return *more ? open_below(o, node, below, more, err) : 0;
}

/* Is it @image itself that does not let the one below be named? */
static bool stays_nameless(const struct lam_image *image)
{
    struct format_links links;

    image_links(image, &links);
    return links.backing_file &&
           !name_resolves(image->path, links.backing_file);
}

/* What could not be opened is below @o->bottom, or is that. */
static const char *failed_name(const struct opening *o, unsigned depth)
{
    struct format_links links;

    if (o->depth > depth)
        return o->bottom->name;
    image_links(o->bottom, &links);
    return links.backing_file ? links.backing_file : "json:{}";
}

/* As the genuine tool nests it, while that can be read, or where it says which
 * layer is meant. */
static int prefix_depth(const struct opening *o, struct lam_error *err, int rc,
                        unsigned depth)
{
    if (rc >= 0 || !err)
        return rc;
    const char *name = failed_name(o, depth);
    if (rc == -EINVAL && depth && stays_nameless(o->bottom) && --depth == 0)
        return rc;
    bool named = !(o->options->flags & LAM_OPEN_NAME_LAYERS) ||
                 strstr(err->message, name);
    if (depth > 4 || !named)
        return lam_error_prefix(err, rc, "Could not open backing file number "
                                "%u, '%s'", depth, name);
    for (unsigned i = 0; i < depth; i++)
        lam_error_prefix(err, rc, "Could not open backing file");
    return rc;
}

static uint64_t may_have_open(void)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_NOFILE, &limit) < 0 ? 2 * FILES_AT_FIRST
                                                : limit.rlim_cur;
}

/* Half of what the process may have open is left to it. */
static unsigned most_files(void)
{
    return (unsigned)min_u64(may_have_open() / 2, FILES_LATER);
}

/* And two chains find room while they are opened. */
static unsigned files_at_first(unsigned later)
{
    uint64_t quarter = min_u64(may_have_open() / 4, FILES_AT_FIRST);

    return (unsigned)min_u64(max_u64(quarter, 1), later);
}

/* Takes *@node, which may be another one then. */
static int open_chain(struct opening *o, struct node **node,
                      const struct traits *traits, struct lam_error *err)
{
    struct layer_request r = {
        .options = o->options,
        .node = *node,
        .traits = traits,
        .format = o->options->format,
        .top = true,
        .admit = note_identity,
        .opaque = o,
    };
    struct layer_below below lam_cleanup(layer_below_deinit) =
        LAYER_BELOW_INIT;
    unsigned later = o->options->max_files ? o->options->max_files
                                           : most_files();
    int rc = io_pool_new(files_at_first(later), &o->pool, err);
    if (rc == 0)
        rc = add_layer(o, &r, &below, err);
    bool more = true;
    while (rc == 0 && more) {
        unsigned depth = o->depth;
        rc = add_backing(o, node, &below, &more, err);
        rc = prefix_depth(o, err, rc, depth);
    }
    if (rc < 0)
        return rc;
    io_pool_set_limit(o->pool, later);
    rc = image_link(o->top, err);
    if (rc == 0)
        image_set_map_budget(o->top, o->options->map_cache_size);
    return rc;
}

int image_open_node(struct node **node, const struct traits *traits,
                    const struct lam_open_options *options,
                    struct lam_image **out, struct lam_error *err)
{
    struct opening o lam_cleanup(opening_deinit) = {
        .options = options,
        .max_depth = options->max_depth ? options->max_depth
                                        : IMAGE_DEFAULT_MAX_DEPTH,
    };
    if (o.max_depth > UINT16_MAX)
        return lam_fail(err, EINVAL, "max_depth %u is beyond the limit of %u",
                        o.max_depth, UINT16_MAX);
    int rc = open_chain(&o, node, traits, err);
    if (rc == 0)
        *out = lam_take(&o.top);
    return rc;
}

static int rename_top(struct lam_image *top, const char *name,
                      struct lam_error *err)
{
    char *copy = strdup(name);
    if (!copy)
        return lam_fail(err, ENOMEM, "no memory for the name of an image");
    free(top->name);
    top->name = copy;
    return 0;
}

/* A lone word names a node, and nobody has given a name to any. */
static int check_reference(const struct node *node, struct lam_error *err)
{
    const struct keyitem *item = node->keys.items;

    if (node->keys.count != 1 || strcmp(item->key, "file")
        || item->kind != KEY_STRING)
        return 0;
    return lam_fail(err, ENODEV, "Cannot find device='%s' nor node-name='%s'",
                    item->value, item->value);
}

static bool names_node(const char *key)
{
    static const char name[] = "node-name";
    size_t length = strlen(key), tail = sizeof name - 1;

    return length >= tail && !strcmp(key + length - tail, name) &&
           (length == tail || key[length - tail - 1] == '.');
}

/* Names of nodes mean nothing here, but two may not have the same. */
static int check_node_names(const struct node *node, struct lam_error *err)
{
    const struct keylist *list = &node->keys;

    for (size_t i = 0; i < list->count; i++) {
        const struct keyitem *a = &list->items[i];
        for (size_t k = 0; k < i && names_node(a->key); k++) {
            const struct keyitem *b = &list->items[k];
            if (names_node(b->key) && strcmp(a->key, b->key) &&
                a->value && b->value && !strcmp(a->value, b->value))
                return lam_fail(err, EINVAL, "Duplicate nodes with node-name="
                                "'%s'", a->value);
        }
    }
    return 0;
}

int image_open(const char *name, const struct lam_open_options *options,
               struct lam_image **out, struct lam_error *err)
{
    struct lam_image *image = NULL;
    struct node *node = NULL;
    int rc = options->flags & LAM_OPEN_IMAGE_OPTS
        ? node_from_options(name, &node, err)
        : node_from_name(name, &node, err);

    if (rc == 0)
        rc = check_reference(node, err);
    if (rc == 0)
        rc = check_node_names(node, err);
    if (rc == 0)
        rc = image_open_node(&node, NULL, options, &image, err);
    node_free(node);
    if (rc < 0)
        return rc;
    rc = rename_top(image, name, err);
    if (rc < 0)
        image_free(image);
    else
        *out = image;
    return rc;
}

static int check_open_options(const struct lam_open_options *o,
                              struct lam_error *err)
{
    int rc = lam_check_flags(o->flags, 2 * LAM_OPEN_NAME_LAYERS - 1, err);

    if (rc == 0)
        rc = lam_check_choice(o->cache, LAM_CACHE_UNSAFE, "cache mode", err);
    if (rc == 0)
        rc = lam_check_choice(o->policy, LAM_POLICY_NONE, "policy", err);
    return rc < 0 ? rc
        : lam_check_choice(o->detect_zeroes, LAM_DETECT_ZEROES_UNMAP,
                           "detect-zeroes mode", err);
}

int lam_image_open(const char *name, const struct lam_open_options *options,
                   struct lam_image **out, struct lam_error *err)
{
    static const struct lam_open_options defaults = LAM_OPEN_OPTIONS_INIT;

    *out = NULL;
    if (!options)
        options = &defaults;
    int rc = check_open_options(options, err);
    if (rc == 0)
        rc = image_open(name, options, out, err);
    return lam_error_prefix(err, rc, "Could not open '%s'", name);
}

/* Who has only an object cannot name another one. */
static int attach_data(struct lam_image *image, struct lam_io *data,
                       struct lam_error *err)
{
    struct format_links links = { 0 };

    image->data = data;
    if (image->metadata_only)
        return 0;
    if (data)
        return image->ops->attach_data(image->format, data, err);
    image_links(image, &links);
    return !links.needs_data_file ? 0
        : lam_fail(err, EINVAL, "'data-file' is required for this image");
}

int image_open_ios(struct lam_io *io, struct lam_io *data, const char *format,
                   const struct lam_open_options *options,
                   struct lam_image *backing, struct lam_image **out,
                   struct lam_error *err)
{
    static const struct lam_open_options defaults = LAM_OPEN_OPTIONS_INIT;
    static const struct layer_format layer = { NULL, NULL, true };
    struct lam_image *image;

    if (!options)
        options = &defaults;
    int rc = layer_new(io, io->name, NULL, &image, err);
    if (rc < 0) {
        lam_io_close(data);
        image_free(backing);
        return rc;
    }
    image->backing = backing;
    image->writable = options->flags & LAM_OPEN_WRITE;
    image->metadata_only = options->flags & LAM_OPEN_METADATA;
    image->unmap = options->flags & LAM_OPEN_UNMAP;
    image->detect_zeroes = options->detect_zeroes;
    image->ops = format_find(format);
    rc = image->ops ? 0 : lam_fail(err, ENOTSUP, "Unknown driver '%s'", format);
    if (rc == 0)
        rc = layer_attach_format(image, options, &layer, err);
    if (rc == 0)
        rc = attach_data(image, lam_take(&data), err);
    if (rc == 0)
        rc = image_link(image, err);
    if (rc < 0) {
        lam_io_close(data);
        image_free(image);
        return rc;
    }
    image_set_map_budget(image, options->map_cache_size);
    *out = image;
    return rc;
}

int image_open_io(struct lam_io *io, const char *format,
                  const struct lam_open_options *options,
                  struct lam_image *backing, struct lam_image **out,
                  struct lam_error *err)
{
    return image_open_ios(io, NULL, format, options, backing, out, err);
}
