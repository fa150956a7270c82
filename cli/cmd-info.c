/* SPDX-License-Identifier: MIT */
/*
 * cmd-info.c - `info`: what an image's header says, without opening any other
 * file; with --backing-chain the same for each layer below.
 */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "info.h"
#include "print.h"
#include "source-option.h"

struct info_args {
    const char *filename;
    struct source_options source;
    bool json, chain;
};

static const struct command_option option_rows[] = {
    OPTION_FORMAT, OPTION_IMAGE_OPTS,
    { 'b', "backing-chain", NULL,
      "show the backing files as well, top first", 0 },
    OPTION_SHARE,
    OPTION_OUTPUT, OPTION_OBJECT, OPTION_UNTRUSTED,
    OPTION_HELP,
    { 0 },
};

/* -1: go on; else the exit status. */
static int take_option(const struct cli *cli, int c, void *opaque)
{
    struct info_args *args = opaque;

    switch (c) {
    case 'b':
        args->chain = true;
        return -1;
    case OPT_OUTPUT:
        return output_option(cli, optarg, &args->json) < 0 ? 1 : -1;
    default:
        return source_option(cli, c, &args->source);
    }
}

static int parse_args(const struct cli *cli, int argc, char **argv,
                      struct info_args *args)
{
    int status = command_parse(cli, &command_info, argc, argv, take_option,
                               args);

    if (status >= 0)
        return status;
    status = source_operand(cli, argc, argv, &args->source,
                                &args->filename);
    if (status >= 0)
        return status;
    if (args->source.untrusted && args->chain) {
        cli_error(cli,
                  "--untrusted and --backing-chain are mutually exclusive");
        return 1;
    }
    return -1;
}

/* ---------------------------------------------------------------- the chain */

/* Which file it is; of none if there is nothing to look at. */
struct file_id {
    bool known;
    dev_t dev;
    ino_t ino;
};

/* One layer after another, top first. */
struct layers {
    struct lam_image_info **items;
    struct file_id *ids;
    size_t count, capacity;
};

static void layers_deinit(struct layers *layers)
{
    for (size_t i = 0; i < layers->count; i++)
        lam_image_info_free(layers->items[i]);
    free(layers->items);
    free(layers->ids);
}

static struct file_id identify(const char *name)
{
    struct stat st;

    if (stat(name, &st) < 0)
        return (struct file_id){ .known = false };
    return (struct file_id){ true, st.st_dev, st.st_ino };
}

static bool same_file(const struct file_id *a, const struct file_id *b)
{
    return a->known && b->known && a->dev == b->dev && a->ino == b->ino;
}

/* A chain that comes back to a file it has shown would never end. */
static int check_loop(const struct cli *cli, const struct layers *layers,
                      const char *name)
{
    struct file_id id = identify(name);

    for (size_t i = 0; i < layers->count; i++) {
        if (same_file(&layers->ids[i], &id) ||
            !strcmp(layers->items[i]->filename, name)) {
            cli_error(cli, "Backing file '%s' creates an infinite loop.", name);
            return -ELOOP;
        }
    }
    return 0;
}

static void warn(const struct cli *cli, const struct lam_image_info *info)
{
    static const char *const why[] = {
        "a program lacking bitmap support modified this file, so all bitmaps "
        "are now considered inconsistent",
        "This qcow2 v2 image contains bitmaps, but they may have been modified "
        "by a program without persistent bitmap support; so now they must all "
        "be considered inconsistent",
    };

    if (info->bitmaps_lost)
        cli_warning(cli, "%s\nSome clusters may be leaked, run '%s check -r' "
                    "on the image file to fix.", why[info->version < 3],
                    cli->program);
}

static bool make_room(struct layers *layers)
{
    if (layers->count < layers->capacity)
        return true;
    size_t n = layers->capacity ? 2 * layers->capacity : 16;
    struct lam_image_info **items = reallocarray(layers->items, n,
                                                 sizeof *items);
    if (!items)
        return false;
    layers->items = items;
    struct file_id *ids = reallocarray(layers->ids, n, sizeof *ids);
    if (!ids)
        return false;
    layers->ids = ids;
    layers->capacity = n;
    return true;
}

static int add_layer(const struct cli *cli, struct layers *layers,
                     const char *name, const struct source_options *source)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;

    if (!make_room(layers)) {
        cli_error(cli, "no memory");
        return -ENOMEM;
    }
    int rc = source_open(cli, name, source,
                         LAM_OPEN_METADATA | LAM_OPEN_NO_BACKING, &image);
    if (rc < 0)
        return rc;
    layers->ids[layers->count] = identify(name);
    rc = lam_image_info(image, &layers->items[layers->count], &err);
    if (rc < 0)
        cli_report(cli, &err);
    else
        warn(cli, layers->items[layers->count++]);
    lam_image_close(image, NULL);
    return rc;
}

static int collect(const struct cli *cli, const struct info_args *args,
                   struct layers *layers)
{
    struct source_options source = args->source;
    int rc = add_layer(cli, layers, args->filename, &source);

    while (rc == 0 && args->chain) {
        const struct lam_image_info *last = layers->items[layers->count - 1];
        const char *next = last->full_backing_filename;
        if (!next && last->backing_filename) {
            cli_error(cli, "Could not determine absolute backing filename, but "
                      "backing filename '%s' present", last->backing_filename);
            return -EINVAL;
        }
        if (!next)
            break;
        source.format = last->backing_format;
        source.image_opts = false;
        rc = check_loop(cli, layers, next);
        if (rc == 0)
            rc = add_layer(cli, layers, next, &source);
    }
    return rc;
}

/* ----------------------------------------------------------------- printing */

static void print_layers_json(const struct layers *layers, bool chain)
{
    struct json_object *value = chain ? json_object_new_array() : NULL;

    for (size_t i = 0; i < layers->count; i++) {
        struct json_object *layer = info_to_json(layers->items[i]);
        if (chain)
            json_object_array_add(value, layer);
        else
            value = layer;
    }
    print_json(stdout, value);
    json_object_put(value);
}

static int run_info(const struct cli *cli, int argc, char **argv)
{
    struct info_args args = { .filename = NULL };
    int status = parse_args(cli, argc, argv, &args);
    if (status >= 0)
        return status;

    struct layers layers = { NULL, NULL, 0, 0 };
    status = collect(cli, &args, &layers) < 0 ? 1 : 0;
    if (status == 0 && args.json)
        print_layers_json(&layers, args.chain);
    for (size_t i = 0; status == 0 && !args.json && i < layers.count; i++) {
        if (i)
            putchar('\n');
        info_print_text(stdout, layers.items[i]);
    }
    layers_deinit(&layers);
    return cli_finish(cli, status);
}

const struct command command_info = {
    .name = "info",
    .run = run_info,
    .summary = "Display information about an image",
    .synopsis =
        "[-f FMT | --image-opts] [-b] [-U] [--output human|json] FILENAME",
    .options = option_rows,
    .genuine =
        "help format output backing-chain object image-opts force-share",
    .notes =
        "Without -b neither a backing file nor a data file is opened; they "
        "may be missing.",
    .examples =
        "disk.qcow2\n"
        "--backing-chain --output=json overlay.qcow2\n",
};
