/* SPDX-License-Identifier: MIT */
/*
 * cmd-compare.c - `compare`: does a guest see the same in two images?
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "interrupt.h"
#include "progress.h"
#include "source-option.h"

enum {
    STATUS_EQUAL = 0, STATUS_DIFFERENT = 1, STATUS_ERROR = 2,
    STATUS_MAP_FAILED = 3, STATUS_READ_FAILED = 4,
};

struct compare_args {
    const char *filename[2];
    const char *format[2];
    struct source_options source;   /* but for the format */
    bool strict, progress, quiet;
};

static const struct command_option option_rows[] = {
    { 'f', "a-format", "FMT",
      "format of FILENAME1 (default: look at the file)", 0 },
    { 'f', "left-format", "FMT", NULL, 0 },
    { 'F', "b-format", "FMT",
      "format of FILENAME2 (default: look at the file)", 0 },
    { 'F', "right-format", "FMT", NULL, 0 },
    OPTION_IMAGE_OPTS,
    OPTION_OBJECT,
    OPTION_UNTRUSTED,
    OPTION_CACHE('T'),
    { 's', "strict", NULL, "sizes and allocation must be equal as well", 0 },
    OPTION_PROGRESS,
    OPTION_QUIET,
    OPTION_SHARE,
    OPTION_HELP,
    { 0 },
};

/* -1: go on; else the exit status. */
static int take_option(const struct cli *cli, int key, void *opaque)
{
    struct compare_args *args = opaque;
    int status;

    switch (key) {
    case 'f':
        args->format[0] = optarg;
        return -1;
    case 'F':
        args->format[1] = optarg;
        return -1;
    case 'T':
        args->source.cache = optarg;
        return -1;
    case 's':
        args->strict = true;
        return -1;
    case 'p':
        args->progress = true;
        return -1;
    case 'q':
        args->quiet = true;
        return -1;
    default:
        status = source_option(cli, key, &args->source);
        return status > 0 ? STATUS_ERROR : status;
    }
}

static int parse_args(const struct cli *cli, int argc, char **argv,
                      struct compare_args *args)
{
    int status = command_parse(cli, &command_compare, argc, argv, take_option,
                               args);

    if (status >= 0)
        return status;
    if (optind != argc - 2)
        return cli_usage(cli, "Expecting two image file names");
    args->filename[0] = argv[optind];
    args->filename[1] = argv[optind + 1];
    if (args->source.image_opts && (args->format[0] || args->format[1])) {
        cli_error(cli, "--image-opts and --format are mutually exclusive");
        return STATUS_ERROR;
    }
    return -1;
}

static void say(const struct compare_args *args, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static void say(const struct compare_args *args, const char *fmt, ...)
{
    va_list ap;

    if (args->quiet)
        return;
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
}

static int print_verdict(const struct compare_args *args,
                         const struct lam_compare_result *result)
{
    if (result->sizes_differ && !args->strict &&
        (result->verdict == LAM_COMPARE_EQUAL || result->beyond_end))
        say(args, "Warning: Image size mismatch!\n");
    switch (result->verdict) {
    case LAM_COMPARE_EQUAL:
        say(args, "Images are identical.\n");
        return STATUS_EQUAL;
    case LAM_COMPARE_CONTENT:
        say(args, "Content mismatch at offset %" PRIu64 "!\n", result->offset);
        return STATUS_DIFFERENT;
    case LAM_COMPARE_SIZE:
        say(args, "Strict mode: Image size mismatch!\n");
        return STATUS_DIFFERENT;
    case LAM_COMPARE_ALLOCATION:
        say(args, "Strict mode: Offset %" PRIu64 " block status mismatch!\n",
            result->offset);
        return STATUS_DIFFERENT;
    }
    return STATUS_ERROR;
}

static int print_failure(const struct cli *cli, const struct compare_args *args,
                         const struct lam_compare_result *result,
                         const struct lam_error *err)
{
    if (!result->failed_image) {
        cli_report(cli, err);
        return STATUS_ERROR;
    }
    const char *name = args->filename[result->failed_image - 1];
    if (result->failed_mapping) {
        cli_error(cli, "Sector allocation test failed for %s: %s", name,
                  err->message);
        return STATUS_MAP_FAILED;
    }
    cli_error(cli, "Error while reading offset %" PRIu64 " of %s: %s",
              result->offset, name, err->message);
    return STATUS_READ_FAILED;
}

static int compare(const struct cli *cli, const struct compare_args *args,
                   struct lam_image *a, struct lam_image *b)
{
    struct lam_compare_result result;
    struct lam_error err = LAM_ERROR_INIT;

    interrupt_explain(cli, "the images were not compared to the end");
    struct progress *progress = progress_begin(args->progress && !args->quiet);
    int rc = lam_image_compare(a, b, args->strict ? LAM_COMPARE_STRICT : 0,
                               progress_update, progress, &result, &err);
    bool equal = rc == 0 && result.verdict == LAM_COMPARE_EQUAL;

    if (equal)
        progress_full(progress);
    int status = rc < 0 ? print_failure(cli, args, &result, &err)
                        : print_verdict(args, &result);
    progress_end(progress, equal);
    return status;
}

static int run_compare(const struct cli *cli, int argc, char **argv)
{
    struct compare_args args = { .quiet = false };
    struct lam_image *image[2] = { NULL, NULL };
    int status = parse_args(cli, argc, argv, &args), rc = 0;

    if (status >= 0)
        return status;
    for (int i = 0; i < 2 && rc == 0; i++) {
        args.source.format = args.format[i];
        rc = source_open(cli, args.filename[i], &args.source, 0, &image[i]);
    }
    status = rc < 0 ? STATUS_ERROR : compare(cli, &args, image[0], image[1]);
    /* What ends a line that was never begun is printed by qemu-img, too. */
    if (rc < 0 && args.progress && !args.quiet)
        putchar('\n');
    lam_image_close(image[1], NULL);
    lam_image_close(image[0], NULL);
    /* 1 would say that they differ. */
    return cli_finish(cli, status) == status ? status : STATUS_ERROR;
}

const struct command command_compare = {
    .name = "compare",
    .run = run_compare,
    .summary = "Check if two images have the same contents",
    .synopsis =
        "[-f FMT] [-F FMT] [--image-opts] [-T CACHE] [-s] [-p] [-q] [-U] "
        "FILENAME1 FILENAME2",
    .options = option_rows,
    .genuine =
        "help quiet object cache image-opts a-format left-format b-format "
        "right-format force-share strict progress",
    .notes =
        "The shorter image counts as filled up with zeroes, unless -s is "
        "given. A mismatch is told by the offset of its first 512-byte "
        "sector.",
    .status =
        "0 identical; 1 different, or called wrong; 2 an image cannot be "
        "opened, or another error; 3 the map of an image cannot be read; 4 "
        "its data cannot.",
    .examples =
        "-q disk.raw disk.qcow2\n"
        "-f raw -F qcow2 /dev/vg/volume backup.qcow2\n",
};
