/* SPDX-License-Identifier: MIT */
/*
 * record.h - a host object that remembers every change and can fail on demand.
 *
 * The crash tests open an image on it, run a workload, and replay what a power
 * cut at any moment could have left on the disk: all writes before the last
 * barrier, and any subset of those after it.  The fault tests make the n-th
 * operation fail.  In the library, not in tests/, because it wraps a lam_io
 * like any other driver and fuzzers use it too.
 */
#ifndef LAM_IO_RECORD_H
#define LAM_IO_RECORD_H

#include "io/io.h"

enum record_kind { RECORD_WRITE, RECORD_FLUSH, RECORD_TRUNCATE, RECORD_ZERO,
                   RECORD_PUNCH, RECORD_DISCARD };

struct record_event {
    enum record_kind kind;
    uint64_t offset, length;    /* TRUNCATE: offset is the new size */
    uint8_t *data;              /* WRITE: owned copy */
};

/* Wraps @inner, which stays the caller's and must outlive the wrapper. */
int lam_io_record_new(struct lam_io *inner, struct lam_io **out,
                      struct lam_error *err);

/* Events so far; valid until the next operation. */
const struct record_event *lam_io_record_events(const struct lam_io *io,
                                                size_t *count);

/*
 * Build what the disk may hold if power failed after @nb_events events:
 * everything before the last flush among them, and of the later ones those
 * that @seed picks (seed 0: all of them; writes may be torn at 512 bytes),
 * applied to a copy of @base (@base_length bytes).  A new memory object.
 */
int lam_io_record_replay(const struct lam_io *io, size_t nb_events,
                         uint64_t seed, const void *base, uint64_t base_length,
                         struct lam_io **out, struct lam_error *err);

/* The @nth changing operation from now (0: the next) fails with -@errnum, and
 * with @sticky all that follow too.  @nth SIZE_MAX: none. */
void lam_io_record_fail(struct lam_io *io, size_t nth, int errnum, bool sticky);

#endif
