/* SPDX-License-Identifier: MIT */
/*
 * layer.c - one image of a chain: host object, choice of the format, data file.
 */
#include "image/layer.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/debug.h"
#include "io/window.h"

/* As much as the genuine tool looks at. */
enum { PROBE_BYTES = 512 };

/* Syncing after each write is ours to do: the image layer flushes once when
 * data and metadata are written, and not the host object at each step. */
static enum lam_cache_mode io_cache(const struct lam_open_options *options,
                                    const struct node *node)
{
    enum lam_cache_mode cache = options->cache;
    bool direct = cache == LAM_CACHE_NONE || cache == LAM_CACHE_DIRECTSYNC;

    if (node->direct != NODE_UNSET)
        direct = node->direct == NODE_ON;
    if (cache == LAM_CACHE_UNSAFE || node->no_flush == NODE_ON)
        return direct ? LAM_CACHE_NONE : LAM_CACHE_UNSAFE;
    return direct ? LAM_CACHE_NONE : LAM_CACHE_WRITEBACK;
}

static bool wants_unmap(const struct lam_open_options *options,
                        const struct node *node)
{
    return node->unmap == NODE_UNSET ? options->flags & LAM_OPEN_UNMAP
                                     : node->unmap == NODE_ON;
}

static bool is_writable(const struct layer_request *r, const struct node *node)
{
    return r->top && r->options->flags & LAM_OPEN_WRITE
        && node->read_only != NODE_ON;
}

/* What stands between the file and the format.  *@io changes, and is gone after
 * a failure. */
static int put_before(const struct node *node, struct lam_io **io,
                      struct lam_error *err)
{
    int rc = 0;

    if (node->window_offset || node->window_size)
        rc = lam_io_window_new(*io, node->window_offset, node->window_size, io,
                               err);
    return rc == 0 && node->debug ? debug_open(node->debug, *io, io, err) : rc;
}

int layer_open_io(const struct layer_request *r, const struct node *node,
                  struct lam_io **out, struct lam_error *err)
{
    const struct gate_pass *pass = r->pass;
    struct lam_io_open_options o = LAM_IO_OPEN_INIT;
    o.writable = is_writable(r, node);
    o.lock = false;             /* see take_locks() */
    o.exclusive = r->top && r->options->flags & LAM_OPEN_EXCLUSIVE;
    o.unmap = wants_unmap(r->options, node);
    o.cache = io_cache(r->options, node);
    /* A window asks the file below it for more than it tells us. */
    if (!r->top && !node->window_offset && !node->window_size && !node->debug)
        o.pool = r->pool;
    if (pass && pass->dirfd >= 0) {
        o.beneath = true;
        o.dirfd = pass->dirfd;
        o.regular_only = pass->regular_only;
    }

    struct lam_io *io = NULL;
    int rc = lam_io_open(o.beneath ? pass->path : node->filename, &o, &io, err);
    if (rc < 0)
        return rc;
    *out = io;
    return put_before(node, out, err);
}

/*
 * Not at open: a raw image is locked otherwise than the rest, and which it is
 * may have to be read first.
 */
static int take_locks(const struct layer_request *r, struct lam_io *io,
                      bool is_raw, struct lam_error *err)
{
    if (r->options->flags & LAM_OPEN_FORCE_SHARE)
        return 0;
    return lam_io_lock(io, is_raw, err);
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
    *ops = format_probe(head, length, io->name, policy == LAM_POLICY_NONE);
    return 0;
}

/* The drivers of host objects show bytes as raw does. */
static const struct format_ops *find_format(const char *name)
{
    if (!strcmp(name, "file") || !strcmp(name, "host_device"))
        return &format_raw;
    return format_find(name);
}

static int choose_format(const struct layer_request *r, struct lam_image *image,
                         struct lam_error *err)
{
    const char *format = r->format ? r->format : r->node->driver;
    if (format) {
        image->ops = find_format(format);
        return image->ops ? 0 : lam_fail(err, ENOTSUP, "Unknown driver '%s'",
                                         format);
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
                        "it a format", r->node->filename);
    return 0;
}

