/* SPDX-License-Identifier: MIT */
/*
 * rebase.c - another chain below an image: rebase and stream.
 *
 * What the image shows is copied into it where the new chain would show
 * something else; that is flushed, and then the header names the new backing
 * file.  Stopped before that moment, the image has only got data that it showed
 * anyway.
 */
#include "job/rebase.h"

#include <string.h>

#include "base/cleanup.h"
#include "image/access.h"
#include "image/graph.h"
#include "image/image-io.h"
#include "image/name.h"
#include "image/write.h"
#include "job/naming.h"
#include "job/pull.h"

static int check_image(const struct lam_image *image, struct lam_error *err)
{
    if (image->level != 0)
        return lam_fail(err, EINVAL, "'%s' is not the top of its chain",
                        image->name);
    return 0;
}

/* Before anything is copied for a header that cannot be had. */
static int check_names(const struct lam_image *image, const char *name,
                       const char *format, struct lam_error *err)
{
    if (name && !format)
        return lam_fail(err, EINVAL, "Could not change the backing file to "
                        "'%s': backing format must be specified", name);
    if (format && !format_find(format))
        return lam_fail(err, EINVAL, "Invalid format name: '%s'", format);
    if (!image->ops->set_backing)
        return lam_fail(err, ENOTSUP, "Could not change the backing file to "
                        "'%s': Operation not supported", name ? name : "");
    return 0;
}

/* Before anything is copied.  What has a data file may have nothing to copy, as
 * with the genuine tool. */
static int check_compress(const struct lam_image *image, bool compress,
                          struct lam_error *err)
{
    if (!compress || image->data)
        return 0;
    if (!image->ops->can_compress)
        return lam_fail(err, ENOTSUP, "Compression not supported for this file "
                        "format");
    return image_check_compressed(image, 0, 0, err);
}

/* What the header names and was left closed cannot be copied from. */
static int check_complete(const struct lam_image *image, struct lam_error *err)
{
    struct format_links links;

    image_links(image, &links);
    if (image->backing || !links.backing_file || !*links.backing_file)
        return 0;
    return lam_fail(err, EINVAL, "'%s' is open without its backing file",
                    image->name);
}

/* ------------------------------------------------------------ the two sides */

/* The same bytes seen in the same way.  Only a described name says that part
 * of a file is meant, and then two say it in the same words. */
static bool same_layer(const struct lam_image *a, const struct lam_image *b)
{
    if (!image_same_object(a, b) || a->ops != b->ops ||
        !a->shown || !b->shown)
        return false;
    bool described = !strncmp(a->shown, "json:", 5) ||
                     !strncmp(b->shown, "json:", 5);
    return !described || !strcmp(a->shown, b->shown);
}

/* Layers at the bottom that both have. */
static unsigned layers_in_common(struct lam_image *a, struct lam_image *b)
{
    unsigned n = 0, of_a = image_depth(a), of_b = image_depth(b);

    while (n < of_a && n < of_b &&
           same_layer(image_layer(a, of_a - 1 - n),
                      image_layer(b, of_b - 1 - n)))
        n++;
    return n;
}

static void set_sides(struct pull *p, struct lam_image *old,
                      struct lam_image *new)
{
    unsigned common = old && new ? layers_in_common(old, new) : 0;

    p->old = (struct pull_side){ old, LAM_DEPTH_ALL };
    p->new = (struct pull_side){ new, LAM_DEPTH_ALL };
    if (!common)
        return;
    p->old.depth = image_depth(old) - common;
    p->new.depth = image_depth(new) - common;
}

/* -------------------------------------------------------- the new backing */

static int check_loop(const struct lam_image *image,
                      const struct lam_image *below, struct lam_error *err)
{
    for (; below; below = below->backing)
        if (image_same_object(image, below))
            return lam_fail(err, ELOOP, "Backing file '%s' creates an infinite "
                            "loop.", below->name);
    return 0;
}

