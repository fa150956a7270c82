/* SPDX-License-Identifier: MIT */
/*
 * convert-report.h - what `convert` says while it works and when it is done.
 */
#ifndef LAMELLA_CLI_CONVERT_REPORT_H
#define LAMELLA_CLI_CONVERT_REPORT_H

#include <time.h>

#include "convert-args.h"
#include "progress.h"

struct report {
    const struct cli *cli;
    const struct convert_args *args;
    FILE *out;                  /* stdout, unless the image goes there */
    struct progress *progress;
    struct timespec start;
    double seconds;             /* that the copy took */
    uint64_t bytes_lost;        /* --salvage */
    unsigned nb_lost;           /* ranges */
};

/* @to_stdout: the image goes to standard output, so nothing else does.  @shown:
 * progress that has begun already, or NULL; it becomes the report's.  Sets the
 * callbacks of @options, which @report has to outlive. */
void report_begin(struct report *report, const struct cli *cli,
                  const struct convert_args *args, bool to_stdout,
                  struct progress *shown, struct lam_convert_options *options);
/* The copy is done, and the target is going to be verified. */
void report_verify(struct report *report, struct lam_convert_options *options);
/*
 * The job has ended with @rc: digest and summary, where they were asked for.
 * @plan is what became of zeroes, or NULL.
 */
void report_end(struct report *report, int rc,
                const struct lam_convert_result *result,
                const struct lam_thin_plan *plan);

/* "unmapped, a call for each range" */
const char *zero_method_text(enum lam_zero_method method);

#endif
