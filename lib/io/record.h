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
    unsigned object;            /* 0: the first; the others in their order */
    uint64_t offset, length;    /* TRUNCATE: offset is the new size */
    uint8_t *data;              /* WRITE: owned copy */
};

/* Wraps @inner, which stays the caller's and must outlive the wrapper. */
int lam_io_record_new(struct lam_io *inner, struct lam_io **out,
                      struct lam_error *err);

/*
 * The same for another object, whose events join the sequence of @with (a
 * recorder), so that a power cut hits both at once.  A flush is a barrier for
 * its own object only.  Failures are counted over both.
 */
int lam_io_record_join(struct lam_io *inner, struct lam_io *with,
                       struct lam_io **out, struct lam_error *err);

/* Events so far, of all objects; valid until the next operation. */
const struct record_event *lam_io_record_events(const struct lam_io *io,
                                                size_t *count);

/* Which of the events that were not synced have made it to the disk. */
enum record_how {
    RECORD_ALL,
    RECORD_SEEDED,              /* a pick, @value says which; writes may be
                                   torn at 512 bytes */
    RECORD_ALL_BUT,             /* all but event @value */
    RECORD_ONLY,                /* none but event @value */
};

struct record_pick {
    enum record_how how;
    uint64_t value;
};

/*
 * Build what the disk behind @io may hold if power failed after @nb_events
 * events: everything before the object's last flush among them, and of the
 * later ones those of @pick, applied to a copy of @base (@base_length bytes).
 * A new memory object.
 */
int lam_io_record_rebuild(const struct lam_io *io, size_t nb_events,
                          struct record_pick pick, const void *base,
                          uint64_t base_length, struct lam_io **out,
                          struct lam_error *err);

/* The same by a seed; 0: all. */
int lam_io_record_replay(const struct lam_io *io, size_t nb_events,
                         uint64_t seed, const void *base, uint64_t base_length,
                         struct lam_io **out, struct lam_error *err);

/* What number the object behind @io has in its sequence. */
unsigned lam_io_record_object(const struct lam_io *io);

/* The @nth changing operation from now (0: the next) fails with -@errnum, and
 * with @sticky all that follow too.  @nth SIZE_MAX: none. */
void lam_io_record_fail(struct lam_io *io, size_t nth, int errnum, bool sticky);

#endif
