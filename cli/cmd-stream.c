/* SPDX-License-Identifier: MIT */
/*
 * cmd-stream.c - `stream`: data from lower layers into the top one, so that
 * they can go.
 */
#include <errno.h>
#include <stdlib.h>

#include "job-option.h"
#include "settled.h"

struct stream_args {
    struct job_args job;
    const char *base;
    bool compress;
};

static const struct command_option option_rows[] = {
    { 'b', "base", "NEWBASE",
      "the layer that becomes the backing file, with all below it (default: "
      "none stays)", 0 },
    { 'c', "compress", NULL, "store compressed what is pulled", 0 },
    JOB_OPTIONS,
    OPTION_HELP,
    { 0 },
};

/* -1: go on; else the exit status. */
static int take_option(const struct cli *cli, int c, void *opaque)
{
    struct stream_args *args = opaque;

    switch (c) {
    case 'b':
        args->base = optarg;
        return -1;
    case 'c':
        args->compress = true;
        return -1;
    default:
        return job_option(cli, c, &args->job);
    }
}

static int stream(const struct cli *cli, void *opaque, struct lam_image *image)
{
    struct stream_args *args = opaque;
    struct lam_stream_options options = LAM_STREAM_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    int rc = job_find_base(cli, &args->job, image, args->base, &options.depth);

    if (rc < 0 || options.depth == 1)
        return rc;              /* it is the backing file already */
    options.compress = args->compress;
    layers_note_changed(&args->job.notices, image, options.depth);
    job_begin(cli, &args->job, &options.job);
    rc = lam_image_stream(image, &options, &err);
    if (rc == 0)
        settled_note(image);
    if (rc < 0)
        cli_report(cli, &err);
    return rc;
}

static int run_stream(const struct cli *cli, int argc, char **argv)
{
    struct stream_args args = { .base = NULL };
    int status = command_parse(cli, &command_stream, argc, argv, take_option,
                               &args);

    if (status < 0)
        status = job_operand(cli, argc, argv, &args.job);
    if (status >= 0)
        return status;
    return job_run(cli, &args.job, LAM_OPEN_WRITE | LAM_OPEN_UNMAP, stream,
                   &args, "Image streamed.");
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
