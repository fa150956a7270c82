/* SPDX-License-Identifier: MIT */
/*
 * create-layout.h - where everything of a new image goes.
 */
#ifndef LAM_QCOW2_CREATE_LAYOUT_H
#define LAM_QCOW2_CREATE_LAYOUT_H

#include "format/format.h"
#include "format/luks/volume.h"
#include "format/qcow2/geometry.h"

/* Where everything goes, in host clusters. */
struct layout {
    struct qcow2_geometry g;
    uint64_t size;              /* virtual size */
    uint64_t l1_size;           /* entries */
    uint64_t reft_clusters, reft_cluster;
    uint64_t l1_cluster;
    uint64_t nb_clusters;       /* all of them, each with refcount 1 */
    uint64_t *blocks;           /* cluster of refcount block i */
    uint64_t nb_blocks;
    uint64_t *l2;               /* cluster of L2 table i; NULL: none */
    uint64_t *data;             /* first cluster that it maps; NULL: the data
                                   lie in another file */
    bool encrypted;
    bool has_luks;              /* encrypted so, and not by legacy AES */
    struct luks_volume luks;    /* then: its header and keys */
    const char *passphrase;     /* the keyring's */
    uint64_t luks_cluster;
};

/* What there is to find a place for. */
struct layout_demand {
    enum lam_preallocation mode;
    uint64_t l1, luks;          /* clusters */
    uint64_t l2;                /* tables: all or none */
    uint64_t data;              /* clusters, in this file */
};

/* Geometry, sizes and encryption of @l are known; the rest is found.  -EFBIG,
 * -ENOMEM.  layout_deinit() is due in any case. */
int layout_make(struct layout *l, const struct layout_demand *d,
                struct lam_error *err);
void layout_deinit(struct layout *l);

#endif
