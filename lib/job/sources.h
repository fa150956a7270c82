/* SPDX-License-Identifier: MIT */
/*
 * sources.h - what a conversion reads from: concatenated images, and what they
 * ask of it.
 */
#ifndef LAM_JOB_SOURCES_H
#define LAM_JOB_SOURCES_H

#include "image/image.h"
#include "job/walk.h"

/* The bytes there are to copy: of all @images, or of the part of the only one
 * that @convert names.  -EINVAL: no such part; -EFBIG. */
int sources_total(struct lam_image *const *images, size_t count,
                  const struct lam_convert_options *convert, uint64_t *total,
                  struct lam_error *err);

/*
 * Depths of @images are kept while the conversion runs where not all of it is
 * copied, for @target's backing file has the rest.  Then no layer is put on top
 * or taken out until sources_release() of what this answers (or NULL).
 */
struct lam_image *sources_hold(struct lam_image *const *images, size_t count,
                               const struct lam_image *target,
                               const struct lam_convert_options *convert);
void sources_release(struct lam_image *held);

/* @walk over them, which are held.  @target decides, if it has a backing file,
 * what need not be copied; NULL: everything is. */
int sources_begin(struct walk *walk, const struct walk_options *options,
                  struct lam_image *const *images, size_t count,
                  const struct lam_image *target,
                  const struct lam_convert_options *convert,
                  struct lam_error *err);

/* How many threads. */
unsigned sources_workers(const struct lam_convert_options *options,
                         bool direct);
/* True if one of them, or @target (may be NULL), is used with O_DIRECT. */
bool sources_direct(struct lam_image *const *images, size_t count,
                    const struct lam_image *target);
/* Bytes of the largest cluster of any layer; 0: there are none. */
uint64_t sources_cluster(struct lam_image *const *images, size_t count);

#endif
