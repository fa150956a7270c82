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

static const char synopsis[] =
    "commit [-f FMT | --image-opts] [-t CACHE] [-b BASE] [-d] [-r RATE]\n"
    "         [-p] [-q] FILENAME";

static const char help[] =
    "Write what an overlay holds into its backing file, then empty the\n"
    "overlay.\n\n"
    "Options:\n"
    "  -f, --format FMT       format of the overlay (default: look at it)\n"
    "      --image-opts       FILENAME is a list \"key=value,...\"\n"
    "  -b, --base BASE        write into this layer of the chain rather than\n"
    "                         the next one; the layers between become invalid\n"
    "                         (implies -d)\n"
    "  -d, --drop             leave the overlay as it is: it is not needed\n"
    "                         any more\n"
    "  -t, --cache CACHE      cache mode (writeback)\n"
    "  -r, --rate RATE        bytes a second to write at most\n"
    "  -p, --progress         show progress\n"
    "  -q, --quiet            print nothing but errors\n"
    "      --object OBJECT    a secret, for encrypted images\n"
    "      --untrusted        open no file that the image's header names\n"
    "  -h, --help             print this help\n\n"
    "A backing file that is smaller grows first.  Other overlays of the file\n"
    "that is written to do not read as before.  Interrupted at any moment, the\n"
    "overlay reads the same, and running the command again finishes.\n\n"
    "Examples:\n"
    "  commit overlay.qcow2\n"
    "  commit -b base.qcow2 -p top.qcow2\n";

struct commit_args {
    struct source_options source;
    const char *filename;
    const char *base;
    bool drop, progress, quiet;
    uint64_t rate;
};

static const struct option long_options[] = {
    SOURCE_LONG_OPTIONS,
    { "cache", required_argument, NULL, 't' },
    { "base", required_argument, NULL, 'b' },
    { "drop", no_argument, NULL, 'd' },
    { "rate", required_argument, NULL, 'r' },
    { "progress", no_argument, NULL, 'p' },
    { "quiet", no_argument, NULL, 'q' },
    { NULL, 0, NULL, 0 },
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
static int take_option(const struct cli *cli, int c, struct commit_args *args)
{
    switch (c) {
    case 'h':
        return cli_help(cli, synopsis, help);
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
    int c;

    while ((c = getopt_long(argc, argv, "hf:t:b:dr:pq", long_options, NULL)) !=
           -1) {
        int status = take_option(cli, c, args);
        if (status >= 0)
            return status;
    }
    int status = source_operand(cli, argc, argv, &args->source,
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

int cmd_commit(const struct cli *cli, int argc, char **argv)
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
