/* SPDX-License-Identifier: MIT */
/*
 * commit.c - what the upper layers of a chain hold, written into a lower one.
 *
 * Order: the lower layer grows; data and zeroes go into it, by several workers,
 * while everything above still has them and shows them; it is flushed; only
 * then the top lets go of what it has, or layers drop out of the chain.
 *
 * The guest may go on meanwhile.  What it changes in a top that is to be
 * emptied is noted and copied again, and again; when little is left, it waits
 * for as long as that takes, the flush, and the switch to an empty top.
 */
#include <inttypes.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/workers.h"
#include "extent/extent.h"
#include "image/access.h"
#include "image/changes.h"
#include "image/graph.h"
#include "job/job.h"
#include "job/naming.h"
#include "job/order.h"
#include "job/walk.h"

#define CHUNK_BYTES   (1 * LAM_MIB)
#define BARE_BYTES    (1 * LAM_GIB)
/* Where nothing is written. */
#define FREE_BYTES    (1024 * LAM_TIB)
#define UNIT_BYTES    UINT64_C(4096)
/* What may be left to be copied while the guest waits, and how often it may
 * have been more than that.  A guest that is faster than that gets a share of
 * what is copied. */
#define PAUSE_BYTES   (2 * LAM_MIB)
enum { MAX_ROUNDS = 12, GUEST_SHARE = 4 };

/* What a worker has to itself. */
struct hand {
    struct walk_chunk chunk;
    uint8_t *buf;               /* a data chunk */
    struct order order;
};

struct commit {
    struct job job;
    struct lam_image *top, *source, *base;
    unsigned from, depth;       /* levels of @source and @base */
    struct walk walk;
    struct hand *hands;
    unsigned workers;
    struct turn turn;
    bool ordered;               /* the base has clusters to be placed */
    bool guest_waits;           /* no rate is kept */
};

/* ----------------------------------------------------------------- a chunk */

/* It is zero by the map alone, and the base has no space for it that could be
 * given back. */
static bool is_bare_zero(const struct lam_extent *e)
{
    bool owned = e->depth == 0 && (e->flags & LAM_EXTENT_HAS_HOST);

    return e->state == LAM_EXTENT_UNALLOCATED ||
           (e->state == LAM_EXTENT_ZERO && !owned);
}

static int commit_zeroes(struct commit *c, struct range r,
                         struct lam_error *err)
{
    struct lam_extents map lam_cleanup(lam_extents_deinit) = LAM_EXTENTS_INIT;
    int rc = image_map(c->base, r.offset, r.length, LAM_DEPTH_ALL, 0, &map,
                           err);

    for (size_t i = 0; i < map.count && rc == 0; i++) {
        const struct lam_extent *e = &map.items[i];

        if (is_bare_zero(e))
            continue;
        rc = lam_image_zero(c->base, e->offset, e->length, LAM_ZERO_UNMAP, err);
    }
    return rc;
}

/* No more than a hand holds. */
static int read_data(struct commit *c, struct hand *hand, struct range r,
                     struct lam_error *err)
{
    int rc = c->guest_waits ? job_check(&c->job, err)
                            : job_pay(&c->job, r.length, err);

    return rc < 0 ? rc : lam_image_read(c->source, hand->buf, r.length,
                                        r.offset, err);
}

static int commit_data(struct commit *c, struct hand *hand, struct range r,
                       struct lam_error *err)
{
    int rc = read_data(c, hand, r, err);

    return rc < 0 ? rc : lam_image_write(c->base, hand->buf, r.length,
                                         r.offset, 0, err);
}

/*
 * The same with its place in order.  Where the chunk ends inside a cluster of
 * the base, the next one begins with what this one has written: it waits until
 * that is there.
 */
static int commit_in_turn(struct commit *c, struct hand *hand, struct range r,
                          struct lam_error *err)
{
    uint64_t cluster = lam_image_cluster_size(c->base), end = range_end(r);
    bool whole = !(end % cluster) || end == lam_image_size(c->source);
    int rc = read_data(c, hand, r, err);