/* Writers first: else a stream of writes would starve the one who zeroes. */
static void init_lock(pthread_rwlock_t *lock)
{
    pthread_rwlockattr_t attr;
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr,
        PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(lock, &attr);
    pthread_rwlockattr_destroy(&attr);
}

int layer_new(struct lam_io *io, const char *name, const char *path,
              struct lam_image **out, struct lam_error *err)
{
    struct lam_image *image = calloc(1, sizeof *image);
    if (!image) {
        lam_io_close(io);
        return lam_fail(err, ENOMEM, "no memory for an image");
    }
    init_lock(&image->whole_units);
    buffer_pool_init(&image->buffers);
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

/* A size that is said for both together goes to the one that is not said. */
static void set_caches(struct format_open *o,
                       const struct lam_open_options *options,
                       const struct node *node)
{
    o->l2_cache_size = options->l2_cache_size;
    o->refcount_cache_size = options->refcount_cache_size;
    o->cache_clean_interval = CLEAN_INTERVAL;
    if (!node)
        return;
    const struct node_caches *c = &node->caches;
    if (c->has_clean_interval)
        o->cache_clean_interval = c->clean_interval;
    if (c->has_l2)
        o->l2_cache_size = max_u64(c->l2, 1);
    if (c->has_refcount)
        o->refcount_cache_size = max_u64(c->refcount, 1);
    if (c->has_total && c->has_l2)
        o->refcount_cache_size = max_u64(c->total - c->l2, 1);
    else if (c->has_total && c->has_refcount)
        o->l2_cache_size = max_u64(c->total - c->refcount, 1);
    else if (c->has_total)
        o->cache_size = max_u64(c->total, 1);
    o->l2_entry_size = c->l2_entry;
    o->lazy_refcounts = node->lazy_refcounts == NODE_UNSET ? LAM_SETTING_KEEP
                      : node->lazy_refcounts == NODE_ON ? LAM_SETTING_ON
                      : LAM_SETTING_OFF;
}

static bool switch_is_on(enum node_switch value, bool unset)
{
    return value == NODE_UNSET ? unset : value == NODE_ON;
}

static void set_discards(struct format_open *o, const struct node *node)
{
    static const struct node unset = { 0 };

    if (!node)
        node = &unset;
    o->pass_request = switch_is_on(node->pass_request, o->unmap);
    o->pass_snapshot = switch_is_on(node->pass_snapshot, true);
    o->pass_other = switch_is_on(node->pass_other, false);
    o->no_unref = switch_is_on(node->no_unref, false);
}

int layer_attach_format(struct lam_image *image,
                        const struct lam_open_options *options,
                        const struct node *node, bool top,
                        const struct format_files *files,
                        struct lam_error *err)
{
    struct format_open o = {
        .io = image->io,
        .writable = image->writable,
        .metadata_only = options->flags & LAM_OPEN_METADATA,
        .for_check = top && options->flags & LAM_OPEN_CHECK,
        .overlap_check = node ? node->overlap_check : LAM_OVERLAP_CACHED,
        .overlap_on = node ? node->overlap_on : 0,
        .overlap_off = node ? node->overlap_off : 0,
        .unmap = image->unmap,
        .snapshot = top ? options->snapshot : NULL,
        .raw_offset = node ? node->raw_offset : 0,
        .raw_size = node ? node->raw_size : 0,
        .keyring = options->keyring,
        .key_secret = node && node->key_secret ? node->key_secret
                    : top ? options->key_secret : NULL,
        .encrypt_format = node ? node->encrypt_format : NULL,
        .files = files,
    };
    set_caches(&o, options, node);
    set_discards(&o, node);
    if (options->flags & LAM_OPEN_TRUST_EOF)
        image->io->eof_unit = UINT64_MAX;
    image->for_check = o.for_check;
    int rc = image->ops->open(&o, &image->format, err);
    if (rc < 0)
        return rc;
    if (options->flags & LAM_OPEN_TRUST_EOF)
        image->io->eof_unit = UINT64_MAX;
    image->size = image->ops->size(image->format);
    if (image->ops->crypt)
        image->crypt = image->ops->crypt(image->format);
    return 0;
}

/* The file that @image's header calls @name. */
static int open_named(const struct layer_request *r,
                      const struct lam_image *image, enum gate_edge edge,
                      const char *name, struct lam_io **io,
                      struct lam_error *err)
{
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
    data.pass = &pass;
    return layer_open_io(&data, pass.node, io, err);
}

static int open_data(const struct layer_request *r, struct lam_image *image,
                     struct lam_error *err)
{
    struct format_links links;
    image->ops->links(image->format, &links);
    if (!links.needs_data_file || image->metadata_only)
        return r->node->data_file && !image->metadata_only
            ? lam_fail(err, EINVAL, "'data-file' can only be set for images "
                       "with an external data file")
            : 0;

