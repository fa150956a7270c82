/* SPDX-License-Identifier: MIT */
/*
 * job-option.c - what commit, rebase and stream have in common.
 */
#include <errno.h>
#include <inttypes.h>

#include "interrupt.h"
#include "job-option.h"
#include "progress.h"

static int take_rate(const struct cli *cli, uint64_t *rate)
{
    int rc = parse_size(optarg, rate, NULL);

    if (rc == 0)
        return -1;
    if (rc == -ERANGE)
        cli_error(cli, "Invalid rate limit specified. Must be between 0 and "
                  "%" PRId64 ".", INT64_MAX);
    else
        cli_error(cli, "Invalid rate limit specified: '%s'.", optarg);
    return 1;
}

int job_option(const struct cli *cli, int key, struct job_args *args)
{
    switch (key) {
    case 't':
        args->source.cache = optarg;
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
        return source_option(cli, key, &args->source);
    }
}

int job_check_cache(const struct cli *cli, const char *what, const char *name)
{
    enum lam_cache_mode mode;

    if (!name || lam_cache_mode_parse(name, &mode, NULL) == 0)
        return -1;
    cli_error(cli, "Invalid %s option: %s", what, name);
    return 1;
}

int job_operand(const struct cli *cli, int argc, char **argv,
                struct job_args *args)
{
    int status = source_operand(cli, argc, argv, &args->source,
                                &args->filename);

    return status >= 0 ? status
                       : job_check_cache(cli, "cache", args->source.cache);
}

int job_find_base(const struct cli *cli, const struct job_args *args,
                  struct lam_image *image, const char *base, unsigned *depth)
{
    if (!base)
        return 0;
    *depth = layers_find(image, base);
    if (*depth)
        return 0;
    cli_error(cli, "Did not find '%s' in the backing chain of '%s'", base,
              args->filename);
    return -EINVAL;
}

void job_show(struct job_args *args)
{
    if (!args->shown)
        args->shown = progress_begin(args->progress && !args->quiet);
}

void job_hide(struct job_args *args, bool success)
{
    progress_end(args->shown, success);
    args->shown = NULL;
}

/* What stands in the way of a job is one line, without warnings before it; so
 * these come with the first progress, before anything is copied. */
static void on_progress(void *opaque, uint64_t done, uint64_t total)
{
    struct job_args *args = opaque;

    notices_tell(args->cli, &args->notices);
    progress_update(args->shown, done, total);
}

void job_begin(const struct cli *cli, struct job_args *args,
               struct lam_job_options *options)
{
    job_show(args);
    args->cli = cli;
    options->rate = args->rate;
    options->cancel = interrupt_catch();
    options->progress = on_progress;
    options->progress_opaque = args;
}

static int run_image(const struct cli *cli, struct job_args *args,
                     unsigned flags, job_fn *run, void *opaque)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;

    int rc = source_open(cli, args->filename, &args->source, flags, &image);
    if (rc < 0)
        return rc;
    warn_guessed(image);
    rc = run(cli, opaque, image);
    int closed = lam_image_close(image, &err);
    if (closed < 0 && rc == 0) {
        cli_report(cli, &err);
        rc = closed;
    }
    return rc;
}

int job_run(const struct cli *cli, struct job_args *args, unsigned flags,
            job_fn *run, void *opaque, const char *done)
{
    int rc = run_image(cli, args, flags, run, opaque);

    notices_deinit(&args->notices);
    job_hide(args, rc == 0);
    if (rc == 0 && done && !args->quiet)
        puts(done);
    return cli_finish_change(cli, interrupt_status(rc));
}
