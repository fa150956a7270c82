/* SPDX-License-Identifier: MIT */
/*
 * cmd-bitmap.c - `bitmap`: add, remove, clear, enable, disable and merge the
 * persistent dirty bitmaps of an image.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "source-option.h"

enum { MAX_ACTIONS = 256 };

enum { OPT_ADD = OPT_OWN, OPT_REMOVE, OPT_CLEAR, OPT_ENABLE, OPT_DISABLE,
       OPT_MERGE };

static const struct {
    int option;
    const char *name;
} action_names[] = {
    { OPT_ADD, "add" }, { OPT_REMOVE, "remove" }, { OPT_CLEAR, "clear" },
    { OPT_ENABLE, "enable" }, { OPT_DISABLE, "disable" },
    { OPT_MERGE, "merge" },
};

struct action {
    int option;
    const char *source;         /* of a merge */
};

struct bitmap_args {
    const char *filename, *name;
    struct source_options source, merge_source;
    const char *merge_file;
    struct action actions[MAX_ACTIONS];
    size_t nb_actions;
    bool adds, merges;
    uint64_t granularity;
};

static const struct command_option option_rows[] = {
    { 0, NULL, NULL, "Actions, as many as you like, done in their order", 0 },
    { OPT_ADD, "add", NULL, "make it, recording from now on", 0 },
    { OPT_REMOVE, "remove", NULL,
      "delete it, also one that was left in use", 0 },
    { OPT_CLEAR, "clear", NULL, "nothing is dirty any more", 0 },
    { OPT_ENABLE, "enable", NULL, "begin to record", 0 },
    { OPT_DISABLE, "disable", NULL, "stop recording; the contents stay", 0 },
    { OPT_MERGE, "merge", "SOURCE",
      "what is dirty in bitmap SOURCE is dirty here too", 0 },
    { 0, NULL, NULL, "Options", 0 },
    { 'g', "granularity", "SIZE",
      "bytes a bit, with --add: a power of two from 512 to 2G (default: the "
      "cluster size, 4K to 64K)", 0 },
    { 'b', "source-file", "FILE", "SOURCE is a bitmap of this image", 0 },
    { 'F', "source-format",
      "FMT", "its format (default: look at the file)", 0 },
    SOURCE_OPTIONS,
    OPTION_HELP,
    { 0 },
};

/* ------------------------------------------------------------- arguments */

static int take_action(const struct cli *cli, int option,
                       struct bitmap_args *args)
{
    if (args->nb_actions == MAX_ACTIONS)
        return cli_usage(cli, "More than %d actions", MAX_ACTIONS);
    args->actions[args->nb_actions++] = (struct action){ option, optarg };
    args->adds |= option == OPT_ADD;
    args->merges |= option == OPT_MERGE;
    return -1;
}

static int take_granularity(const struct cli *cli, struct bitmap_args *args)
{
    int rc = parse_u64_size(optarg, &args->granularity);
    if (rc == -ERANGE || (rc == 0 && args->granularity > INT64_MAX)) {
        cli_error(cli, "Invalid granularity specified. Must be between 0 and "
                  "%" PRId64 ".", INT64_MAX);
        return 1;
    }
    if (rc < 0) {
        cli_error(cli, "Invalid granularity specified: '%s'.", optarg);
        return 1;
    }
    return -1;
}

/* -1: go on; else the exit status. */
static int take_option(const struct cli *cli, int c, void *opaque)
{
    struct bitmap_args *args = opaque;

    switch (c) {
    case 'g':
        return take_granularity(cli, args);
    case 'b':
        args->merge_file = optarg;
        return -1;
    case 'F':
        args->merge_source.format = optarg;
        return -1;
    default:
        if (c >= OPT_ADD && c <= OPT_MERGE)
            return take_action(cli, c, args);
        return source_option(cli, c, &args->source);
    }
}

/* What is wrong, or NULL. */
static const char *contradiction(const struct bitmap_args *args, int operands)
{
    if (!args->nb_actions)
        return "Need at least one of --add, --remove, --clear, --enable, "
               "--disable, or --merge";
    if (operands != 2)
        return "Expecting filename and bitmap name";
    if (args->granularity && !args->adds)
        return "granularity only supported with --add";
    if (args->merge_file && !args->merges)
        return "Merge bitmap source file only supported with --merge";
    if (args->merge_source.format && !args->merge_file)
        return "-F only supported with -b";
    return NULL;
}

