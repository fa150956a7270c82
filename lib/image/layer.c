/* SPDX-License-Identifier: MIT */
/*
 * layer.c - one image of a chain: host object, choice of the format, data file.
 */
#include "image/layer.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/host.h"
#include "image/view.h"

/* As much as the genuine tool looks at. */
enum { PROBE_BYTES = 512 };

static bool wants_unmap(const struct lam_open_options *options,
                        const struct traits *traits)
{
    return traits->unmap == NODE_UNSET ? options->flags & LAM_OPEN_UNMAP
                                       : traits->unmap == NODE_ON;
}

/*
 * Not at open: a raw image is locked otherwise than the rest, and which it is
 * may have to be read first.
 */
static int take_locks(const struct lam_image *image, struct lam_io *io,
                      bool is_raw, struct lam_error *err)
{
    return image->unlocked ? 0 : lam_io_lock(io, is_raw, err);
}

/* Parsers that few images need are not offered to who sent an image. */
static int probe(struct lam_io *io, enum lam_policy policy,
                 const struct format_ops **ops, struct lam_error *err)
{
    uint8_t head[PROBE_BYTES];
    uint64_t length;
    int rc = lam_io_size(io, &length, err);
    if (rc < 0)
        return rc;
    length = min_u64(length, sizeof head);
    if (length) {
        rc = lam_io_read(io, head, length, 0, NULL);
        if (rc < 0)
            return lam_fail_errno(err, -rc, "Could not read image for "
                                  "determining its format");
    }
    *ops = format_probe(head, length, io->name, policy != LAM_POLICY_TRUST);
    return 0;
}

static int choose_format(const struct layer_request *r, struct lam_image *image,
                         const char *format, struct lam_error *err)
{
    if (format) {
        image->ops = format_find(format);
        assert(image->ops);     /* looked for before anything was opened */
        return 0;
    }

    image->guessed = true;
    int rc = probe(image->io, r->options->policy, &image->ops, err);
    if (rc < 0)
        return rc;
    /* Whoever writes the first sector of a raw disk could make it name any
     * file as its backing file (format document 11.3). */
    if (r->pass && r->options->policy != LAM_POLICY_TRUST
        && image->ops == &format_raw)
        return lam_fail(err, EINVAL, "the header does not say the format of "
                        "its backing file '%s', and it is not qcow2; give "
                        "it a format", image->name);
    return 0;
}

int layer_new(struct lam_io *io, const char *name, const char *path,
              struct lam_image **out, struct lam_error *err)
{
    struct lam_image *image = calloc(1, sizeof *image);
    if (!image) {
        lam_io_close(io);
        return lam_fail(err, ENOMEM, "no memory for an image");
    }
    lam_rwlock_init_writers_first(&image->whole_units);
    pthread_mutex_init(&image->afloat.lock, NULL);
    pthread_cond_init(&image->afloat.none, NULL);
    buffer_pool_init(&image->buffers);
    cow_ahead_init(&image->ahead);
    pthread_mutex_init(&image->resize_lock, NULL);
    image->io = io;
    image->name = strdup(name);
    image->path = path ? strdup(path) : NULL;
    if (!image->name || (path && !image->path)) {
        image_free(image);
        return lam_fail(err, ENOMEM, "no memory for the name of an image");
    }
    *out = image;
    return 0;
}

/* Seconds, as the genuine tools have it. */
enum { CLEAN_INTERVAL = 600 };

int layer_attach_format(struct lam_image *image,
                        const struct lam_open_options *options,
                        const struct layer_format *layer,
                        struct lam_error *err)
{
    struct format_open o = {
        .io = image->io,
        .writable = image->writable,
        .metadata_only = options->flags & LAM_OPEN_METADATA,
        .for_check = layer->top && options->flags & LAM_OPEN_CHECK,
        .overlap_check = LAM_OVERLAP_CACHED,
        .unmap = image->unmap,
        .pass_request = image->unmap,
        .pass_snapshot = true,
        .snapshot = layer->top ? options->snapshot : NULL,
        .l2_cache_size = options->l2_cache_size,
        .refcount_cache_size = options->refcount_cache_size,
        .cache_clean_interval = CLEAN_INTERVAL,
        .lazy_refcounts = LAM_SETTING_KEEP,
        .header = image->header,
        .keyring = options->keyring,
        .key_secret = layer->top ? options->key_secret : NULL,
        .files = layer->files,
    };
    int rc = layer->node ? describe_format(layer->node, image->ops, &o, err)
                         : 0;

