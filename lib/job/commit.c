/* SPDX-License-Identifier: MIT */
/*
 * commit.c - what the upper layers of a chain hold, written into a lower one.
 *
 * Order: the lower layer grows; data and zeroes go into it, by several workers,
 * while everything above still has them and shows them; it is flushed; only
 * then the top lets go of what it has.
 */
#include <inttypes.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/workers.h"
#include "image/access.h"
#include "image/graph.h"
#include "job/job.h"
#include "job/walk.h"

#define CHUNK_BYTES   (1 * LAM_MIB)
#define BARE_BYTES    (1 * LAM_GIB)
#define UNIT_BYTES    UINT64_C(4096)

/* What a worker has to itself. */
struct hand {
    struct walk_chunk chunk;
    uint8_t *buf;               /* a data chunk */
};

struct commit {
    struct job job;
    struct lam_image *top, *base;
    unsigned depth;
    struct walk walk;
    struct hand *hands;
    unsigned workers;
};

/* ----------------------------------------------------------------- a chunk */

/* Where the base does not read as zero by its map alone. */
static int commit_zeroes(struct commit *c, const struct walk_chunk *chunk,
                         struct lam_error *err)
{
    struct lam_extents map lam_cleanup(lam_extents_deinit) = LAM_EXTENTS_INIT;
    int rc = lam_image_map(c->base, chunk->offset, chunk->length,
                           LAM_DEPTH_ALL, 0, &map, err);

    for (size_t i = 0; i < map.count && rc == 0; i++) {
        const struct lam_extent *e = &map.items[i];

        if (e->state == LAM_EXTENT_ZERO || e->state == LAM_EXTENT_UNALLOCATED)
            continue;
        rc = lam_image_zero(c->base, e->offset, e->length, LAM_ZERO_UNMAP, err);
    }
    return rc;
}

static int commit_data(struct commit *c, struct hand *hand,
                       struct lam_error *err)
{
    const struct walk_chunk *chunk = &hand->chunk;
    int rc = job_pay(&c->job, chunk->length, err);

    if (rc == 0)
        rc = lam_image_read(c->top, hand->buf, chunk->length, chunk->offset,
                            err);
    return rc < 0 ? rc : lam_image_write(c->base, hand->buf, chunk->length,
                                         chunk->offset, 0, err);
}

static int commit_step(void *opaque, unsigned worker, struct lam_error *err)
{
    struct commit *c = opaque;
    struct hand *hand = &c->hands[worker];
    struct walk_chunk *chunk = &hand->chunk;
    int rc = job_check(&c->job, err);

    if (rc == 0)
        rc = walk_next(&c->walk, chunk, err);
    if (rc <= 0)
        return rc;
    if (chunk->kind == WALK_DATA)
        rc = commit_data(c, hand, err);
    else if (chunk->kind == WALK_ZERO)
        rc = commit_zeroes(c, chunk, err);
    if (rc < 0)
        return rc;
    job_advance(&c->job, chunk->length);
    return 1;
}

/* -------------------------------------------------------------- all of them */

/* A chunk takes the largest cluster of all, so that a compressed one is
 * inflated once; the smallest says what a piece may be. */
static void choose_sizes(const struct commit *c, struct walk_options *o)
{
    uint64_t largest = CHUNK_BYTES, smallest = UNIT_BYTES;

    for (unsigned i = 0; i < c->depth; i++) {
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
        free(c->hands[i].buf);
    }
    free(c->hands);
}

static int copy_down(struct commit *c, struct lam_error *err)
{
    struct walk_source source = {
        .image = c->top,
        .size = lam_image_size(c->top),
        .depth = c->depth,
        .shared_end = lam_image_size(c->top),
    };
    struct walk_options cuts;

    choose_sizes(c, &cuts);
    int rc = walk_init(&c->walk, &cuts, &source, 1, err);
    if (rc == 0)
        rc = hands_new(c, err);
    if (rc == 0)
        rc = workers_run(c->workers, commit_step, c, err);
    hands_free(c);
    walk_deinit(&c->walk);
    return rc;
}

static int grow(struct commit *c, struct lam_error *err)
{
    uint64_t size = lam_image_size(c->top);

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

static int commit_locked(struct commit *c, bool keep, struct lam_error *err)
{
    int rc = layer_set_writable(c->base, true, err);

    if (rc < 0)
        return rc;
    rc = commit_into(c, err);
    int ended = layer_set_writable(c->base, false, rc < 0 ? NULL : err);
    if (rc == 0)
        rc = ended;
    return rc < 0 || keep ? rc : image_empty(c->top, err);
}

static int check_request(struct lam_image *image,
                         const struct lam_commit_options *o, bool keep,
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
    if (keep)
        return 0;
    if (!image->writable)
        return lam_fail(err, EROFS, "'%s' is open read-only, and cannot be "
                        "emptied", image->name);
    return image->ops->empty ? 0 : lam_fail(err, ENOTSUP, "format '%s' cannot "
                                            "be emptied", image->ops->name);
}

int lam_image_commit(struct lam_image *image,
                     const struct lam_commit_options *options,
                     struct lam_error *err)
{
    static const struct lam_commit_options defaults = LAM_COMMIT_OPTIONS_INIT;
    const struct lam_commit_options *o = options ? options : &defaults;
    bool keep = o->keep || o->depth > 1;
    struct commit c = { .top = image, .depth = o->depth };

    image_graph_lock(image);
    int rc = check_request(image, o, keep, err);
    if (rc == 0) {
        c.base = image_layer(image, o->depth);
        job_init(&c.job, "commit", lam_image_size(image), &o->job);
        c.workers = job_workers(&c.job);
        rc = commit_locked(&c, keep, err);
        job_deinit(&c.job);
    }
    image_graph_unlock(image);
    return rc;
}
