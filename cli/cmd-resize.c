/* SPDX-License-Identifier: MIT */
/*
 * cmd-resize.c - `resize`: another virtual size.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "source-option.h"

struct resize_args {
    struct source_options source;
    const char *filename;
    const char *size;
    enum lam_preallocation preallocation;
    bool shrink, quiet, extra;
    char **argv;
};

enum { OPT_PREALLOCATION = OPT_OWN, OPT_SHRINK };

static const struct command_option option_rows[] = {
    SOURCE_OPTIONS,
    { OPT_SHRINK, "shrink", NULL,
      "allow a smaller size: what lies behind the new end is lost", 0 },
    { OPT_PREALLOCATION, "preallocation", "MODE",
      "what is stored for a new area: off (default), metadata (qcow2), "
      "falloc or full", 0 },
    OPTION_QUIET,
    OPTION_HELP,
    { 0 },
};

/* ------------------------------------------------------------- command line */

/* FILENAME, then SIZE. */
static void take_word(struct resize_args *args, const char *word)
{
    if (!args->filename)
        args->filename = word;
    else if (!args->size)
        args->size = word;
    else
        args->extra = true;
}

/* "-1G" behind the file name is no option. */
static bool is_negative(const char *word)
{
    return word && word[0] == '-' && word[1] >= '0' && word[1] <= '9';
}

/* An operand among the options; "-1G" behind it is no option. */
static void take_operand(struct resize_args *args, const char *word)
{
    take_word(args, word);
    if (!args->size && is_negative(args->argv[optind]))
        args->size = args->argv[optind++];
}

/* -1: go on; else the exit status. */
static int take_option(const struct cli *cli, int c, void *opaque)
{
    struct resize_args *args = opaque;

    switch (c) {
    case 1:
        take_operand(args, optarg);
        return -1;
    case 'q':
        args->quiet = true;
        return -1;
    case OPT_PREALLOCATION:
        if (preallocation_parse(optarg, &args->preallocation) == 0)
            return -1;
        cli_error(cli, "Invalid preallocation mode '%s'", optarg);
        return 1;
    case OPT_SHRINK:
        args->shrink = true;
        return -1;
    default:
        return source_option(cli, c, &args->source);
    }
}

static int parse_args(const struct cli *cli, int argc, char **argv,
                      struct resize_args *args)
{
    args->argv = argv;
    int status = command_parse(cli, &command_resize, argc, argv, take_option,
                               args);

    if (status >= 0)
        return status;
    while (optind < argc)
        take_word(args, argv[optind++]);
    if (args->extra)
        return cli_usage(cli, "Extra argument(s) in command line");
    if (!args->size)
        return cli_usage(cli, "Expecting image file name and size");
    return source_options_check(cli, &args->source);
}

static int fail(const struct cli *cli, const char *text)
{
    cli_error(cli, "%s", text);
    return 1;
}

/* ----------------------------------------------------------------- resizing */

struct resize {
    char sign;                  /* '+', '-', or 0: @bytes is the new size */
    uint64_t bytes;
};

static int parse_amount(const struct cli *cli, const struct resize_args *args,
                        struct resize *r)
{
    const char *text = args->size;

    r->sign = *text == '+' || *text == '-' ? *text++ : 0;
    int rc = parse_u64_size(text, &r->bytes);
    if (rc == -ERANGE)
        cli_error(cli, "Value '%s' is out of range for parameter 'size'", text);
    else if (rc < 0)
        cli_error(cli, "Parameter 'size' expects a non-negative number below "
                  "2^64\nOptional suffix k, M, G, T, P or E means kilo-, mega-,"
                  " giga-, tera-, peta-\nand exabytes, respectively.");
    return rc;
}

/* False if that is no size above 0. */
static bool new_size(const struct resize *r, uint64_t old, uint64_t *size)
{
    bool wrapped = false;

    if (r->sign == '+')
        wrapped = __builtin_add_overflow(old, r->bytes, size);
    else if (r->sign == '-')
        wrapped = __builtin_sub_overflow(old, r->bytes, size);
    else
        *size = r->bytes;
    return !wrapped && *size > 0 && *size <= INT64_MAX;
}

static int resize_image(const struct cli *cli, const struct resize_args *args,
                        const struct resize *r, struct lam_image *image)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t old = lam_image_size(image), size;

    if (!new_size(r, old, &size))
        return fail(cli, "New image size must be positive");
    if (size <= old && args->preallocation != LAM_PREALLOC_OFF)
        return fail(cli, "Preallocation can only be used for growing images");
    if (size < old && !args->shrink) {
        cli_error(cli, "Use the --shrink option to perform a shrink "
                  "operation.");
        cli_warning(cli, "Shrinking an image will delete all data beyond the "
                    "shrunken image's end. Before performing such an "
                    "operation, make sure there is no important data there.");
        return 1;
    }
    if (lam_image_resize(image, size, args->preallocation,
                         args->shrink ? LAM_TRUNCATE_SHRINK : 0, &err) < 0) {
        cli_report(cli, &err);
        return 1;
    }
    return 0;
}

static int run(const struct cli *cli, const struct resize_args *args)
{
    struct resize r = { 0 };
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;

    if (parse_amount(cli, args, &r) < 0 ||
        source_open(cli, args->filename, &args->source,
                    LAM_OPEN_WRITE | LAM_OPEN_UNMAP, &image) < 0)
        return 1;
    warn_guessed(image);
    int status = resize_image(cli, args, &r, image);
    if (lam_image_close(image, &err) < 0 && status == 0) {
        cli_report(cli, &err);
        status = 1;
    }
    if (status == 0 && !args->quiet)
        puts("Image resized.");
    return cli_finish_change(cli, status);
}

static int run_resize(const struct cli *cli, int argc, char **argv)
{
    struct resize_args args = { .filename = NULL };
    int status = parse_args(cli, argc, argv, &args);

    return status >= 0 ? status : run(cli, &args);
}

const struct command command_resize = {
    .name = "resize",
    .run = run_resize,
    .summary = "Change the virtual size of an image",
    .synopsis =
        "[-f FMT | --image-opts] [--preallocation MODE] [--shrink] [-q] "
        "FILENAME [+|-]SIZE",
    .options = option_rows,
    .genuine =
        "help quiet object format image-opts preallocation shrink",
    .order = "-",
    .notes =
        "SIZE is in bytes, or with a suffix (k M G T P E, powers of 1024).  "
        "With + or - it is the amount by which the image grows or shrinks.  "
        "A new area reads as zeroes.  Killed at any moment, the image has "
        "the old size or the new one.",
    .examples =
        "disk.qcow2 +10G\n"
        "-f raw --preallocation=falloc disk.raw +64M\n"
        "--shrink disk.qcow2 8G\n",
};
