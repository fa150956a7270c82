/* SPDX-License-Identifier: MIT */
/*
 * sources.c - what a conversion reads from: concatenated images, and what they
 * ask of it.
 */
#include "job/sources.h"

#include <inttypes.h>

#include "base/arith.h"
#include "base/cleanup.h"
#include "base/workers.h"
#include "image/graph.h"

enum { DEFAULT_REQUESTS = 8, MIN_WORKERS = 4, MAX_WORKERS = 256 };

/*
 * How many layers of @source lie above what the target's backing file holds
 * already.  That file is looked for in the source's chain.  If it is not in
 * there, the caller has told us (LAM_CONVERT_TARGET_HAS_BACKING) that it has
 * the contents of what is beneath the source's top layer.
 */
static uint32_t layers_above(struct lam_image *source,
                             const struct lam_image *target,
                             uint64_t *shared_end)
{
    uint32_t depth = 0;

    for (struct lam_image *i = source; i; i = i->backing, depth++) {
        if (!image_same_object(i, target->backing))
            continue;
        /* The same bytes under another format are other contents. */
        if (i->ops != target->backing->ops)
            return LAM_DEPTH_ALL;
        *shared_end = lam_image_size(target->backing);
        return depth;
    }
    if (!source->backing)
        return LAM_DEPTH_ALL;
    *shared_end = min_u64(lam_image_size(target->backing),
                          lam_image_size(source->backing));
    return 1;
}

int sources_total(struct lam_image *const *images, size_t count,
                  const struct lam_convert_options *convert, uint64_t *total,
                  struct lam_error *err)
{
    uint64_t offset = convert->source_offset, length = convert->source_length;

    *total = 0;
    for (size_t i = 0; i < count; i++)
        if (add_overflows(*total, lam_image_size(images[i]), total))
            return lam_fail(err, EFBIG, "the sources' sizes add up to more "
                            "than 2^64 bytes");
    if (!offset && !length)
        return 0;
    if (count != 1)
        return lam_fail(err, EINVAL, "a part can be copied of one source, not "
                        "of %zu", count);
    if (offset > *total || length > *total - offset)
        return lam_fail(err, EINVAL, "%" PRIu64 " bytes at byte %" PRIu64
                        " are not in the source of %" PRIu64 " bytes", length,
                        offset, *total);
    *total = length ? length : *total - offset;
    return 0;
}

static bool shares(size_t count, const struct lam_image *target,
                   const struct lam_convert_options *convert)
{
    return target && target->backing && count == 1 && !convert->source_offset
        && convert->flags & LAM_CONVERT_TARGET_HAS_BACKING;
}

struct lam_image *sources_hold(struct lam_image *const *images, size_t count,
                               const struct lam_image *target,
                               const struct lam_convert_options *convert)
{
    struct lam_image *held = shares(count, target, convert) ? images[0] : NULL;

    image_graph_hold(held, NULL);
    return held;
}

void sources_release(struct lam_image *held)
{
    image_graph_release(held, NULL);
}

int sources_begin(struct walk *walk, const struct walk_options *options,
                  struct lam_image *const *images, size_t count,
                  const struct lam_image *target,
                  const struct lam_convert_options *convert,
                  struct lam_error *err)
{
    lam_autofree struct walk_source *sources =
        calloc(count + 1, sizeof *sources);
    uint64_t start = 0, total;

    if (!sources)
        return lam_fail(err, ENOMEM, "no memory for %zu sources", count);
    int rc = sources_total(images, count, convert, &total, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < count; i++) {
        struct walk_source *s = &sources[i];
        s->image = images[i];
        s->start = start;
        s->skip = convert->source_offset;
        s->size = count == 1 ? total : lam_image_size(images[i]);
        s->depth = LAM_DEPTH_ALL;
        start += s->size;
        if (shares(count, target, convert))
            s->depth = layers_above(images[i], target, &s->shared_end);
    }
    return walk_init(walk, options, sources, count, err);
}

/*
 * Threads: one a core, since memory and processors are what most conversions
 * wait for, but some: what is not in the page cache comes twice as fast when
 * others read on while one waits or writes, and what is there no slower.
 * O_DIRECT waits for the device, so requests in flight count.
 */
unsigned sources_workers(const struct lam_convert_options *options,
                         bool direct)
{
    if (options->workers)
        return (unsigned)min_u64(options->workers, MAX_WORKERS);
    unsigned workers = workers_default();
    unsigned requests = options->requests ? options->requests
                                          : DEFAULT_REQUESTS;
    if (direct && workers < requests)
        return requests;
    if (workers < MIN_WORKERS)
        workers = MIN_WORKERS;
    return options->requests && requests < workers ? requests : workers;
}

bool sources_direct(struct lam_image *const *images, size_t count,
                    const struct lam_image *target)
{
    if (target && target->io->limits.direct)
        return true;
    for (size_t i = 0; i < count; i++) {
        IMAGE_INSIDE(images[i]);
        if (images[i]->io->limits.direct)
            return true;
    }
    return false;
}

/* A chunk takes the largest cluster of any layer, so that a compressed one is
 * inflated once. */
uint64_t sources_cluster(struct lam_image *const *images, size_t count)
{
    uint64_t largest = 0;

    for (size_t i = 0; i < count; i++) {
        IMAGE_INSIDE(images[i]);
        for (struct lam_image *l = images[i]; l; l = l->backing)
            largest = max_u64(largest, l->ops->cluster_size(l->format));
    }
    return largest;
}
