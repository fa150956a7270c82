/* SPDX-License-Identifier: MIT */
/*
 * cmd-rebase.c - `rebase`: another backing file for an image.
 */
#include <errno.h>
#include <stdlib.h>

#include "interrupt.h"
#include "progress.h"
#include "source-option.h"

struct rebase_args {
    struct source_options source;
    const char *filename;
    const char *backing, *format, *backing_cache;
    bool unsafe, compress, progress;
    uint64_t rate;
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
    SOURCE_OPTIONS,
    OPTION_CACHE('t'),
    { 'T', "backing-cache", "CACHE",
      "cache mode of the backing files (writeback)", 0 },
    OPTION_PROGRESS,
    OPTION_QUIET,
    { 'U', "force-share", NULL, "open the new backing file without locks", 0 },
    { 'r', "rate", "RATE", "bytes a second to copy at most", 0 },
    OPTION_HELP,
    { 0 },
};

/* ------------------------------------------------------------- command line */

/* What is only said.  False: something else. */
static bool take_text(int c, struct rebase_args *args)
{
    const struct { int letter; const char **text; } texts[] = {
        { 'b', &args->backing }, { 'F', &args->format },
        { 'T', &args->backing_cache }, { 't', &args->source.cache },
    };
    const struct { int letter; bool *flag; } flags[] = {
        { 'u', &args->unsafe }, { 'c', &args->compress },
        { 'p', &args->progress },
    };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (c == texts[i].letter) {
            *texts[i].text = optarg;
            return true;
        }
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        if (c == flags[i].letter) {
            *flags[i].flag = true;
            return true;
        }
    return c == 'q';            /* there is nothing to be quiet about */
}

/* -1: go on; else the exit status. */
static int take_option(const struct cli *cli, int c, void *opaque)
{
    struct rebase_args *args = opaque;

    if (take_text(c, args))
        return -1;
    if (c != 'r')
        return source_option(cli, c, &args->source);
    if (parse_size(optarg, &args->rate, NULL) == 0)
        return -1;
    cli_error(cli, "Invalid rate limit specified: '%s'.", optarg);
    return 1;
}

static int check_cache(const struct cli *cli, const char *what,
                       const char *name)
{
    enum lam_cache_mode mode;

    if (!name || lam_cache_mode_parse(name, &mode, NULL) == 0)
        return -1;
    cli_error(cli, "Invalid %s option: %s", what, name);
    return 1;
}

static int parse_args(const struct cli *cli, int argc, char **argv,
                      struct rebase_args *args)
{
    int status = command_parse(cli, &command_rebase, argc, argv, take_option,
                               args);

    if (status >= 0)
        return status;
    status = source_operand(cli, argc, argv, &args->source,
                                &args->filename);
    if (status < 0 && !args->unsafe && !args->backing)
        return cli_usage(cli, "Must specify backing file (-b) or use unsafe "
                         "mode (-u)");
    if (status < 0)
        status = check_cache(cli, "cache", args->source.cache);
    if (status < 0)
        status = check_cache(cli, "source cache", args->backing_cache);
    return status;
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
    o->open.policy = args->source.untrusted ? LAM_POLICY_NONE
                                            : LAM_POLICY_TRUST;
    if (args->source.force_share)
        o->open.flags |= LAM_OPEN_FORCE_SHARE;
    if (args->backing_cache)
        lam_cache_mode_parse(args->backing_cache, &o->open.cache, NULL);
    o->job.rate = args->rate;
    o->job.cancel = interrupt_catch();
}

static int rebase(const struct cli *cli, const struct rebase_args *args,
                  struct lam_image *image)
{
    struct lam_rebase_options options = LAM_REBASE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    if (args->format && !format_name_known(args->format)) {
        cli_error(cli, "Invalid format name: '%s'", args->format);
        return -EINVAL;
    }
    set_options(cli, args, &options);
    struct progress *progress = progress_begin(args->progress);
    options.job.progress = progress_update;
    options.job.progress_opaque = progress;
    int rc = lam_image_rebase(image, &options, &err);
    progress_end(progress, rc == 0);
    if (rc < 0)
        cli_report(cli, &err);
    return rc;
}

static int run_rebase(const struct cli *cli, int argc, char **argv)
{
    struct rebase_args args = { .filename = NULL };
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;
    int status = parse_args(cli, argc, argv, &args);

    if (status >= 0)
        return status;
    unsigned flags = LAM_OPEN_WRITE | LAM_OPEN_UNMAP |
                     (args.unsafe ? LAM_OPEN_NO_BACKING : 0);
    struct source_options source = args.source;
    source.force_share = false;
    if (source_open(cli, args.filename, &source, flags, &image) < 0)
        return 1;
    if (!args.source.format && !args.source.image_opts)
        warn_guessed(args.filename, image);
    int rc = rebase(cli, &args, image);
    int closed = lam_image_close(image, &err);
    if (closed < 0 && rc == 0) {
        cli_report(cli, &err);
        rc = closed;
    }
    return cli_finish(cli, interrupt_status(rc));
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
