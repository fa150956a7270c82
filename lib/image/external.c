/* SPDX-License-Identifier: MIT */
/*
 * external.c - an external snapshot of an image while it is in use.
 *
 * The overlay is made, synced and opened while requests go on; so is most of
 * what the image has not written yet.  Then the chain's gate closes for as long
 * as it takes the requests under way to end and the two to change places.  What
 * they left to be written goes to disk afterwards: until then a flush of the
 * overlay flushes the layer below, too (image_flush()).
 *
 * An overlay that nobody has written to reads as what is below it, so whether a
 * crash comes before the switch or after it, the overlay on disk is right.
 */
#include "image/external.h"

#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "image/access.h"
#include "image/graph.h"
#include "image/name.h"
#include "image/view.h"
#include "image/write.h"

static int check_request(struct lam_image *image, const char *overlay,
                         const struct lam_overlay_options *o,
                         struct lam_error *err)
{
    struct stat st;
    int rc = image_check_writable(image, err);

    if (rc < 0)
        return rc;
    if (image->level != 0)
        return lam_fail(err, EINVAL, "'%s' has an overlay already",
                        image->name);
    if (!image->path && !o->backing_name)
        return lam_fail(err, EINVAL, "'%s' has no file name that an overlay "
                        "could record", image->name);
    if (image->crypt && !o->encryption.format)
        return lam_fail(err, EINVAL, "'%s' is encrypted, and the overlay would "
                        "not be", image->name);
    if (lstat(overlay, &st) == 0)
        return lam_fail_errno(err, EEXIST, "Could not create '%s'", overlay);
    return 0;
}

/* A path, and headers that name all below; besides the ids of secrets, which
 * are whose who opens it. */
static bool is_path(const struct lam_image *image)
{
    if (!strncmp(image->shown, "json:", 5) &&
        !(image->view && image->view->path_and_keys))
        return false;
    for (; image; image = image->backing)
        if (image->view && image->view->backing &&
            !image->view->backing_by_keys)
            return false;
    return true;
}

/* What the header is to call @image: a path cannot say all of some. */
static int name_backing(const struct lam_image *image, const char *overlay,
                        const struct lam_overlay_options *o, char **out,
                        struct lam_error *err)
{
    if (!o->backing_name && !is_path(image))
        return lam_fail(err, EINVAL, "'%s' is not described by a path alone; "
                        "say what the overlay is to call it", image->name);
    if (!o->backing_name)
        return name_relative(overlay, image->path, out, err);
    *out = strdup(o->backing_name);
    return *out ? 0 : lam_fail(err, ENOMEM, "no memory for a file name");
}

int external_create(struct lam_image *image, const char *overlay,
                    const char *path, const struct lam_overlay_options *o,
                    struct lam_error *err)
{
    struct lam_create_options create = LAM_CREATE_OPTIONS_INIT;
    lam_autofree char *backing = NULL;
    int rc = name_backing(image, overlay, o, &backing, err);

    if (rc < 0)
        return rc;
    create.format = "qcow2";
    create.size = image->size;
    create.backing_file = backing;
    create.backing_format = image->ops->name;
    create.backing_unchecked = true;        /* it is open here */
    if (o->cluster_size)
        create.cluster_size = o->cluster_size;
    create.extended_l2 = o->extended_l2;
    create.lazy_refcounts = o->lazy_refcounts;
    create.encryption = o->encryption;
    return lam_image_create(path ? path : overlay, &create, err);
}

static enum lam_cache_mode cache_of(const struct lam_image *image)
{
    bool direct = image->io->limits.direct;

    if (image->io->cache == LAM_CACHE_UNSAFE)
        return LAM_CACHE_UNSAFE;
    if (image->flush_writes)
        return direct ? LAM_CACHE_DIRECTSYNC : LAM_CACHE_WRITETHROUGH;
    return direct ? LAM_CACHE_NONE : LAM_CACHE_WRITEBACK;
}

/* As the image itself was opened. */
static int open_overlay(const struct lam_image *image, const char *overlay,
                        const struct lam_overlay_options *o,
                        struct lam_image **out, struct lam_error *err)
{
    struct lam_open_options open = LAM_OPEN_OPTIONS_INIT;

    open.format = "qcow2";
    open.flags = LAM_OPEN_WRITE | LAM_OPEN_NO_BACKING;
    open.flags |= image->unmap ? LAM_OPEN_UNMAP : 0;
    open.flags |= image->unlocked ? LAM_OPEN_FORCE_SHARE : 0;
    open.cache = cache_of(image);
    open.detect_zeroes = image->detect_zeroes;
    open.keyring = o->encryption.keyring;
    open.key_secret = o->encryption.key_secret;
    return lam_image_open(overlay, &open, out, err);
}

/* All but what is written from now on. */
static int flush_first(struct lam_image *image, struct lam_error *err)
{
    IMAGE_INSIDE(image);
    return image_flush(image, err);
}

static int change_places(struct lam_image *image, struct lam_image *overlay,
                         struct lam_error *err)
{
    image_graph_begin_insert(image);
    int rc = image_insert_overlay(image, overlay, err);
    if (rc == 0) {
        image->backing->writable = false;
        atomic_store(&image->backing->settling, 1);
    }
    image_graph_end_change(image);
    return rc;
}

/* @below takes no more writes, and the flushes of @top that began before the
 * change have ended: the rest goes to disk, its locks become those of
 * a reader. */
static int settle(struct lam_image *top, struct lam_image *below,
                  struct lam_error *err)
{
    image_graph_wait_flushes(top);
    int rc = layer_end_writing(below, err);

    atomic_store(&below->settling, rc < 0 ? rc : 0);
    return rc;
}

/* From the change on, who flushes the image waits for @overlay's resize_lock:
 * that struct is the one that holds the layer below then. */
static int take_snapshot(struct lam_image *image, struct lam_image *overlay,
                         bool *changed, struct lam_error *err)
{
    LAM_LOCKED(&overlay->resize_lock);
    int rc = change_places(image, overlay, err);

    *changed = rc == 0;
    return rc < 0 ? rc : settle(image, overlay, err);
}

int external_put_above(struct lam_image *image, struct lam_image *overlay,
                       bool *changed, struct lam_error *err)
{
    int rc = flush_first(image, err);

    *changed = false;
    if (rc == 0)
        rc = take_snapshot(image, overlay, changed, err);
    if (!*changed)
        lam_image_close(overlay, NULL);
    return rc;
}

static int put_above(struct lam_image *image, const char *name,
                     const struct lam_overlay_options *o, bool *changed,
                     struct lam_error *err)
{
    struct lam_image *overlay;
    int rc = open_overlay(image, name, o, &overlay, err);

    return rc < 0 ? rc : external_put_above(image, overlay, changed, err);
}

int lam_image_snapshot_external(struct lam_image *image, const char *overlay,
                                const struct lam_overlay_options *options,
                                struct lam_error *err)
{
    static const struct lam_overlay_options defaults =
        LAM_OVERLAY_OPTIONS_INIT;
    LAM_LOCKED(&image->resize_lock);
    bool changed = false;

    if (!options)
        options = &defaults;
    int rc = check_request(image, overlay, options, err);
    if (rc == 0)
        rc = external_create(image, overlay, NULL, options, err);
    if (rc < 0)
        return rc;
    rc = put_above(image, overlay, options, &changed, err);
    if (!changed)
        unlink(overlay);
    return rc;
}
