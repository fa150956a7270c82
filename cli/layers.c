/* SPDX-License-Identifier: MIT */
/*
 * layers.c - the layers of a chain as people name them, and who else builds on
 * them.
 */
#include "layers.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "settled.h"

/* So many files of a directory are looked at for other overlays, and so many
 * layers that have changed are named. */
enum { MAX_FILES = 4096, MAX_CHANGED = 4 };

/* ------------------------------------------------------------------ notices */

static void note(struct notices *notices, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Without memory a warning stays unsaid. */
static void note(struct notices *notices, const char *fmt, ...)
{
    char **more = realloc(notices->texts,
                          (notices->count + 1) * sizeof *more);
    va_list ap;

    if (!more)
        return;
    notices->texts = more;
    va_start(ap, fmt);
    if (vasprintf(&more[notices->count], fmt, ap) >= 0)
        notices->count++;
    va_end(ap);
}

void notices_tell(const struct cli *cli, struct notices *notices)
{
    for (size_t i = 0; i < notices->count; i++)
        cli_warning(cli, "%s", notices->texts[i]);
    notices_deinit(notices);
}

void notices_deinit(struct notices *notices)
{
    for (size_t i = 0; i < notices->count; i++)
        free(notices->texts[i]);
    free(notices->texts);
    *notices = (struct notices)NOTICES_INIT;
}

/* ------------------------------------------------------------------- layers */

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

static void look_at(struct notices *notices, const char *path,
                    const char *layer, const char *except)
{
    struct stat st;

    /* Nothing but regular files is opened. */
    if (lstat(path, &st) < 0 || !S_ISREG(st.st_mode) || !st.st_size ||
        cli_same_file(path, except) || cli_same_file(path, layer))
        return;
    char *backing = backing_of(path);
    if (backing && cli_same_file(backing, layer))
        note(notices, "'%s' has '%s' as its backing file, too, and will not "
             "read as before once that is written to", path, layer);
    free(backing);
}

void layers_note_others(struct notices *notices, struct lam_image *layer,
                        struct lam_image *except)
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
            look_at(notices, path, name, lam_image_name(except));
        free(path);
    }
    if (dir)
        closedir(dir);
    free(folder);
}

void layers_note_invalid(struct notices *notices, struct lam_image *image,
                         unsigned depth)
{
    struct lam_image *base = layers_at(image, depth);

    for (unsigned i = 1; i < depth; i++)
        note(notices, "'%s' becomes invalid: '%s', below it, is written to",
             lam_image_name(layers_at(image, i)), lam_image_name(base));
}

/* ------------------------------------------------------- changed meanwhile */

static enum settled look_below(struct lam_image *above, struct lam_image *below)
{
    struct lam_image_info *own, *other;
    enum settled state = SETTLED_UNKNOWN;

    if (lam_image_info(above, &own, NULL) < 0)
        return state;
    if (lam_image_info(below, &other, NULL) == 0) {
        state = settled_look(own->filename, other->filename);
        lam_image_info_free(other);
    }
    lam_image_info_free(own);
    return state;
}

static void note_change(struct notices *notices, struct lam_image *above,
                        struct lam_image *below, enum settled state)
{
    note(notices, state == SETTLED_WRITTEN
         ? "'%s' was written to after '%s', its overlay, was made"
         : "'%s' is not the file that was there when '%s', its overlay, was "
           "made", lam_image_name(below), lam_image_name(above));
}

void layers_note_changed(struct notices *notices, struct lam_image *image,
                         unsigned depth)
{
    struct lam_image *below;
    unsigned further = 0;

    for (unsigned i = 0, said = 0; i < depth; i++, image = below) {
        below = lam_image_backing(image);
        if (!below)
            break;
        enum settled state = look_below(image, below);
        if (state != SETTLED_WRITTEN && state != SETTLED_OTHER)
            continue;
        if (said++ < MAX_CHANGED)
            note_change(notices, image, below, state);
        else
            further++;
    }
    if (further)
        note(notices, "%u further layers have changed since their overlays "
             "were made: 'lamella chain' tells which", further);
}
