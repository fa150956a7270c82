/* SPDX-License-Identifier: MIT */
/*
 * cmd-chain.c - `chain`: the layers of an image, what each holds, and what is
 * odd about them.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "chain.h"
#include "print.h"
#include "source-option.h"

struct chain_args {
    struct source_options source;
    const char *image;
    bool json;
};

static const struct command_option option_rows[] = {
    SOURCE_OPTIONS,
    OPTION_OUTPUT,
    { 'U', "force-share", NULL, "open the files without locks", 0 },
    OPTION_HELP,
    { 0 },
};

static int take_option(const struct cli *cli, int key, void *opaque)
{
    struct chain_args *args = opaque;

    if (key == OPT_OUTPUT)
        return output_option(cli, optarg, &args->json) < 0 ? 1 : -1;
    return source_option(cli, key, &args->source);
}

static int parse_args(const struct cli *cli, int argc, char **argv,
                      struct chain_args *args)
{
    int status = command_parse(cli, &command_chain, argc, argv, take_option,
                               args);

    if (status >= 0)
        return status;
    return source_operand(cli, argc, argv, &args->source, &args->image);
}

/* --------------------------------------------------------------------- json */

static void add(struct json_object *o, const char *key, uint64_t value)
{
    json_object_object_add(o, key, json_object_new_uint64(value));
}

static void add_text(struct json_object *o, const char *key, const char *text)
{
    if (text)
        json_object_object_add(o, key, json_object_new_string(text));
}

static struct json_object *layer_json(const struct chain_layer *l,
                                      unsigned depth)
{
    const struct lam_image_info *info = l->info;
    struct json_object *o = json_object_new_object();
    struct json_object *warnings = json_object_new_array();

    add(o, "depth", depth);
    add_text(o, "filename", info->filename);
    add_text(o, "format", info->format);
    add(o, "virtual-size", info->virtual_size);
    add(o, "own-data", l->own);
    add(o, "shown-data", l->shown);
    add(o, "shared-data", l->shared);
    add(o, "actual-size", info->actual_size);
    if (l->has_age)
        add(o, "age-seconds", l->age);
    add_text(o, "backing-filename", info->backing_filename);
    add_text(o, "backing-filename-format", info->backing_format);
    for (size_t i = 0; i < l->nb_warnings; i++)
        json_object_array_add(warnings, json_object_new_string(l->warnings[i]));
    json_object_object_add(o, "warnings", warnings);
    return o;
}

static void print_all_json(const struct chain *chain)
{
    struct json_object *list = json_object_new_array();

    for (unsigned i = 0; i < chain->count; i++)
        json_object_array_add(list, layer_json(&chain->layers[i], i));
    print_json(stdout, list);
    json_object_put(list);
}

/* -------------------------------------------------------------------- human */

static const char *age_text(const struct chain_layer *l, char buf[32])
{
    static const struct { uint64_t seconds; const char *name; } units[] = {
        { 86400, "d" }, { 3600, "h" }, { 60, "min" }, { 1, "s" },
    };

    snprintf(buf, 32, "%s", l->has_age ? "0 s" : "-");
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (l->has_age && l->age >= units[i].seconds) {
            snprintf(buf, 32, "%" PRIu64 " %s", l->age / units[i].seconds,
                     units[i].name);
            break;
        }
    return buf;
}

static void print_layer(const struct chain_layer *l, unsigned depth)
{
    const struct lam_image_info *info = l->info;
    char size[32], own[32], shown[32], actual[32], age[32];

    printf("%5u %10s %10s %10s %10s %7s  %-6s  ", depth,
           human_size(info->virtual_size, size), human_size(l->own, own),
           human_size(l->shown, shown), human_size(info->actual_size, actual),
           age_text(l, age), info->format);
    print_escaped(stdout, info->filename);
    putchar('\n');
    for (size_t i = 0; i < l->nb_warnings; i++) {
        printf("      warning: ");
        print_escaped(stdout, l->warnings[i]);
        putchar('\n');
    }
}

static void print_all(const struct chain *chain)
{
    printf("depth       size   own data      shown    on disk     age  format  "
           "file\n");
    for (unsigned i = 0; i < chain->count; i++)
        print_layer(&chain->layers[i], i);
}

static int run_chain(const struct cli *cli, int argc, char **argv)
{
    struct chain_args args = { .image = NULL };
    struct lam_error err = LAM_ERROR_INIT;
    struct chain chain = { NULL, 0 };
    struct lam_image *image;
    int status = parse_args(cli, argc, argv, &args);

    if (status >= 0)
        return status;
    if (source_open(cli, args.image, &args.source, 0, &image) < 0)
        return 1;
    status = 0;
    if (chain_load(&chain, image, &err) < 0) {
        cli_report(cli, &err);
        status = 1;
    } else if (args.json) {
        print_all_json(&chain);
    } else {
        print_all(&chain);
    }
    chain_deinit(&chain);
    lam_image_close(image, NULL);
    return cli_finish(cli, status);
}

const struct command command_chain = {
    .name = "chain",
    .run = run_chain,
    .summary = "Show an image's layers and what each holds",
    .synopsis =
        "[-f FMT | --image-opts] [-U] [--output human|json] IMAGE",
    .about =
        "Show the layers of an image, top first.",
    .options = option_rows,
    .notes =
        "A layer has a virtual size; its own data, that is what is stored in "
        "it and not below; how much of that IMAGE shows, the rest being "
        "hidden by layers above; the host space of its file; and an age, the "
        "time since its file was written to.  Warnings tell of formats that "
        "are not recorded, of absolute names, of sizes that differ, and of "
        "files that were written to, or replaced, after their overlay was "
        "made.",
    .examples =
        "vm1.qcow2\n"
        "--output=json -U vm1.qcow2\n",
};
