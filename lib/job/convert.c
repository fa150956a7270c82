/* SPDX-License-Identifier: MIT */
/*
 * convert.c - copy the guest contents of images into another image, or into a
 * file descriptor.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "base/arith.h"
#include "base/cleanup.h"
#include "job/copy.h"
#include "job/sources.h"
#include "job/stream.h"

/* Zero detection looks at blocks of this size, which is what file systems
 * can leave out. */
#define ZERO_BLOCK    UINT64_C(4096)
/* A data chunk: large enough that workers seldom wait for each other's writes,
 * small enough for a cache. */
#define CHUNK_BYTES   (1 * LAM_MIB)
/* Of an image with clusters up to this a chunk is twice as long: what one of
 * its tables maps is written at once. */
#define SMALL_CLUSTER UINT64_C(4096)
/* Zeroes: few calls for a terabyte, and a cancel is seen soon. */
#define BARE_BYTES    (64 * LAM_MIB)
/* Of a chunk that costs nothing. */
#define FREE_BYTES    (1024 * LAM_TIB)
#define SPLIT_BYTES   (64 * LAM_KIB)
/* Of a new file without tables: what is reserved at once.  Smaller writes cost
 * less than asking. */
#define FILL_BYTES    (64 * LAM_KIB)
/* Of all workers together, in about; and what compressing takes besides. */
#define MEMORY_BYTES  (48 * LAM_MIB)
#define CODEC_BYTES   (1 * LAM_MIB)

/* ------------------------------------------------------------ the plan */

/* A chunk of data moves at once: little of it, where the rate is low. */
static uint64_t chunk_bytes(const struct lam_convert_options *convert)
{
    const struct rate rate = { .per_second = convert->rate };

    return rate_piece(&rate, ZERO_BLOCK, CHUNK_BYTES);
}

/* Large clusters are for few to hold at a time. */
static unsigned affordable_workers(const struct copy_options *copy,
                                   uint64_t data_max)
{
    uint64_t each = data_max;

    if (copy->compress)
        each += data_max + CODEC_BYTES;
    return (unsigned)min_u64(copy->workers, max_u64(MEMORY_BYTES / each, 2));
}

/* Clusters that have their places, where zero is all there is, take just what
 * is not.  The first one stands for all; a wrong guess costs time only. */
static bool is_preallocated(struct lam_image *target,
                            const struct lam_convert_options *convert)
{
    struct lam_extents map lam_cleanup(lam_extents_deinit) = LAM_EXTENTS_INIT;

    if (!(convert->flags & (LAM_CONVERT_NEW_TARGET |
                            LAM_CONVERT_TARGET_IS_ZERO)) ||
        (convert->flags & LAM_CONVERT_COMPRESS) || !lam_image_size(target) ||
        lam_image_map(target, 0, 1, 1, 0, &map, NULL) < 0)
        return false;
    return map.items[0].state == LAM_EXTENT_DATA ||
           map.items[0].flags & LAM_EXTENT_HAS_HOST;
}

/* Blocks of zeroes are looked for, and chunks cut, at these sizes. */
static void choose_sizes(struct lam_image *target,
                         uint64_t largest_source_cluster,
                         const struct lam_convert_options *convert,
                         struct copy_options *copy, struct walk_options *walk)
{
    uint64_t cluster = lam_image_cluster_size(target);
    uint64_t sector = target->io->limits.request_alignment;
    uint64_t block = convert->sparse_size < ZERO_BLOCK ? 512 : ZERO_BLOCK;

    uint64_t zero_unit = target->ops->zero_unit(target->format);
    uint64_t part = cluster;

    if (!(convert->flags & LAM_CONVERT_COMPRESS) && zero_unit) {
        /* Zeroes of any length can be left out of a cluster. */
        if (zero_unit == 1)
            cluster = 0;
        part = min_u64(cluster, zero_unit);
    }
    if (is_preallocated(target, convert))
        part = 0;
    copy->detect = convert->sparse_size != 0;
    copy->grain = max_u64(part, max_u64(block, sector));
    /* Of a size that is no power of two the larger part: blocks that begin
     * inside a page of the host's would leave nothing out. */
    copy->sparse_min = copy->grain;
    while (copy->sparse_min <= convert->sparse_size / 2)
        copy->sparse_min *= 2;
    walk->unit = max_u64(max_u64(cluster, copy->grain), ZERO_BLOCK);
    walk->bare_max = BARE_BYTES;
    walk->data_max = chunk_bytes(convert);
    if (cluster && cluster <= SMALL_CLUSTER)
        walk->data_max *= 2;
    while (walk->data_max < max_u64(copy->sparse_min, largest_source_cluster))
        walk->data_max *= 2;
    walk->split_min = convert->sparse_size > ZERO_BLOCK
                          ? walk->unit : max_u64(walk->unit, SPLIT_BYTES);
    copy->workers = affordable_workers(copy, walk->data_max);
}

