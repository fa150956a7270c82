/* SPDX-License-Identifier: MIT */
/*
 * convert-bitmaps.c - `convert --bitmaps`: copy persistent dirty bitmaps.
 *
 * Each is looked at before anything is written.  The last comes first when
 * several have to be told of, as the genuine tool has it.
 */
#include "convert-bitmaps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int get_info(const struct cli *cli, struct lam_image *image,
                    struct lam_image_info **info)
{
    struct lam_error err = LAM_ERROR_INIT;
    int rc = lam_image_info(image, info, &err);

    if (rc < 0)
        cli_report(cli, &err);
    return rc;
}

/* ------------------------------------------------------------- the source */

static int check_each(const struct cli *cli, const struct convert_args *args,
                      const struct lam_image_info *info)
{
    for (size_t i = info->nb_bitmaps; i-- > 0;) {
        const struct lam_bitmap_info *b = &info->bitmaps[i];

        if (!b->in_use)
            continue;
        if (!args->skip_broken_bitmaps) {
            cli_error(cli, "Cannot copy inconsistent bitmap '%s'\n"
                      "Try --skip-broken-bitmaps, or use '%s bitmap --remove' "
                      "to delete it", b->name, cli->program);
            return -EINVAL;
        }
        cli_warning(cli, "Skipping inconsistent bitmap '%s'", b->name);
    }
    return 0;
}

int convert_bitmaps_check_source(const struct cli *cli,
                                 const struct convert_args *args,
                                 struct lam_image *source)
{
    struct lam_image_info *info;

    if (!args->bitmaps)
        return 0;
    if (args->nb_sources > 1) {
        cli_error(cli, "Copying bitmaps only possible with single source");
        return -EINVAL;
    }
    int rc = get_info(cli, source, &info);
    if (rc < 0)
        return rc;
    if (!info->is_qcow2 || info->version < 3) {
        cli_error(cli, "Source lacks bitmap support");
        rc = -ENOTSUP;
    } else {
        rc = check_each(cli, args, info);
    }
    lam_image_info_free(info);
    return rc;
}

/* ------------------------------------------------------------- the target */

static bool has_bitmap(const struct lam_image_info *info, const char *name)
{
    for (size_t i = 0; i < info->nb_bitmaps; i++)
        if (!strcmp(info->bitmaps[i].name, name))
            return true;
    return false;
}

static int check_room(const struct cli *cli, const struct lam_image_info *from,
                      const struct lam_image_info *to)
{
    for (size_t i = from->nb_bitmaps; i-- > 0;) {
        const char *name = from->bitmaps[i].name;

        if (from->bitmaps[i].in_use)
            continue;
        if (has_bitmap(to, name)) {
            cli_error(cli, "Failed to create bitmap %s: Bitmap already "
                      "exists: %s", name, name);
            return -EEXIST;
        }
        if (from->virtual_size != to->virtual_size) {
            cli_error(cli, "Failed to populate bitmap %s: Bitmaps are of "
                      "different sizes (destination size is %llu, source size "
                      "is %llu) and can't be merged", name,
                      (unsigned long long)to->virtual_size,
                      (unsigned long long)from->virtual_size);
            return -EINVAL;
        }
    }
    return 0;
}

int convert_bitmaps_check_target(const struct cli *cli,
                                 const struct convert_args *args,
                                 struct lam_image *source,
                                 struct lam_image *target)
{
    struct lam_image_info *from = NULL, *to = NULL;

    if (!args->bitmaps)
        return 0;
    int rc = get_info(cli, source, &from);
    if (rc == 0)
        rc = get_info(cli, target, &to);
    if (rc == 0 && (!to->is_qcow2 || to->version < 3)) {
        cli_error(cli, "Format driver '%s' does not support bitmaps",
                  lam_image_format(target));
        rc = -ENOTSUP;
    }
    if (rc == 0)
        rc = check_room(cli, from, to);
    lam_image_info_free(from);
    lam_image_info_free(to);
    return rc;
}

static int copy_bitmap(const struct cli *cli, const struct lam_bitmap_info *b,
                       struct lam_image *source, struct lam_image *target)
{
    struct lam_error err = LAM_ERROR_INIT;
    unsigned flags = b->automatic ? 0 : LAM_BITMAP_DISABLED;
    int rc = lam_image_bitmap_add(target, b->name, b->granularity, flags,
                                  &err);

    if (rc < 0) {
        cli_error(cli, "Failed to create bitmap %s: %s", b->name, err.message);
        return rc;
    }
    rc = lam_image_bitmap_merge(target, b->name, source, b->name, &err);
    if (rc < 0)
        cli_error(cli, "Failed to populate bitmap %s: %s", b->name,
                  err.message);
    return rc;
}

int convert_bitmaps_copy(const struct cli *cli,
                         const struct convert_args *args,
                         struct lam_image *source, struct lam_image *target)
{
    struct lam_image_info *info;

    if (!args->bitmaps)
        return 0;
    int rc = get_info(cli, source, &info);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < info->nb_bitmaps && rc == 0; i++)
        if (!info->bitmaps[i].in_use)
            rc = copy_bitmap(cli, &info->bitmaps[i], source, target);
    lam_image_info_free(info);
    return rc;
}
