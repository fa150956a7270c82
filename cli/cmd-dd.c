/* SPDX-License-Identifier: MIT */
/*
 * cmd-dd.c - `dd`: copy a part of an image to a new one, as qemu-img does.
 *
 * Not the system's dd: count counts from the start of the input, what is
 * skipped included, and the output is always made anew.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "convert-target.h"
#include "interrupt.h"
#include "progress.h"
#include "source-option.h"

struct dd {
    const struct cli *cli;
    struct convert_args args;
    const char *input;
    uint64_t block, count, skip;
    bool has_count;
};

static const struct command_option option_rows[] = {
    SOURCE_OPTIONS,
    { 'O', "output-format", "FMT", "format of OUTPUT (default: raw)", 0 },
    OPTION_SHARE,
    OPTION_HELP,
    { 0 },
};

/* ------------------------------------------------------------ operands */

static int bad_value(const struct dd *dd, const char *key, const char *text)
{
    cli_error(dd->cli, "Invalid %s specified: '%s'.", key, text);
    return -EINVAL;
}

static int take_block(struct dd *dd, const char *text)
{
    int rc = parse_size(text, &dd->block, NULL);

    if (rc == -EINVAL)
        return bad_value(dd, "bs", text);
    if (rc == 0 && dd->block >= 1 && dd->block <= INT32_MAX)
        return 0;
    cli_error(dd->cli, "Invalid bs specified. Must be between 1 and %d.",
              INT32_MAX);
    return -EINVAL;
}

static int take_blocks(struct dd *dd, const char *key, const char *text,
                       uint64_t *blocks)
{
    char *end;

    errno = 0;
    long long value = strtoll(text, &end, 0);
    if (end == text || *end)
        return bad_value(dd, key, text);
    if (errno || value < 0) {
        cli_error(dd->cli, "Invalid %s specified. Must be between 0 and "
                  "%lld.", key, (long long)INT64_MAX);
        return -EINVAL;
    }
    *blocks = (uint64_t)value;
    return 0;
}

/* The value in "KEY=value"; NULL: it is another operand. */
static const char *value_of(const char *operand, const char *key)
{
    size_t length = strlen(key);

    return !strncmp(operand, key, length) && operand[length] == '='
        ? operand + length + 1 : NULL;
}

static int take_operand(struct dd *dd, const char *text)
{
    const char *value;

    if ((value = value_of(text, "bs")))
        return take_block(dd, value);
    if ((value = value_of(text, "skip")))
        return take_blocks(dd, "skip", value, &dd->skip);
    if ((value = value_of(text, "count"))) {
        dd->has_count = true;
        return take_blocks(dd, "count", value, &dd->count);
    }
    if ((value = value_of(text, "if"))) {
        dd->input = value;
        return 0;
    }
    if ((value = value_of(text, "of"))) {
        dd->args.target = value;
        return 0;
    }
    cli_error(dd->cli, "unrecognized operand %.*s",
              (int)strcspn(text, "="), text);
    return -EINVAL;
}

/* ------------------------------------------------------------ options */

static int take_option(const struct cli *cli, int key, void *opaque)
{
    struct dd *dd = opaque;

    if (key != 'O')
        return source_option(cli, key, &dd->args.source);
    dd->args.format = optarg;
    return -1;
}

static const char *contradiction(const struct dd *dd)
{
    if (!dd->input || !dd->args.target)
        return "Must specify both input and output files";
    if (dd->args.source.image_opts && dd->args.source.format)
        return "--image-opts and --format are mutually exclusive";
    return NULL;
}

/* -1: go on; else the exit status. */
static int parse_args(struct dd *dd, int argc, char **argv)
{
    int status = command_parse(dd->cli, &command_dd, argc, argv, take_option,
                               dd);

    if (status >= 0)
        return status;
    for (; optind < argc; optind++)
        if (take_operand(dd, argv[optind]) < 0)
            return 1;
    const char *wrong = contradiction(dd);
    if (!wrong)
        return -1;
    cli_error(dd->cli, "%s", wrong);
    return 1;
}

/* ------------------------------------------------------------ the copy */

static uint64_t blocks_to_bytes(const struct dd *dd, uint64_t blocks)
{
    return blocks > UINT64_MAX / dd->block ? UINT64_MAX : blocks * dd->block;
}

