/* SPDX-License-Identifier: MIT */
/*
 * cli.h - what every subcommand is given and may call.
 */
#ifndef LAMELLA_CLI_H
#define LAMELLA_CLI_H

#include <stdio.h>

#include "lamella.h"

/* Who we are: argv[0] decides. */
struct cli {
    const char *program;        /* "lamella", "qemu-img", "qemu-io" */
    const char *command;        /* as it was called, "./qemu-img info" */
    bool as_qemu;               /* print what the genuine tool prints, only */
    struct lam_keyring *keyring;    /* what --object has brought */
    struct lam_throttles *throttles;
};

/* "PROGRAM: message\n" on stderr. */
void cli_error(const struct cli *cli, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* The same for a library error, which already names file and field. */
void cli_report(const struct cli *cli, const struct lam_error *err);
/* What belongs behind an error's message: how sizes are written; or "". */
const char *cli_hint(const char *message);
/* "PROGRAM: warning: ..." */
void cli_warning(const struct cli *cli, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/*
 * A mistake on the command line: "PROGRAM: message", then where to find help.
 * Returns 1, so that it can end a function.
 */
int cli_usage(const struct cli *cli, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* The second line alone, after getopt_long() has printed the first.  Returns
 * 1. */
int cli_try_help(const struct cli *cli);

/* Do both names lead to one file or device?  False if one leads nowhere. */
bool cli_same_file(const char *a, const char *b);

/* -T [enable=]PATTERN,events=FILE,file=FILE: there are no events to trace,
 * which is said as qemu-img says it of one that it does not know.  -1: go on;
 * else the exit status. */
int cli_trace(const struct cli *cli, const char *text);

/* --version on stdout.  Returns 0. */
int cli_version(const struct cli *cli);

/*
 * Ends a command that printed to stdout: flushes it, and returns @status, or 1
 * with a message when what was printed could not be written.  A reader who has
 * left a genuine tool's pipe has read enough.
 */
int cli_finish(const struct cli *cli, int status);
/* The same for a command whose result is an image: under a genuine tool's name
 * it has not failed because nobody can be told so. */
int cli_finish_change(const struct cli *cli, int status);

#endif
