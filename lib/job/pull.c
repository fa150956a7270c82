/* SPDX-License-Identifier: MIT */
/*
 * pull.c - copies into an overlay what would change under it if another image
 * took the place of the one below.
 *
 * What is copied is what the overlay shows anyway, so it may be stopped at any
 * moment.  Units that read the same on both sides stay absent; where the old
 * side reads as zero and the new one does not, they become zero without being
 * written.
 */
#include "job/pull.h"

#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/workers.h"
#include "base/zeroes.h"
#include "extent/extent.h"
#include "job/order.h"
#include "job/pull-plan.h"

/* What a worker has to itself. */
struct hand {
    uint8_t *old, *new;         /* a piece each */
    struct order order;
};

struct pulling {
    const struct pull *pull;
    struct pull_plan plan;
    struct hand *hands;
    unsigned workers;
    struct turn turn;
    uint8_t *zeroes;            /* a piece, where zeroes have to be written */
};

enum verdict { SAME, ZEROES, DIFFERENT };

/* ---------------------------------------------------------------- one task */

static int read_side(const struct pull_side *side, bool zero, struct range r,
                     uint8_t *buf, struct lam_error *err)
{
    uint64_t size = side->image && !zero ? lam_image_size(side->image) : 0;
    struct range inside = range_intersect(r, range_make(0, size));

    memset(buf + inside.length, 0, r.length - inside.length);
    return inside.length ? lam_image_read(side->image, buf, inside.length,
                                          inside.offset, err) : 0;
}

static enum verdict judge(const struct pull *p, const uint8_t *old,
                          const uint8_t *new, uint64_t length)
{
    if (p->compare && !memcmp(old, new, length))
        return SAME;
    return memory_is_zero(old, length) ? ZEROES : DIFFERENT;
}

/* The part of @r that is whole clusters, or the end of the disk. */
static uint64_t compressible(const struct pull *p, struct range r)
{
    uint64_t cluster = lam_image_cluster_size(p->image);

    if (!p->compress || !is_aligned(r.offset, cluster))
        return 0;
    return range_end(r) == lam_image_size(p->image)
        ? r.length : align_down(r.length, cluster);
}

static int put_data(const struct pull *p, struct batch *batch, struct range r,
                    const uint8_t *data, struct lam_error *err)
{
    uint64_t packed = compressible(p, r);
    int rc = 0;

    if (packed)
        rc = batch_compress(batch, data, packed, r.offset, err);
    return rc < 0 ? rc : batch_data(batch, data + packed, r.length - packed,
                                    r.offset + packed, err);
}

/* Version 2 has no zero clusters over a backing file. */
static int put_zero_bytes(const struct pulling *s, struct batch *batch,
                          struct range r, struct lam_error *err)
{
    int rc = 0;

    for (uint64_t at = r.offset, n; at < range_end(r) && rc == 0; at += n) {
        n = min_u64(align_down(at, s->plan.piece) + s->plan.piece,
                    range_end(r)) - at;
        rc = batch_data(batch, s->zeroes, n, at, err);
    }
    return rc;
}

/* Zero clusters where the new side does not read as zero anyway. */
static int put_zeroes(const struct pulling *s, struct batch *batch,
                      struct range r, struct lam_error *err)
{
    const struct pull *p = s->pull;
    uint64_t size = p->new.image ? lam_image_size(p->new.image) : 0;
    struct range inside = range_intersect(r, range_make(0, size));
    struct lam_extents map lam_cleanup(lam_extents_deinit) = LAM_EXTENTS_INIT;
    int rc = inside.length ? image_map(p->new.image, inside.offset,
                                           inside.length, LAM_DEPTH_ALL, 0,
                                           &map, err) : 0;

    for (size_t i = 0; i < map.count && rc == 0; i++) {
        const struct lam_extent *e = &map.items[i];
        struct range units = range_intersect(
            range_widen(range_make(e->offset, e->length), s->plan.unit), r);

        if (extent_reads_zero(e))
            continue;
        rc = s->zeroes
            ? put_zero_bytes(s, batch, units, err)
            : batch_zero(batch, units.length, units.offset, 0, err);
    }
    return rc;
}

static int settle_run(const struct pulling *s, struct batch *batch,
                      struct range r, enum verdict verdict,
                      const uint8_t *data, struct lam_error *err)
{
    if (verdict == SAME || !r.length)
        return 0;
    return verdict == ZEROES ? put_zeroes(s, batch, r, err)
                             : put_data(s->pull, batch, r, data, err);
}

