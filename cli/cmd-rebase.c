/* SPDX-License-Identifier: MIT */
/*
 * cmd-rebase.c - `rebase`: another backing file for an image.
 */
#include <errno.h>
#include <stdlib.h>

#include "job-option.h"
#include "print.h"
#include "settled.h"

struct rebase_args {
    struct job_args job;
    const char *backing, *format, *backing_cache;
    bool unsafe, compress, share;
};

static const struct command_option option_rows[] = {
    { 'b', "backing", "BACKING",
      "the new backing file, named as the image is to name it; \"\": none, "
      "all is copied", 0 },
    { 'F', "backing-format", "FMT", "its format", 0 },
    { 'u', "backing-unsafe", NULL,
      "change the name only: the new backing file reads as the old one, or "
      "nobody cares", 0 },
    { 'c', "compress", NULL, "store compressed what is copied", 0 },
    JOB_OPTIONS,
    { 'T', "backing-cache", "CACHE",
      "cache mode of the backing files (writeback)", 0 },
    { 'U', "force-share", NULL, "open the new backing file without locks", 0 },
    OPTION_HELP,
    { 0 },
};

/* ------------------------------------------------------------- command line */

/* -1: go on; else the exit status. */
static int take_option(const struct cli *cli, int c, void *opaque)
{
    struct rebase_args *args = opaque;

    switch (c) {
    case 'b':
        args->backing = optarg;
        return -1;
    case 'F':
        args->format = optarg;
        return -1;
    case 'T':
        args->backing_cache = optarg;
        return -1;
    case 'u':
        args->unsafe = true;
        return -1;
    case 'c':
        args->compress = true;
        return -1;
    case 'U':                   /* of the backing file, not of the image */
        args->share = true;
        return -1;
    default:
        return job_option(cli, c, &args->job);
    }
}

static int parse_args(const struct cli *cli, int argc, char **argv,
                      struct rebase_args *args)
{
    int status = command_parse(cli, &command_rebase, argc, argv, take_option,
                               args);

    if (status < 0)
        status = source_operand(cli, argc, argv, &args->job.source,
                                &args->job.filename);
    if (status < 0 && !args->unsafe && !args->backing)
        return cli_usage(cli, "Must specify backing file (-b) or use unsafe "
                         "mode (-u)");
    return status;
}

static int check_caches(const struct cli *cli, const struct rebase_args *args)
{
    int status = job_check_cache(cli, "cache", args->job.source.cache);

    return status >= 0 ? status : job_check_cache(cli, "source cache",
                                                  args->backing_cache);
}

/* ----------------------------------------------------------------- rebasing */

static void set_options(const struct cli *cli, const struct rebase_args *args,
                        struct lam_rebase_options *o)
{
    bool none = !args->backing || !*args->backing;

    o->backing_file = none ? NULL : args->backing;
    o->backing_format = none ? NULL : args->format;
    o->unsafe = args->unsafe;
    o->compress = args->compress;
    o->open.keyring = cli->keyring;
    o->open.throttles = cli->throttles;
    o->open.policy = args->job.source.untrusted ? LAM_POLICY_NONE
                                            : LAM_POLICY_TRUST;
    if (args->share)
        o->open.flags |= LAM_OPEN_FORCE_SHARE;
    if (!cli->as_qemu)
        o->open.flags |= LAM_OPEN_NAME_LAYERS;
    if (args->backing_cache)
        lam_cache_mode_parse(args->backing_cache, &o->open.cache, NULL);
}

/* Of what the header names, which is not open; 0: unknown. */
static uint64_t named_size(const struct cli *cli, struct lam_image *image)
{
    struct lam_open_options open = LAM_OPEN_OPTIONS_INIT;
    struct lam_image_info *info;
    struct lam_image *below;
    uint64_t size = 0;

    if (lam_image_info(image, &info, NULL) < 0)
        return 0;
    open.format = info->backing_format;
    open.flags = LAM_OPEN_METADATA | LAM_OPEN_FORCE_SHARE;
    open.keyring = cli->keyring;
    if (info->full_backing_filename &&
        lam_image_open(info->full_backing_filename, &open, &below, NULL) == 0) {
        size = lam_image_size(below);
        lam_image_close(below, NULL);
    }
    lam_image_info_free(info);
    return size;
}

/* Nothing is wrong with that, but few mean it. */
static void warn_of_size(const struct cli *cli, const struct rebase_args *args,
                         struct lam_image *image)
{
    struct lam_image *backing = lam_image_backing(image);
    uint64_t size = lam_image_size(image);
    uint64_t below = args->unsafe ? named_size(cli, image)
                   : backing ? lam_image_size(backing) : 0;
    char a[32], b[32];

    if (below && below != size)
        cli_warning(cli, "the new backing file '%s' is %s than '%s': %s, and "
                    "not %s", args->backing, below < size ? "shorter"
                    : "longer", args->job.filename, human_size(below, a),
                    human_size(size, b));
}

static int rebase(const struct cli *cli, void *opaque, struct lam_image *image)
{
    struct rebase_args *args = opaque;
    struct lam_rebase_options options = LAM_REBASE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    if (args->format && !format_name_known(args->format)) {
        cli_error(cli, "Invalid format name: '%s'", args->format);
        return -EINVAL;
    }
    set_options(cli, args, &options);
    if (!cli->as_qemu)
        layers_note_changed(&args->job.notices, image, LAM_DEPTH_ALL);
    job_begin(cli, &args->job, &options.job);
    int rc = lam_image_rebase(image, &options, &err);
    if (rc == 0 && !args->unsafe)
        settled_note(image);
    if (rc == 0 && !cli->as_qemu && options.backing_file)
        warn_of_size(cli, args, image);
    if (rc < 0)
        cli_report(cli, &err);
    return rc;
}

static int run_rebase(const struct cli *cli, int argc, char **argv)
{
    struct rebase_args args = { .backing = NULL };
    int status = parse_args(cli, argc, argv, &args);

    if (status >= 0)
        return status;
    job_show(&args.job);
    status = check_caches(cli, &args);
    if (status >= 0) {
        job_hide(&args.job, false);
        return status;
    }
    unsigned flags = LAM_OPEN_WRITE | LAM_OPEN_UNMAP |
                     (args.unsafe ? LAM_OPEN_NO_BACKING : 0);
    return job_run(cli, &args.job, flags, rebase, &args, NULL);
}

const struct command command_rebase = {
    .name = "rebase",
    .run = run_rebase,
    .summary = "Give an image another backing file",
    .synopsis =
        "[-f FMT | --image-opts] [-t CACHE] [-q] [-U] [-p] [-b BACKING [-F "
        "BACKING_FMT] [-T BACKING_CACHE]] [-u] [-c] FILENAME",
    .about =
        "Give an image another backing file; it reads the same afterwards.",
    .options = option_rows,
    .genuine =
        "help quiet progress object image-opts force-share format cache "
        "compress backing backing-format backing-cache backing-unsafe",
    .notes =
        "Only what differs between the old and the new backing file is "
        "copied into the image, and layers that both have are not even "
        "compared.  Interrupted at any moment, the image reads the same, and "
        "running the command again finishes.",
    .examples =
        "-b base.qcow2 -F qcow2 overlay.qcow2\n"
        "-b '' overlay.qcow2\n"
        "-u -b new/place/base.qcow2 -F qcow2 overlay.qcow2\n",
};
