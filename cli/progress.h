/* SPDX-License-Identifier: MIT */
/*
 * progress.h - qemu-img's -p: "    (NN.NN/100%)\r" records, and SIGUSR1
 * (SIGINFO) without -p; the same as JSON.
 */
#ifndef LAMELLA_CLI_PROGRESS_H
#define LAMELLA_CLI_PROGRESS_H

#include "cli.h"

struct progress;

/* @enabled: -p was given.  Prints the first record, (0.00/100%).  The result
 * may be NULL (no memory); the other functions accept that. */
struct progress *progress_begin(bool enabled);
/* JSON to @out instead: {"event": "progress", "phase": @phase, "done": N,
 * "total": N, "seconds": N.N}, one object a line, each percent or second. */
struct progress *progress_begin_json(FILE *out, const char *phase);
/* A lam_progress_fn; @opaque is the struct progress. */
void progress_update(void *opaque, uint64_t done, uint64_t total);
/* Prints (100.00/100%) unless it was printed; for a command that has a verdict
 * to print between that record and the end. */
void progress_full(struct progress *progress);
/* On success prints (100.00/100%); then the newline.  Frees. */
void progress_end(struct progress *progress, bool success);

#endif
