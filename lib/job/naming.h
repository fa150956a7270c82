/* SPDX-License-Identifier: MIT */
/*
 * naming.h - layers that drop out of a chain, and what the one above them calls
 * the one below.
 */
#ifndef LAM_JOB_NAMING_H
#define LAM_JOB_NAMING_H

#include "image/image.h"

/*
 * What @image's header is to call @layer, further down in its chain: as the
 * layer above @layer does, if that counts from the same directory, or from
 * none; else the way from one to the other.  To be freed.
 */
int naming_of(struct lam_image *image, struct lam_image *layer, char **out,
              struct lam_error *err);

/* Layers [from, end) of @top's chain are closed.  Under image_graph_lock(),
 * outside the gate. */
int naming_drop_layers(struct lam_image *top, unsigned from, unsigned end,
                       struct lam_error *err);

#endif
