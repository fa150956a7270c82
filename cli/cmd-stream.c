/* SPDX-License-Identifier: MIT */
/*
 * cmd-stream.c - `stream`: data from lower layers into the top one, so that
 * they can go.
 */
#include <errno.h>
#include <stdlib.h>

#include "interrupt.h"
#include "layers.h"
#include "progress.h"
#include "source-option.h"

struct stream_args {
    struct source_options source;
    const char *filename;
    const char *base;
    bool compress, progress, quiet;
    uint64_t rate;
};

static const struct command_option option_rows[] = {
    { 'b', "base", "NEWBASE",
      "the layer that becomes the backing file, with all below it (default: "
      "none stays)", 0 },
    { 'c', "compress", NULL, "store compressed what is pulled", 0 },
    SOURCE_OPTIONS,
    OPTION_CACHE('t'),
    { 'r', "rate", "RATE", "bytes a second to pull at most", 0 },
    OPTION_PROGRESS,
    OPTION_QUIET,
    OPTION_HELP,
    { 0 },
};

/* -1: go on; else the exit status. */
static int take_option(const struct cli *cli, int c, void *opaque)
{
    struct stream_args *args = opaque;

    switch (c) {
    case 't':
        args->source.cache = optarg;
        return -1;
    case 'b':
        args->base = optarg;
        return -1;
    case 'c':
        args->compress = true;
        return -1;
    case 'r':
        if (parse_size(optarg, &args->rate, NULL) == 0)
            return -1;
        cli_error(cli, "Invalid rate limit specified: '%s'.", optarg);
        return 1;
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
                      struct stream_args *args)
{
    int status = command_parse(cli, &command_stream, argc, argv, take_option,
                               args);

    if (status >= 0)
        return status;
    return source_operand(cli, argc, argv, &args->source, &args->filename);
}

static int find_base(const struct cli *cli, const struct stream_args *args,
                     struct lam_image *image, unsigned *depth)
{
    if (!args->base)
        return 0;
    *depth = layers_find(image, args->base);
    if (*depth)
        return 0;
    cli_error(cli, "Did not find '%s' in the backing chain of '%s'",
              args->base, args->filename);
    return -EINVAL;
}

static int stream(const struct cli *cli, const struct stream_args *args,
                  struct lam_image *image)
{
    struct lam_stream_options options = LAM_STREAM_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    int rc = find_base(cli, args, image, &options.depth);

    if (rc < 0 || options.depth == 1)
        return rc;              /* it is the backing file already */
    struct progress *progress = progress_begin(args->progress);
    options.compress = args->compress;
    options.job.rate = args->rate;
    options.job.cancel = interrupt_catch();
    options.job.progress = progress_update;
    options.job.progress_opaque = progress;
    rc = lam_image_stream(image, &options, &err);
    progress_end(progress, rc == 0);
    if (rc < 0)
        cli_report(cli, &err);
    return rc;
}

static int run_stream(const struct cli *cli, int argc, char **argv)
{
    struct stream_args args = { .filename = NULL };
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;
    int status = parse_args(cli, argc, argv, &args);

    if (status >= 0)
        return status;
    if (source_open(cli, args.filename, &args.source,
                    LAM_OPEN_WRITE | LAM_OPEN_UNMAP, &image) < 0)
        return 1;
    int rc = stream(cli, &args, image);
    int closed = lam_image_close(image, &err);
    if (closed < 0 && rc == 0) {
        cli_report(cli, &err);
        rc = closed;
    }
    if (rc == 0 && !args.quiet)
        puts("Image streamed.");
    return cli_finish(cli, interrupt_status(rc));
}

const struct command command_stream = {
    .name = "stream",
    .run = run_stream,
    .summary = "Pull data from lower layers, and drop them",
    .synopsis =
        "[-f FMT | --image-opts] [-t CACHE] [-b NEWBASE] [-c] [-r RATE] [-p] "
        "[-q] FILENAME",
    .about =
        "Pull what the layers below an image hold into it, and drop them "
        "from its chain.",
    .options = option_rows,
    .notes =
        "The files of the layers that drop out stay as they are.  "
        "Interrupted at any moment, the image reads the same, and running "
        "the command again finishes.",
    .examples =
        "top.qcow2\n"
        "-b base.qcow2 -p top.qcow2\n",
};
