/* SPDX-License-Identifier: MIT */
/*
 * attributes.h - what a file system is told about a new file.
 */
#ifndef LAM_IO_ATTRIBUTES_H
#define LAM_IO_ATTRIBUTES_H

#include "io/io.h"

/*
 * Advice for a regular file that is still empty: @nocow, to overwrite blocks in
 * place (btrfs); @extent_size_hint, to allocate this many bytes at once (XFS),
 * 0 for none.  File systems that do not know such a thing go without.
 */
void io_set_attributes(struct lam_io *io, bool nocow,
                       uint64_t extent_size_hint);

#endif
