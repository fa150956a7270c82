/* SPDX-License-Identifier: MIT */
/*
 * chain.c - what `chain` shows of each layer.
 */
#include "chain.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "option.h"
#include "print.h"
#include "settled.h"

/* A fragmented gigabyte has some thousand extents. */
#define WINDOW (UINT64_C(4) << 30)

/* --------------------------------------------------------------------- data */

static bool is_data(const struct lam_extent *e)
{
    return e->state == LAM_EXTENT_DATA || e->state == LAM_EXTENT_COMPRESSED;
}

/* Calls for each extent of @image, looking through @depth layers. */
typedef void extent_fn(void *opaque, const struct lam_extent *e);

static int each_extent(struct lam_image *image, uint32_t depth, extent_fn *fn,
                       void *opaque, struct lam_error *err)
{
    struct lam_extents map = LAM_EXTENTS_INIT;
    uint64_t at = 0, length;
    int rc = 0;

    for (; rc == 0 && (length = lam_image_map_window(image, at, depth, WINDOW));
         at += length) {
        map.count = 0;
        rc = lam_image_map(image, at, length, depth, 0, &map, err);
        for (size_t i = 0; i < map.count && rc == 0; i++)
            fn(opaque, &map.items[i]);
    }
    lam_extents_deinit(&map);
    return rc;
}

static void count_own(void *opaque, const struct lam_extent *e)
{
    struct chain_layer *layer = opaque;

    if (is_data(e))
        layer->own += e->length;
}

static void count_shown(void *opaque, const struct lam_extent *e)
{
    struct chain *chain = opaque;

    if (is_data(e) && e->depth < chain->count)
        chain->layers[e->depth].shown += e->length;
}

static int count_data(struct chain *chain, struct lam_image *image,
                      struct lam_error *err)
{
    struct lam_image *layer = image;
    uint64_t shared = 0;
    int rc = each_extent(image, LAM_DEPTH_ALL, count_shown, chain, err);

    for (unsigned i = 0; i < chain->count && rc == 0; i++) {
        rc = each_extent(layer, 1, count_own, &chain->layers[i], err);
        layer = lam_image_backing(layer);
    }
    for (unsigned i = chain->count; i-- > 0;) {
        chain->layers[i].shared = shared;
        shared += chain->layers[i].shown;
    }
    return rc;
}

/* ----------------------------------------------------------------- warnings */

static void warn(struct chain_layer *layer, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void warn(struct chain_layer *layer, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (layer->nb_warnings < CHAIN_MAX_WARNINGS &&
        vasprintf(&text, fmt, ap) >= 0)
        layer->warnings[layer->nb_warnings++] = text;
    va_end(ap);
}

static void warn_of_name(struct chain_layer *layer)
{
    const char *name = layer->info->backing_filename;

    if (!layer->info->backing_format)
        warn(layer, "the format of '%s' is not recorded", name);
    if (name[0] == '/')
        warn(layer, "the backing file is named by an absolute path");
    else if (!strncmp(name, "json:", 5) || !strncmp(name, "file:", 5))
        warn(layer, "the name '%s' counts from the working directory", name);
}

static void warn_of_size(struct chain_layer *layer,
                         const struct chain_layer *below)
{
    uint64_t size = layer->info->virtual_size, low = below->info->virtual_size;
    char a[32], b[32];

    if (low == size)
        return;
    warn(layer, "the backing file is %s: %s, and not %s",
         low < size ? "shorter" : "longer", human_size(low, a),
         human_size(size, b));
}

static void warn_of_change(struct chain_layer *layer,
                           const struct chain_layer *below)
{
    enum settled state = settled_look(layer->info->filename,
                                      below->info->filename);

    if (state == SETTLED_WRITTEN)
        warn(layer, "the backing file was written to after this overlay was "
             "made");
    if (state == SETTLED_OTHER)
        warn(layer, "the backing file is not the file that was there when "
             "this overlay was made");
}

static void warn_of_state(struct chain_layer *layer)
{
    if (layer->info->corrupt)
        warn(layer, "marked as corrupt");
    if (layer->info->dirty)
        warn(layer, "was not closed cleanly");
}

static void find_warnings(struct chain *chain)
{
    for (unsigned i = 0; i < chain->count; i++) {
        struct chain_layer *layer = &chain->layers[i];

        warn_of_state(layer);
        if (i + 1 == chain->count)
            continue;
        if (layer->info->backing_filename)
            warn_of_name(layer);
        warn_of_size(layer, &chain->layers[i + 1]);
        warn_of_change(layer, &chain->layers[i + 1]);
    }
}

/* ------------------------------------------------------------------- layers */

static void note_age(struct chain_layer *layer)
{
    struct stat st;
    time_t now = time(NULL);

    if (stat(layer->info->filename, &st) < 0 || !S_ISREG(st.st_mode))
        return;
    layer->has_age = true;
    layer->age = now > st.st_mtime ? (uint64_t)(now - st.st_mtime) : 0;
}

static int load_layers(struct chain *chain, struct lam_image *image,
                       struct lam_error *err)
{
    int rc = 0;

    for (struct lam_image *i = image; i; i = lam_image_backing(i))
        chain->count++;
    chain->layers = calloc(chain->count, sizeof *chain->layers);
    if (!chain->layers) {
        chain->count = 0;
        return option_fail(err, ENOMEM, "no memory for a chain");
    }
    for (unsigned i = 0; i < chain->count && rc == 0; i++) {
        rc = lam_image_info(image, &chain->layers[i].info, err);
        if (rc == 0)
            note_age(&chain->layers[i]);
        image = lam_image_backing(image);
    }
    return rc;
}

int chain_load(struct chain *chain, struct lam_image *image,
               struct lam_error *err)
{
    int rc = load_layers(chain, image, err);

    if (rc == 0)
        rc = count_data(chain, image, err);
    if (rc == 0)
        find_warnings(chain);
    return rc;
}

void chain_deinit(struct chain *chain)
{
    for (unsigned i = 0; i < chain->count; i++) {
        struct chain_layer *layer = &chain->layers[i];

        if (layer->info)
            lam_image_info_free(layer->info);
        for (size_t w = 0; w < layer->nb_warnings; w++)
            free(layer->warnings[w]);
    }
    free(chain->layers);
    *chain = (struct chain){ NULL, 0 };
}