static int check_flags(const struct lam_convert_options *options,
                       struct lam_error *err)
{
    const unsigned known = LAM_CONVERT_COMPRESS | LAM_CONVERT_TARGET_IS_ZERO |
        LAM_CONVERT_NEW_TARGET | LAM_CONVERT_NO_SYNC |
        LAM_CONVERT_STRICT_CACHE | LAM_CONVERT_TARGET_HAS_BACKING |
        LAM_CONVERT_OFFLOAD | LAM_CONVERT_SALVAGE |
        LAM_CONVERT_OUT_OF_ORDER;

    return lam_check_flags(options->flags, known, err);
}

static int check_request(struct lam_image *const *sources, size_t count,
                         struct lam_image *target,
                         const struct lam_convert_options *options,
                         struct lam_error *err)
{
    uint64_t total;

    int rc = check_flags(options, err);
    if (rc == 0)
        rc = sources_total(sources, count, options, &total, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < count; i++)
        if (sources[i] == target)
            return lam_fail(err, EINVAL, "'%s' is source and target at once",
                            target->name);
    if (total > lam_image_size(target))
        return lam_fail(err, EINVAL, "output file is smaller than input file "
                        "(%" PRIu64 " bytes, %" PRIu64 " are needed)",
                        lam_image_size(target), total);
    if (!target->writable)
        return lam_fail(err, EROFS, "the target is not open for writing");
    if ((options->flags & LAM_CONVERT_COMPRESS) && !target->ops->can_compress)
        return lam_fail(err, ENOTSUP, "Compression not supported for this "
                        "file format");
    if ((options->flags & LAM_CONVERT_COMPRESS) &&
        !lam_image_cluster_size(target))
        return lam_fail(err, ENOTSUP, "invalid cluster size");
    if ((options->flags & LAM_CONVERT_TARGET_IS_ZERO) && target->backing)
        return lam_fail(err, EINVAL, "Cannot use --target-is-zero when the "
                        "destination image has a backing file");
    return 0;
}

/* ------------------------------------------------------- on the way */

/* What a copy does besides copying. */
struct extras {
    struct rate rate;
    struct salvage salvage;
    struct digest *digest;
    struct journal *journal;
};

/* Call when sizes and workers have been chosen; deinit also after a failure. */
static int extras_init(struct extras *x, struct copy_options *copy,
                       struct walk_options *walk, struct lam_error *err)
{
    const struct lam_convert_options *convert = copy->convert;

    x->digest = NULL;
    x->journal = NULL;
    rate_init(&x->rate, convert->rate);
    salvage_init(&x->salvage, convert);
    copy->rate = &x->rate;
    if (convert->flags & LAM_CONVERT_SALVAGE) {
        copy->salvage = &x->salvage;
        walk->salvage = true;
    }
    if (!convert->digest)
        return 0;
    /* What the target shares with its backing file is read for the digest. */
    if (convert->flags & LAM_CONVERT_TARGET_HAS_BACKING)
        walk->bare_max = walk->data_max;
    int rc = digest_new(convert->digest, copy->workers, walk->data_max,
                        convert->cancel, &x->digest, err);
    copy->digest = x->digest;
    return rc;
}

/* Go on where the journal says that another run has ended. */
static int extras_resume(struct extras *x, struct copy_options *copy,
                         struct lam_image *const *sources, size_t nb_sources,
                         struct walk *walk, struct lam_error *err)
{
    if (!copy->convert->journal)
        return 0;
    int rc = journal_open(sources, nb_sources, copy->target, copy->convert,
                          walk->total, &x->journal, err);
    if (rc < 0)
        return rc;
    copy->journal = x->journal;
    walk_seek(walk, journal_done(x->journal));
    return journal_begin(x->journal, walk, copy->workers, err);
}

static int extras_finish(struct extras *x, struct lam_convert_result *result,
                         int rc, struct lam_error *err)
{
    result->bytes_unreadable = x->salvage.bytes_lost;
    if (rc == 0 && x->digest)
        rc = digest_finish(x->digest, result->digest, err);
    return rc;
}

