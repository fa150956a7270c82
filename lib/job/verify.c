/* SPDX-License-Identifier: MIT */
/*
 * verify.c - reads a target back after a conversion, and compares.
 *
 * The host's cache of the target is dropped first, where the system allows it,
 * so that what is read comes from the disk.  What the source knows to be zero
 * may be known to be zero in the target's map; the rest is read on both sides.
 */
#include <inttypes.h>
#include <string.h>

#include "base/arith.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/workers.h"
#include "base/zeroes.h"
#include "job/copy.h"
#include "job/sources.h"

#define CHUNK_BYTES (1 * LAM_MIB)
#define BARE_BYTES  (64 * LAM_MIB)
/* Of a zero chunk: it is looked at in windows. */
#define FREE_BYTES  (1024 * LAM_TIB)
#define UNIT_BYTES  4096

struct verify_worker {
    struct walk_chunk chunk;
    uint8_t *expected, *found;
    struct lam_extents map;
    uint64_t bytes_read;
};

struct verify {
    struct walk walk;
    struct lam_image *target;
    const struct lam_convert_options *convert;
    struct salvage *salvage;    /* NULL: what cannot be read is an error */
    struct verify_worker *workers;
    unsigned nb_workers;
    struct progress progress;
};

static int differs(const struct verify *v, uint64_t offset,
                   struct lam_error *err)
{
    return lam_fail(err, EIO, "verification failed: byte %" PRIu64 " of '%s' "
                    "is not what the source has", offset, v->target->name);
}

static int read_target(const struct verify *v, struct verify_worker *w,
                       uint64_t length, uint64_t offset,
                       struct lam_error *err)
{
    int rc = lam_image_read(v->target, w->found, length, offset, err);

    return lam_error_prefix(err, rc, "verification failed: '%s'",
                            v->target->name);
}

/* ------------------------------------------------------------ one chunk */

static int verify_data(struct verify *v, struct verify_worker *w,
                       struct lam_error *err)
{
    const struct walk_chunk *chunk = &w->chunk;
    int rc = copy_read_chunk(chunk, v->salvage, w->expected, &w->bytes_read,
                             err);

    if (rc == 0)
        rc = read_target(v, w, chunk->length, chunk->offset, err);
    if (rc < 0 || !memcmp(w->expected, w->found, chunk->length))
        return rc;
    uint64_t i = 0;
    while (w->expected[i] == w->found[i])
        i++;
    return differs(v, chunk->offset + i, err);
}

static int verify_zero_bytes(struct verify *v, struct verify_worker *w,
                             uint64_t offset, uint64_t length,
                             struct lam_error *err)
{
    uint64_t piece, i = 0;

    for (piece = 0; length > 0; offset += piece, length -= piece) {
        piece = min_u64(v->walk.options.data_max, length);
        int rc = read_target(v, w, piece, offset, err);
        if (rc < 0)
            return rc;
        if (memory_is_zero(w->found, piece))
            continue;
        while (!w->found[i])
            i++;
        return differs(v, offset + i, err);
    }
    return 0;
}

static int verify_zero_window(struct verify *v, struct verify_worker *w,
                              struct range r, struct lam_error *err)
{
    w->map.count = 0;
    int rc = image_map(v->target, r.offset, r.length, LAM_DEPTH_ALL,
                       LAM_MAP_HOST_HOLES, &w->map, err);
    if (rc < 0)
        return lam_error_prefix(err, rc, "verification failed: '%s'",
                                v->target->name);
    for (size_t i = 0; i < w->map.count && rc == 0; i++) {
        const struct lam_extent *e = &w->map.items[i];
        if (!extent_reads_zero(e))
            rc = verify_zero_bytes(v, w, e->offset, e->length, err);
    }
    return rc;
}

static int verify_zero(struct verify *v, struct verify_worker *w,
                       struct lam_error *err)
{
    struct range rest = range_make(w->chunk.offset, w->chunk.length);
    int rc = 0;

    while (rc == 0 && rest.length) {
        struct range r = rest;
        r.length = min_u64(rest.length,
                           image_map_window(v->target, r.offset, LAM_DEPTH_ALL,
                                            BARE_BYTES));
        rc = verify_zero_window(v, w, r, err);
        rest = range_make(range_end(r), rest.length - r.length);
        if (rc == 0)
            rc = copy_cancelled(v->convert, err);
    }
    return rc;
}

