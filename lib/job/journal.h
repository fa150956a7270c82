/* SPDX-License-Identifier: MIT */
/*
 * journal.h - how far a copy into an existing raw target has come, in a file
 * that survives what interrupts it.
 *
 * The journal says which conversion it belongs to, and up to where its target
 * is complete: written and flushed before that was said.
 */
#ifndef LAM_JOB_JOURNAL_H
#define LAM_JOB_JOURNAL_H

#include "image/image.h"
#include "job/walk.h"

struct journal;

/*
 * Open or make the journal options->journal of this conversion.  -EINVAL: the
 * file is no journal, or that of another conversion, and stays as it is;
 * -EBUSY: somebody else writes it; -ENOTSUP: this target cannot have one.
 */
int journal_open(struct lam_image *const *sources, size_t nb_sources,
                 struct lam_image *target,
                 const struct lam_convert_options *options, uint64_t total,
                 struct journal **out, struct lam_error *err);

/* The target is complete below; 0: nothing is known to be. */
uint64_t journal_done(const struct journal *j);

/* @walk begins at journal_done(), and is asked by journal_next() only. */
int journal_begin(struct journal *j, struct walk *walk, unsigned nb_workers,
                  struct lam_error *err);

/*
 * walk_next() for worker number @worker, whose last chunk is complete in the
 * target: flushes the target and writes the journal now and then.
 */
int journal_next(struct journal *j, unsigned worker, struct walk_chunk *chunk,
                 struct lam_error *err);

/* After a success (@rc is 0, the target flushed) the file is removed, else it
 * is brought up to date.  Returns @rc.  Frees; NULL: no-op. */
int journal_finish(struct journal *j, int rc);

#endif
