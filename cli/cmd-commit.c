/* SPDX-License-Identifier: MIT */
/*
 * cmd-commit.c - `commit`: an overlay's data into its backing file.
 */
#include <errno.h>
#include <stdlib.h>

#include "job-option.h"
#include "settled.h"

struct commit_args {
    struct job_args job;
    const char *base;
    bool drop;
};

static const struct command_option option_rows[] = {
    JOB_OPTIONS,
    { 'b', "base", "BASE",
      "write into this layer of the chain rather than the next one; the "
      "layers between become invalid (implies -d)", 0 },
    { 'd', "drop", NULL,
      "leave the overlay as it is: it is not needed any more", 0 },
    OPTION_HELP,
    { 0 },
};

/* ------------------------------------------------------------- command line */

/* -1: go on; else the exit status. */
static int take_option(const struct cli *cli, int c, void *opaque)
{
    struct commit_args *args = opaque;

    if (c != 'b' && c != 'd')
        return job_option(cli, c, &args->job);
    args->drop = true;          /* with a base the top stays valid that way */
    if (c == 'b')
        args->base = optarg;
    return -1;
}

/* --------------------------------------------------------------- committing */

/* What will not read as before, named before anything is done. */
static void note(struct notices *notices, struct lam_image *image,
                 unsigned depth)
{
    layers_note_changed(notices, image, depth);
    layers_note_invalid(notices, image, depth);
    layers_note_others(notices, layers_at(image, depth),
                       layers_at(image, depth - 1));
}

/* With -d the overlay is only read; but what contradicts itself is written
 * nowhere. */
static int refuse_corrupt(const struct cli *cli, const struct commit_args *args,
                          struct lam_image *image)
{
    struct lam_image_info *info;

    if (!args->drop || lam_image_info(image, &info, NULL) < 0)
        return 0;
    bool corrupt = info->corrupt;
    lam_image_info_free(info);
    if (!corrupt)
        return 0;
    cli_error(cli, "Could not open '%s': qcow2: Image is corrupt; cannot be "
              "opened read/write", args->job.filename);
    return -EUCLEAN;
}

static int commit(const struct cli *cli, void *opaque, struct lam_image *image)
{
    struct commit_args *args = opaque;
    struct lam_commit_options options = LAM_COMMIT_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    bool chain = lam_image_backing(image);
    int rc = refuse_corrupt(cli, args, image);

    if (rc < 0)
        return rc;
    job_show(&args->job);
    if (job_find_base(cli, &args->job, image, args->base, &options.depth) < 0)
        return -EINVAL;
    if (!cli->as_qemu && chain)
        note(&args->job.notices, image, options.depth);
    options.keep = args->drop;
    job_begin(cli, &args->job, &options.job);
    rc = lam_image_commit(image, &options, &err);
    if (rc == 0 && options.depth <= 1)
        settled_note(image);
    if (rc < 0)
        cli_report(cli, &err);
    return rc;
}

static int run_commit(const struct cli *cli, int argc, char **argv)
{
    struct commit_args args = { .base = NULL };
    int status = command_parse(cli, &command_commit, argc, argv, take_option,
                               &args);

    if (status < 0)
        status = job_operand(cli, argc, argv, &args.job);
    if (status >= 0)
        return status;
    return job_run(cli, &args.job,
                   LAM_OPEN_UNMAP | (args.drop ? 0 : LAM_OPEN_WRITE), commit,
                   &args, "Image committed.");
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
    .genuine =
        "help quiet object format image-opts cache drop base progress rate",
    .notes =
        "A backing file that is smaller grows first.  Other overlays of the "
        "file that is written to do not read as before.  Interrupted at any "
        "moment, the overlay reads the same, and running the command again "
        "finishes.",
    .examples =
        "overlay.qcow2\n"
        "-b base.qcow2 -p top.qcow2\n",
};
