/* SPDX-License-Identifier: MIT */
/*
 * layer.h - one image of a chain opened, without those below it.
 */
#ifndef LAM_IMAGE_LAYER_H
#define LAM_IMAGE_LAYER_H

#include "image/gate.h"
#include "image/image.h"

/* What to open and on whose word. */
struct layer_request {
    const struct lam_open_options *options;
    const struct node *node;
    const struct gate_pass *pass;   /* NULL: the caller named it */
    const char *format;             /* declared; NULL: look at the file */
    bool top;                       /* the image asked for, not one below */
    struct io_pool *pool;           /* of the files below the top; or NULL */
};

/* The image with its data file, not linked to any other. */
int layer_open(const struct layer_request *request, struct lam_image **out,
               struct lam_error *err);

/* Open a format on @image->io; the rest of @image is filled in.  @files: how it
 * opens more; or NULL. */
int layer_attach_format(struct lam_image *image,
                        const struct lam_open_options *options,
                        const struct node *node, bool top,
                        const struct format_files *files,
                        struct lam_error *err);

/* A new image on @io, which is taken over also on failure. */
int layer_new(struct lam_io *io, const char *name, const char *path,
              struct lam_image **out, struct lam_error *err);

/* How the host object of @node is opened. */
int layer_open_io(const struct layer_request *request,
                  const struct node *node, struct lam_io **out,
                  struct lam_error *err);

#endif