/* Which bytes of the input: [*offset, *offset + *length). */
static void choose_part(const struct dd *dd, uint64_t size, uint64_t *offset,
                        uint64_t *length)
{
    uint64_t end = size;

    if (dd->has_count && blocks_to_bytes(dd, dd->count) < size)
        end = blocks_to_bytes(dd, dd->count);
    *offset = blocks_to_bytes(dd, dd->skip);
    *length = *offset < end ? end - *offset : 0;
    /* qemu-img goes on with nothing. */
    if (*offset > end)
        cli_error(dd->cli, "%s: cannot skip to specified offset", dd->input);
}

static int copy(struct dd *dd, struct lam_image *source,
                struct convert_target *target, uint64_t offset,
                uint64_t length)
{
    struct lam_convert_options options = LAM_CONVERT_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    int rc = convert_target_open(dd->cli, &dd->args, target);
    if (rc < 0 || length == 0)
        return rc;
    options.source_offset = offset;
    options.source_length = length;
    options.flags = LAM_CONVERT_NEW_TARGET;
    options.cancel = interrupt_catch();
    struct progress *progress = progress_begin(false);
    options.progress = progress_update;
    options.progress_opaque = progress;
    rc = lam_convert(&source, 1, target->image, &options, NULL, &err);
    progress_end(progress, rc == 0);
    if (rc < 0 && rc != -ECANCELED)
        cli_report(dd->cli, &err);
    return rc;
}

/* Once the input is open. */
static int check_output(const struct dd *dd)
{
    int rc = create_format_check(dd->args.format, NULL);

    if (rc == -ENOTSUP)
        cli_error(dd->cli, "Format driver '%s' does not support image creation",
                  dd->args.format);
    else if (rc < 0)
        cli_error(dd->cli, "Unknown file format");
    return rc;
}

static int write_output(struct dd *dd, struct lam_image *source,
                        enum target_rest *rest)
{
    struct convert_target target;
    uint64_t offset, length;

    choose_part(dd, lam_image_size(source), &offset, &length);
    int rc = convert_target_init(dd->cli, &dd->args, length, &target);
    if (rc == 0)
        rc = convert_target_distinct(dd->cli, &target, &source, 1);
    if (rc == 0)
        rc = copy(dd, source, &target, offset, length);
    return convert_target_end(dd->cli, &dd->args, &target, rc, rest);
}

static int run(struct dd *dd, enum target_rest *rest)
{
    struct lam_image *source;
    int rc = source_open(dd->cli, dd->input, &dd->args.source, 0, &source);

    if (rc < 0)
        return rc;
    rc = check_output(dd);
    if (rc == 0)
        rc = write_output(dd, source, rest);
    lam_image_close(source, NULL);
    return rc;
}

static int run_dd(const struct cli *cli, int argc, char **argv)
{
    struct dd dd = { .cli = cli, .block = 512 };
    enum target_rest rest = TARGET_UNTOUCHED;

    dd.args.is_dd = true;
    dd.args.format = "raw";
    dd.args.cache = LAM_CACHE_WRITEBACK;
    dd.args.nb_sources = 1;
    int status = parse_args(&dd, argc, argv);
    if (status >= 0)
        return status;
    int rc = run(&dd, &rest);
    status = interrupt_end(cli, rc, "'%s' %s", dd.args.target,
                           target_rest_text(rest));
    return rc == 0 ? cli_finish_change(cli, 0) : status;
}

const struct command command_dd = {
    .name = "dd",
    .run = run_dd,
    .summary = "Copy a part of an image to a new one",
    .synopsis =
        "[-f FMT | --image-opts] [-O FMT] [-U] [bs=BYTES] [count=BLOCKS] "
        "[skip=BLOCKS] if=INPUT of=OUTPUT",
    .about =
        "Copy a part of INPUT to a new image OUTPUT.",
    .options = option_rows,
    .genuine =
        "help object format output-format image-opts force-share",
    .notes =
        "The operands: if=INPUT, to read from; of=OUTPUT, to make or to "
        "replace; bs=BYTES, the size of a block (default: 512); skip=BLOCKS, "
        "how many to leave out at the start of INPUT; count=BLOCKS, from which "
        "block of INPUT on nothing is copied: unlike the system's dd, what is "
        "skipped counts.\n\n"
        "The size of OUTPUT is that of the part, rounded up to 512 bytes; a "
        "device keeps its own.  SIGUSR1 prints how far the copy is.",
    .examples =
        "-f qcow2 -O raw bs=1M count=1 if=disk.qcow2 of=head.raw\n"
        "-f qcow2 -O qcow2 bs=64k skip=16 if=disk.qcow2 of=tail.qcow2\n",
};
