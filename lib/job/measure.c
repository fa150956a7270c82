/* SPDX-License-Identifier: MIT */
/*
 * measure.c - the file size that a conversion needs, without doing it (format
 * document 15).
 */
#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "format/format.h"
#include "image/graph.h"

/* A window of the map: large where there is little to say. */
enum { WINDOW_FEW = 4096 };         /* extents */
static const uint64_t WINDOW_MIN = 256 * LAM_MIB, WINDOW_MAX = LAM_TIB;

static bool is_sparse(struct lam_image *layer)
{
    struct lam_image_info *info = NULL;

    if (lam_image_info(layer, &info, NULL) < 0)
        return false;
    bool sparse = info->tells_holes;
    lam_image_info_free(info);
    return sparse;
}

static bool *sparse_layers(struct lam_image *source)
{
    bool *sparse = calloc(image_depth(source), sizeof *sparse);
    unsigned i = 0;

    for (struct lam_image *l = source; l && sparse; l = l->backing)
        sparse[i++] = is_sparse(l);
    return sparse;
}

static bool is_data(const struct lam_extent *e, const bool *sparse)
{
    bool hole = e->flags & LAM_EXTENT_HOST_HOLE;

    return hole ? !sparse[e->depth] : !extent_reads_zero(e);
}

/* Bytes of target clusters that @extents touch with data.  *@counted_end is
 * where the last cluster that has been counted ends. */
static uint64_t count_data(const struct lam_extents *extents,
                           const bool *sparse, uint64_t cluster,
                           uint64_t *counted_end)
{
    uint64_t total = 0;

    for (size_t i = 0; i < extents->count; i++) {
        const struct lam_extent *e = &extents->items[i];
        uint64_t from = max_u64(align_down(e->offset, cluster), *counted_end);
        uint64_t end = align_up(e->offset + e->length, cluster);

        if (!is_data(e, sparse) || from >= end)
            continue;
        total += end - from;
        *counted_end = end;
    }
    return total;
}

static int source_data(struct lam_image *source, uint64_t cluster,
                       uint64_t *bytes, struct lam_error *err)
{
    uint64_t size = lam_image_size(source), window = WINDOW_MIN, end = 0;

    lam_autofree bool *sparse = sparse_layers(source);
    if (!sparse)
        return lam_fail(err, ENOMEM, "no memory for a list of layers");
    *bytes = 0;
    for (uint64_t at = 0; at < size;) {
        struct lam_extents extents lam_cleanup(lam_extents_deinit) =
            LAM_EXTENTS_INIT;
        uint64_t length = image_map_window(source, at, LAM_DEPTH_ALL, window);
        int rc = image_map(source, at, length, LAM_DEPTH_ALL,
                               LAM_MAP_HOST_HOLES, &extents, err);

        if (rc < 0)
            return rc;
        *bytes += count_data(&extents, sparse, cluster, &end);
        at += length;
        if (extents.count < WINDOW_FEW)
            window = min_u64(window * 2, WINDOW_MAX);
    }
    return 0;
}

/* Tables, data and directory of @info's bitmaps in clusters of @cluster. */
static uint64_t bitmap_bytes(const struct lam_image_info *info,
                             uint64_t cluster)
{
    enum { ENTRY = 24 };            /* bytes of a directory entry */
    uint64_t total = 0, directory = 0;

    for (size_t i = 0; i < info->nb_bitmaps; i++) {
        const struct lam_bitmap_info *b = &info->bitmaps[i];
        uint64_t bits = div_up(info->virtual_size, b->granularity);
        uint64_t clusters = div_up(div_up(bits, 8), cluster);

        total += clusters * cluster + align_up(clusters * 8, cluster);
        directory += align_up(ENTRY + strlen(b->name), 8);
    }
    return total + align_up(directory, cluster);
}

static int measure_bitmaps(struct lam_image *source, uint64_t cluster,
                           struct lam_measure *out, struct lam_error *err)
{
    struct lam_image_info *info = NULL;
    int rc = lam_image_info(source, &info, err);

    if (rc < 0)
        return rc;
    /* Images of Parallels may have some as well, which are not read. */
    out->has_bitmaps = (info->is_qcow2 && info->version >= 3) ||
                       !strcmp(info->format, "parallels");
    if (out->has_bitmaps && info->is_qcow2)
        out->bitmaps = bitmap_bytes(info, cluster);
    lam_image_info_free(info);
    return 0;
}

static int needed_data(const struct lam_create_options *target,
                       struct lam_image *source,
                       const struct format_measure *m, uint64_t *bytes,
                       struct lam_error *err)
{
    bool all = target->preallocation == LAM_PREALLOC_FALLOC ||
               target->preallocation == LAM_PREALLOC_FULL ||
               !m->cluster_size ||
               (source && target->backing_file);

    *bytes = all ? m->data : 0;
    return all || !source ? 0 : source_data(source, m->cluster_size, bytes,
                                            err);
}

static int count_needed(const struct lam_create_options *target,
                        struct lam_image *source,
                        const struct format_measure *m, uint64_t *data,
                        struct lam_error *err)
{
    image_graph_hold(source, NULL);
    int rc = needed_data(target, source, m, data, err);
    image_graph_release(source, NULL);
    return rc;
}

int lam_measure(const struct lam_create_options *target,
                struct lam_image *source, struct lam_measure *out,
                struct lam_error *err)
{
    struct lam_create_options o = *target;
    struct format_measure m = { 0 };
    uint64_t data = 0;
    const struct format_ops *ops = o.format ? format_find(o.format) : NULL;

    *out = (struct lam_measure){ 0 };
    if (o.format && !strcmp(o.format, "file"))
        return lam_fail(err, ENOTSUP, "Block driver 'file' does not support "
                        "size measurement");
    if (!ops)
        return lam_fail(err, EINVAL, "Unknown file format '%s'",
                        o.format ? o.format : "");
    if (!ops->measure)
        return lam_fail(err, ENOTSUP, "Block driver '%s' does not support size "
                        "measurement", ops->name);
    if (source)
        o.size = lam_image_size(source);
    int rc = ops->measure(&o, &m, err);
    if (rc == 0)
        rc = count_needed(&o, source, &m, &data, err);
    if (rc == 0 && source && ops == &format_qcow2 && o.version >= 3)
        rc = measure_bitmaps(source, m.cluster_size, out, err);
    if (rc < 0)
        return rc;
    out->required = m.metadata + data;
    out->fully_allocated = m.metadata + m.data;
    return 0;
}
