/* SPDX-License-Identifier: MIT */
/*
 * job-option.h - what commit, rebase and stream have in common: options, and
 * the way from opening an image to the last word.
 */
#ifndef LAMELLA_CLI_JOB_OPTION_H
#define LAMELLA_CLI_JOB_OPTION_H

#include "layers.h"
#include "source-option.h"

struct job_args {
    struct source_options source;
    const char *filename;
    bool progress, quiet;
    uint64_t rate;
    struct progress *shown;     /* since job_show() */
    const struct cli *cli;      /* since job_begin() */
    struct notices notices;     /* said when the job has begun */
};

/* Rows of a table of options: what job_option() takes, but for -U. */
#define JOB_OPTIONS                                                         \
    SOURCE_OPTIONS, OPTION_CACHE('t'),                                      \
    { 'r', "rate", "RATE", "copy at most RATE bytes of data a second", 0 }, \
    OPTION_PROGRESS, OPTION_QUIET

/* -1: go on; else the exit status. */
int job_option(const struct cli *cli, int key, struct job_args *args);
/* The cache mode called @name, if there is one; @what is it an option of? */
int job_check_cache(const struct cli *cli, const char *what, const char *name);
/* What command_parse() has left is the image's name; with -t it is judged. */
int job_operand(const struct cli *cli, int argc, char **argv,
                struct job_args *args);

/* The layer of @image that @base names, NULL leaves *@depth as it is.  Prints
 * what is wrong and returns a negative errno value. */
int job_find_base(const struct cli *cli, const struct job_args *args,
                  struct lam_image *image, const char *base, unsigned *depth);

/* Progress begins: nothing is done yet. */
void job_show(struct job_args *args);
/* Progress ends, if it has begun. */
void job_hide(struct job_args *args, bool success);
/* Progress, unless it has begun already, and signals for @options. */
void job_begin(const struct cli *cli, struct job_args *args,
               struct lam_job_options *options);

typedef int job_fn(const struct cli *cli, void *args, struct lam_image *image);

/*
 * Opens the image with @flags, warns of a format that was guessed, calls @run
 * with @opaque, closes the image, and prints @done, if that is not NULL, after
 * a success.  Returns the exit status.
 */
int job_run(const struct cli *cli, struct job_args *args, unsigned flags,
            job_fn *run, void *opaque, const char *done);

#endif
