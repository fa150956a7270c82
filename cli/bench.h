/* SPDX-License-Identifier: MIT */
/*
 * bench.h - what the ways of `bench` share.
 */
#ifndef LAMELLA_CLI_BENCH_H
#define LAMELLA_CLI_BENCH_H

#include <pthread.h>

#include "source-option.h"

/* Who sends the requests. */
enum bench_aio {
    BENCH_AIO_UNSAID,
    BENCH_AIO_THREADS,
    BENCH_AIO_NATIVE,
    BENCH_AIO_URING,
};

struct bench_args {
    struct source_options source;
    const char *filename;
    enum lam_cache_mode cache;
    enum bench_aio aio;
    uint64_t count, depth, size, step, offset, interval;
    uint8_t pattern;
    bool write, no_drain, quiet, native;
};

struct bench {
    const struct bench_args *args;
    const struct cli *cli;
    struct lam_image *image;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t left;              /* requests not begun */
    uint64_t running;
    uint64_t flushed;           /* what was left at the last flush */
    uint64_t offset;            /* of the next one */
    uint64_t image_size;
    bool flushing;
    void *pattern;              /* what all write; NULL: they read */
    pthread_t *threads;
    uint64_t started, cores, most;  /* threads */
    int rc;
    struct lam_error err;       /* of the first that failed */
};

/* Both: what b->rc is in the end. */
int bench_run_threads(struct bench *b);
int bench_run_queue(struct bench *b);

/* The first failure is the one that is told. */
void bench_note(struct bench *b, int rc, const struct lam_error *err);

/* From the end on it begins anew; a request that would cross the end is taken
 * to the beginning. */
uint64_t bench_wrapped(const struct bench *b, uint64_t offset);

/*
 * Whole pages of the large kind where there are any: a request that lies in one
 * piece is one to the disk as well.  For a reader that would be as many of them
 * as requests under way.  NULL: no memory.
 */
void *bench_buffer(uint64_t size, bool large);

bool bench_is_direct(const struct bench_args *args);

#endif
