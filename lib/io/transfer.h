/* SPDX-License-Identifier: MIT */
/*
 * transfer.h - what the parts of lam_io share among themselves.
 */
#ifndef LAM_IO_TRANSFER_H
#define LAM_IO_TRANSFER_H

#include "io/io.h"

/* Bytes moved at once where the library has to bring its own memory. */
enum { IO_PIECE = 1 << 20 };

/* Writes all without the sync of writethrough; -errno, says nothing. */
int io_write_all(struct lam_io *io, const struct iovec *iov, int iovcnt,
                 uint64_t length, uint64_t offset);

/* May [offset, offset + length) be changed: writable, and inside unless the
 * object grows?  @what names the operation for the message. */
int io_check_change(struct lam_io *io, uint64_t offset, uint64_t length,
                    const char *what, struct lam_error *err);

/* A change ended at @end: remember the larger size. */
void io_grown(struct lam_io *io, uint64_t end);

/* The sync after a change that writethrough and directsync promise. */
int io_sync_change(struct lam_io *io, struct lam_error *err);

#endif