static int parse_args(const struct cli *cli, int argc, char **argv,
                      struct bitmap_args *args)
{
    int status = command_parse(cli, &command_bitmap, argc, argv, take_option,
                               args);

    if (status >= 0)
        return status;
    const char *wrong = contradiction(args, argc - optind);
    if (wrong) {
        cli_error(cli, "%s", wrong);
        return 1;
    }
    args->filename = argv[optind];
    args->name = argv[optind + 1];
    args->merge_source.untrusted = args->source.untrusted;
    return source_options_check(cli, &args->source);
}

/* --------------------------------------------------------------- actions */

static int do_action(const struct bitmap_args *args, const struct action *a,
                     struct lam_image *image, struct lam_image *source,
                     struct lam_error *err)
{
    switch (a->option) {
    case OPT_ADD:
        return lam_image_bitmap_add(image, args->name, args->granularity, 0,
                                    err);
    case OPT_REMOVE:
        return lam_image_bitmap_remove(image, args->name, err);
    case OPT_CLEAR:
        return lam_image_bitmap_clear(image, args->name, err);
    case OPT_ENABLE:
        return lam_image_bitmap_enable(image, args->name, err);
    case OPT_DISABLE:
        return lam_image_bitmap_disable(image, args->name, err);
    default:
        return lam_image_bitmap_merge(image, args->name, source, a->source,
                                      err);
    }
}

/* Bitmaps that were left in use: what can still be done with them. */
static const char *advice(const struct cli *cli, const struct lam_error *err)
{
    if (!strstr(err->message, "is inconsistent and cannot be used"))
        return "";
    return cli->as_qemu ? "\nTry block-dirty-bitmap-remove to delete this "
                          "bitmap from disk"
                        : "\nTry --remove to delete this bitmap from disk";
}

static int do_actions(const struct cli *cli, const struct bitmap_args *args,
                      struct lam_image *image, struct lam_image *source)
{
    struct lam_error err = LAM_ERROR_INIT;

    for (size_t i = 0; i < args->nb_actions; i++) {
        const struct action *a = &args->actions[i];
        int rc = do_action(args, a, image, source, &err);

        if (rc < 0) {
            cli_error(cli, "Operation %s on bitmap %s failed: %s%s",
                      action_names[a->option - OPT_ADD].name, args->name,
                      err.message, advice(cli, &err));
            return 1;
        }
    }
    return 0;
}

static int run(const struct cli *cli, const struct bitmap_args *args,
               struct lam_image *image)
{
    struct lam_image *source = image;

    warn_guessed(image);
    if (args->merge_file &&
        source_open(cli, args->merge_file, &args->merge_source,
                    LAM_OPEN_NO_BACKING, &source) < 0)
        return 1;
    int status = do_actions(cli, args, image, source);
    if (source != image)
        lam_image_close(source, NULL);
    return status;
}

static int run_bitmap(const struct cli *cli, int argc, char **argv)
{
    struct bitmap_args args = { 0 };
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;
    int status = parse_args(cli, argc, argv, &args);

    if (status >= 0)
        return status;
    if (source_open(cli, args.filename, &args.source,
                    LAM_OPEN_WRITE | LAM_OPEN_UNMAP | LAM_OPEN_NO_BACKING,
                    &image) < 0)
        return 1;
    status = run(cli, &args, image);
    if (lam_image_close(image, &err) < 0 && !status) {
        cli_report(cli, &err);
        status = 1;
    }
    return status;
}

const struct command command_bitmap = {
    .name = "bitmap",
    .run = run_bitmap,
    .summary = "Change a persistent dirty bitmap of an image",
    .synopsis =
        "(--add | --remove | --clear | --enable | --disable | --merge "
        "SOURCE)... [-f FMT | --image-opts] [-g SIZE] [-b SOURCE_FILE [-F "
        "SOURCE_FMT]] FILENAME BITMAP",
    .about =
        "Change a persistent dirty bitmap of an image: a record, kept in the "
        "image, of which parts of the disk have been written.",
    .options = option_rows,
    .genuine =
        "help object image-opts add remove clear enable disable merge "
        "granularity source-file source-format",
    .notes =
        "Each action is on disk before the next one begins, and is made by "
        "one write of the image's header.",
    .status =
        "0 done, 1 failed: then the actions before the one that failed have "
        "been done.",
    .examples =
        "--add -g 64K vm1.qcow2 monday\n"
        "--add --disable --merge tuesday vm1.qcow2 week\n",
};
