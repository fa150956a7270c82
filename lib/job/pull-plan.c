/* SPDX-License-Identifier: MIT */
/*
 * pull-plan.c - which ranges of an overlay a pull has to look at.
 */
#include "job/pull-plan.h"

#include "base/cleanup.h"
#include "extent/extent.h"

#define WINDOW_FIRST  (64 * LAM_MIB)
#define WINDOW_MAX    (64 * LAM_GIB)
#define WINDOW_MIN    (4 * LAM_MIB)
/* Extents that a window should have: fewer, and the next is larger. */
#define EXTENTS_FEW   64
#define EXTENTS_MANY  8192
/* Data of a task; enough that threads seldom wait for each other. */
#define PIECE_BYTES   (1 * LAM_MIB)
/* Where nothing is read. */
#define BARE_BYTES    (1 * LAM_GIB)

enum kind { SHARED, ZERO, DATA };

/* One map of a window, and how far we are in it. */
struct track {
    struct lam_extents map;
    size_t at;
};

struct tracks { struct track own, old, new; };

static void tracks_deinit(struct tracks *t)
{
    lam_extents_deinit(&t->own.map);
    lam_extents_deinit(&t->old.map);
    lam_extents_deinit(&t->new.map);
}

/* ------------------------------------------------------------------- maps */

static int append_bare(struct track *t, struct range r,
                       enum lam_extent_state state, struct lam_error *err)
{
    struct lam_extent e = { .offset = r.offset, .length = r.length,
                            .state = (uint8_t)state };

    return r.length ? extents_append(&t->map, &e, err) : 0;
}

/* Past the end of the image that is there now all is zero. */
static int map_side(struct track *t, const struct pull_side *side,
                    struct range r, struct lam_error *err)
{
    uint64_t size = side->image ? lam_image_size(side->image) : 0;
    struct range inside = range_intersect(r, range_make(0, size));
    int rc = 0;

    if (side->image && !side->depth)
        return append_bare(t, r, LAM_EXTENT_UNALLOCATED, err);
    if (inside.length)
        rc = image_map(side->image, inside.offset, inside.length,
                           side->depth, 0, &t->map, err);
    uint64_t start = inside.length ? range_end(inside) : r.offset;
    return rc < 0 ? rc : append_bare(t, range_make(start, range_end(r) - start),
                                     LAM_EXTENT_ZERO, err);
}

static int map_window(const struct pull *p, struct tracks *t, struct range r,
                      struct lam_error *err)
{
    int rc = image_map(p->image, r.offset, r.length, 1, 0, &t->own.map,
                           err);

    if (rc == 0)
        rc = map_side(&t->old, &p->old, r, err);
    return rc < 0 ? rc : map_side(&t->new, &p->new, r, err);
}

static enum kind kind_of(const struct pull_side *side,
                         const struct lam_extent *e)
{
    if (e->state == LAM_EXTENT_UNALLOCATED && side->depth != LAM_DEPTH_ALL)
        return SHARED;
    return extent_reads_zero(e) ? ZERO : DATA;
}

/* The extent that holds @at. */
static const struct lam_extent *track_find(struct track *t, uint64_t at)
{
    const struct lam_extent *e = &t->map.items[t->at];

    while (e->offset + e->length <= at)
        e = &t->map.items[++t->at];
    assert(t->at < t->map.count && e->offset <= at);
    return e;
}

/* ------------------------------------------------------------------ tasks */

/* In whole units, together with the last one if it reaches it.  Nothing is
 * known of what makes a unit whole. */
static int add_task(struct pull_plan *plan, struct range part, bool old_zero,
                    bool new_zero, struct lam_error *err)
{
    struct pull_task *last = plan->count ? &plan->tasks[plan->count - 1] : NULL;
    struct range r = range_intersect(range_widen(part, plan->unit),
                                     range_make(0, plan->size));

    if (r.length != part.length)
        old_zero = new_zero = false;
    bool alike = last && last->old_zero == old_zero &&
                 last->new_zero == new_zero;
    if (last && (range_overlaps(last->range, r) ||
                 (alike && range_end(last->range) == r.offset))) {
        last->range.length = range_end(r) - last->range.offset;
        last->old_zero &= old_zero;
        last->new_zero &= new_zero;
        return 0;
    }
    if (plan->count == plan->capacity) {
        size_t capacity = plan->capacity ? 2 * plan->capacity : 64;
        void *tasks = reallocarray(plan->tasks, capacity, sizeof *plan->tasks);

        if (!tasks)
            return lam_fail(err, ENOMEM, "no memory for %zu ranges", capacity);
        plan->tasks = tasks;
        plan->capacity = capacity;
    }
    plan->tasks[plan->count++] = (struct pull_task){
        .range = r, .old_zero = old_zero, .new_zero = new_zero,
    };
    return 0;
}

