/* SPDX-License-Identifier: MIT */
/*
 * break.c - breakpoints: requests that wait where the engine is, for images
 * opened through blkdebug.
 */
#include "image/graph.h"
#include "io/blkdebug.h"

/* The object that can stop the requests of @image. */
static int find(struct lam_image *image, struct lam_io **out,
                struct lam_error *err)
{
    *out = lam_io_blkdebug_find(image->io);
    return *out ? 0 : lam_fail(err, ENOTSUP, "'%s' was not opened through "
                               "blkdebug", image->name);
}

int lam_image_break(struct lam_image *image, const char *event,
                    const char *tag, lam_stopped_fn *stopped, void *opaque,
                    struct lam_error *err)
{
    IMAGE_INSIDE(image);
    int number = io_event_parse(event);
    struct lam_io *io;
    int rc = find(image, &io, err);

    if (rc < 0)
        return rc;
    if (number < 0)
        return lam_fail(err, ENOENT, "there is no event '%s'", event);
    return blkdebug_break(io, (enum io_event)number, tag, stopped, opaque, err);
}

int lam_image_remove_break(struct lam_image *image, const char *tag,
                           struct lam_error *err)
{
    IMAGE_INSIDE(image);
    struct lam_io *io;
    int rc = find(image, &io, err);

    if (rc == 0 && !blkdebug_remove_break(io, tag))
        rc = lam_fail(err, ENOENT, "there is no breakpoint '%s'", tag);
    return rc;
}

int lam_image_resume(struct lam_image *image, const char *tag,
                     struct lam_error *err)
{
    IMAGE_INSIDE(image);
    struct lam_io *io;
    int rc = find(image, &io, err);

    if (rc == 0 && !blkdebug_resume(io, tag))
        rc = lam_fail(err, ENOENT, "no request waits at '%s'", tag);
    return rc;
}
