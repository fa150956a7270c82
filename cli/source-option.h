/* SPDX-License-Identifier: MIT */
/*
 * source-option.h - the options that every subcommand has which opens images,
 * for getopt_long().
 */
#ifndef LAMELLA_CLI_SOURCE_OPTION_H
#define LAMELLA_CLI_SOURCE_OPTION_H

#include <getopt.h>

#include "option.h"

/* Long options without a letter; a subcommand's own begin at OPT_OWN. */
enum { OPT_OBJECT = 256, OPT_IMAGE_OPTS, OPT_OUTPUT, OPT_UNTRUSTED, OPT_OWN };

/* Rows of a table of long options. */
#define SOURCE_LONG_OPTIONS                                                 \
    { "help", no_argument, NULL, 'h' },                                     \
    { "format", required_argument, NULL, 'f' },                             \
    { "image-opts", no_argument, NULL, OPT_IMAGE_OPTS },                    \
    { "object", required_argument, NULL, OPT_OBJECT },                      \
    { "untrusted", no_argument, NULL, OPT_UNTRUSTED }
#define SHARE_LONG_OPTION { "force-share", no_argument, NULL, 'U' }
#define OUTPUT_LONG_OPTION { "output", required_argument, NULL, OPT_OUTPUT }

/*
 * Takes getopt_long()'s @c if it is -f, -U, --image-opts, --object or
 * --untrusted; anything else is a mistake that is reported.  -1: go on; else
 * the exit status.
 */
int source_option(const struct cli *cli, int c, struct source_options *source);

/* -f and --image-opts exclude each other.  -1: go on; else the exit status. */
int source_options_check(const struct cli *cli,
                         const struct source_options *source);

/* The same, and what getopt_long() has left is one image's name. */
int source_operand(const struct cli *cli, int argc, char **argv,
                   const struct source_options *source,
                   const char **filename);

#endif
