/* SPDX-License-Identifier: MIT */
/*
 * change.h - who is changing which part of a host object.
 *
 * An object with a request alignment (O_DIRECT) changes less than one unit by
 * reading it, replacing the part and writing it back.  Whatever somebody else
 * writes into the same unit in between would be lost.  So every change says
 * where it works while it does:
 *
 * 1. A read-modify-write is exclusive: it overlaps no other change.
 * 2. Changes that are not exclusive may overlap each other, as far as we are
 *    concerned: that is the caller's race, as it is with pwrite().
 *
 * Objects without a request alignment never need the former, so the latter
 * costs them nothing.
 */
#ifndef LAM_IO_CHANGE_H
#define LAM_IO_CHANGE_H

#include "io/io.h"

/* Waits until @change (range and exclusive are set) may begin. */
void io_change_begin(struct lam_io *io, struct io_change *change);

/* False instead of waiting.  It may end on another thread. */
bool io_change_try(struct lam_io *io, struct io_change *change);
void io_change_end(struct lam_io *io, struct io_change *change);

#endif