    int rc;
    if (r->node->data_file) {
        struct layer_request data = *r;
        data.pass = NULL;
        rc = layer_open_io(&data, r->node->data_file, &image->data, err);
        lam_error_prefix(err, rc, "Could not open '%s'",
                         r->node->data_file->filename);
    } else if (links.data_file && *links.data_file) {
        rc = open_named(r, image, GATE_DATA, links.data_file, &image->data,
                        err);
    } else {
        rc = lam_fail(err, EINVAL, "'data-file' is required for this image");
    }
    if (rc == 0)
        rc = take_locks(r, image->data, false, err);
    if (rc < 0)
        return rc;
    return image->ops->attach_data(image->format, image->data, err);
}

/* ------------------------------------------- files that the format opens */

struct layer_files {
    struct format_files files;
    const struct layer_request *request;
    const struct lam_image *image;
};

static int open_beside(const struct format_files *files, const char *name,
                       struct lam_io **io, struct lam_error *err)
{
    const struct layer_files *f = (const struct layer_files *)files;
    int rc = open_named(f->request, f->image, GATE_EXTENT, name, io, err);

    if (rc < 0)
        return rc;
    rc = take_locks(f->request, *io, false, err);
    if (rc < 0)
        lam_io_close(*io);
    return rc;
}

static int attach_format(const struct layer_request *r, struct lam_image *image,
                         struct lam_error *err)
{
    const struct layer_files f = { { open_beside }, r, image };

    if (image->writable && !image->ops->write_begin)
        return lam_fail(err, EROFS, "Image is read-only: format '%s' is only "
                        "read", image->ops->name);
    return layer_attach_format(image, r->options, r->node, r->top, &f.files,
                               err);
}

static int fill_layer(const struct layer_request *r, struct lam_image *image,
                      struct lam_error *err)
{
    const struct lam_open_options *o = r->options;

    image->writable = is_writable(r, r->node);
    image->metadata_only = o->flags & LAM_OPEN_METADATA;
    image->unmap = wants_unmap(o, r->node);
    image->unlocked = o->flags & LAM_OPEN_FORCE_SHARE;
    image->detect_zeroes = r->node->has_detect_zeroes ? r->node->detect_zeroes
                         : o->detect_zeroes;
    image->flush_writes = o->cache == LAM_CACHE_WRITETHROUGH
        || o->cache == LAM_CACHE_DIRECTSYNC;
    int rc = choose_format(r, image, err);
    if (rc == 0)
        rc = take_locks(r, image->io, image->ops == &format_raw, err);
    if (rc == 0)
        rc = attach_format(r, image, err);
    if (rc < 0)
        return rc;
    image->shown = node_show(r->node, image->ops->name);
    if (!image->shown)
        return lam_fail(err, ENOMEM, "no memory for the name of an image");
    return open_data(r, image, err);
}

int layer_open(const struct layer_request *r, struct lam_image **out,
               struct lam_error *err)
{
    struct lam_io *io;
    struct lam_image *image;
    int rc = layer_open_io(r, r->node, &io, err);
    if (rc == 0)
        rc = layer_new(io, r->node->filename, r->node->filename, &image, err);
    if (rc < 0)
        return rc;
    rc = fill_layer(r, image, err);
    if (rc < 0)
        image_free(image);
    else
        *out = image;
    return rc;
}
