/* SPDX-License-Identifier: MIT */
/*
 * layers.h - the layers of a chain as people name them, and who else builds on
 * them.
 */
#ifndef LAMELLA_CLI_LAYERS_H
#define LAMELLA_CLI_LAYERS_H

#include "cli.h"

/* The layer of @image's chain that @name means: by the name it was opened
 * under, by what the layer above it calls it, or by being the same file.  Its
 * depth, 1 for the backing image; 0: none. */
unsigned layers_find(struct lam_image *image, const char *name);

/* The layer @depth below @image, or NULL. */
struct lam_image *layers_at(struct lam_image *image, unsigned depth);

/*
 * Warns of qcow2 files in @layer's directory whose backing file is @layer and
 * which are not @except: they will not read as before once it is @verb
 * ("written to").
 */
void layers_warn_others(const struct cli *cli, struct lam_image *layer,
                        struct lam_image *except, const char *verb);

#endif
