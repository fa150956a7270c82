/* SPDX-License-Identifier: MIT */
/*
 * quorum.h - one host object out of several that hold the same.
 *
 * What is written goes to all of them.  What is read is what enough of them
 * agree on; or what the first that can be read says; or nothing unless all say
 * the same.
 */
#ifndef LAM_IO_QUORUM_H
#define LAM_IO_QUORUM_H

#include "io/io.h"

enum { IO_QUORUM_MAX = 32 };    /* objects below one */

enum io_quorum_pattern {
    IO_QUORUM_VOTE,             /* read all, and count */
    IO_QUORUM_FIFO,             /* read one after the other until one can */
};

struct io_quorum_options {
    const char *name;           /* of the driver; static */
    enum io_quorum_pattern pattern;
    unsigned threshold;         /* so many must agree, or succeed: 1 to the
                                   number of children */
    bool rewrite;               /* who was outvoted is put right */
    unsigned leader;            /* whose length is the length */
    bool same_length;           /* the others' must be the same */
};

/* Takes all @children over, also on failure; 1 to IO_QUORUM_MAX of them. */
int lam_io_quorum_new(struct lam_io *const *children, unsigned count,
                      const struct io_quorum_options *options,
                      struct lam_io **out, struct lam_error *err);

#endif