/* The next unit of @r at @at; what is to be compressed is judged by clusters,
 * of which @r may have a part where the overlay has the rest. */
static uint64_t next_unit(const struct pulling *s, struct range r, uint64_t at)
{
    uint64_t unit = s->pull->compress ? lam_image_cluster_size(s->pull->image)
                                      : s->plan.unit;
    uint64_t start = r.offset + at;

    return min_u64(align_down(start, unit) + unit - start, r.length - at);
}

/* Units with the same verdict together. */
static int settle_units(const struct pulling *s, struct hand *hand,
                        struct range r, struct lam_error *err)
{
    struct batch *batch = &hand->order.batch;
    uint64_t start = 0;
    enum verdict verdict = SAME;
    int rc = 0;

    for (uint64_t at = 0, n; at < r.length && rc == 0; at += n) {
        n = next_unit(s, r, at);
        enum verdict next = judge(s->pull, hand->old + at, hand->new + at, n);

        if (next == verdict)
            continue;
        rc = settle_run(s, batch, range_make(r.offset + start, at - start),
                        verdict, hand->old + start, err);
        start = at;
        verdict = next;
    }
    return rc < 0 ? rc : settle_run(s, batch,
                                    range_make(r.offset + start,
                                               r.length - start),
                                    verdict, hand->old + start, err);
}

static int run_task(const struct pulling *s, struct hand *hand,
                    const struct pull_task *task, struct lam_error *err)
{
    const struct pull *p = s->pull;
    struct range r = task->range;

    if (task->old_zero && !p->compare)
        return put_zeroes(s, &hand->order.batch, r, err);
    int rc = job_pay(p->job, r.length, err);
    if (rc == 0)
        rc = read_side(&p->old, task->old_zero, r, hand->old, err);
    if (rc == 0 && p->compare)
        rc = read_side(&p->new, task->new_zero, r, hand->new, err);
    return rc < 0 ? rc : settle_units(s, hand, r, err);
}

/* ------------------------------------------------------------- the workers */

/* What is missing is found out by whoever is free; where it comes to lie is
 * settled in order. */
static int pull_step(void *opaque, unsigned worker, struct lam_error *err)
{
    struct pulling *s = opaque;
    struct hand *hand = &s->hands[worker];
    struct pull_task task;
    int rc = pull_plan_next(&s->plan, &task, err);

    if (rc == 0)
        return 0;
    if (rc > 0) {
        order_take(&hand->order, task.sequence);
        rc = run_task(s, hand, &task, err);
        if (rc == 0)
            rc = order_write(&hand->order, true, err);
    }
    if (rc < 0)
        return order_fail(&hand->order, rc, err);
    job_advance(s->pull->job, task.range.length);
    return 1;
}

static int hands_new(struct pulling *s, struct lam_error *err)
{
    uint64_t bytes = s->plan.piece;

    const struct lam_image *image = s->pull->image;

    s->hands = calloc(s->workers, sizeof *s->hands);
    if (!image->ops->zero_unit(image->format)) {
        s->zeroes = calloc(1, bytes);
        if (!s->zeroes)
            return lam_fail(err, ENOMEM, "no memory for %" PRIu64 " bytes",
                            bytes);
    }
    for (unsigned i = 0; s->hands && i < s->workers; i++) {
        order_init(&s->hands[i].order, &s->turn, s->pull->image, true);
        s->hands[i].old = buffer_new(bytes);
        s->hands[i].new = buffer_new(bytes);
        if (!s->hands[i].old || !s->hands[i].new)
            return lam_fail(err, ENOMEM, "no memory for %" PRIu64 " bytes",
                            bytes);
    }
    return s->hands ? 0 : lam_fail(err, ENOMEM, "no memory for %u workers",
                                   s->workers);
}

static void pulling_deinit(struct pulling *s)
{
    for (unsigned i = 0; s->hands && i < s->workers; i++) {
        free(s->hands[i].old);
        free(s->hands[i].new);
        order_deinit(&s->hands[i].order);
    }
    free(s->hands);
    free(s->zeroes);
    turn_deinit(&s->turn);
    pull_plan_deinit(&s->plan);
}

int pull_run(const struct pull *pull, struct lam_error *err)
{
    struct pulling s lam_cleanup(pulling_deinit) = {
        .pull = pull, .workers = job_workers(pull->job),
    };

    turn_init(&s.turn);
    pull_plan_init(&s.plan, pull);
    int rc = hands_new(&s, err);
    if (rc < 0)
        return rc;
    job_announce(pull->job);
    return workers_run(s.workers, pull_step, &s, err);
}
