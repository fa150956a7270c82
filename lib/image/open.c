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

static int note_identity(struct opening *o, const struct lam_image *image,
                         struct lam_error *err)
{
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
                     struct lam_error *err)
{
    const struct lam_image *above = o->bottom;
    struct lam_image *image;

    if (o->depth == o->max_depth)
        return lam_fail(err, ELOOP, "the backing chain is longer than the limit"
                        " of %u images", o->max_depth);
    int rc = layer_open(r, &image, err);
    if (rc < 0)
        return rc;
    /* From here on the chain owns it. */
    if (o->bottom)
        o->bottom->backing = image;
    else
        o->top = image;
    o->bottom = image;
    rc = note_identity(o, image, err);
    o->depth++;
    return rc < 0 ? rc : check_below(above, image, err);
}

/* The layer below the lowest so far; *@more is false if there is none. */
static int add_backing(struct opening *o, const struct node **node, bool *more,
                       struct lam_error *err)
{
    struct lam_image *above = o->bottom;
    struct format_links links;
    struct layer_request r = { .options = o->options, .pool = o->pool };

    *more = false;
    if ((*node && (*node)->no_backing) || above->metadata_only
        || (o->options->flags & LAM_OPEN_NO_BACKING))
        return 0;
    if (*node && (*node)->backing) {
        *node = r.node = (*node)->backing;
        *more = true;
        int rc = add_layer(o, &r, err);
        return lam_error_prefix(err, rc, "Could not open '%s'",
                                r.node->filename);
    }
    *node = NULL;
    above->ops->links(above->format, &links);
    if (!links.backing_file || !*links.backing_file)
        return 0;

    struct gate_pass pass lam_cleanup(gate_pass_deinit) = GATE_PASS_INIT;
    *more = true;
    int rc = gate_admit(o->options->policy, GATE_BACKING, above->path,
                        links.backing_file, &pass, err);
    if (rc < 0)
        return rc;
    r.node = pass.node;
    r.pass = &pass;
    r.format = pass.node->driver ? NULL : links.backing_format;
    return add_layer(o, &r, err);
}

/* As the genuine tool nests it, while that can be read. */
static int prefix_depth(struct lam_error *err, int rc, unsigned depth)
{
    if (depth > 4)
        return lam_error_prefix(err, rc, "Could not open backing file number "
                                "%u", depth);
    for (unsigned i = 0; i < depth; i++)
        lam_error_prefix(err, rc, "Could not open backing file");
    return rc;
}

/* Half of what the process may have open is left to it. */
static unsigned most_files(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return FILES_AT_FIRST;
    uint64_t half = max_u64(limit.rlim_cur / 2, FILES_AT_FIRST);
    return (unsigned)min_u64(half, FILES_LATER);
}

static int open_chain(struct opening *o, const struct node *node,
                      struct lam_error *err)
{
    struct layer_request r = {
        .options = o->options,
        .node = node,
        .format = node->driver ? NULL : o->options->format,
        .top = true,
    };
    unsigned later = o->options->max_files ? o->options->max_files
                                           : most_files();
    int rc = io_pool_new((unsigned)min_u64(FILES_AT_FIRST, later), &o->pool,
                         err);
    if (rc == 0)
        rc = add_layer(o, &r, err);
    bool more = true;
    while (rc == 0 && more) {
        unsigned depth = o->depth;
        rc = prefix_depth(err, add_backing(o, &node, &more, err), depth);
    }
    if (rc < 0)
        return rc;
    io_pool_set_limit(o->pool, later);
    rc = image_link(o->top, err);
    if (rc == 0)
        image_set_map_budget(o->top, o->options->map_cache_size);
    return rc;
}

static int parse_name(const char *name, const struct lam_open_options *options,
                      struct node **out, struct lam_error *err)
{
    int rc = options->flags & LAM_OPEN_IMAGE_OPTS
        ? node_from_options(name, out, err) : node_from_name(name, out, err);
    if (rc < 0 || !options->format || !(*out)->driver
        || !strcmp(options->format, (*out)->driver))
        return rc;
    return lam_fail(err, EINVAL, "format '%s' was asked for, and the name says "
                    "'%s'", options->format, (*out)->driver);
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

int image_open(const char *name, const struct lam_open_options *options,
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

    struct node *node = NULL;
    int rc = parse_name(name, options, &node, err);
    if (rc == 0)
        rc = open_chain(&o, node, err);
    node_free(node);
    if (rc == 0)
        rc = rename_top(o.top, name, err);
    if (rc == 0)
        *out = lam_take(&o.top);
    return rc;
}

int lam_image_open(const char *name, const struct lam_open_options *options,
                   struct lam_image **out, struct lam_error *err)
{
    static const struct lam_open_options defaults = LAM_OPEN_OPTIONS_INIT;

    int rc = image_open(name, options ? options : &defaults, out, err);
    return lam_error_prefix(err, rc, "Could not open '%s'", name);
}

int image_open_io(struct lam_io *io, const char *format,
                  const struct lam_open_options *options,
                  struct lam_image *backing, struct lam_image **out,
                  struct lam_error *err)
{
    static const struct lam_open_options defaults = LAM_OPEN_OPTIONS_INIT;
    struct lam_image *image;

    if (!options)
        options = &defaults;
    int rc = layer_new(io, io->name, NULL, &image, err);
    if (rc < 0) {
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
        rc = layer_attach_format(image, options, NULL, true, NULL, err);
    if (rc == 0)
        rc = image_link(image, err);
    if (rc < 0) {
        image_free(image);
        return rc;
    }
    image_set_map_budget(image, options->map_cache_size);
    *out = image;
    return rc;
}
