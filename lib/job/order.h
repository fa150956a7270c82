/* SPDX-License-Identifier: MIT */
/*
 * order.h - the writes of one worker, given their places in the order of the
 * chunks whoever is first.
 *
 * Reading, compressing, looking for zeroes and writing go on side by side.
 * Only which host clusters a chunk gets is settled when it is its turn; so the
 * same sources make the same image at every run.
 */
#ifndef LAM_JOB_ORDER_H
#define LAM_JOB_ORDER_H

#include "base/turn.h"
#include "image/batch.h"

struct order {
    struct batch batch;         /* to be filled, for order_write() */
    struct turn *turn;          /* of all workers; NULL: there is no order */
    uint64_t number;            /* of the chunk */
    bool waited, passed;
    bool tells_byte;            /* a failed write's message says where */
};

/* @turn may be NULL.  @absent: as in batch_init(). */
void order_init(struct order *o, struct turn *turn, struct lam_image *target,
                bool absent);
void order_deinit(struct order *o);

/* The worker has taken chunk @number. */
void order_take(struct order *o, uint64_t number);

/* Until it is the chunk's turn, which it has until it passes. */
int order_wait(struct order *o, struct lam_error *err);

/* Nothing of the chunk is left to be placed. */
int order_pass(struct order *o, struct lam_error *err);

/* Place the batch in turn, and write it.  @last: nothing comes after it. */
int order_write(struct order *o, bool last, struct lam_error *err);

/* The chunk has failed, and with it all: the failure of the first chunk is
 * the one that is told, if it is known by then.  Returns that. */
int order_fail(struct order *o, int rc, struct lam_error *err);

#endif
