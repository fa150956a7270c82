/* SPDX-License-Identifier: MIT */
/*
 * zeroing.h - carries out the thin plan: clears the target at the start where
 * the plan says so, and makes single ranges read as zero.
 */
#ifndef LAM_JOB_ZEROING_H
#define LAM_JOB_ZEROING_H

#include "image/batch.h"
#include "image/image.h"
#include "job/plan.h"

struct zeroing {
    struct lam_image *target;
    enum lam_zero_method method;
    bool is_new;                /* nothing has been stored in it before */
    uint64_t cleared_end;       /* clear-once has done all below this */
    bool host_zeroes;           /* zeroing a range is less work than writing */
    uint8_t *zeroes;            /* ZEROING_PIECE bytes of zero; owned */
    uint8_t *scratch;           /* as many, for zeroing_begin(); owned */
    _Atomic uint64_t bytes_zeroed, bytes_skipped, bytes_written;
};

enum { ZEROING_PIECE = 1 << 20 };

/* What plan_decide() wants to know of @target. */
void plan_input_probe(struct plan_input *in, const struct lam_image *target,
                      const struct lam_convert_options *options);

/*
 * Decide, and clear [0, @total) if that is the plan.  A device that refuses
 * what it promised gets the plan that is left.  @z is to be deinitialised also
 * after a failure.
 */
int zeroing_begin(struct zeroing *z, struct lam_image *target, uint64_t total,
                  const struct lam_convert_options *options,
                  struct lam_error *err);
/*
 * The same for a job that goes on where another has ended: that has cleared
 * the target if that was the plan, and has written since; what should be zero
 * is proved to be.
 */
int zeroing_resume(struct zeroing *z, struct lam_image *target,
                   const struct lam_convert_options *options,
                   struct lam_error *err);
void zeroing_deinit(struct zeroing *z);

/* True if a range of any length that is to be zero costs nothing. */
bool zeroing_is_free(const struct zeroing *z);

/* Make the range read as zero.  @scratch: ZEROING_PIECE aligned bytes. */
int zeroing_range(struct zeroing *z, uint64_t offset, uint64_t length,
                  void *scratch, struct lam_error *err);

/* True if zeroes cost changes of the target's tables, or writes, only: then
 * zeroing_add() does for zeroing_range(). */
bool zeroing_is_placed(const struct zeroing *z);

/* What zeroing_range() would do, to be done with @batch.  Nobody else changes
 * the range meanwhile. */
int zeroing_add(struct zeroing *z, struct batch *batch, uint64_t offset,
                uint64_t length, struct lam_error *err);

/* The same for a range that was freed: believe what it reads as, not what it
 * should. */
int zeroing_prove(struct zeroing *z, uint64_t offset, uint64_t length,
                  void *scratch, struct lam_error *err);

#endif