    if (rc < 0)
        return rc;
    if (options->flags & LAM_OPEN_TRUST_EOF)
        image->io->eof_unit = UINT64_MAX;
    if (image->writable && !image->ops->write_begin)
        return lam_fail(err, EROFS, "Image is read-only");
    if (o.snapshot && !image->ops->snapshots)
        return lam_fail(err, ENOTSUP, "Format driver '%s' does not support "
                        "internal snapshots", image->ops->name);
    image->for_check = o.for_check;
    rc = image->ops->open(&o, &image->format, err);
    if (rc < 0)
        return rc;
    if (options->flags & LAM_OPEN_TRUST_EOF)
        image->io->eof_unit = UINT64_MAX;
    image->size = image->ops->size(image->format);
    if (image->ops->crypt)
        image->crypt = image->ops->crypt(image->format);
    return 0;
}

/* ------------------------------------------------------- files beside it */

/* Where a layer has got to. */
struct layer {
    const struct layer_request *request;
    struct traits traits;
    struct host_opening opening;
    const char *format;             /* NULL: look at the file */
    const struct host_driver *driver;   /* it is no format: shown as raw */
};

/* The file that @image's header calls @name. */
static int open_named(const struct layer *l, const struct lam_image *image,
                      enum gate_edge edge, const char *name,
                      struct lam_io **io, struct lam_error *err)
{
    const struct layer_request *r = l->request;

    if (image->guessed && r->options->policy != LAM_POLICY_TRUST)
        return lam_fail(err, EPERM, "the format was guessed, and a guessed "
                        "format is not followed into the %s '%s'; "
                        "give it a format", gate_edge_name(edge), name);

    struct gate_pass pass lam_cleanup(gate_pass_deinit) = GATE_PASS_INIT;
    int rc = gate_admit(r->options->policy, edge, image->path, name, &pass,
                        err);
    if (rc < 0)
        return rc;
    struct layer_request data = *r;
    struct host_opening opening = { .request = &data };
    data.pass = &pass;
    if (edge == GATE_DATA)
        return host_open(&opening, pass.node, &l->traits, "data-file", true,
                         image->view, io, err);
    /* Of its extents the format tells itself. */
    struct node_view view = { .child = "" };
    rc = host_open(&opening, pass.node, &l->traits, "", true, &view, io, err);
    view_free(view.below);
    return rc;
}

/* What the node has below it under @name, a file beside the image's own: NULL
 * in *@io: nothing. */
static int open_node_beside(struct layer *l, struct lam_image *image,
                            const char *name, struct lam_io **io,
                            struct lam_error *err)
{
    struct layer_request data = *l->request;
    struct host_opening opening = { .request = &data };
    struct node *node = NULL;
    int rc = data.node->plain
        ? 0 : node_take_child(data.node, name, &node, err);

    *io = NULL;
    data.pass = NULL;
    if (rc == 0 && node)
        rc = host_open(&opening, node, &l->traits, name, true, image->view, io,
                       err);
    node_free(node);
    return rc;
}

static int open_data(struct layer *l, struct lam_image *image,
                     struct lam_error *err)
{
    struct format_links links;

    if (image->ops != &format_qcow2)
        return 0;
    if (image->metadata_only) {
        struct node *unused = NULL;
        int rc = node_take_child(l->request->node, "data-file", &unused, err);
        node_free(unused);
        return rc;
    }
    image_links(image, &links);
    if (!links.needs_data_file)
        return !node_has_child(l->request->node, "data-file") ? 0
            : lam_fail(err, EINVAL, "'data-file' can only be set for images "
                       "with an external data file");

    int rc = open_node_beside(l, image, "data-file", &image->data, err);
    if (rc == 0 && !image->data)
        rc = links.data_file && *links.data_file
            ? open_named(l, image, GATE_DATA, links.data_file,
                         &image->data, err)
            : lam_fail(err, EINVAL, "'data-file' is required for this image");
    /* Before it is locked: our own lock is not another process'. */
    if (rc == 0 && lam_io_same_object(image->data, image->io))
        rc = lam_fail(err, EINVAL, "the external data file is the image file "
                      "itself");
    if (rc == 0)
        rc = take_locks(image, image->data, false, err);
    if (rc < 0)
        return rc;
    return image->ops->attach_data(image->format, image->data, err);
}

/* LUKS headers may be kept apart from what they are the headers of.  Several
 * disks may have one: as with the genuine tools, who uses it bars nobody. */
static int open_header(struct layer *l, struct lam_image *image,
                       struct lam_error *err)
{
    if (image->ops != &format_luks)
        return 0;
    int rc = open_node_beside(l, image, "header", &image->header, err);
    if (rc < 0 || !image->header)
        return rc;
    if (image->writable && lam_io_same_object(image->header, image->io))
        return lam_fail(err, EINVAL, "the detached header is the image file "
                        "itself");
    return take_locks(image, image->header, true, err);
}

struct layer_files {
    struct format_files files;
    const struct layer *layer;
    const struct lam_image *image;
};

