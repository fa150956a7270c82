/* SPDX-License-Identifier: MIT */
/*
 * refmap.c - leaves of 2,048 counters of 16 bits; a leaf in which one
 * overflows goes over to 64.
 */
#include "format/qcow2/refmap.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/arith.h"

/* A dense image takes 2 bytes a reference; what takes 64 and more is made to
 * hurt. */
#define BUDGET_FLOOR (256 * LAM_MIB)
enum { BUDGET_PER_REFERENCE = 64 };

int refmap_init(struct refmap *map, uint64_t nb_clusters, struct lam_error *err)
{
    *map = (struct refmap){
        .nb_clusters = nb_clusters,
        .nb_leaves = div_up(nb_clusters, REFMAP_LEAF),
    };
    map->leaves = calloc(map->nb_leaves ? map->nb_leaves : 1,
                         sizeof *map->leaves);
    if (!map->leaves)
        return lam_fail(err, ENOMEM, "no memory to count references to %" PRIu64
                        " clusters", nb_clusters);
    return 0;
}

void refmap_deinit(struct refmap *map)
{
    for (uint64_t i = 0; map->leaves && i < map->nb_leaves; i++) {
        if (map->leaves[i])
            free(map->leaves[i]->wide);
        free(map->leaves[i]);
    }
    free(map->leaves);
    *map = (struct refmap){ 0 };
}

static int take_memory(struct refmap *map, uint64_t bytes,
                       struct lam_error *err)
{
    uint64_t budget = BUDGET_FLOOR + map->references * BUDGET_PER_REFERENCE;

    if (map->leaf_bytes + bytes > budget)
        return lam_fail(err, ENOMEM, "counting references takes more than %"
                        PRIu64 " MiB: they are scattered all over a file of %"
                        PRIu64 " clusters", budget / LAM_MIB, map->nb_clusters);
    map->leaf_bytes += bytes;
    return 0;
}

static int new_leaf(struct refmap *map, struct refmap_leaf **leaf,
                    struct lam_error *err)
{
    int rc = take_memory(map, sizeof **leaf, err);

    if (rc < 0)
        return rc;
    *leaf = calloc(1, sizeof **leaf);
    if (!*leaf)
        return lam_fail(err, ENOMEM, "no memory to count references");
    return 0;
}

static int widen(struct refmap *map, struct refmap_leaf *leaf,
                 struct lam_error *err)
{
    int rc = take_memory(map, REFMAP_LEAF * sizeof *leaf->wide, err);

    if (rc < 0)
        return rc;
    leaf->wide = malloc(REFMAP_LEAF * sizeof *leaf->wide);
    if (!leaf->wide)
        return lam_fail(err, ENOMEM, "no memory to count references");
    for (unsigned i = 0; i < REFMAP_LEAF; i++)
        leaf->wide[i] = leaf->narrow[i];
    return 0;
}

int refmap_add(struct refmap *map, uint64_t cluster, uint64_t weight,
               struct lam_error *err)
{
    unsigned i = (unsigned)(cluster % REFMAP_LEAF);

    assert(cluster < map->nb_clusters);
    struct refmap_leaf **leaf = &map->leaves[cluster / REFMAP_LEAF];
    map->references += weight;
    if (!*leaf) {
        int rc = new_leaf(map, leaf, err);
        if (rc < 0)
            return rc;
    }
    if (!(*leaf)->wide && weight > UINT16_MAX - (uint64_t)(*leaf)->narrow[i]) {
        int rc = widen(map, *leaf, err);
        if (rc < 0)
            return rc;
    }
    if ((*leaf)->wide)
        (*leaf)->wide[i] += weight;
    else
        (*leaf)->narrow[i] = (uint16_t)((*leaf)->narrow[i] + weight);
    return 0;
}

void refmap_drop(struct refmap *map, uint64_t cluster, uint64_t weight)
{
    assert(refmap_get(map, cluster) >= weight);
    struct refmap_leaf *leaf = map->leaves[cluster / REFMAP_LEAF];
    unsigned i = (unsigned)(cluster % REFMAP_LEAF);

    if (!weight)
        return;
    if (leaf->wide)
        leaf->wide[i] -= weight;
    else
        leaf->narrow[i] = (uint16_t)(leaf->narrow[i] - weight);
}

int refmap_extend(struct refmap *map, uint64_t nb_clusters,
                  struct lam_error *err)
{
    uint64_t nb_leaves = div_up(nb_clusters, REFMAP_LEAF);

    if (nb_clusters <= map->nb_clusters)
        return 0;
    if (nb_leaves > map->nb_leaves) {
        struct refmap_leaf **grown =
            realloc(map->leaves, nb_leaves * sizeof *grown);
        if (!grown)
            return lam_fail(err, ENOMEM, "no memory to count references to %"
                            PRIu64 " clusters", nb_clusters);
        memset(grown + map->nb_leaves, 0,
               (nb_leaves - map->nb_leaves) * sizeof *grown);
        map->leaves = grown;
        map->nb_leaves = nb_leaves;
    }
    map->nb_clusters = nb_clusters;
    return 0;
}
