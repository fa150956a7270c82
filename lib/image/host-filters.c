/* SPDX-License-Identifier: MIT */
/*
 * host-filters.c - nodes that stand on another one and change what goes
 * through: throttle, preallocate, copy-on-read, compress.
 */
#include <inttypes.h>
#include <string.h>

#include "image/host.h"
#include "image/image-io.h"
#include "io/filter.h"
#include "io/reserve.h"
#include "io/throttle.h"

static const char *const shown_filter[] = { "driver", "file", NULL };

/* ---------------------------------------------------------------- throttle */

static int throttle_open(struct host_node *n, struct lam_io **out,
                         struct lam_error *err)
{
    const char *id;
    struct lam_io *inner;
    int rc = host_open_child(n, "file", &inner, err);

    if (rc < 0)
        return rc;
    id = node_take_text(n->node, "throttle-group");
    struct throttle_group *group = id
        ? throttle_find(n->opening->request->options->throttles, id) : NULL;
    if (!group) {
        lam_io_close(inner);
        return id ? lam_fail(err, ENOENT, "Throttle group '%s' does not exist",
                             id)
                  : lam_fail(err, EINVAL, "Please specify a throttle group");
    }
    rc = lam_io_throttle_new(inner, group, out, err);
    throttle_group_put(group);
    return rc;
}

static const char *const shown_throttle[] = {
    "throttle-group", "driver", "file", NULL
};

const struct host_driver host_throttle = {
    .name = "throttle", .shown = shown_throttle, .open = throttle_open,
};

/* ------------------------------------------------------------- preallocate */

static int preallocate_open(struct host_node *n, struct lam_io **out,
                            struct lam_error *err)
{
    uint64_t align = LAM_MIB, size = 128 * LAM_MIB;
    struct lam_io *inner;
    int rc = host_open_child(n, "file", &inner, err);

    if (rc < 0)
        return rc;
    rc = node_take_bytes(n->node, "prealloc-align", &align, err);
    if (rc == 0)
        rc = node_take_bytes(n->node, "prealloc-size", &size, err);
    if (rc == 0 && (!align || align % 512))
        rc = lam_fail(err, EINVAL, "prealloc-align parameter of preallocate "
                      "filter is not aligned to 512");
    if (rc < 0) {
        lam_io_close(inner);
        return rc;
    }
    return lam_io_reserve_new(inner, align, size, out, err);
}

const struct host_driver host_preallocate = {
    .name = "preallocate", .shown = shown_filter, .open = preallocate_open,
};

/* ------------------------------------------- copy-on-read, compress */

static int copy_on_read_open(struct host_node *n, struct lam_io **out,
                             struct lam_error *err)
{
    const char *bottom;
    struct lam_io *inner;
    int rc = host_open_child(n, "file", &inner, err);

    if (rc < 0)
        return rc;
    bottom = node_take_text(n->node, "bottom");
    if (!inner->writable)
        rc = lam_fail(err, EROFS, "Block node is read-only");
    else if (bottom)
        rc = lam_fail(err, ENODEV, "Bottom node '%s' not found", bottom);
    if (rc < 0) {
        lam_io_close(inner);
        return rc;
    }
    /* A file has nothing below it that could be copied. */
    if (image_io_image(inner))
        image_io_set_twist(inner, IMAGE_IO_COPY_ON_READ);
    return lam_io_through_new(inner, 0, out, err);
}

const struct host_driver host_copy_on_read = {
    .name = "copy-on-read", .shown = shown_filter, .open = copy_on_read_open,
};

static int compress_open(struct host_node *n, struct lam_io **out,
                         struct lam_error *err)
{
    struct lam_io *inner;
    int rc = host_open_child(n, "file", &inner, err);

    if (rc < 0)
        return rc;
    const struct lam_image *image = view_compressing(n->view->below);
    if (!image || !image->ops->write_compressed) {
        lam_io_close(inner);
        return lam_fail(err, ENOTSUP, "Compression is not supported for "
                        "underlying format: %s", n->view->below->driver);
    }
    image_io_set_twist(inner, IMAGE_IO_COMPRESS);
    return lam_io_through_new(inner, 0, out, err);
}

const struct host_driver host_compress = {
    .name = "compress", .shown = shown_filter, .open = compress_open,
};
