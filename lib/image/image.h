/* SPDX-License-Identifier: MIT */
/*
 * image.h - one open image: a format on its host objects, and its edges to a
 * backing file and an external data file.
 */
#ifndef LAM_IMAGE_IMAGE_H
#define LAM_IMAGE_IMAGE_H

#include "format/format.h"

struct lam_image {
    char *name;                     /* as opened */
    const struct format_ops *ops;
    void *format;                   /* the format's state */
    struct lam_io *io;              /* the image file; owned */
    struct lam_io *data;            /* external data file, or NULL; owned */
    struct lam_image *backing;      /* or NULL; owned */
    uint64_t size;                  /* virtual, bytes */
    bool writable;
    bool guessed;                   /* the format was probed, not declared */
    bool metadata_only;
};

/*
 * Open a format on a host object that the caller made (tests, fuzzers, crash
 * replay).  Takes @io over also on failure.  @backing may be NULL and is taken
 * over as well.
 */
int image_open_io(struct lam_io *io, const char *format,
                  const struct lam_open_options *options,
                  struct lam_image *backing, struct lam_image **out,
                  struct lam_error *err);

/* The host object of the layer @depth below @image, and that layer. */
struct lam_image *image_layer(struct lam_image *image, unsigned depth);

#endif
