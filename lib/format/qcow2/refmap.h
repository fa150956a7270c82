/* SPDX-License-Identifier: MIT */
/*
 * refmap.h - references counted in memory, one number a host cluster.
 *
 * Sparse, and paid for by what was counted rather than by what a file claims:
 * a few tables in a huge sparse file cost little, and a file made to scatter
 * its references runs into a budget instead of using up the memory.  Pure.
 */
#ifndef LAM_QCOW2_REFMAP_H
#define LAM_QCOW2_REFMAP_H

#include "base/error.h"

enum { REFMAP_LEAF = 2048 };            /* clusters */

struct refmap_leaf {
    uint64_t *wide;                     /* NULL while all fit in @narrow */
    uint16_t narrow[REFMAP_LEAF];
};

struct refmap {
    uint64_t nb_clusters;
    struct refmap_leaf **leaves;        /* NULL: all 0 */
    uint64_t nb_leaves;
    uint64_t leaf_bytes, references;
};

/* For host clusters 0 to @nb_clusters - 1. */
int refmap_init(struct refmap *map, uint64_t nb_clusters,
                struct lam_error *err);
void refmap_deinit(struct refmap *map);

/* Adds @weight references to @cluster, which is below nb_clusters. */
int refmap_add(struct refmap *map, uint64_t cluster, uint64_t weight,
               struct lam_error *err);

/* Takes back what refmap_add() counted. */
void refmap_drop(struct refmap *map, uint64_t cluster, uint64_t weight);

/* Makes room for clusters up to @nb_clusters - 1. */
int refmap_extend(struct refmap *map, uint64_t nb_clusters,
                  struct lam_error *err);

static inline uint64_t refmap_get(const struct refmap *map, uint64_t cluster)
{
    const struct refmap_leaf *leaf =
        cluster < map->nb_clusters ? map->leaves[cluster / REFMAP_LEAF] : NULL;

    if (!leaf)
        return 0;
    return leaf->wide ? leaf->wide[cluster % REFMAP_LEAF]
                      : leaf->narrow[cluster % REFMAP_LEAF];
}

#endif
