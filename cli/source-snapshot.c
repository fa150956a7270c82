/* SPDX-License-Identifier: MIT */
/*
 * source-snapshot.c - -l SNAPSHOT of who reads an image: what it names, and the
 * image as it was then.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "option.h"

int snapshot_option(const struct cli *cli, const char *text,
                    struct keyvals *kv, const char **snapshot)
{
    static const char prefix[] = "snapshot.";
    struct lam_error err = LAM_ERROR_INIT;

    *snapshot = text;
    if (strncmp(text, prefix, sizeof prefix - 1))
        return 0;
    if (keyvals_parse(kv, text, &err) < 0) {
        cli_report(cli, &err);
        return -EINVAL;
    }
    for (size_t i = 0; i < kv->count; i++) {
        const struct keyval *item = &kv->items[i];
        if (strcmp(item->key, "snapshot.id") &&
            strcmp(item->key, "snapshot.name")) {
            cli_error(cli, "Invalid parameter '%s'", item->key);
            cli_error(cli, "Failed in parsing snapshot param '%s'", text);
            return -EINVAL;
        }
        *snapshot = item->value;
    }
    return 0;
}

static char *matching_id(const struct keyvals *kv,
                         const struct lam_image_info *info)
{
    const char *id = keyvals_get(kv, "snapshot.id");
    const char *name = keyvals_get(kv, "snapshot.name");

    for (size_t i = 0; i < info->nb_snapshots; i++) {
        const struct lam_snapshot_info *s = &info->snapshots[i];
        if ((!id || !strcmp(s->id, id)) && (!name || !strcmp(s->name, name)))
            return strdup(s->id);
    }
    return NULL;
}

/*
 * "-l snapshot.id=ID,snapshot.name=NAME" is the one that has both; the library
 * takes either.  Its id goes to *@id, owned by the caller, and to @source.
 */
static int resolve(const struct cli *cli, const char *name,
                   struct source_options *source, const struct keyvals *kv,
                   char **id, struct lam_error *err)
{
    struct source_options header = *source;
    struct lam_image_info *info = NULL;
    struct lam_image *image = NULL;

    header.snapshot = NULL;
    int rc = source_try_open(cli, name, &header, LAM_OPEN_METADATA, &image,
                             err);
    if (rc == 0)
        rc = lam_image_info(image, &info, err);
    /* Where there is none at all, the library says why. */
    bool has_some = rc == 0 && info->nb_snapshots;
    if (has_some)
        *id = matching_id(kv, info);
    lam_image_info_free(info);
    lam_image_close(image, NULL);
    if (rc < 0 || !has_some)
        return rc;
    if (!*id)
        return option_fail(err, ENOENT, "Could not open '%s': Failed to load "
                           "snapshot: Can't find snapshot '%s'", name,
                           source->snapshot);
    source->snapshot = *id;
    return 0;
}

/* qemu-img has these words for it, and no name. */
static void report_snapshot(const struct cli *cli, const struct lam_error *err)
{
    static const char no_snapshots[] = "Format driver '";
    const char *format = strstr(err->message, no_snapshots);

    if (cli->as_qemu && strstr(err->message, "Failed to load snapshot"))
        cli_error(cli, "Failed to load snapshot: Can't find snapshot");
    else if (cli->as_qemu && format) {
        format += strlen(no_snapshots);
        cli_error(cli, "Failed to load snapshot: Block format '%.*s' used by "
                  "device '' does not support temporarily loading internal "
                  "snapshots", (int)strcspn(format, "'"), format);
    } else {
        cli_report(cli, err);
    }
}

int source_open_snapshot(const struct cli *cli, const char *name,
                         const struct source_options *options,
                         const struct keyvals *kv, struct lam_image **out)
{
    struct source_options source = *options;
    struct lam_error err = LAM_ERROR_INIT;
    char *id = NULL;
    int rc = 0;

    if (!source.snapshot)
        return source_open(cli, name, &source, 0, out);
    if (source_cache_check(cli, &source) < 0)
        return -EINVAL;
    if (kv->count)
        rc = resolve(cli, name, &source, kv, &id, &err);
    if (rc == 0)
        rc = source_try_open(cli, name, &source, 0, out, &err);
    if (rc < 0)
        report_snapshot(cli, &err);
    free(id);
    return rc;
}
