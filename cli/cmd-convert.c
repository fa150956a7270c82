/* SPDX-License-Identifier: MIT */
/*
 * cmd-convert.c - `convert`: copy images to another image, device or pipe.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "convert-bitmaps.h"
#include "convert-report.h"
#include "convert-target.h"
#include "interrupt.h"
#include "print.h"

struct convert {
    const struct cli *cli;
    struct convert_args args;
    struct lam_image **sources;
    size_t nb_open;
    uint64_t size;              /* of all sources */
    struct convert_target target;
    enum target_rest rest;      /* of a target that was not finished */
    struct progress *shown;     /* before there is a report */
    struct lam_convert_options options;
};

/* ------------------------------------------------------------ sources */

/* Each table is looked at once, in order: more would hold what is not wanted
 * again. */
#define SOURCE_L2_CACHE (2 * UINT64_C(1048576))

static int open_source(struct convert *c, size_t i, struct lam_image **image)
{
    struct source_options source = c->args.source;

    if (i > 0)
        return source_open(c->cli, c->args.sources[i], &source, 0, image);
    source.snapshot = c->args.snapshot;
    return source_open_snapshot(c->cli, c->args.sources[i], &source,
                                &c->args.snapshot_options, image);
}

static int open_sources(struct convert *c)
{
    /* Named by an option, it is the first source's. */
    if (c->args.snapshot && !c->args.snapshot_options.count &&
        c->args.nb_sources > 1) {
        cli_error(c->cli, "No support for concatenating multiple snapshot");
        return -EINVAL;
    }
    c->args.source.l2_cache_size = SOURCE_L2_CACHE;
    c->sources = calloc(c->args.nb_sources, sizeof *c->sources);
    if (!c->sources) {
        cli_error(c->cli, "no memory");
        return -ENOMEM;
    }
    for (size_t i = 0; i < c->args.nb_sources; i++) {
        int rc = open_source(c, i, &c->sources[i]);
        if (rc < 0)
            return rc;
        c->nb_open++;
        c->size += lam_image_size(c->sources[i]);
    }
    return 0;
}

static void close_sources(struct convert *c)
{
    for (size_t i = 0; i < c->nb_open; i++)
        lam_image_close(c->sources[i], NULL);
    free(c->sources);
}

/* ------------------------------------------------------------ --explain */

static int explain(struct convert *c)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_thin_plan plan;
    int rc = 0;

    if (!convert_target_is_given(&c->args, &c->target)) {
        lam_convert_plan_new(&c->target.create, &c->options, &plan);
    } else {
        rc = convert_target_open_given(c->cli, &c->args, &c->target);
        if (rc < 0)
            return rc;
        rc = lam_convert_plan(c->target.image, &c->options, &plan, &err);
    }
    if (rc < 0) {
        cli_report(c->cli, &err);
        return rc;
    }
    fputs("target: ", stdout);
    print_escaped(stdout, c->target.name);
    printf("\nlimits: %s\nzeroes: %s\nreason: %s\nresult: %s\n", plan.limits,
           zero_method_text(plan.method), plan.reason,
           plan.thin ? "thin" : plan.lost_thinness
                     ? "fully allocated, although thin was asked for"
                     : "fully allocated, as asked for");
    return 0;
}

/* ------------------------------------------------------------ progress */

/* qemu-img tells that nothing is done yet before it opens anything. */
static void show_progress(struct convert *c)
{
    if (c->cli->as_qemu && c->args.progress && !c->args.progress_json &&
        strcmp(c->args.target, "/dev/stdout"))
        c->shown = progress_begin(true);
}

static struct progress *take_shown(struct convert *c)
{
    struct progress *shown = c->shown;

    c->shown = NULL;
    return shown;
}

/* ------------------------------------------------------------ to an image */

/* What was asked for and cannot be had is said, but not under a name whose
 * callers take any text for a failure. */
static void tell_lost(const struct convert *c, bool *told)
{
    struct lam_thin_plan plan;

    if (c->cli->as_qemu || *told ||
        lam_convert_plan(c->target.image, &c->options, &plan, NULL) < 0 ||
        !plan.lost_thinness)
        return;
    *told = true;
    cli_error(c->cli, "%s: %s", c->target.name, plan.reason);
}

