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

/* Warnings that are said when nothing else is in the way. */
struct notices {
    char **texts;
    size_t count;
};

#define NOTICES_INIT { NULL, 0 }

/* Prints them and forgets them. */
void notices_tell(const struct cli *cli, struct notices *notices);
void notices_deinit(struct notices *notices);

/* Layers between @image and the one @depth below it, which is written to. */
void layers_note_invalid(struct notices *notices, struct lam_image *image,
                         unsigned depth);

/* qcow2 files in @layer's directory whose backing file is @layer and which are
 * not @except: they will not read as before once it is written to. */
void layers_note_others(struct notices *notices, struct lam_image *layer,
                        struct lam_image *except);

/* Files, of the @depth below @image, that were written to or replaced after the
 * layer above them was made. */
void layers_note_changed(struct notices *notices, struct lam_image *image,
                         unsigned depth);

#endif