static int open_named(const char *name, const struct lam_rebase_options *o,
                      unsigned flags, struct lam_image **out,
                      struct lam_error *err)
{
    struct lam_open_options open = o->open;

    open.format = o->backing_format;
    open.flags = (open.flags & ~(unsigned)(LAM_OPEN_WRITE |
                                           LAM_OPEN_IMAGE_OPTS)) | flags;
    return image_open(name, &open, out, err);
}

/* A lock that is in the way may be our own. */
static int explain_lock(struct lam_image *image, const char *name,
                        const struct lam_rebase_options *o, int rc,
                        struct lam_error *err)
{
    struct lam_image *below;

    if (rc != -EAGAIN ||
        open_named(name, o, LAM_OPEN_FORCE_SHARE, &below, NULL) < 0)
        return rc;
    int loop = check_loop(image, below, err);
    lam_image_close(below, NULL);
    return loop < 0 ? loop : rc;
}

static int open_backing(struct lam_image *image,
                        const struct lam_rebase_options *o,
                        struct lam_image **out, struct lam_error *err)
{
    if (!o->backing_file)
        return 0;
    lam_autofree char *name = name_resolve(image->path, o->backing_file);
    if (!name)
        return lam_fail(err, ENOMEM, "no memory for the name of a file");
    int rc = open_named(name, o, 0, out, err);
    if (rc < 0)
        return lam_error_prefix(err, explain_lock(image, name, o, rc, err),
                                "Could not open new backing file '%s'",
                                o->backing_file);
    return check_loop(image, *out, err);
}

/* ---------------------------------------------------------------- rebase */

static int record(struct lam_image *image, const char *name,
                  const char *format, struct lam_error *err)
{
    int rc = image_record_backing(image, name, format, err);

    return lam_error_prefix(err, rc, "Could not change the backing file to "
                            "'%s'", name ? name : "");
}

/* The chain is @below from now on, which is taken over if that works. */
static int relink(struct lam_image *image, struct lam_image **below,
                  struct lam_error *err)
{
    struct lam_image *replaced = NULL;

    image_graph_begin_change(image);
    int rc = image_set_backing(image, 0, *below, &replaced, err);
    image_graph_end_change(image);
    if (rc < 0)
        return rc;
    *below = NULL;
    image_free(replaced);
    return 0;
}

static int pull_for(struct lam_image *image, struct lam_image *below,
                    const struct lam_rebase_options *o, struct lam_error *err)
{
    struct job job;
    struct pull pull = {
        .job = &job, .image = image, .compare = true, .compress = o->compress,
    };

    set_sides(&pull, image->backing, below);
    job_init(&job, "rebase", lam_image_size(image), &o->job);
    int rc = pull_run(&pull, err);
    job_deinit(&job);
    return rc;
}

/*
 * The guest may go on: what it writes meanwhile is the image's own, and what is
 * still absent in the end reads the same on both sides.  Nothing becomes absent
 * again as long as the image has a backing file, or expects one: so it expects
 * one from the beginning, and the header is the last to change.
 */
int rebase_onto(struct lam_image *image, struct lam_image **below,
                const struct lam_rebase_options *o, struct lam_error *err)
{
    image_expect_backing(image, true);
    int rc = pull_for(image, *below, o, err);
    if (rc == 0)
        rc = relink(image, below, err);
    if (rc == 0)
        rc = record(image, o->backing_file, o->backing_format, err);
    if (rc < 0)
        image_expect_backing(image, false);
    return rc;
}

static int rebase_safely(struct lam_image *image,
                         const struct lam_rebase_options *o,
                         struct lam_error *err)
{
    struct lam_image *below = NULL;
    int rc = check_complete(image, err);

    if (rc == 0)
        rc = open_backing(image, o, &below, err);
    if (rc == 0)
        rc = check_names(image, o->backing_file, o->backing_format, err);
    if (rc == 0)
        rc = rebase_onto(image, &below, o, err);
    lam_image_close(below, NULL);
    return rc;
}

