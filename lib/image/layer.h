/* SPDX-License-Identifier: MIT */
/*
 * layer.h - one image of a chain opened, without those below it.
 */
#ifndef LAM_IMAGE_LAYER_H
#define LAM_IMAGE_LAYER_H

#include "image/describe.h"
#include "image/gate.h"
#include "image/image.h"

/* What to open and on whose word. */
struct layer_request {
    const struct lam_open_options *options;
    struct node *node;              /* its options are taken */
    const struct traits *traits;    /* of the node above; NULL: there is none */
    const struct gate_pass *pass;   /* NULL: the caller named it */
    const char *format;             /* declared; NULL: look at the file */
    bool top;                       /* the image asked for, not one below */
    struct io_pool *pool;           /* of the files below the top; or NULL */
    /* Judges the file before it is locked; or NULL. */
    int (*admit)(void *opaque, const struct lam_image *image,
                 struct lam_error *err);
    void *opaque;
};

/* What a node says of the one below it. */
struct layer_below {
    struct node *node;              /* options for it, and perhaps which it
                                       is; NULL: nothing said */
    bool none;                      /* there is none */
    int rc;                         /* what is said is wrong: */
    struct lam_error why;
};

#define LAYER_BELOW_INIT { .node = NULL }

void layer_below_deinit(struct layer_below *below);

/* The image with its data file, not linked to any other.  @below is unchanged
 * after a failure. */
int layer_open(const struct layer_request *request, struct lam_image **out,
               struct layer_below *below, struct lam_error *err);

/* (Re)makes the name that @image is shown by; @node is what it was opened
 * from. */
int layer_show(struct lam_image *image, const struct node *node,
               struct lam_error *err);

/* What is said of an image whatever its format is.  @node: or NULL. */
struct layer_format {
    struct node *node;
    const struct format_files *files;   /* how it opens more files; or NULL */
    bool top;
};

/* Open a format on @image->io; the rest of @image is filled in. */
int layer_attach_format(struct lam_image *image,
                        const struct lam_open_options *options,
                        const struct layer_format *layer,
                        struct lam_error *err);

/* A new image on @io, which is taken over also on failure. */
int layer_new(struct lam_io *io, const char *name, const char *path,
              struct lam_image **out, struct lam_error *err);

#endif
