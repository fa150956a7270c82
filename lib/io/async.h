/* SPDX-License-Identifier: MIT */
/*
 * async.h - a transfer that no thread waits for.
 *
 * Only of what needs nothing around it: all bytes are inside a plain file or
 * device, aligned as it likes, and a write promises no sync.  The caller brings
 * it to the kernel (uring.h), and gives it up where it does not come back
 * whole: the ordinary calls (io.h) know what short transfers and errors mean.
 */
#ifndef LAM_IO_ASYNC_H
#define LAM_IO_ASYNC_H

#include "io/io.h"

struct io_async {
    struct lam_io *io;
    void *buf;                  /* read into, written from */
    uint64_t length, offset;    /* on the host */
    bool write;
    void *owner;                /* the caller's own */

    /* Between begin and end. */
    int fd;                     /* stays open */
    struct io_change change;
};

/* The largest that a descriptor takes at once, in whole pages. */
enum { IO_ASYNC_MAX = 1 << 30 };

/* True: it may be done, until io_async_end(), which any thread may call.  Does
 * not wait.  What comes before @fd is set. */
bool io_async_begin(struct io_async *a);
void io_async_end(struct io_async *a);

#endif