    if (rc == 0)
        rc = batch_data(&hand->order.batch, hand->buf, r.length, r.offset,
                        err);
    if (rc == 0)
        rc = order_write(&hand->order, whole, err);
    return rc;
}

static int commit_zeroes_in_turn(struct commit *c, struct hand *hand,
                                 struct range r, struct lam_error *err)
{
    int rc = order_wait(&hand->order, err);

    return rc < 0 ? rc : commit_zeroes(c, r, err);
}

static int commit_chunk(struct commit *c, struct hand *hand,
                        struct lam_error *err)
{
    const struct walk_chunk *chunk = &hand->chunk;
    struct range r = range_make(chunk->offset, chunk->length);
    int rc = 0;

    if (chunk->kind == WALK_DATA)
        rc = c->ordered ? commit_in_turn(c, hand, r, err)
                        : commit_data(c, hand, r, err);
    else if (chunk->kind == WALK_ZERO)
        rc = commit_zeroes_in_turn(c, hand, r, err);
    return rc < 0 ? rc : order_pass(&hand->order, err);
}

static int commit_step(void *opaque, unsigned worker, struct lam_error *err)
{
    struct commit *c = opaque;
    struct hand *hand = &c->hands[worker];
    int rc = job_check(&c->job, err);

    if (rc == 0)
        rc = walk_next(&c->walk, &hand->chunk, err);
    if (rc == 0)
        return 0;
    if (rc > 0) {
        order_take(&hand->order, hand->chunk.sequence);
        rc = commit_chunk(c, hand, err);
    }
    if (rc < 0)
        return order_fail(&hand->order, rc, err);
    job_advance(&c->job, hand->chunk.length);
    return 1;
}

/* -------------------------------------------------------------- all of them */

/* A chunk takes the largest cluster of all, so that a compressed one is
 * inflated once; the smallest says what a piece may be. */
static void choose_sizes(const struct commit *c, struct walk_options *o)
{
    uint64_t largest = CHUNK_BYTES, smallest = UNIT_BYTES;

    for (unsigned i = c->from; i < c->depth; i++) {
        uint64_t size = lam_image_cluster_size(image_layer(c->top, i));

        largest = max_u64(largest, size);
        smallest = size ? min_u64(smallest, size) : smallest;
    }
    uint64_t piece = rate_piece(&c->job.rate, UNIT_BYTES, largest);
    *o = (struct walk_options){
        .unit = smallest,
        .data_max = max_u64(piece, smallest),
        .bare_max = BARE_BYTES,
        .split_min = smallest,
    };
}

static int hands_new(struct commit *c, struct lam_error *err)
{
    uint64_t bytes = c->walk.options.data_max;

    c->hands = calloc(c->workers, sizeof *c->hands);
    for (unsigned i = 0; c->hands && i < c->workers; i++) {
        order_init(&c->hands[i].order, c->ordered ? &c->turn : NULL, c->base,
                   false);
        c->hands[i].buf = buffer_new(bytes);
        if (!c->hands[i].buf)
            return lam_fail(err, ENOMEM, "no memory for %" PRIu64 " bytes",
                            bytes);
    }
    return c->hands ? 0 : lam_fail(err, ENOMEM, "no memory for %u workers",
                                   c->workers);
}

static void hands_free(struct commit *c)
{
    for (unsigned i = 0; c->hands && i < c->workers; i++) {
        walk_chunk_deinit(&c->hands[i].chunk);
        order_deinit(&c->hands[i].order);
        free(c->hands[i].buf);
    }
    free(c->hands);
}

static int copy_down(struct commit *c, struct lam_error *err)
{
    struct walk_source source = {
        .image = c->source,
        .size = lam_image_size(c->source),
        .depth = c->depth - c->from,
        .shared_end = lam_image_size(c->source),
    };
    struct walk_options cuts;

    choose_sizes(c, &cuts);
    c->ordered = lam_image_cluster_size(c->base) &&
                 !image_compresses_all(c->base);
    turn_init(&c->turn);
    int rc = walk_init(&c->walk, &cuts, &source, 1, err);
    c->walk.shared_max = FREE_BYTES;
    if (rc == 0)
        rc = hands_new(c, err);
    if (rc == 0)
        rc = workers_run(c->workers, commit_step, c, err);
    walk_deinit(&c->walk);
    turn_deinit(&c->turn);
    return rc;
}

