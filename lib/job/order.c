/* SPDX-License-Identifier: MIT */
/*
 * order.c - the writes of one worker, given their places in the order of the
 * chunks.
 */
#include "job/order.h"

#include <inttypes.h>

#include "base/error.h"

void order_init(struct order *o, struct turn *turn, struct lam_image *target,
                bool absent)
{
    *o = (struct order){ .turn = turn, .passed = true };
    batch_init(&o->batch, target, absent);
}

void order_deinit(struct order *o)
{
    batch_deinit(&o->batch);
}

void order_take(struct order *o, uint64_t number)
{
    o->number = number;
    o->waited = o->passed = false;
}

int order_wait(struct order *o, struct lam_error *err)
{
    if (!o->turn || o->waited)
        return 0;
    int rc = turn_wait(o->turn, o->number, err);
    o->waited = rc == 0;
    return rc;
}

int order_pass(struct order *o, struct lam_error *err)
{
    if (!o->turn || o->passed)
        return 0;
    int rc = turn_pass(o->turn, o->number, err);
    o->passed = rc == 0;
    return rc;
}

static int name_failure(const struct order *o, int rc, struct lam_error *err)
{
    if (!o->tells_byte)
        return rc;
    return lam_error_prefix(err, rc, "error while writing at byte %" PRIu64,
                            o->batch.failed);
}

int order_write(struct order *o, bool last, struct lam_error *err)
{
    bool empty = batch_is_empty(&o->batch);
    int rc = empty ? 0 : order_wait(o, err);

    if (rc == 0 && !empty)
        rc = name_failure(o, batch_place(&o->batch, err), err);
    if (rc < 0)
        return rc;
    if (last)
        rc = order_pass(o, err);
    if (empty)
        return rc;
    /* What has its place holds its clusters until it is stored. */
    if (rc < 0) {
        batch_store(&o->batch, NULL);
        return rc;
    }
    return name_failure(o, batch_store(&o->batch, err), err);
}

int order_fail(struct order *o, int rc, struct lam_error *err)
{
    struct lam_error first = LAM_ERROR_INIT;

    if (!o->turn)
        return rc;
    if (!o->passed) {
        int earlier = order_wait(o, &first);
        if (earlier < 0) {
            if (err)
                *err = first;
            return earlier;
        }
    }
    turn_abort(o->turn, rc, err);
    return rc;
}
