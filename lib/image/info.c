/* SPDX-License-Identifier: MIT */
/*
 * info.c - what `info` shows.  Opens no other file.
 */
#include <inttypes.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/graph.h"
#include "image/image-io.h"
#include "image/name.h"
#include "image/view.h"

void lam_image_info_free(struct lam_image_info *info)
{
    if (!info)
        return;
    free(info->filename);
    free(info->format);
    free(info->backing_filename);
    free(info->full_backing_filename);
    free(info->backing_format);
    free(info->data_file);
    for (size_t i = 0; i < info->nb_snapshots; i++) {
        free(info->snapshots[i].id);
        free(info->snapshots[i].name);
    }
    free(info->snapshots);
    for (size_t i = 0; i < info->nb_bitmaps; i++)
        free(info->bitmaps[i].name);
    free(info->bitmaps);
    free(info->encryption);
    for (size_t i = 0; i < info->nb_values; i++)
        free(info->values[i].text);
    free(info->values);
    for (size_t i = 0; i < info->nb_children; i++)
        lam_image_info_free(info->children[i].info);
    free(info->children);
    for (size_t i = 0; i < info->nb_files; i++)
        free(info->files[i].filename);
    free(info->files);
    free(info);
}

static int copy_string(char **out, const char *text, struct lam_error *err)
{
    if (!text)
        return 0;
    free(*out);
    *out = strdup(text);
    return *out ? 0 : lam_fail(err, ENOMEM, "no memory for '%s'", text);
}

static int fill_backing(struct lam_image *image, struct lam_image_info *info,
                        struct lam_error *err)
{
    struct format_links links;
    image_links(image, &links);
    if (!links.backing_file || !*links.backing_file)
        return 0;

    lam_autofree char *full = name_resolve(image->path, links.backing_file);
    if (!full)
        return lam_fail(err, ENOMEM, "no memory for a file name");
    if (name_resolves(image->path, links.backing_file))
        info->full_backing_filename = lam_take(&full);
    int rc = copy_string(&info->backing_filename, links.backing_file, err);
    return rc < 0 ? rc : copy_string(&info->backing_format,
                                     links.backing_format, err);
}

static int fill_host(struct lam_image *image, struct lam_image_info *info,
                     struct lam_error *err)
{
    uint64_t header = 0;
    int rc = lam_io_allocated_size(image->io, &info->actual_size, err);

    if (rc == 0 && image->header)
        rc = lam_io_allocated_size(image->header, &header, err);
    info->actual_size += header;
    return rc < 0 ? rc : lam_io_size(image->io, &info->file_length, err);
}

/* What is seen of the image behind a filter or a raw view of it. */
static int fill_through(struct lam_image *image, struct lam_image_info *info,
                        struct lam_error *err)
{
    struct lam_image *inner = image->ops == &format_raw
        ? image_io_image(image->io) : NULL;
    struct lam_image_info *told;

    if (!inner)
        return 0;
    info->cluster_size = lam_image_cluster_size(inner);
    if (!image->driver)
        return 0;
    int rc = lam_image_info(inner, &told, err);
    if (rc < 0)
        return rc;
    info->snapshots = lam_take(&told->snapshots);
    info->nb_snapshots = told->nb_snapshots;
    told->nb_snapshots = 0;
    lam_image_info_free(told);
    return 0;
}

static int add_file(struct lam_io *io, struct lam_image_info *info,
                    struct lam_error *err)
{
    struct lam_file_info *files = realloc(info->files, (info->nb_files + 1) *
                                                       sizeof *files);
    if (!files)
        return lam_fail(err, ENOMEM, "no memory for %zu files",
                        info->nb_files + 1);
    info->files = files;
    struct lam_file_info *f = &files[info->nb_files++];
    *f = (struct lam_file_info){ 0 };
    int rc = copy_string(&f->filename, io->name, err);
    if (rc == 0)
        rc = lam_io_allocated_size(io, &f->actual_size, err);
    if (rc == 0)
        rc = lam_io_size(io, &f->length, err);
    info->actual_size += f->actual_size;
    return rc;
}

static int fill_files(struct lam_image *image, struct lam_image_info *info,
                      struct lam_error *err)
{
    struct lam_io *io;
    int rc = 0;

    for (size_t i = 0; image->ops->file && rc == 0 &&
         (io = image->ops->file(image->format, i)); i++)
        rc = add_file(io, info, err);
    return rc;
}

/*
 * Holes of the host below the clusters of a qcow2 image are zeroes only where
 * they are what preallocation leaves: a tenth of the file or more.  Elsewhere
 * nobody knows that they stay, and the genuine tool does not look; the rule was
 * found by trying.  It counts in the image file also where the data lie in
 * another one.
 */
static bool tells_holes(const struct lam_image *image,
                        const struct lam_image_info *info)
{
    if (!info->is_qcow2)
        return image->ops->is_flat ? image->ops->is_flat(image->format)
                                   : !info->cluster_size;
    uint64_t clusters = div_up(info->file_length, info->cluster_size);
    uint64_t there = info->actual_size / info->cluster_size;

    return there * 10 < (clusters + 1) * 9 &&
           info->actual_size + info->cluster_size <= info->file_length;
}

static int fill(struct lam_image *image, struct lam_image_info *info,
                struct lam_error *err)
{
    info->virtual_size = image->size;
    info->format_guessed = image->guessed;
    info->dirty_unknown = image->ops->no_details;
    if (!image->ops->no_details)
        info->cluster_size = image->ops->cluster_size(image->format);
    int rc = copy_string(&info->filename,
                         image->shown ? image->shown : image->name, err);
    if (rc == 0)
        rc = copy_string(&info->format, lam_image_format(image), err);
    if (rc == 0)
        rc = fill_host(image, info, err);
    if (rc == 0)
        rc = fill_files(image, info, err);
    if (rc == 0)
        rc = fill_backing(image, info, err);
    if (rc == 0 && image->ops->info)
        rc = image->ops->info(image->format, info, err);
    if (rc == 0 && image->view)
        rc = view_describe(image->view, info, err);
    if (rc == 0)
        rc = fill_through(image, info, err);
    info->tells_holes = rc == 0 && tells_holes(image, info);
    return rc;
}

int lam_image_info(struct lam_image *image, struct lam_image_info **out,
                   struct lam_error *err)
{
    IMAGE_INSIDE(image);
    struct lam_image_info *info = calloc(1, sizeof *info);
    if (!info)
        return lam_fail(err, ENOMEM, "no memory for the description of '%s'",
                        image->name);
    int rc = fill(image, info, err);
    if (rc < 0) {
        lam_image_info_free(info);
        return lam_error_prefix(err, rc, "'%s'", image->name);
    }
    *out = info;
    return 0;
}