static int open_beside(const struct format_files *files, const char *name,
                       struct lam_io **io, struct lam_error *err)
{
    const struct layer_files *f = (const struct layer_files *)files;
    int rc = open_named(f->layer, f->image, GATE_EXTENT, name, io, err);

    if (rc < 0)
        return rc;
    rc = take_locks(f->image, *io, false, err);
    if (rc < 0)
        lam_io_close(*io);
    return rc;
}

/* ------------------------------------------------------------------ opening */

static int attach_format(const struct layer *l, struct lam_image *image,
                         struct lam_error *err)
{
    const struct layer_files f = { { open_beside }, l, image };
    const struct layer_format layer = {
        /* A driver that is no format has taken its options. */
        l->driver ? NULL : l->request->node, &f.files, l->request->top,
    };

    return layer_attach_format(image, l->request->options, &layer, err);
}

static const char *const *shown_keys(const struct format_ops *ops)
{
    static const char *const raw[] = { "offset", "driver", "size", "file",
                                       NULL };
    static const char *const luks[] = { "header", "driver", "file",
                                        "key-secret", NULL };
    static const char *const others[] = {
        "force_size_calc", "encrypt.key-secret", "data-file", "backing",
        "driver", "file", NULL
    };

    return ops == &format_raw ? raw : ops == &format_luks ? luks : others;
}

static int copy_shown(struct lam_image *image, struct lam_error *err)
{
    free(image->shown);
    image->shown = strdup(image->view->shown);
    return image->shown ? 0
        : lam_fail(err, ENOMEM, "no memory for the name of an image");
}

int layer_show(struct lam_image *image, const struct node *node,
               struct lam_error *err)
{
    const struct node_view *file = image->view->below;

    if (image->driver)
        return copy_shown(image, err);
    while (file && strcmp(file->child, "file"))
        file = file->next;
    assert(file);
    int rc = view_set_driver(image->view, image->ops->name, err);
    if (rc == 0)
        rc = view_name(image->view, node, shown_keys(image->ops),
                       file->protocol && file->plain ? file->shown : NULL, err);
    return rc < 0 ? rc : copy_shown(image, err);
}

static int check_write(const struct layer *l, struct lam_error *err)
{
    const struct layer_request *r = l->request;

    if (r->top && l->traits.read_only == NODE_OFF &&
        (r->options->flags & LAM_OPEN_FORCE_SHARE))
        return lam_fail(err, EINVAL, "force-share=on can only be used with "
                        "read-only images");
    if (!r->top || !(r->options->flags & LAM_OPEN_WRITE))
        return 0;
    if (l->traits.read_only == NODE_ON)
        return lam_fail(err, EROFS, "Block node is read-only");
    if (l->traits.force_share == NODE_ON)
        return lam_fail(err, EINVAL, "force-share=on can only be used with "
                        "read-only images");
    return 0;
}

static int describe_layer(struct layer *l, struct lam_error *err)
{
    const struct layer_request *r = l->request;
    int rc = describe_traits(r->node, &l->traits, err);

    if (rc < 0)
        return rc;
    if (l->traits.detect_zeroes == LAM_DETECT_ZEROES_UNMAP
        && l->traits.has_detect_zeroes && !wants_unmap(r->options, &l->traits))
        return lam_fail(err, EINVAL, "setting detect-zeroes to unmap is not "
                        "allowed without setting discard operation to unmap");
    l->traits.unmap = wants_unmap(r->options, &l->traits) ? NODE_ON : NODE_OFF;
    l->format = r->format ? r->format : r->node->driver;
    l->driver = l->format ? host_driver_find(l->format) : NULL;
    if (l->format && !l->driver && !format_find(l->format))
        return lam_fail(err, ENOTSUP, "Unknown driver '%s'", l->format);
    if (!l->format && !r->node->plain && !node_has_child(r->node, "file"))
        return lam_fail(err, EINVAL, "Must specify either driver or file");
    return check_write(l, err);
}

static int open_file(struct layer *l, struct node_view *view,
                     struct lam_io **io, struct lam_error *err)
{
    const struct layer_request *r = l->request;
    struct node *file = NULL;

    if (l->driver)
        return host_open_as(&l->opening, r->node, l->driver, &l->traits, view,
                            io, err);
    int rc = host_take_child(r->node, "file", &file, err);
    if (rc == 0)
        rc = host_open(&l->opening, file, &l->traits, "file", true, view, io,
                       err);
    node_free(file);
    return rc;
}

