/* SPDX-License-Identifier: MIT */
/*
 * log-writes.h - a filter that writes down all that changes the object below
 * it, in another one, in the format of the kernel's dm-log-writes: whoever
 * replays the first entries of such a log has the object as it was then.
 */
#ifndef LAM_IO_LOG_WRITES_H
#define LAM_IO_LOG_WRITES_H

#include "io/io.h"

struct io_log_options {
    uint64_t sector_size;       /* a power of two, 512 to 8 MiB; requests are
                                   made of such, too */
    uint64_t interval;          /* entries between updates of the log's head */
    bool append;                /* behind the entries that it has; they settle
                                   the sector size */
};

/* Takes @inner and @log over, also on failure. */
int lam_io_log_new(struct lam_io *inner, struct lam_io *log,
                   const struct io_log_options *options, struct lam_io **out,
                   struct lam_error *err);

#endif
