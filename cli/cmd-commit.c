/* SPDX-License-Identifier: MIT */
/*
 * cmd-commit.c - `commit`: an overlay's data into its backing file.
 */
#include <errno.h>
#include <stdlib.h>

#include "interrupt.h"
#include "layers.h"
#include "progress.h"
#include "source-option.h"

struct commit_args {
    struct source_options source;
    const char *filename;
    const char *base;
    bool drop, progress, quiet;
    uint64_t rate;
};

static const struct command_option option_rows[] = {
    SOURCE_OPTIONS,
    { 'b', "base", "BASE",
      "write into this layer of the chain rather than the next one; the "
      "layers between become invalid (implies -d)", 0 },
    { 'd', "drop", NULL,
      "leave the overlay as it is: it is not needed any more", 0 },
    OPTION_CACHE('t'),
    { 'r', "rate", "RATE", "bytes a second to write at most", 0 },
    OPTION_PROGRESS,
    OPTION_QUIET,
    OPTION_HELP,
    { 0 },
};

/* ------------------------------------------------------------- command line */

static int take_rate(const struct cli *cli, uint64_t *rate)
{
    if (parse_size(optarg, rate, NULL) == 0)
        return -1;
    cli_error(cli, "Invalid rate limit specified: '%s'.", optarg);
    return 1;
}

/* -1: go on; else the exit status. */
static int take_option(const struct cli *cli, int c, void *opaque)
{
    struct commit_args *args = opaque;

    switch (c) {
    case 't':
        args->source.cache = optarg;
        return -1;
    case 'b':
        args->base = optarg;
        args->drop = true;      /* the top stays valid that way */
        return -1;
    case 'd':
        args->drop = true;
        return -1;
    case 'r':
        return take_rate(cli, &args->rate);
    case 'p':
        args->progress = true;
        return -1;
    case 'q':
        args->quiet = true;
        return -1;
    default:
        return source_option(cli, c, &args->source);
    }
}

static int parse_args(const struct cli *cli, int argc, char **argv,
                      struct commit_args *args)
{
    enum lam_cache_mode cache;
    int status = command_parse(cli, &command_commit, argc, argv, take_option,
                               args);

    if (status >= 0)
        return status;
    status = source_operand(cli, argc, argv, &args->source,
                                &args->filename);
    if (status >= 0 || !args->source.cache ||
        lam_cache_mode_parse(args->source.cache, &cache, NULL) == 0)
        return status;
    cli_error(cli, "Invalid cache option: %s", args->source.cache);
    return 1;
}

/* --------------------------------------------------------------- committing */

/* What will not read as before, named before anything is done. */
static void warn(const struct cli *cli, struct lam_image *image,
                 unsigned depth)
{
    struct lam_image *base = layers_at(image, depth);
    struct lam_image *above = layers_at(image, depth - 1);

    for (unsigned i = 1; i < depth; i++)
        cli_warning(cli, "'%s' becomes invalid: '%s', below it, is written to",
                    lam_image_name(layers_at(image, i)), lam_image_name(base));
    layers_warn_others(cli, base, above, "written to");
}

static int find_base(const struct cli *cli, const struct commit_args *args,
                     struct lam_image *image, unsigned *depth)
{
    *depth = 1;
    if (!args->base || !lam_image_backing(image))
        return 0;
    *depth = layers_find(image, args->base);
    if (*depth)
        return 0;
    cli_error(cli, "Did not find '%s' in the backing chain of '%s'",
              args->base, args->filename);
    return -EINVAL;
}

static int commit(const struct cli *cli, const struct commit_args *args,
                  struct lam_image *image)
{
    struct lam_commit_options options = LAM_COMMIT_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    int rc = find_base(cli, args, image, &options.depth);

    if (rc < 0)
        return rc;
    if (!cli->as_qemu && lam_image_backing(image))
        warn(cli, image, options.depth);
    struct progress *progress = progress_begin(args->progress);
    options.keep = args->drop;
    options.job.rate = args->rate;
    options.job.cancel = interrupt_catch();
    options.job.progress = progress_update;
    options.job.progress_opaque = progress;
    rc = lam_image_commit(image, &options, &err);
    progress_end(progress, rc == 0);
    if (rc < 0)
        cli_report(cli, &err);
    return rc;
}

static int run_commit(const struct cli *cli, int argc, char **argv)
{
    struct commit_args args = { .filename = NULL };
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;
    int status = parse_args(cli, argc, argv, &args);

    if (status >= 0)
        return status;
    unsigned flags = LAM_OPEN_UNMAP | (args.drop ? 0 : LAM_OPEN_WRITE);
    if (source_open(cli, args.filename, &args.source, flags, &image) < 0)
        return 1;
    if (!args.source.format && !args.source.image_opts)
        warn_guessed(args.filename, image);
    int rc = commit(cli, &args, image);
    int closed = lam_image_close(image, &err);
    if (closed < 0 && rc == 0) {
        cli_report(cli, &err);
        rc = closed;
    }
    if (rc == 0 && !args.quiet)
        puts("Image committed.");
    return cli_finish(cli, interrupt_status(rc));
}

const struct command command_commit = {
    .name = "commit",
    .run = run_commit,
    .summary = "Write an overlay's data into its backing file",
    .synopsis =
        "[-f FMT | --image-opts] [-t CACHE] [-b BASE] [-d] [-r RATE] [-p] "
        "[-q] FILENAME",
    .about =
        "Write what an overlay holds into its backing file, then empty the "
        "overlay.",
    .options = option_rows,
    .notes =
        "A backing file that is smaller grows first.  Other overlays of the "
        "file that is written to do not read as before.  Interrupted at any "
        "moment, the overlay reads the same, and running the command again "
        "finishes.",
    .examples =
        "overlay.qcow2\n"
        "-b base.qcow2 -p top.qcow2\n",
};