static void set_up(const struct layer *l, struct lam_image *image)
{
    const struct lam_open_options *o = l->request->options;

    image->writable = l->request->top && o->flags & LAM_OPEN_WRITE;
    image->metadata_only = o->flags & LAM_OPEN_METADATA;
    image->unmap = l->traits.unmap == NODE_ON;
    image->unlocked = o->flags & LAM_OPEN_FORCE_SHARE || l->opening.unlocked
        || l->traits.force_share == NODE_ON;
    image->detect_zeroes =
        l->traits.has_detect_zeroes ? l->traits.detect_zeroes
        : l->opening.has_detect_zeroes ? l->opening.detect_zeroes
        : o->detect_zeroes;
    image->flush_writes = o->cache == LAM_CACHE_WRITETHROUGH
        || o->cache == LAM_CACHE_DIRECTSYNC;
}

void layer_below_deinit(struct layer_below *below)
{
    node_free(below->node);
    *below = (struct layer_below)LAYER_BELOW_INIT;
}

/* An empty name is an old way to say that there is none. */
static bool says_none(const struct keyitem *item)
{
    return item && (item->kind == KEY_NULL || (item->value && !*item->value));
}

static int take_below(const struct lam_image *image, struct node *node,
                      bool unwanted, struct layer_below *below,
                      struct lam_error *err)
{
    const struct keyitem *first = keylist_below(&node->keys, "backing");
    struct keyitem *whole = keylist_find(&node->keys, "backing");

    if (!first && (!whole || says_none(whole))) {
        below->none = whole;
        return 0;
    }
    if (!image->ops->can_have_backing || image->driver)
        return lam_fail(err, EINVAL, "Driver doesn't support backing files");
    if (unwanted && whole)
        whole->used = false;
    if (unwanted)
        return describe_rest(node, image->ops->name, false, err);
    below->rc = node_take_child(node, "backing", &below->node, &below->why);
    return 0;
}

/* The file could be had for reading only. */
static int set_read_only(const struct layer *l, struct lam_image *image,
                         struct lam_error *err)
{
    bool may = l->traits.auto_read_only == NODE_ON || l->opening.auto_read_only;

    if (!may || l->opening.read_only)
        return lam_fail(err, EROFS, "Block node is read-only");
    image->writable = false;
    return 0;
}

static bool wants_below(const struct layer_request *r)
{
    unsigned flags = r->options->flags;

    /* A check is of one image, and of whatever name it has, and so are internal
     * snapshots: a backing file that is described in it is not opened, and no
     * mistake. */
    return flags & LAM_OPEN_CHECK || !(flags & LAM_OPEN_METADATA);
}

static int fill_layer(struct layer *l, struct lam_image *image,
                      struct layer_below *below, struct lam_error *err)
{
    struct node *node = l->request->node;

    set_up(l, image);
    int rc = l->driver ? 0 : choose_format(l->request, image, l->format, err);
    if (l->driver) {
        image->ops = &format_raw;
        image->driver = l->driver->name;
    }
    if (rc == 0 && image->writable && !image->io->writable)
        rc = set_read_only(l, image, err);
    if (rc == 0 && l->request->admit)
        rc = l->request->admit(l->request->opaque, image, err);
    if (rc == 0)
        rc = take_locks(image, image->io, image->ops == &format_raw, err);
    if (rc == 0)
        rc = open_header(l, image, err);
    if (rc == 0)
        rc = attach_format(l, image, err);
    if (rc == 0)
        rc = open_data(l, image, err);
    if (rc == 0)
        rc = take_below(image, node, !wants_below(l->request), below, err);
    if (rc == 0)
        rc = describe_rest(node, image->ops->name, false, err);
    if (rc == 0)
        rc = layer_show(image, node, err);
    return rc;
}

static int new_image(const struct layer *l, struct lam_io *io,
                     struct node_view *view, struct lam_image **out,
                     struct lam_error *err)
{
    const char *path = view_path(view);
    const char *plain = l->request->node->plain;
    const char *name = path ? path : plain ? plain : "json:{}";
    int rc = layer_new(io, name, path, out, err);

    if (rc < 0)
        view_free(view);
    else
        (*out)->view = view;
    return rc;
}

int layer_open(const struct layer_request *r, struct lam_image **out,
               struct layer_below *below, struct lam_error *err)
{
    struct layer l = { .request = r, .opening = { .request = r } };
    struct node_view *view;
    struct lam_io *io;
    struct lam_image *image;

    if (r->traits)
        l.traits = traits_below(r->traits);
    int rc = describe_layer(&l, err);
    if (rc == 0)
        rc = view_new("", l.format ? l.format : "", &view, err);
    if (rc < 0)
        return rc;
    rc = open_file(&l, view, &io, err);
    if (rc < 0) {
        view_free(view);
        return rc;
    }
    rc = new_image(&l, io, view, &image, err);
    if (rc < 0)
        return rc;
    rc = fill_layer(&l, image, below, err);
    if (rc < 0)
        image_free(image);
    else
        *out = image;
    return rc;
}
