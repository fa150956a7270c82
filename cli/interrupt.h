/* SPDX-License-Identifier: MIT */
/*
 * interrupt.h - long work that a signal ends in an orderly way.
 */
#ifndef LAMELLA_CLI_INTERRUPT_H
#define LAMELLA_CLI_INTERRUPT_H

#include "cli.h"

/*
 * From now on SIGINT, SIGTERM and SIGHUP set what is returned, for the library
 * to look at; the second one ends the process at once.
 */
const volatile int *interrupt_catch(void);

/* The exit status after a job returned @rc: 128 and the signal's number if that
 * is why, else 1 or 0. */
int interrupt_status(int rc);

/*
 * For a command that leaves something behind: "interrupted by SIGINT: " and
 * what, if that is why the job returned @rc; the status as above.  Called as
 * qemu-img, the signal ends us as it would have ended that program: silently.
 */
int interrupt_end(const struct cli *cli, int rc, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * For work that may be left at any moment: from now on a signal ends the
 * process with "interrupted by SIGINT: " and the given words, and the status as
 * above.  Called as qemu-img, the signal does what it does.
 */
void interrupt_explain(const struct cli *cli, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
