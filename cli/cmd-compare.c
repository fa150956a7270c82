/* SPDX-License-Identifier: MIT */
/*
 * cmd-compare.c - `compare`: does a guest see the same in two images?
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "option.h"
#include "progress.h"

static const char synopsis[] =
    "compare [-f FMT] [-F FMT] [--image-opts] [-T CACHE] [-s] [-p] [-q]\n"
    "        [-U] FILENAME1 FILENAME2";

static const char help[] =
    "Check if two images have the same contents.\n\n"
    "Options:\n"
    "  -f, --a-format FMT   format of FILENAME1 (default: look at the file)\n"
    "  -F, --b-format FMT   format of FILENAME2 (default: look at the file)\n"
    "      --image-opts     the names are lists "
    "\"driver=...,file.filename=...\"\n"
    "  -T, --cache MODE     none, writeback (default), writethrough,\n"
    "                       directsync or unsafe\n"
    "  -s, --strict         sizes and allocation must be equal as well\n"
    "  -p, --progress       show progress\n"
    "  -q, --quiet          print nothing but errors\n"
    "  -U, --force-share    take no lock: the images may be in use\n"
    "      --untrusted      open no file that an image's header names\n"
    "  -h, --help           print this help\n\n"
    "The shorter image counts as filled up with zeroes, unless -s is given.\n"
    "A mismatch is told by the offset of its first 512-byte sector.\n\n"
    "Exit status: 0 identical; 1 different; 2 an image cannot be opened, or\n"
    "another error; 3 the map of an image cannot be read; 4 its data cannot.\n\n"
    "Example:\n"
    "  compare -f raw -F qcow2 /dev/vg/volume backup.qcow2\n";

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

enum { OPT_OBJECT = 256, OPT_IMAGE_OPTS, OPT_UNTRUSTED };

static const struct option long_options[] = {
    { "help", no_argument, NULL, 'h' },
    { "quiet", no_argument, NULL, 'q' },
    { "progress", no_argument, NULL, 'p' },
    { "a-format", required_argument, NULL, 'f' },
    { "b-format", required_argument, NULL, 'F' },
    { "strict", no_argument, NULL, 's' },
    { "cache", required_argument, NULL, 'T' },
    { "force-share", no_argument, NULL, 'U' },
    { "image-opts", no_argument, NULL, OPT_IMAGE_OPTS },
    { "object", required_argument, NULL, OPT_OBJECT },
    { "untrusted", no_argument, NULL, OPT_UNTRUSTED },
    { NULL, 0, NULL, 0 },
};

/* The switches; false if @c is not one of them. */
static bool take_switch(int c, struct compare_args *args)
{
    switch (c) {
    case 'q':
        return args->quiet = true;
    case 'p':
        return args->progress = true;
    case 's':
        return args->strict = true;
    case 'U':
        return args->source.force_share = true;
    case OPT_IMAGE_OPTS:
        return args->source.image_opts = true;
    case OPT_UNTRUSTED:
        return args->source.untrusted = true;
    default:
        return false;
    }
}

/* -1: go on; else the exit status. */
static int take_option(const struct cli *cli, int c, struct compare_args *args)
{
    struct lam_error err = LAM_ERROR_INIT;

    switch (c) {
    case 'h':
        return cli_help(cli, synopsis, help);
    case 'f':
        args->format[0] = optarg;
        return -1;
    case 'F':
        args->format[1] = optarg;
        return -1;
    case 'T':
        args->source.cache = optarg;
        return -1;
    case OPT_OBJECT:
        if (object_option(cli, optarg, &err) == 0)
            return -1;
        cli_report(cli, &err);
        return STATUS_ERROR;
    case '?':
        return cli_try_help(cli);
    default:
        take_switch(c, args);
        return -1;
    }
}

static int parse_args(const struct cli *cli, int argc, char **argv,
                      struct compare_args *args)
{
    int c;

    while ((c = getopt_long(argc, argv, "hqpf:F:sT:U", long_options, NULL)) !=
           -1) {
        int status = take_option(cli, c, args);
        if (status >= 0)
            return status;
    }
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

int cmd_compare(const struct cli *cli, int argc, char **argv)
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
    lam_image_close(image[1], NULL);
    lam_image_close(image[0], NULL);
    return cli_finish(cli, status);
}