static int lay_over(struct pull_plan *plan, struct tracks *t, struct range r,
                    struct lam_error *err)
{
    const struct pull *p = plan->pull;
    int rc = 0;

    for (uint64_t at = r.offset, end; at < range_end(r) && rc == 0; at = end) {
        const struct lam_extent *own = track_find(&t->own, at);
        const struct lam_extent *old = track_find(&t->old, at);
        const struct lam_extent *new = track_find(&t->new, at);
        enum kind was = kind_of(&p->old, old), is = kind_of(&p->new, new);

        end = min_u64(own->offset + own->length,
                      min_u64(old->offset + old->length,
                              new->offset + new->length));
        if (own->state == LAM_EXTENT_UNALLOCATED && (was != is || was == DATA))
            rc = add_task(plan, range_make(at, end - at), was == ZERO,
                          is == ZERO, err);
    }
    return rc;
}

static void tune_window(struct pull_plan *plan, size_t nb_extents)
{
    if (nb_extents < EXTENTS_FEW)
        plan->window = min_u64(2 * plan->window, WINDOW_MAX);
    else if (nb_extents > EXTENTS_MANY)
        plan->window = max_u64(plan->window / 2, WINDOW_MIN);
}

/* What is not a task is done. */
static void count_rest(struct pull_plan *plan, struct range r)
{
    uint64_t bytes = r.length;

    for (size_t i = 0; i < plan->count; i++)
        bytes -= min_u64(bytes, plan->tasks[i].range.length);
    job_advance(plan->pull->job, bytes);
}

/* How far a map of @side may go from plan->planned on. */
static uint64_t side_window(const struct pull_plan *plan,
                            const struct pull_side *side)
{
    if (!side->image || !side->depth ||
        plan->planned >= lam_image_size(side->image))
        return UINT64_MAX;
    return max_u64(image_map_window(side->image, plan->planned, side->depth,
                                    plan->window), plan->window);
}

static struct range next_window(const struct pull_plan *plan)
{
    const struct pull *p = plan->pull;
    uint64_t window = image_map_window(p->image, plan->planned, 1,
                                       plan->window);

    window = min_u64(window, side_window(plan, &p->old));
    window = min_u64(window, side_window(plan, &p->new));
    return range_make(plan->planned,
                      min_u64(window, plan->size - plan->planned));
}

static int plan_window(struct pull_plan *plan, struct lam_error *err)
{
    struct tracks t lam_cleanup(tracks_deinit) = { 0 };
    struct range r = next_window(plan);
    int rc = map_window(plan->pull, &t, r, err);

    plan->first = plan->count = 0;
    if (rc == 0)
        rc = lay_over(plan, &t, r, err);
    if (rc < 0)
        return rc;
    plan->planned = range_end(r);
    tune_window(plan, t.own.map.count + t.old.map.count + t.new.map.count);
    count_rest(plan, r);
    return 0;
}

static struct pull_task cut_task(struct pull_plan *plan)
{
    struct pull_task *next = &plan->tasks[plan->first], task = *next;
    task.sequence = plan->sequence++;
    bool bare = task.old_zero && !plan->pull->compare;
    uint64_t limit = bare ? BARE_BYTES : plan->piece;

    limit = align_down(task.range.offset, limit) + limit - task.range.offset;
    task.range.length = min_u64(task.range.length, limit);
    next->range = range_make(range_end(task.range),
                             next->range.length - task.range.length);
    if (!next->range.length)
        plan->first++;
    return task;
}

int pull_plan_next(struct pull_plan *plan, struct pull_task *task,
                   struct lam_error *err)
{
    LAM_LOCKED(&plan->lock);
    while (plan->first == plan->count) {
        if (plan->planned == plan->size)
            return 0;
        int rc = job_check(plan->pull->job, err);
        if (rc == 0)
            rc = plan_window(plan, err);
        if (rc < 0)
            return rc;
    }
    *task = cut_task(plan);
    return 1;
}

void pull_plan_init(struct pull_plan *plan, const struct pull *pull)
{
    const struct lam_image *image = pull->image;
    uint64_t unit = image->ops->zero_unit(image->format);

    /* Version 2 zeroes nothing by itself, but its clusters are its units. */
    if (!unit)
        unit = lam_image_cluster_size(image);
    *plan = (struct pull_plan){
        .pull = pull,
        .size = lam_image_size(image),
        .unit = max_u64(unit, 1),
        .window = WINDOW_FIRST,
    };
    plan->piece = max_u64(rate_piece(&pull->job->rate, 4096, PIECE_BYTES),
                          max_u64(lam_image_cluster_size(image), 1));
    pthread_mutex_init(&plan->lock, NULL);
}

void pull_plan_deinit(struct pull_plan *plan)
{
    free(plan->tasks);
    pthread_mutex_destroy(&plan->lock);
}
