/* SPDX-License-Identifier: MIT */
/*
 * ahead.h - space behind the end of a growing file, taken in steps.
 *
 * A write that moves a file's end excludes all others and takes blocks by
 * itself.  An object that grows ahead asks the host for its next stretch at
 * once (blocks, and the length that goes with them), so that the writes there
 * run side by side; and what has been filled begins its way to the disk while
 * the next stretch fills.
 *
 * 1. lam_io.size is where our own writes end, and all that anybody asks for.
 *    The host's file may be longer, by what lies up to ahead.end; it is cut
 *    back when the object is closed or written to no more.  A crash leaves it
 *    longer, with zeroes.
 * 2. What has not been written to up to ahead.end reads as zero.
 * 3. Space is taken only while nearly all of it is filled: who writes a little
 *    here and there keeps the holes between.
 */
#ifndef LAM_IO_AHEAD_H
#define LAM_IO_AHEAD_H

#include "io/io.h"

void io_ahead_init(struct lam_io *io);
void io_ahead_deinit(struct lam_io *io);

/* A write of [offset, offset + length) is about to be done; has been done. */
void io_ahead_begin(struct lam_io *io, uint64_t offset, uint64_t length);
void io_ahead_end(struct lam_io *io, uint64_t offset, uint64_t length);

/* Asks the host for the file's size; 0 or -errno.  *@size is ours. */
int io_ahead_size(struct lam_io *io, uint64_t *size);

/* @got bytes have been read from @offset on: how many are inside our size. */
int64_t io_ahead_inside(struct lam_io *io, uint64_t offset, int64_t got);

/* The file has been cut or extended to lam_io.size. */
void io_ahead_forget(struct lam_io *io);

/* Gives back what was taken too much; the object goes on without. */
void io_ahead_stop(struct lam_io *io);

#endif