static int check_target(struct convert *c)
{
    if (lam_image_size(c->target.image) < c->size) {
        cli_error(c->cli, "output file is smaller than input file");
        return -EINVAL;
    }
    /* qemu-img takes the promise for an overlay as well, which is none of
     * zeroes if it was made in ignorance; so it is not relied upon. */
    if (c->args.target_is_zero && lam_image_backing(c->target.image) &&
        c->cli->as_qemu && !c->args.backing_file) {
        c->options.flags &= ~(unsigned)LAM_CONVERT_TARGET_IS_ZERO;
    } else if (c->args.target_is_zero && lam_image_backing(c->target.image)) {
        cli_error(c->cli, "Cannot use --target-is-zero when the destination "
                  "image has a backing file");
        return -EINVAL;
    }
    if (c->args.compress &&
        !format_compresses(lam_image_format(c->target.image))) {
        cli_error(c->cli, "Compression not supported for this file format");
        return -EINVAL;
    }
    return 0;
}

static int verify(struct convert *c, struct report *report)
{
    struct lam_error err = LAM_ERROR_INIT;

    report_verify(report, &c->options);
    int rc = convert_target_reopen(c->cli, &c->args, &c->target);
    if (rc < 0)
        return rc;
    rc = lam_convert_verify(c->sources, c->nb_open, c->target.image,
                            &c->options, &err);
    if (rc < 0 && rc != -ECANCELED)
        cli_report(c->cli, &err);
    return rc;
}

static int copy(struct convert *c)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_convert_result result = { 0 };
    struct lam_thin_plan plan;
    struct report report;
    bool told = false;

    int rc = check_target(c);
    if (rc == 0)
        rc = convert_bitmaps_check_target(c->cli, &c->args, c->sources[0],
                                          c->target.image);
    if (rc < 0)
        return rc;
    tell_lost(c, &told);
    report_begin(&report, c->cli, &c->args, false, take_shown(c), &c->options);
    rc = lam_convert(c->sources, c->nb_open, c->target.image, &c->options,
                     &result, &err);
    bool planned = lam_convert_plan(c->target.image, &c->options, &plan,
                                    NULL) == 0;
    if (rc < 0 && rc != -ECANCELED)
        cli_report(c->cli, &err);
    if (rc == 0)
        rc = convert_bitmaps_copy(c->cli, &c->args, c->sources[0],
                                  c->target.image);
    if (rc == 0)
        tell_lost(c, &told);    /* what only trying has shown */
    if (rc == 0 && c->args.verify)
        rc = verify(c, &report);
    report_end(&report, rc, &result, planned ? &plan : NULL);
    return rc;
}

static int convert_to_image(struct convert *c)
{
    int rc = convert_target_init(c->cli, &c->args, c->size, &c->target);
    if (rc == 0)
        rc = convert_target_distinct(c->cli, &c->target, c->sources,
                                     c->nb_open);
    if (rc == 0 && !c->args.no_create)
        c->options.flags |= LAM_CONVERT_NEW_TARGET;
    if (rc == 0 && c->args.backing_file)
        c->options.flags |= LAM_CONVERT_TARGET_HAS_BACKING;
    if (rc == 0 && c->args.explain) {
        rc = explain(c);
    } else if (rc == 0) {
        rc = convert_target_open(c->cli, &c->args, &c->target);
        if (rc == 0)
            rc = copy(c);
    }
    return convert_target_end(c->cli, &c->args, &c->target, rc, &c->rest);
}

/* ------------------------------------------------------------ to a stream */

/* The descriptor of a target that is no disk: standard output, a FIFO, a
 * terminal, a socket.  -1: it is a file or a device. */
static int stream_descriptor(const struct convert *c)
{
    const char *name = c->args.target;
    struct stat st;

    if (c->args.target_image_opts || c->args.no_create)
        return -1;
    if (!strcmp(name, "-") && !c->cli->as_qemu)
        return STDOUT_FILENO;
    if (!strcmp(name, "/dev/stdout") && fstat(STDOUT_FILENO, &st) == 0 &&
        !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
        return STDOUT_FILENO;
    if (stat(name, &st) < 0 || !S_ISFIFO(st.st_mode))
        return -1;
    return open(name, O_WRONLY | O_CLOEXEC);
}

static int convert_to_stream(struct convert *c, int fd)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_convert_result result = { 0 };
    struct report report;

    if (strcmp(c->args.format, "raw") || c->args.compress ||
        c->args.create.count || c->args.backing_file || c->args.explain ||
        c->args.bitmaps || c->args.verify || c->args.journal) {
        cli_error(c->cli, "%s: only a plain raw image can be written to a pipe",
                  c->args.target);
        return -EINVAL;
    }
    report_begin(&report, c->cli, &c->args, fd == STDOUT_FILENO, take_shown(c),
                 &c->options);
    int rc = lam_convert_to_fd(c->sources, c->nb_open, fd, &c->options,
                               &result, &err);
    report_end(&report, rc, &result, NULL);
    c->rest = TARGET_INCOMPLETE;    /* unless all is well */
    if (rc < 0 && rc != -ECANCELED)
        cli_report(c->cli, &err);
    if (fd != STDOUT_FILENO && close(fd) < 0 && rc == 0) {
        cli_error(c->cli, "%s: %s", c->args.target, strerror(errno));
        rc = -EIO;
    }
    return rc;
}

