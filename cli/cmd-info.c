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

static const char synopsis[] =
    "info [-f FMT | --image-opts] [-b] [-U] [--output human|json] FILENAME";

static const char help[] =
    "Display information about an image.\n\n"
    "Options:\n"
    "  -f, --format FMT      the image's format (default: look at the file)\n"
    "      --image-opts      FILENAME is a list \"driver=...,file.filename="
    "...\"\n"
    "  -b, --backing-chain   show the backing files as well, top first\n"
    "  -U, --force-share     take no lock: the image may be in use\n"
    "      --output FORMAT   human (default) or json\n"
    "      --untrusted       the image came from a stranger: open no file that\n"
    "                        its header names (not with -b)\n"
    "  -h, --help            print this help\n\n"
    "Without -b neither a backing file nor a data file is opened; they may be\n"
    "missing.\n\n"
    "Examples:\n"
    "  info disk.qcow2\n"
    "  info --backing-chain --output=json overlay.qcow2\n";

struct info_args {
    const char *filename;
    struct source_options source;
    bool json, chain;
};

static const struct option long_options[] = {
    OUTPUT_LONG_OPTION,
    SOURCE_LONG_OPTIONS,
    SHARE_LONG_OPTION,
    { "backing-chain", no_argument, NULL, 'b' },
    { NULL, 0, NULL, 0 },
};

/* -1: go on; else the exit status. */
static int take_option(const struct cli *cli, int c, struct info_args *args)
{
    switch (c) {
    case 'h':
        return cli_help(cli, synopsis, help);
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
    int c;

    while ((c = getopt_long(argc, argv, "hf:bU", long_options, NULL)) != -1) {
        int status = take_option(cli, c, args);
        if (status >= 0)
            return status;
    }
    int status = source_operand(cli, argc, argv, &args->source,
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

int cmd_info(const struct cli *cli, int argc, char **argv)
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