static int grow(struct commit *c, struct lam_error *err)
{
    uint64_t size = lam_image_size(c->source);

    if (lam_image_size(c->base) >= size)
        return 0;
    int rc = lam_image_resize(c->base, size, LAM_PREALLOC_OFF, 0, err);
    return lam_error_prefix(err, rc, "Could not grow '%s'", c->base->name);
}

static int commit_into(struct commit *c, struct lam_error *err)
{
    int rc = grow(c, err);

    if (rc == 0)
        rc = copy_down(c, err);
    return rc < 0 ? rc : lam_image_flush(c->base, err);
}

/* ------------------------------------------- what the guest has changed */

static int commit_extent(struct commit *c, const struct lam_extent *e,
                         struct lam_error *err)
{
    uint64_t piece = c->walk.options.data_max, end = e->offset + e->length;
    int rc = 0;

    if (e->state == LAM_EXTENT_UNALLOCATED)
        return 0;
    if (extent_reads_zero(e))
        return commit_zeroes(c, range_make(e->offset, e->length), err);
    for (uint64_t at = e->offset, n; at < end && rc == 0; at += n) {
        n = min_u64(piece, end - at);
        rc = commit_data(c, &c->hands[0], range_make(at, n), err);
    }
    return rc;
}

static int commit_range(struct commit *c, struct range r, struct lam_error *err)
{
    struct lam_extents map lam_cleanup(lam_extents_deinit) = LAM_EXTENTS_INIT;
    int rc = image_map(c->source, r.offset, r.length, c->depth - c->from, 0,
                           &map, err);

    for (size_t i = 0; i < map.count && rc == 0; i++)
        rc = commit_extent(c, &map.items[i], err);
    return rc;
}

static int commit_changes(struct commit *c, struct lam_error *err)
{
    struct range r = range_make(0, 0);
    int rc = 0;

    while (rc == 0 && changes_take(c->top->changes, range_end(r), &r)) {
        rc = commit_range(c, r, err);
        changes_allow(c->top->changes, r.length / GUEST_SHARE);
    }
    return rc;
}

/* Until little is left that is not copied, or not on disk. */
static int catch_up(struct commit *c, struct lam_error *err)
{
    struct changes *changes = c->top->changes;
    int rc = lam_image_flush(c->top, err);

    for (int i = 0; rc == 0 && i < MAX_ROUNDS &&
         changes_total(changes) > PAUSE_BYTES; i++) {
        changes_pace(changes, i > 0);
        rc = commit_changes(c, err);
        if (rc == 0)
            rc = lam_image_flush(c->base, err);
        if (rc == 0)
            rc = lam_image_flush(c->top, err);
    }
    return rc;
}

/* The guest waits. */
static int empty_top(struct commit *c, struct lam_error *err)
{
    struct changes *changes = c->top->changes;

    pthread_rwlock_wrlock(&changes->hold);
    c->guest_waits = true;
    int rc = commit_changes(c, err);
    if (rc == 0)
        rc = lam_image_flush(c->base, err);
    if (rc == 0)
        rc = image_empty(c->top, err);
    pthread_rwlock_unlock(&changes->hold);
    return rc;
}

static int commit_and_empty(struct commit *c, struct lam_error *err)
{
    int rc = changes_begin(c->top, err);

    if (rc == 0)
        rc = commit_into(c, err);
    if (rc == 0)
        rc = catch_up(c, err);
    if (rc == 0)
        rc = empty_top(c, err);
    changes_end(c->top);
    return rc;
}

/* --------------------------------------------------- layers that drop out */

/* The layer above those that go names the base. */
static int drop_committed(struct commit *c, struct lam_error *err)
{
    struct lam_image *above = image_layer(c->top, c->from - 1);
    lam_autofree char *name = NULL;
    int rc = naming_of(above, c->base, &name, err);

    if (rc == 0)
        rc = layer_set_writable(above, true, err);
    if (rc < 0)
        return rc;
    rc = image_record_backing(above, name, c->base->ops->name, err);
    if (c->from > 1)
        layer_set_writable(above, false, NULL);
    return rc < 0 ? rc : naming_drop_layers(c->top, c->from, c->depth, err);
}

