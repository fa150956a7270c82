/* SPDX-License-Identifier: MIT */
/*
 * naming.c - layers that drop out of a chain, and what the one above them calls
 * the one below.
 */
#include "job/naming.h"

#include <string.h>

#include "base/cleanup.h"
#include "image/graph.h"
#include "image/name.h"

/* The directory part of @path, as text. */
static size_t directory_length(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? (size_t)(slash - path) : 0;
}

static bool same_directory(const char *a, const char *b)
{
    size_t n = directory_length(a);

    return n == directory_length(b) && !strncmp(a, b, n);
}

int naming_of(struct lam_image *image, struct lam_image *layer, char **out,
              struct lam_error *err)
{
    struct lam_image *above = image_layer(image, layer->level - image->level
                                                 - 1);
    struct format_links links;

    image_links(above, &links);
    const char *name = links.backing_file;
    bool relative = name && *name != '/' && !name_has_protocol(name);
    if (name && (!relative || !above->path || !image->path ||
                 same_directory(above->path, image->path))) {
        *out = strdup(name);
        return *out ? 0 : lam_fail(err, ENOMEM, "no memory for a file name");
    }
    if (!layer->path || !image->path)
        return lam_fail(err, EINVAL, "'%s' has no file name that a header "
                        "could record", layer->name);
    return name_relative(image->path, layer->path, out, err);
}

int naming_drop_layers(struct lam_image *top, unsigned from, unsigned end,
                       struct lam_error *err)
{
    struct lam_image *dropped = NULL;

    image_graph_begin_change(top);
    int rc = image_drop_layers(top, from, end, &dropped, err);
    image_graph_end_change(top);
    if (rc == 0)
        image_free(dropped);
    return rc;
}
