/* SPDX-License-Identifier: MIT */
/*
 * layers.c - the layers of a chain as people name them, and who else builds on
 * them.
 */
#include "layers.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* So many files of a directory are looked at for other overlays. */
enum { MAX_FILES = 4096 };

/* Does @above's header call its backing file @name? */
static bool is_called(struct lam_image *above, const char *name)
{
    struct lam_image_info *info;

    if (lam_image_info(above, &info, NULL) < 0)
        return false;
    bool is = info->backing_filename && !strcmp(info->backing_filename, name);
    lam_image_info_free(info);
    return is;
}

unsigned layers_find(struct lam_image *image, const char *name)
{
    struct lam_image *above = image;
    unsigned depth = 1;

    for (struct lam_image *i = lam_image_backing(image); i; depth++) {
        const char *own = lam_image_name(i);

        if (!strcmp(own, name) || cli_same_file(own, name) ||
            is_called(above, name))
            return depth;
        above = i;
        i = lam_image_backing(i);
    }
    return 0;
}

struct lam_image *layers_at(struct lam_image *image, unsigned depth)
{
    while (image && depth--)
        image = lam_image_backing(image);
    return image;
}

/* The path of the file that @path's header names as its backing file, or NULL:
 * no such, or not an image that has any. */
static char *backing_of(const char *path)
{
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;
    struct lam_image_info *info;
    struct lam_image *image;
    char *name = NULL;

    options.format = "qcow2";
    options.flags = LAM_OPEN_METADATA | LAM_OPEN_FORCE_SHARE;
    if (lam_image_open(path, &options, &image, NULL) < 0)
        return NULL;
    if (lam_image_info(image, &info, NULL) == 0) {
        if (info->full_backing_filename)
            name = strdup(info->full_backing_filename);
        lam_image_info_free(info);
    }
    lam_image_close(image, NULL);
    return name;
}

static void look_at(const struct cli *cli, const char *path, const char *layer,
                    const char *except, const char *verb)
{
    struct stat st;

    /* Nothing but regular files is opened. */
    if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode) || !st.st_size ||
        cli_same_file(path, except) || cli_same_file(path, layer))
        return;
    char *backing = backing_of(path);
    if (backing && cli_same_file(backing, layer))
        cli_warning(cli, "'%s' has '%s' as its backing file, too, and will not "
                    "read as before once that is %s", path, layer, verb);
    free(backing);
}

void layers_warn_others(const struct cli *cli, struct lam_image *layer,
                        struct lam_image *except, const char *verb)
{
    const char *name = lam_image_name(layer);
    const char *slash = strrchr(name, '/');
    char *folder = slash ? strndup(name, (size_t)(slash - name + 1))
                         : strdup("");
    DIR *dir = folder ? opendir(*folder ? folder : ".") : NULL;

    for (int n = 0; dir && n < MAX_FILES; n++) {
        struct dirent *entry = readdir(dir);
        char *path = NULL;

        if (!entry)
            break;
        if (asprintf(&path, "%s%s", folder, entry->d_name) >= 0)
            look_at(cli, path, name, lam_image_name(except), verb);
        free(path);
    }
    if (dir)
        closedir(dir);
    free(folder);
}