static int step(void *job, unsigned worker, struct lam_error *err)
{
    struct verify *v = job;
    struct verify_worker *w = &v->workers[worker];

    int rc = copy_cancelled(v->convert, err);
    if (rc == 0)
        rc = walk_next(&v->walk, &w->chunk, err);
    if (rc <= 0)
        return rc;
    rc = w->chunk.kind == WALK_DATA ? verify_data(v, w, err)
                                    : verify_zero(v, w, err);
    if (rc < 0)
        return rc;
    progress_add(&v->progress, w->chunk.length);
    return 1;
}

/* ------------------------------------------------------------ all */

static void drop_cache(struct lam_io *io)
{
    int fd = io ? lam_io_borrow_fd(io) : -1;

    /* Advice: who cannot follow it reads what is cached. */
    if (fd < 0)
        return;
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    lam_io_return_fd(io);
}

static int workers_new(struct verify *v, struct lam_error *err)
{
    uint64_t bytes = v->walk.options.data_max;

    v->workers = calloc(v->nb_workers, sizeof *v->workers);
    if (!v->workers)
        return lam_fail(err, ENOMEM, "no memory for %u workers",
                        v->nb_workers);
    for (unsigned i = 0; i < v->nb_workers; i++) {
        struct verify_worker *w = &v->workers[i];
        w->expected = buffer_new(bytes);
        w->found = buffer_new(bytes);
        if (!w->expected || !w->found)
            return lam_fail(err, ENOMEM, "no memory for %" PRIu64 " bytes",
                            bytes);
    }
    return 0;
}

static void workers_free(struct verify *v)
{
    for (unsigned i = 0; v->workers && i < v->nb_workers; i++) {
        walk_chunk_deinit(&v->workers[i].chunk);
        lam_extents_deinit(&v->workers[i].map);
        free(v->workers[i].expected);
        free(v->workers[i].found);
    }
    free(v->workers);
}

static int verify_walk(struct verify *v, struct lam_error *err)
{
    progress_init(&v->progress, v->walk.total, v->convert->progress,
                  v->convert->progress_opaque);
    int rc = workers_new(v, err);
    if (rc == 0)
        rc = workers_run(v->nb_workers, step, v, err);
    workers_free(v);
    progress_deinit(&v->progress);
    return rc;
}

static int check_sizes(struct lam_image *const *sources, size_t count,
                       struct lam_image *target,
                       const struct lam_convert_options *options,
                       struct lam_error *err)
{
    uint64_t total;
    int rc = sources_total(sources, count, options, &total, err);

    if (rc == 0 && total > lam_image_size(target))
        rc = lam_fail(err, EIO, "verification failed: '%s' has %" PRIu64
                      " bytes, the source %" PRIu64, target->name,
                      lam_image_size(target), total);
    return rc;
}

int lam_convert_verify(struct lam_image *const *sources, size_t nb_sources,
                       struct lam_image *target,
                       const struct lam_convert_options *options,
                       struct lam_error *err)
{
    struct lam_convert_options defaults = LAM_CONVERT_OPTIONS_INIT;
    struct walk_options cuts = {
        .unit = UNIT_BYTES, .data_max = CHUNK_BYTES, .bare_max = BARE_BYTES,
        .split_min = UNIT_BYTES,
    };

    if (!options)
        options = &defaults;
    int rc = check_sizes(sources, nb_sources, target, options, err);
    if (rc < 0)
        return rc;
    /* What was lost has been told already. */
    struct lam_convert_options silent = { .cancel = options->cancel };
    struct salvage salvage;
    struct verify v = { .target = target, .convert = options };
    v.nb_workers = sources_workers(options, sources_direct(sources, nb_sources,
                                                           target));
    cuts.data_max = max_u64(CHUNK_BYTES, sources_cluster(sources, nb_sources));
    cuts.salvage = options->flags & LAM_CONVERT_SALVAGE;
    salvage_init(&salvage, &silent);
    v.salvage = cuts.salvage ? &salvage : NULL;
    rc = sources_begin(&v.walk, &cuts, sources, nb_sources, NULL, options,
                       err);
    if (rc == 0) {
        v.walk.zero_max = FREE_BYTES;
        drop_cache(target->io);
        drop_cache(target->data);
        rc = verify_walk(&v, err);
        walk_deinit(&v.walk);
    }
    salvage_deinit(&salvage);
    return rc;
}