static void extras_deinit(struct extras *x)
{
    digest_free(x->digest);
    salvage_deinit(&x->salvage);
    rate_deinit(&x->rate);
}

/* ------------------------------------------------------------ to an image */

/*
 * A target that we have just made is worth nothing before it is complete, so
 * the order of its writes on disk does not matter until then: no barriers
 * inside the job, one at its end.
 */
static bool suspend_barriers(struct lam_image *target, unsigned flags,
                             bool journaled, enum lam_cache_mode *saved)
{
    *saved = target->io->cache;
    if (!(flags & LAM_CONVERT_NEW_TARGET) || target->data || journaled ||
        (*saved != LAM_CACHE_WRITEBACK && *saved != LAM_CACHE_NONE))
        return false;
    target->io->cache = LAM_CACHE_UNSAFE;
    return true;
}

static int finish_target(struct lam_image *target, bool suspended,
                         enum lam_cache_mode saved, unsigned flags, int rc,
                         struct lam_error *err)
{
    /* Metadata goes out while barriers cost nothing. */
    if (suspended && rc == 0)
        rc = lam_image_flush(target, err);
    if (suspended)
        target->io->cache = saved;
    if (rc < 0 || (flags & LAM_CONVERT_NO_SYNC))
        return rc;
    if (!suspended)
        return lam_image_flush(target, err);
    return lam_io_flush(target->io, err);
}

static int copy_to_image(struct walk *walk, struct copy_options *copy,
                         struct lam_convert_result *result,
                         struct lam_error *err)
{
    const struct lam_convert_options *options = copy->convert;
    struct copy_counts counts = { 0, 0 };
    enum lam_cache_mode saved;
    struct zeroing zeroing;

    bool suspended = suspend_barriers(copy->target, options->flags,
                                      copy->journal, &saved);
    if ((options->flags & LAM_CONVERT_NEW_TARGET) &&
        !lam_image_cluster_size(copy->target))
        lam_io_fill(copy->target->io, FILL_BYTES);
    int rc = walk->offset
        ? zeroing_resume(&zeroing, copy->target, options, err)
        : zeroing_begin(&zeroing, copy->target, walk->total, options, err);
    copy->zeroing = &zeroing;
    if (copy->pass)
        copy->pass->zeroing = &zeroing;
    /* Who hashes reads all, in pieces. */
    if (rc == 0 && !copy->digest) {
        walk->shared_max = FREE_BYTES;
        walk->zero_max = zeroing_is_free(&zeroing) ? FREE_BYTES : 0;
    }
    if (rc == 0)
        rc = copy_run(walk, copy, &counts, err);
    rc = finish_target(copy->target, suspended, saved, options->flags, rc, err);
    *result = (struct lam_convert_result){
        .bytes_guest = walk->total,
        .bytes_read = counts.bytes_read,
        .bytes_written = counts.bytes_written + zeroing.bytes_written,
        .bytes_zeroed = zeroing.bytes_zeroed,
        .bytes_skipped = zeroing.bytes_skipped,
        .bytes_discarded = zeroing.cleared_end,
    };
    zeroing_deinit(&zeroing);
    return rc;
}

/* Ways of copying that do not look at the data. */
struct shortcuts {
    struct passthrough pass;
    struct offload offload;
};

/* None, if somebody has to see the data, or how much of them can be read, or
 * that they do not come too fast. */
static void shortcuts_choose(struct shortcuts *s, struct walk *walk,
                             struct copy_options *copy)
{
    const struct lam_convert_options *convert = copy->convert;

    if (copy->digest || copy->salvage)
        return;
    if (copy->compress) {
        passthrough_init(&s->pass, copy->target, copy->detect);
        if (!s->pass.kind)
            return;
        copy->pass = &s->pass;
        walk->kind_of_data = passthrough_kind;
        walk->kind_opaque = &s->pass;
    } else if (!convert->rate &&
               (convert->flags & LAM_CONVERT_OFFLOAD || !copy->detect) &&
               offload_init(&s->offload, copy->target)) {
        copy->offload = &s->offload;
        walk->kind_of_data = offload_kind;
        walk->kind_opaque = &s->offload;
    }
}

/* A target that stores nothing else gets compressed clusters, in ascending
 * order, as who reads it as a stream expects. */
