/* SPDX-License-Identifier: MIT */
/*
 * reserve.h - a host object that takes space ahead of what is written to it.
 */
#ifndef LAM_IO_RESERVE_H
#define LAM_IO_RESERVE_H

#include "io/io.h"

/* A write past the end takes @size bytes behind it, too, up to a multiple of
 * @align.  Takes @inner over, also on failure. */
int lam_io_reserve_new(struct lam_io *inner, uint64_t align, uint64_t size,
                       struct lam_io **out, struct lam_error *err);

#endif
