/* SPDX-License-Identifier: MIT */
/*
 * layers-job.h - a commit, rebase or stream of a chain in memory, and what the
 * chain has to be when it was interrupted.
 */
#ifndef TEST_SIM_LAYERS_JOB_H
#define TEST_SIM_LAYERS_JOB_H

#include "layers.h"

enum job_kind { COMMIT, COMMIT_LOW, STREAM, STREAM_ALL, REBASE, FLATTEN, JOBS };

/* Of the chain, and one behind it that a rebase goes to. */
enum { MAX_OBJECTS = 4 };

struct layers_job {
    struct layer_chain c;           /* and the other one behind it */
    enum job_kind job;
    unsigned layers, objects;       /* of the chain, and with the other one */
    bool guest;                     /* somebody writes meanwhile */
};

/* By the chain's seed. */
void job_make_chain(struct layers_job *t);

/* @other: what the other one is opened on. */
int job_run(struct layers_job *t, struct lam_image *image,
            struct lam_io *other, struct lam_error *err);

/* The chain as the top's header names it: its layers in @out, with the disks
 * that are borrowed from @t. */
void job_chain_of(struct layers_job *t, struct layer_chain *out);

/* Unless there is nothing left to do. */
void job_run_again(struct layers_job *t, const char *when);

/* A commit has ended: the base shows what the top does. */
void job_verify_base(struct layers_job *t, const char *when);

#endif
