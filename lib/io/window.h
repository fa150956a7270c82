/* SPDX-License-Identifier: MIT */
/*
 * window.h - part of a host object as an object of its own: an image inside a
 * tar archive, a partition of a disk.
 */
#ifndef LAM_IO_WINDOW_H
#define LAM_IO_WINDOW_H

#include "io/io.h"

/* [@offset, @offset + @size) of @inner (@size 0: up to its end).  Takes @inner
 * over, also on failure.  Cannot grow. */
int lam_io_window_new(struct lam_io *inner, uint64_t offset, uint64_t size,
                      struct lam_io **out, struct lam_error *err);

/* True if other bytes are seen than those of the object below. */
bool lam_io_is_window(const struct lam_io *io);

#endif
