/* SPDX-License-Identifier: MIT */
/*
 * cmd-measure.c - `measure`: the file size that a new image would need.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "print.h"
#include "source-option.h"

struct measure_args {
    struct source_options source;
    const char *filename, *target_format, *snapshot;
    const char *size;
    uint64_t bytes;             /* of @size */
    struct keyvals options, snapshot_options;
    bool json, extra;
};

static const struct command_option option_rows[] = {
    { 'O', "target-format",
      "FMT", "format of the new image (default: raw)", 0 },
    { 'o', "options", "OPTIONS", "its options, \"key=value,...\"", 0 },
    { 's', "size", "SIZE", "an empty disk of this size", 0 },
    SOURCE_OPTIONS,
    { 'l', "snapshot", "SNAPSHOT",
      "the internal snapshot with this name or id", 0 },
    OPTION_SHARE,
    OPTION_OUTPUT,
    OPTION_HELP,
    { 0 },
};

/* ------------------------------------------------------------- command line */

static int report(const struct cli *cli, const struct lam_error *err)
{
    cli_report(cli, err);
    return 1;
}

static int fail(const struct cli *cli, const char *text)
{
    cli_error(cli, "%s", text);
    return 1;
}

/* What can be wrong with its value.  -1: go on; else the exit status. */
static int take_value(const struct cli *cli, int c, struct measure_args *args)
{
    struct lam_error err = LAM_ERROR_INIT;
    int rc = 0;

    switch (c) {
    case 'o':
        rc = keyvals_parse(&args->options, optarg, &err);
        break;
    case 's':
        args->size = optarg;
        rc = parse_size_named(optarg, "image size", &args->bytes, &err);
        break;
    case 'l':
        return snapshot_option(cli, optarg, &args->snapshot_options,
                               &args->snapshot) < 0 ? 1 : -1;
    case OPT_OUTPUT:
        return output_option(cli, optarg, &args->json) < 0 ? 1 : -1;
    default:
        return source_option(cli, c, &args->source);
    }
    return rc < 0 ? report(cli, &err) : -1;
}

static int take_option(const struct cli *cli, int c, void *opaque)
{
    struct measure_args *args = opaque;

    switch (c) {
    case 'O':
        args->target_format = optarg;
        return -1;
    default:
        return take_value(cli, c, args);
    }
}

static const char *mistake(const struct measure_args *args)
{
    const struct source_options *source = &args->source;

    if (args->extra)
        return "At most one filename argument is allowed.";
    if (!args->filename &&
        (source->image_opts || source->format || args->snapshot))
        return "--image-opts, -f, and -l require a filename argument.";
    if (!args->filename && !args->size)
        return "Either --size N or one filename must be specified.";
    if (args->filename && args->size)
        return "--size N cannot be used together with a filename.";
    if (source->image_opts && source->format)
        return "--image-opts and --format are mutually exclusive";
    return NULL;
}

static int parse_args(const struct cli *cli, int argc, char **argv,
                      struct measure_args *args)
{
    int status = command_parse(cli, &command_measure, argc, argv, take_option,
                               args);

    if (status >= 0)
        return status;
    if (optind < argc)
        args->filename = argv[optind++];
    args->extra = optind < argc;
    const char *text = mistake(args);
    return text ? fail(cli, text) : -1;
}

/* ---------------------------------------------------------------- measuring */

static int target_options(const struct cli *cli, struct measure_args *args,
                          struct lam_create_options *target)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (create_format_check(args->target_format, &err) < 0) {
        cli_report(cli, &err);
        return 1;
    }
    target->format = args->target_format;
    if (create_options_check(args->target_format, &args->options, &err) < 0) {
        cli_report(cli, &err);
        cli_error(cli, "Invalid options for file format '%s'",
                  args->target_format);
        return 1;
    }
    if (create_options_apply(args->target_format, &args->options, target,
                             &err) < 0)
        return report(cli, &err);
    target->size = args->bytes;
    target->encryption.keyring = cli->keyring;
    return 0;
}

static void print_text(const struct lam_measure *m)
{
    printf("required size: %" PRIu64 "\n", m->required);
    printf("fully allocated size: %" PRIu64 "\n", m->fully_allocated);
    if (m->has_bitmaps)
        printf("bitmaps size: %" PRIu64 "\n", m->bitmaps);
}

static void print_as_json(const struct lam_measure *m)
{
    struct json_object *object = json_object_new_object();

    if (m->has_bitmaps)
        json_object_object_add(object, "bitmaps",
                               json_object_new_uint64(m->bitmaps));
    json_object_object_add(object, "required",
                           json_object_new_uint64(m->required));
    json_object_object_add(object, "fully-allocated",
                           json_object_new_uint64(m->fully_allocated));
    print_json(stdout, object);
    json_object_put(object);
}

static int measure(const struct cli *cli, struct measure_args *args,
                   struct lam_image *source)
{
    struct lam_create_options target = LAM_CREATE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_measure m;

    if (target_options(cli, args, &target) != 0)
        return 1;
    if (lam_measure(&target, source, &m, &err) < 0)
        return report(cli, &err);
    if (args->json)
        print_as_json(&m);
    else
        print_text(&m);
    return 0;
}

static int run(const struct cli *cli, struct measure_args *args)
{
    struct lam_image *source = NULL;

    args->source.snapshot = args->snapshot;
    if (args->filename &&
        source_open_snapshot(cli, args->filename, &args->source,
                             &args->snapshot_options, &source) < 0)
        return 1;
    int status = measure(cli, args, source);
    lam_image_close(source, NULL);
    return cli_finish(cli, status);
}

static int run_measure(const struct cli *cli, int argc, char **argv)
{
    struct measure_args args = { .target_format = "raw" };
    int status = parse_args(cli, argc, argv, &args);

    if (status < 0)
        status = run(cli, &args);
    keyvals_deinit(&args.options);
    keyvals_deinit(&args.snapshot_options);
    return status;
}

const struct command command_measure = {
    .name = "measure",
    .run = run_measure,
    .summary = "Calculate the file size a new image needs",
    .synopsis =
        "[-O FMT] [-o OPTIONS] [--output human|json] ([-f FMT | "
        "--image-opts] [-l SNAPSHOT] [-U] FILENAME | --size SIZE)",
    .about =
        "Calculate the file size that a new image needs.",
    .options = option_rows,
    .genuine =
        "help target-format format image-opts options snapshot object "
        "output size force-share",
    .notes =
        "FILENAME is what would be converted; only its map is read.  The "
        "required size is enough for the data it has, the fully allocated "
        "one for all that a guest can write later.",
    .examples =
        "-O qcow2 --size 20G\n"
        "-O qcow2 -o cluster_size=2M --output=json overlay.qcow2\n",
};
