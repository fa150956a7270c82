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
    bool as_qemu;               /* print what the genuine tool prints, only */
};

/* argv[0] is the subcommand's name; returns the exit status. */
typedef int cmd_fn(const struct cli *cli, int argc, char **argv);

cmd_fn cmd_check, cmd_compare, cmd_convert, cmd_create, cmd_info, cmd_io,
       cmd_map;

/* "PROGRAM: message\n" on stderr. */
void cli_error(const struct cli *cli, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* The same for a library error, which already names file and field. */
void cli_report(const struct cli *cli, const struct lam_error *err);
/* "PROGRAM: warning: ..." */
void cli_warning(const struct cli *cli, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
