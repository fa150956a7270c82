/* SPDX-License-Identifier: MIT */
/*
 * source-option.c - the options that every subcommand has which opens images.
 */
#include "source-option.h"

int take_object(const struct cli *cli, const char *text)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (object_help(text))
        return cli_finish(cli, 0);
    if (object_option(cli, text, &err) == 0)
        return -1;
    cli_report(cli, &err);
    return 1;
}

int source_option(const struct cli *cli, int key,
                  struct source_options *source)
{
    switch (key) {
    case 'f':
        source->format = optarg;
        return -1;
    case 'U':
        source->force_share = true;
        return -1;
    case OPT_IMAGE_OPTS:
        source->image_opts = true;
        return -1;
    case OPT_UNTRUSTED:
        source->untrusted = true;
        return -1;
    case OPT_OBJECT:
        return take_object(cli, optarg);
    default:
        return cli_try_help(cli);
    }
}

int source_options_check(const struct cli *cli,
                         const struct source_options *source)
{
    if (!source->image_opts || !source->format)
        return -1;
    cli_error(cli, "--image-opts and --format are mutually exclusive");
    return 1;
}

int source_operand(const struct cli *cli, int argc, char **argv,
                   const struct source_options *source, const char **filename)
{
    if (optind != argc - 1)
        return cli_usage(cli, "Expecting one image file name");
    *filename = argv[optind];
    return source_options_check(cli, source);
}
