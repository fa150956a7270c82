/* SPDX-License-Identifier: MIT */
/*
 * process.h - what a caller hands over beside the arguments.
 */
#ifndef LAMELLA_CLI_PROCESS_H
#define LAMELLA_CLI_PROCESS_H

#include "cli.h"

/* Before anything is opened: makes standard streams, limits and signals what
 * the command counts on. */
void process_begin(const struct cli *cli);

#endif
