/* SPDX-License-Identifier: MIT */
/*
 * debug.h - the blkdebug node of an image's description: rules by which its
 * host object fails (io/blkdebug.h).
 */
#ifndef LAM_IMAGE_DEBUG_H
#define LAM_IMAGE_DEBUG_H

#include "image/keylist.h"
#include "io/blkdebug.h"

struct node_debug {
    char *config;               /* path of a file of rules, or NULL */
    struct blkdebug_options options;
};

void debug_free(struct node_debug *debug);

/* "blkdebug:[CONFIG]:FILE": *@file points into @name. */
int debug_from_name(const char *name, struct node_debug **out,
                    const char **file, struct lam_error *err);

/* The keys of the node at @prefix but for its image. */
int debug_from_keys(struct keylist *keys, const char *prefix,
                    struct node_debug **out, struct lam_error *err);

/* Puts an object with those rules before @inner, which is taken over also on
 * failure.  Reads the file of rules. */
int debug_open(const struct node_debug *debug, struct lam_io *inner,
               struct lam_io **out, struct lam_error *err);

#endif
