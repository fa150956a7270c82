/* SPDX-License-Identifier: MIT */
/*
 * chain.h - what `chain` shows of each layer.
 */
#ifndef LAMELLA_CLI_CHAIN_H
#define LAMELLA_CLI_CHAIN_H

#include "cli.h"

enum { CHAIN_MAX_WARNINGS = 8 };

struct chain_layer {
    struct lam_image_info *info;
    uint64_t own;               /* bytes of data stored in this layer */
    uint64_t shown;             /* ... that the top shows */
    uint64_t shared;            /* data that the top shows from below this
                                   layer */
    bool has_age;
    uint64_t age;               /* seconds since the file was written to */
    char *warnings[CHAIN_MAX_WARNINGS];
    size_t nb_warnings;
};

/* Top first. */
struct chain {
    struct chain_layer *layers;
    unsigned count;
};

/* Reads the maps of all layers.  Deinitialise also after a failure. */
int chain_load(struct chain *chain, struct lam_image *image,
               struct lam_error *err);
void chain_deinit(struct chain *chain);

#endif