/* ------------------------------------------------------------------ request */

/* An overlay that takes its backing image for another one when that has changed
 * is told that it is the same. */
static int keep_overlay(struct commit *c, struct lam_error *err)
{
    struct lam_image *above = image_layer(c->top, c->depth - 1);

    if (!above->writable || !above->ops->adopt_backing)
        return 0;
    return above->ops->adopt_backing(above->format, c->base->ops,
                                     c->base->format, err);
}

static int commit_locked(struct commit *c, bool empty, struct lam_error *err)
{
    int rc = layer_set_writable(c->base, true, err);

    if (rc < 0)
        return rc;
    job_announce(&c->job);
    rc = empty ? commit_and_empty(c, err) : commit_into(c, err);
    if (rc == 0)
        rc = keep_overlay(c, err);
    hands_free(c);
    int ended = layer_set_writable(c->base, false, rc < 0 ? NULL : err);
    if (rc == 0)
        rc = ended;
    return rc < 0 || !c->from ? rc : drop_committed(c, err);
}

static int check_layers(struct lam_image *image,
                        const struct lam_commit_options *o,
                        struct lam_error *err)
{
    if (image->level != 0 || image->metadata_only)
        return lam_fail(err, EINVAL, "'%s' is not the top of a chain that is "
                        "open for data", image->name);
    if (!image->backing)
        return lam_fail(err, EINVAL, "Image does not have a backing file");
    if (!o->depth || o->depth >= image_depth(image))
        return lam_fail(err, EINVAL, "layer %u to commit into (limit: %u)",
                        o->depth, image_depth(image) - 1);
    if (o->from >= o->depth)
        return lam_fail(err, EINVAL, "layers from %u on to commit into layer "
                        "%u (limit: %u)", o->from, o->depth, o->depth - 1);
    return 0;
}

/* What is behind the end of a layer that drops out must not appear above it. */
static int check_sizes(struct lam_image *image,
                       const struct lam_commit_options *o,
                       struct lam_error *err)
{
    struct lam_image *first = image_layer(image, o->from);
    struct lam_image *above = image_layer(image, o->from - 1);
    struct lam_image *base = image_layer(image, o->depth);

    if (first->size >= min_u64(above->size, base->size))
        return 0;
    return lam_fail(err, EINVAL, "'%s' with %" PRIu64 " bytes cannot drop out "
                    "between '%s' and '%s', which are larger", first->name,
                    (uint64_t)first->size, above->name, base->name);
}

static int check_request(struct lam_image *image,
                         const struct lam_commit_options *o, bool empty,
                         struct lam_error *err)
{
    int rc = check_layers(image, o, err);

    if (rc < 0)
        return rc;
    if (o->from)
        return check_sizes(image, o, err);
    if (!empty || image->writable)
        return 0;
    return lam_fail(err, EROFS, "'%s' is open read-only, and cannot be "
                    "emptied", image->name);
}

int lam_image_commit(struct lam_image *image,
                     const struct lam_commit_options *options,
                     struct lam_error *err)
{
    static const struct lam_commit_options defaults = LAM_COMMIT_OPTIONS_INIT;
    const struct lam_commit_options *o = options ? options : &defaults;
    bool empty = !o->keep && !o->from && o->depth == 1 && image->ops->empty;
    struct commit c = { .top = image, .from = o->from, .depth = o->depth };

    image_graph_lock(image);
    int rc = check_request(image, o, empty, err);
    if (rc == 0) {
        c.source = image_layer(image, o->from);
        c.base = image_layer(image, o->depth);
        job_init(&c.job, "commit", lam_image_size(c.source), &o->job);
        c.workers = job_workers(&c.job);
        rc = commit_locked(&c, empty, err);
        job_deinit(&c.job);
    }
    image_graph_unlock(image);
    return rc;
}