/* What is discarded from now on is stored as zero, as it is above a backing
 * file. */
static int rebase_blindly(struct lam_image *image,
                          const struct lam_rebase_options *o,
                          struct lam_error *err)
{
    image_expect_backing(image, o->backing_file != NULL);
    int rc = record(image, o->backing_file, o->backing_format, err);
    if (rc < 0)
        image_expect_backing(image, false);
    return rc;
}

int lam_image_rebase(struct lam_image *image,
                     const struct lam_rebase_options *options,
                     struct lam_error *err)
{
    /* A filter is as it was; what it shows has another backing file. */
    image = image_through(image);
    image_graph_lock(image);
    int rc = check_image(image, err);
    if (rc == 0)
        rc = check_compress(image, options->compress, err);
    if (rc == 0 && options->unsafe)
        rc = check_names(image, options->backing_file,
                         options->backing_format, err);
    if (rc == 0 && options->unsafe)
        rc = rebase_blindly(image, options, err);
    else if (rc == 0)
        rc = rebase_safely(image, options, err);
    image_graph_unlock(image);
    return rc;
}

/* ---------------------------------------------------------------- stream */

static int stream_down_to(struct lam_image *image, unsigned depth,
                          const char *name, const char *format,
                          const struct lam_stream_options *o,
                          struct lam_error *err)
{
    bool all = depth == image_depth(image);
    struct job job;
    struct pull pull = {
        .job = &job,
        .image = image,
        .old = { image->backing, all ? LAM_DEPTH_ALL : depth - 1 },
        .new = { all ? NULL : image_layer(image, depth), all ? LAM_DEPTH_ALL
                                                             : 0 },
        .compare = all,         /* with zeroes, which then stay absent */
        .compress = o->compress,
    };

    job_init(&job, "stream", lam_image_size(image), &o->job);
    int rc = pull_run(&pull, err);
    job_deinit(&job);
    /* The guest may go on.  What it discards becomes zero for as long as the
     * header names a backing file: so that is the last to change. */
    if (rc == 0)
        rc = naming_drop_layers(image, 1, depth, err);
    return rc < 0 ? rc : record(image, name, format, err);
}

static int stream(struct lam_image *image, const struct lam_stream_options *o,
                  struct lam_error *err)
{
    unsigned layers = image_depth(image);
    unsigned depth = (unsigned)min_u64(o->depth, layers);
    lam_autofree char *name = NULL;
    const char *format = NULL;
    int rc = check_complete(image, err);

    if (rc < 0 || (layers == 1 && o->depth == LAM_DEPTH_ALL))
        return rc;
    if (depth < 2 || (o->depth > layers && o->depth != LAM_DEPTH_ALL))
        return lam_fail(err, EINVAL, "layer %u to become the backing image "
                        "(limits: 2 and %u)", o->depth, layers - 1);
    if (depth < layers) {
        format = o->backing_format ? o->backing_format
                                   : image_layer(image, depth)->ops->name;
        if (!o->backing_file)
            rc = naming_of(image, image_layer(image, depth), &name, err);
    }
    const char *recorded = depth == layers ? NULL
                         : o->backing_file ? o->backing_file : name;
    return rc < 0 ? rc : stream_down_to(image, depth, recorded, format, o, err);
}

int lam_image_stream(struct lam_image *image,
                     const struct lam_stream_options *options,
                     struct lam_error *err)
{
    static const struct lam_stream_options defaults = LAM_STREAM_OPTIONS_INIT;
    const struct lam_stream_options *o = options ? options : &defaults;

    image_graph_lock(image);
    int rc = check_image(image, err);
    if (rc == 0)
        rc = check_compress(image, o->compress, err);
    if (rc == 0)
        rc = stream(image, o, err);
    image_graph_unlock(image);
    return rc;
}
