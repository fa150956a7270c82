/* SPDX-License-Identifier: MIT */
/*
 * null.h - a host object that stores nothing.
 */
#ifndef LAM_IO_NULL_H
#define LAM_IO_NULL_H

#include "io/io.h"

struct io_null_options {
    uint64_t size;              /* bytes; cannot change */
    uint64_t latency_ns;        /* that each request takes */
    bool writable;
    enum lam_cache_mode cache;
};

int io_null_new(const char *name, const struct io_null_options *options,
                struct lam_io **out, struct lam_error *err);

#endif
