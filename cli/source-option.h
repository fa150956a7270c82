/* SPDX-License-Identifier: MIT */
/*
 * source-option.h - the options that every subcommand has which opens images.
 */
#ifndef LAMELLA_CLI_SOURCE_OPTION_H
#define LAMELLA_CLI_SOURCE_OPTION_H

#include "command.h"
#include "option.h"

/* Long options without a letter; a subcommand's own begin at OPT_OWN. */
enum { OPT_OBJECT = 256, OPT_IMAGE_OPTS, OPT_OUTPUT, OPT_UNTRUSTED, OPT_OWN };

/* Rows of a table of options. */
#define OPTION_IMAGE_OPTS                                                   \
    { OPT_IMAGE_OPTS, "image-opts", NULL,                                   \
      "the image's name is a list \"driver=...,file.filename=...\"", 0 }
#define OPTION_OBJECT                                                       \
    { OPT_OBJECT, "object", "OBJECT",                                       \
      "define a secret, for encrypted images: \"secret,id=ID,...\"; or "    \
      "limits: \"throttle-group,id=ID,...\"", 0 }
#define OPTION_UNTRUSTED                                                    \
    { OPT_UNTRUSTED, "untrusted", NULL,                                     \
      "open no file that an image's header names", OPTION_EXTRA }
#define OPTION_SHARE                                                        \
    { 'U', "force-share", NULL, "take no lock: the image may be in use", 0 }
#define OPTION_OUTPUT                                                       \
    { OPT_OUTPUT, "output", "human|json",                                   \
      "form of what is printed (default: human)", 0 }
#define OPTION_FORMAT                                                       \
    { 'f', "format", "FMT", "format of the image (default: look at it)", 0 }
/* What source_option() takes, but for -U. */
#define SOURCE_OPTIONS                                                      \
    OPTION_FORMAT, OPTION_IMAGE_OPTS, OPTION_OBJECT, OPTION_UNTRUSTED

/*
 * Takes @key if it is -f, -U, --image-opts, --object or --untrusted.  -1: go
 * on; else the exit status.
 */
int source_option(const struct cli *cli, int key,
                  struct source_options *source);

/* --object alone. */
int take_object(const struct cli *cli, const char *text);

/* -f and --image-opts exclude each other.  -1: go on; else the exit status. */
int source_options_check(const struct cli *cli,
                         const struct source_options *source);

/* The same, and what command_parse() has left is one image's name. */
int source_operand(const struct cli *cli, int argc, char **argv,
                   const struct source_options *source,
                   const char **filename);

#endif
