/* SPDX-License-Identifier: MIT */
/*
 * measure.c - how large a file gets when all of the disk is allocated (format
 * document 15).  Pure.
 */
#include "format/qcow2/create.h"

#include <string.h>

#include "base/cleanup.h"
#include "format/luks/volume.h"
#include "format/qcow2/geometry.h"

/* Clusters of refcount blocks and table that count @others and themselves. */
static uint64_t refcount_clusters(const struct qcow2_geometry *g,
                                  uint64_t others)
{
    uint64_t blocks = 0, table = 0;

    for (;;) {
        uint64_t b = div_up(others + table + blocks, g->refblock_entries);
        uint64_t t = div_up(b * sizeof(uint64_t), g->cluster_size);

        if (b == blocks && t == table)
            return b + t;
        blocks = b;
        table = t;
    }
}

static int check_size(const struct qcow2_geometry *g, uint64_t size,
                      struct lam_error *err)
{
    if (size <= INT64_MAX - g->cluster_size &&
        l1_needed(g, size) <= QCOW2_MAX_L1_ENTRIES)
        return 0;
    return lam_fail(err, EFBIG, "The image size is too large (try using a "
                    "larger cluster size)");
}

/* Bytes of the LUKS header and its key material. */
static int measure_luks(const struct lam_create_options *o, uint64_t *bytes,
                        struct lam_error *err)
{
    struct luks_volume v lam_cleanup(luks_volume_deinit) = { 0 };
    const char *passphrase;

    *bytes = 0;
    if (!o->encryption.format || strcmp(o->encryption.format, "luks"))
        return 0;
    int rc = luks_volume_plan(&v, &o->encryption, "encrypt.", &passphrase,
                              err);
    if (rc == 0)
        *bytes = luks_volume_bytes(&v);
    return rc;
}

int qcow2_measure(const struct lam_create_options *o,
                  struct format_measure *out, struct lam_error *err)
{
    uint64_t luks = 0;
    int rc = qcow2_check_widths(o, err);

    if (rc == 0 && o->version < 3 && o->refcount_bits != 16)
        rc = lam_fail(err, EINVAL, "Different refcount widths than 16 bits "
                      "require compatibility level 1.1 or above (use "
                      "compat=1.1 or greater)");
    if (rc < 0)
        return rc;
    struct qcow2_geometry g =
        qcow2_geometry_make((unsigned)__builtin_ctzll(o->cluster_size),
                            (unsigned)__builtin_ctz(o->refcount_bits),
                            o->extended_l2);
    rc = check_size(&g, o->size, err);
    if (rc == 0)
        rc = measure_luks(o, &luks, err);
    if (rc < 0)
        return rc;
    uint64_t data = div_up(o->size, g.cluster_size);
    uint64_t l2 = div_up(data, g.l2_entries);
    uint64_t l1 = div_up(l2 * sizeof(uint64_t), g.cluster_size);
    uint64_t others = 1 + l1 + l2 + data;

    out->cluster_size = g.cluster_size;
    out->data = data << g.cluster_bits;
    out->metadata = (1 + l1 + l2 + refcount_clusters(&g, others) +
                     div_up(luks, g.cluster_size)) << g.cluster_bits;
    return 0;
}