static const struct lam_convert_options *
adapt_options(const struct lam_image *target,
              const struct lam_convert_options *options,
              struct lam_convert_options *adapted)
{
    if (!image_compresses_all(target))
        return options;
    *adapted = *options;
    adapted->flags |= LAM_CONVERT_COMPRESS;
    adapted->workers = 1;
    return adapted;
}

static int convert(struct lam_image *const *sources, size_t nb_sources,
                   struct lam_image *target,
                   const struct lam_convert_options *options,
                   struct lam_convert_result *result, struct lam_error *err)
{
    struct lam_convert_result counts = { 0 };
    struct walk_options cuts = { 0 };
    struct shortcuts shortcuts;
    struct extras extras;
    struct walk walk;

    bool direct = sources_direct(sources, nb_sources, target);
    struct copy_options copy = {
        .target = target,
        .compress = options->flags & LAM_CONVERT_COMPRESS,
        .workers = sources_workers(options, direct),
        .direct = direct,
        .convert = options,
    };
    choose_sizes(target, sources_cluster(sources, nb_sources), options, &copy,
                 &cuts);
    int rc = extras_init(&extras, &copy, &cuts, err);
    if (rc == 0)
        rc = sources_begin(&walk, &cuts, sources, nb_sources, target, options,
                           err);
    if (rc == 0) {
        shortcuts_choose(&shortcuts, &walk, &copy);
        rc = extras_resume(&extras, &copy, sources, nb_sources, &walk, err);
        uint64_t resumed = walk.offset;
        if (rc == 0)
            rc = copy_to_image(&walk, &copy, &counts, err);
        counts.bytes_resumed = resumed;
        rc = journal_finish(extras.journal, rc);
        walk_deinit(&walk);
    }
    rc = extras_finish(&extras, &counts, rc, err);
    extras_deinit(&extras);
    if (result)
        *result = counts;
    return rc;
}

int lam_convert(struct lam_image *const *sources, size_t nb_sources,
                struct lam_image *target,
                const struct lam_convert_options *options,
                struct lam_convert_result *result, struct lam_error *err)
{
    struct lam_convert_options defaults = LAM_CONVERT_OPTIONS_INIT, adapted;

    options = adapt_options(target, options ? options : &defaults, &adapted);
    int rc = check_request(sources, nb_sources, target, options, err);
    if (rc < 0)
        return rc;
    struct lam_image *held = sources_hold(sources, nb_sources, target, options);
    rc = convert(sources, nb_sources, target, options, result, err);
    sources_release(held);
    return rc;
}

/* ---------------------------------------------------------- to a descriptor */

int lam_convert_to_fd(struct lam_image *const *sources, size_t nb_sources,
                      int fd, const struct lam_convert_options *options,
                      struct lam_convert_result *result, struct lam_error *err)
{
    struct walk_options cuts = {
        .unit = ZERO_BLOCK,
        .data_max = CHUNK_BYTES,
        .bare_max = CHUNK_BYTES,
        .split_min = SPLIT_BYTES,
    };
    struct lam_convert_options defaults = LAM_CONVERT_OPTIONS_INIT;
    struct lam_convert_result outcome = { 0 };
    struct copy_counts counts = { 0, 0 };
    struct extras extras;
    struct walk walk;

    if (!options)
        options = &defaults;
    struct copy_options copy = {
        .convert = options,
        .workers = sources_workers(options,
                                sources_direct(sources, nb_sources, NULL)),
    };
    int rc = check_flags(options, err);
    if (rc < 0)
        return rc;
    /* poll() takes no notice of a negative one. */
    if (fcntl(fd, F_GETFL) < 0)
        return lam_fail_errno(err, errno, "descriptor %d", fd);
    if (options->journal)
        return lam_fail(err, ENOTSUP, "what goes to a pipe cannot be resumed");
    cuts.data_max = max_u64(chunk_bytes(options),
                            sources_cluster(sources, nb_sources));
    rc = extras_init(&extras, &copy, &cuts, err);
    if (rc == 0)
        rc = sources_begin(&walk, &cuts, sources, nb_sources, NULL, options,
                           err);
    if (rc == 0) {
        outcome.bytes_guest = walk.total;
        rc = stream_run(&walk, fd, &copy, &counts, err);
        walk_deinit(&walk);
    }
    outcome.bytes_read = counts.bytes_read;
    outcome.bytes_written = counts.bytes_written;
    rc = extras_finish(&extras, &outcome, rc, err);
    extras_deinit(&extras);
    if (result)
        *result = outcome;
    return rc;
}
