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

/* qemu-img has these words for it, and no name. */
static void report_snapshot(const struct convert *c,
                            const struct lam_error *err)
{
    static const char no_snapshots[] = "Format driver '";
    const char *format = strstr(err->message, no_snapshots);

    if (c->cli->as_qemu && strstr(err->message, "Failed to load snapshot"))
        cli_error(c->cli, "Failed to load snapshot: Can't find snapshot");
    else if (c->cli->as_qemu && format) {
        format += strlen(no_snapshots);
        cli_error(c->cli, "Failed to load snapshot: Block format '%.*s' used "
                  "by device '' does not support temporarily loading internal "
                  "snapshots", (int)strcspn(format, "'"), format);
    } else {
        cli_report(c->cli, err);
    }
}

static char *matching_id(const struct convert *c,
                         const struct lam_image_info *info)
{
    const char *id = keyvals_get(&c->args.snapshot_options, "snapshot.id");
    const char *name = keyvals_get(&c->args.snapshot_options, "snapshot.name");

    for (size_t i = 0; i < info->nb_snapshots; i++) {
        const struct lam_snapshot_info *s = &info->snapshots[i];
        if ((!id || !strcmp(s->id, id)) && (!name || !strcmp(s->name, name)))
            return strdup(s->id);
    }
    return NULL;
}

/*
 * "-l snapshot.id=ID,snapshot.name=NAME" is the one that has both; the library
 * takes either.  Its id goes to *@id, owned by the caller, and to @options.
 */
static int resolve_snapshot(const struct convert *c, const char *name,
                            struct lam_open_options *options, char **id,
                            struct lam_error *err)
{
    struct lam_open_options header = *options;
    struct lam_image_info *info = NULL;
    struct lam_image *image = NULL;

    if (!c->args.snapshot_options.count)
        return 0;
    header.snapshot = NULL;
    header.flags |= LAM_OPEN_METADATA;
    int rc = lam_image_open(name, &header, &image, err);
    if (rc == 0)
        rc = lam_image_info(image, &info, err);
    /* Where there is none at all, the library says why. */
    bool has_some = rc == 0 && info->nb_snapshots;
    if (has_some)
        *id = matching_id(c, info);
    lam_image_info_free(info);
    lam_image_close(image, NULL);
    if (rc < 0 || !has_some)
        return rc;
    if (!*id)
        rc = option_fail(err, ENOENT, "Could not open '%s': Failed to load "
                         "snapshot: Can't find snapshot '%s'", name,
                         c->args.snapshot);
    options->snapshot = *id;
    return rc;
}

static int open_source(struct convert *c, const char *name,
                       struct lam_image **image)
{
    const struct source_options *source = &c->args.source;
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    char *id = NULL;

    if (!c->args.snapshot)
        return source_open(c->cli, name, source, 0, image);
    options.format = source->format;
    options.keyring = c->cli->keyring;
    options.throttles = c->cli->throttles;
    options.snapshot = c->args.snapshot;
    options.l2_cache_size = source->l2_cache_size;
    options.policy = source->untrusted ? LAM_POLICY_NONE : LAM_POLICY_TRUST;
    if (source->image_opts)
        options.flags |= LAM_OPEN_IMAGE_OPTS;
    if (source->force_share)
        options.flags |= LAM_OPEN_FORCE_SHARE;
    if (source->cache &&
        lam_cache_mode_parse(source->cache, &options.cache, NULL) < 0) {
        cli_error(c->cli, "Invalid source cache option: %s", source->cache);
        return -EINVAL;
    }
    int rc = resolve_snapshot(c, name, &options, &id, &err);
    if (rc == 0)
        rc = lam_image_open(name, &options, image, &err);
    if (rc < 0)
        report_snapshot(c, &err);
    free(id);
    return rc;
}

static int open_sources(struct convert *c)
{
    if (c->args.snapshot && c->args.nb_sources > 1) {
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
        int rc = open_source(c, c->args.sources[i], &c->sources[i]);
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