/* ------------------------------------------------------------ the command */

static void set_options(struct convert *c)
{
    const struct { bool given; unsigned flag; } flags[] = {
        { c->args.compress, LAM_CONVERT_COMPRESS },
        { c->args.target_is_zero, LAM_CONVERT_TARGET_IS_ZERO },
        { c->args.no_sync, LAM_CONVERT_NO_SYNC },
        { c->args.strict_cache, LAM_CONVERT_STRICT_CACHE },
        { c->args.out_of_order, LAM_CONVERT_OUT_OF_ORDER },
        { c->args.offload, LAM_CONVERT_OFFLOAD },
        { c->args.salvage, LAM_CONVERT_SALVAGE },
    };

    c->options = (struct lam_convert_options)LAM_CONVERT_OPTIONS_INIT;
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        if (flags[i].given)
            c->options.flags |= flags[i].flag;
    c->options.sparse_size = c->args.sparse_size;
    c->options.requests = c->args.requests;
    c->options.rate = c->args.rate;
    c->options.digest = c->args.digest;
    c->options.journal = c->args.journal;
    c->options.cancel = interrupt_catch();
    signal(SIGPIPE, SIG_IGN);   /* writing to a closed pipe is an error */
}

static int run(struct convert *c)
{
    set_options(c);
    show_progress(c);
    int rc = open_sources(c);
    if (rc == 0)
        rc = convert_bitmaps_check_source(c->cli, &c->args, c->sources[0]);
    if (rc == 0) {
        int fd = stream_descriptor(c);
        rc = fd >= 0 ? convert_to_stream(c, fd) : convert_to_image(c);
    }
    close_sources(c);
    progress_end(take_shown(c), false);
    return rc;
}

static int run_convert(const struct cli *cli, int argc, char **argv)
{
    struct convert c = { .cli = cli };

    int status = convert_args_parse(cli, argc, argv, &c.args);
    if (status < 0) {
        int rc = run(&c);
        status = interrupt_end(cli, rc, "'%s' %s", c.args.target,
                               target_rest_text(c.rest));
        if (rc == 0)
            status = cli_finish_change(cli, 0);
    }
    convert_args_deinit(&c.args);
    return status;
}

const struct command command_convert = {
    .name = "convert",
    .run = run_convert,
    .summary = "Copy images to another image or device, thin",
    .synopsis =
        "[-f FMT | --image-opts] [-T CACHE] [-U] [-l SNAPSHOT] [-O FMT | "
        "--target-image-opts] [-o OPTIONS] [-t CACHE] [-n] [-B FILE [-F "
        "FMT]] [-c] [-S SIZE] [-m N] [-r RATE] [-p] [-q] [--salvage] "
        "[--digest NAME] [--verify] ... SOURCE [SOURCE ...] TARGET",
    .about =
        "Copy the guest contents of SOURCE (several: one after another) to "
        "TARGET.  What is known to be zero is not read, and is given as "
        "little space as the target allows.  Exit status 0 means that the "
        "target is on disk.",
    .options = convert_options,
    .genuine =
        "help quiet object image-opts source-image-opts source-format "
        "source-cache snapshot sparse-size output-format options "
        "output-cache backing backing-format force-share target-image-opts "
        "salvage target-is-zero bitmaps skip-broken-bitmaps rate parallel "
        "oob-writes copy-range-offloading",
    .notes =
        "TARGET may be a block device (with -n), a FIFO, /dev/stdout, or - "
        "for standard output (raw only; called as qemu-img, - is a file).  A "
        "target that this command created is removed if it fails.",
    .examples =
        "-n -t none -O raw overlay.qcow2 /dev/vg/volume\n"
        "-c -O qcow2 -o compression_type=zstd disk.raw disk.qcow2\n"
        "--explain -n -t none overlay.qcow2 /dev/vg/volume\n",
};
