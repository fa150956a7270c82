/* SPDX-License-Identifier: MIT */
/*
 * window.c - part of a host object as an object of its own.
 *
 * The window itself has no alignment, since it may start anywhere.
 */
#include "io/window.h"

#include <inttypes.h>
#include <stdlib.h>

#include "io/filter.h"

static const struct lam_io_ops window_ops = {
    .name = "window",
    IO_FILTER_OPS,
};

bool lam_io_is_window(const struct lam_io *io)
{
    const struct io_filter *f = io_filter_of(io);

    return io->ops->inner == io_filter_inner
        && (f->offset || f->length != IO_FILTER_WHOLE);
}

static int window_fit(struct lam_io *inner, uint64_t offset, uint64_t *size,
                      struct lam_error *err)
{
    uint64_t length;
    int rc = lam_io_size(inner, &length, err);
    if (rc < 0)
        return rc;
    if (!range_fits(offset, *size, length))
        return lam_fail(err, EINVAL, "The sum of offset (%" PRIu64 ") and size"
                        " (%" PRIu64 ") has to be smaller or equal to the "
                        " actual size of the containing file (%" PRIu64 ")",
                        offset, *size, length);
    if (*size == 0)
        *size = length - offset;
    return 0;
}

int lam_io_window_new(struct lam_io *inner, uint64_t offset, uint64_t size,
                      struct lam_io **out, struct lam_error *err)
{
    struct io_filter *w = NULL;
    int rc = window_fit(inner, offset, &size, err);

    if (rc == 0) {
        w = calloc(1, sizeof *w);
        rc = w ? io_filter_init(w, &window_ops, inner, offset, size, err)
               : lam_fail(err, ENOMEM, "no memory for part of a file");
    }
    if (rc < 0) {
        free(w);
        lam_io_close(inner);
        return rc;
    }
    *out = &w->io;
    return 0;
}
