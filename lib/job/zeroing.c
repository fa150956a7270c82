/* SPDX-License-Identifier: MIT */
/*
 * zeroing.c - carries out the thin plan.
 */
#include "job/zeroing.h"

#include <string.h>
#include <sys/utsname.h>

#include "base/arith.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/zeroes.h"
#include "job/clear.h"

/* What is read before and after the clear to see whether pages survive. */
enum { PROBE_BYTES = 64 * 1024 };
/* Where what was freed has to be written after all, a shorter gap is not worth
 * two calls. */
enum { PROOF_GAP = 4096, SECTOR_MIN = 512 };

static unsigned running_kernel(void)
{
    struct utsname name;
    return uname(&name) < 0 ? 0 : plan_kernel_parse(name.release);
}

void plan_input_probe(struct plan_input *in, const struct lam_image *target,
                      const struct lam_convert_options *options)
{
    struct lam_io *io = target->io;

    *in = (struct plan_input){
        .limits = io->limits,
        .cache = io->cache,
        .has_metadata = lam_image_cluster_size(target) != 0,
        .stores_all = target->ops == &format_luks,
        .has_backing = target->backing != NULL,
        .cluster_size = lam_image_cluster_size(target),
        .convert_flags = options->flags,
        .sparse_size = options->sparse_size,
        .kernel = running_kernel(),
    };
    /* What calls have taught us since the object was opened. */
    in->pages_survive = atomic_load(&io->stale_pages);
    in->discards_stale = atomic_load(&io->stale_discards);
    if (atomic_load(&io->no_punch))
        in->limits.can_punch = false;
    if (atomic_load(&io->no_zero_range))
        in->limits.can_zero_range = false;
    if (atomic_load(&io->no_discard))
        in->limits.can_discard = in->limits.discard_reads_zero = false;
}

int lam_convert_plan(struct lam_image *target,
                     const struct lam_convert_options *options,
                     struct lam_thin_plan *plan, struct lam_error *err)
{
    struct lam_convert_options defaults = LAM_CONVERT_OPTIONS_INIT;
    struct plan_input in;

    if (target->metadata_only)
        return lam_fail(err, EINVAL, "the image was opened for its header "
                        "only");
    plan_input_probe(&in, target, options ? options : &defaults);
    plan_decide(&in, plan);
    return 0;
}

void lam_convert_plan_new(const struct lam_create_options *create,
                          const struct lam_convert_options *options,
                          struct lam_thin_plan *plan)
{
    const struct format_ops *ops = format_find(create->format);
    struct lam_convert_options defaults = LAM_CONVERT_OPTIONS_INIT;
    struct plan_input in = { .has_backing = create->backing_file != NULL };

    if (!options)
        options = &defaults;
    in.stores_all = ops == &format_luks;
    in.has_metadata = ops != &format_raw && !in.stores_all;
    in.cluster_size = in.has_metadata ? create->cluster_size : 0;
    in.convert_flags = options->flags | LAM_CONVERT_NEW_TARGET;
    in.sparse_size = options->sparse_size;
    in.limits.can_grow = true;
    plan_decide(&in, plan);
}

/*
 * Read a sample at the start and at the end of what is cleared, so that it is
 * in the cache (before) and to see what the cache shows (after).
 */
static int sample_is_zero(struct zeroing *z, struct range freed, bool *zero,
                          struct lam_error *err)
{
    uint64_t length = min_u64(freed.length, PROBE_BYTES);
    const uint64_t offsets[] = { freed.offset, range_end(freed) - length };

    *zero = true;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(offsets) && length; i++) {
        int rc = lam_image_read(z->target, z->scratch, length, offsets[i],
                                err);
        if (rc < 0)
            return rc;
        *zero = *zero && memory_is_zero(z->scratch, length);
    }
    return 0;
}

/* What of [0, @end) was freed for certain, wherever granules begin. */
static struct range surely_freed(const struct zeroing *z, uint64_t end)
{
    uint64_t edge = min_u64(clear_granule(&z->target->io->limits), end / 2);

    return range_make(edge, end - 2 * edge);
}

/* A device may take a request and leave the granules as they are that it
 * covers in part: what is read there decides.  The ranges are counted when the
 * source has been seen. */
static int prove_edges(struct zeroing *z, struct range freed, uint64_t end,
                       struct lam_error *err)
{
    uint64_t after = range_end(freed);
    int rc = zeroing_prove(z, 0, freed.offset, z->scratch, err);

    if (rc == 0)
        rc = zeroing_prove(z, after, end - after, z->scratch, err);
    z->bytes_zeroed = z->bytes_skipped = z->bytes_written = 0;
    return rc;
}

/*
 * Carry out clear-once as planned from @in.  Where the device does not do what
 * its limits said, @in is corrected and *@again set.
 */
static int clear_once(struct zeroing *z, struct plan_input *in, uint64_t total,
                      const struct lam_convert_options *options, bool *again,
                      struct lam_error *err)
{
    bool punch = in->limits.can_punch, zero = true;
    struct range freed = surely_freed(z, clear_end(total));
    int rc = 0;

    if (!in->limits.direct)
        rc = sample_is_zero(z, freed, &zero, err);
    if (rc == 0)
        rc = clear_device(z->target, total,
                          punch ? CLEAR_BY_PUNCH : CLEAR_BY_DISCARD, options,
                          err);
    if (rc == -ENOTSUP) {
        in->limits.can_punch = false;
        in->limits.can_discard = in->limits.can_discard && punch;
        *again = true;
        return 0;
    }
    if (rc == 0 && !in->limits.direct)
        rc = sample_is_zero(z, freed, &zero, err);
    if (rc < 0)
        return rc;
    if (!zero) {
        atomic_store(&z->target->io->stale_pages, true);
        in->pages_survive = *again = true;
        return 0;
    }
    z->cleared_end = clear_end(total);
    return prove_edges(z, freed, z->cleared_end, err);
}

/* What discarding did not do, proving finds: a refusal in the middle, too. */
static int discard_all(struct zeroing *z, struct plan_input *in,
                       uint64_t total,
                       const struct lam_convert_options *options, bool *again,
                       struct lam_error *err)
{
    int rc = clear_device(z->target, total, CLEAR_BY_DISCARD, options, err);

    if (rc != -ENOTSUP)
        return rc;
    in->limits.can_discard = in->limits.discard_reads_zero = false;
    *again = true;
    return 0;
}

/* Whether a device does what it says is better known at once: what is left of
 * the plan then may free more than what is left to do in the middle. */
static int try_punch(struct zeroing *z, struct plan_input *in, uint64_t total,
                     bool *again, struct lam_error *err)
{
    uint64_t length = min_u64(total, PLAN_FINE_GRANULE);

    if (!in->limits.is_block_device || !length)
        return 0;
    int rc = clear_start(z->target, length, err);
    if (rc != -ENOTSUP)
        return rc;
    in->limits.can_punch = false;
    *again = true;
    return 0;
}

static int clear_as_planned(struct zeroing *z, struct plan_input *in,
                            uint64_t total,
                            const struct lam_convert_options *options,
                            struct lam_error *err)
{
    struct lam_thin_plan plan;
    bool again = true;
    int rc = 0;

    z->host_zeroes = plan_host_zeroes(in);
    while (again && rc == 0) {
        again = false;
        plan_decide(in, &plan);
        z->method = plan.method;
        if (plan.method == LAM_ZERO_BY_CLEAR_ONCE)
            rc = clear_once(z, in, total, options, &again, err);
        else if (plan.method == LAM_ZERO_BY_DISCARD_PROVE)
            rc = discard_all(z, in, total, options, &again, err);
        else if (plan.method == LAM_ZERO_BY_PUNCH)
            rc = try_punch(z, in, total, &again, err);
    }
    return rc;
}

static int zeroing_init(struct zeroing *z, struct lam_image *target,
                        struct lam_error *err)
{
    memset(z, 0, sizeof *z);
    z->target = target;
    z->zeroes = buffer_new(ZEROING_PIECE);
    z->scratch = buffer_new(ZEROING_PIECE);
    if (!z->zeroes || !z->scratch)
        return lam_fail(err, ENOMEM, "no memory for %d bytes", ZEROING_PIECE);
    memset(z->zeroes, 0, ZEROING_PIECE);
    return 0;
}

int zeroing_begin(struct zeroing *z, struct lam_image *target, uint64_t total,
                  const struct lam_convert_options *options,
                  struct lam_error *err)
{
    struct plan_input in;

    int rc = zeroing_init(z, target, err);
    if (rc < 0)
        return rc;
    z->is_new = options->flags & LAM_CONVERT_NEW_TARGET;
    plan_input_probe(&in, target, options);
    return clear_as_planned(z, &in, total, options, err);
}

int zeroing_resume(struct zeroing *z, struct lam_image *target,
                   const struct lam_convert_options *options,
                   struct lam_error *err)
{
    struct lam_thin_plan plan;
    struct plan_input in;

    int rc = zeroing_init(z, target, err);
    if (rc < 0)
        return rc;
    plan_input_probe(&in, target, options);
    plan_decide(&in, &plan);
    z->host_zeroes = plan_host_zeroes(&in);
    z->method = plan.method == LAM_ZERO_BY_CLEAR_ONCE
                    ? LAM_ZERO_BY_DISCARD_PROVE : plan.method;
    return 0;
}

void zeroing_deinit(struct zeroing *z)
{
    free(lam_take(&z->zeroes));
    free(lam_take(&z->scratch));
}

static int write_zeroes(struct zeroing *z, uint64_t offset, uint64_t length,
                        struct lam_error *err)
{
    for (uint64_t done = 0; done < length; ) {
        uint64_t piece = min_u64(length - done, ZEROING_PIECE);
        int rc = lam_image_write(z->target, z->zeroes, piece, offset + done, 0,
                                 err);
        if (rc < 0)
            return rc;
        done += piece;
    }
    z->bytes_written += length;
    return 0;
}

static int zero_by_host(struct zeroing *z, uint64_t offset, uint64_t length,
                        unsigned flags, struct lam_error *err)
{
    int rc = lam_image_zero(z->target, offset, length, flags, err);
    if (rc == 0)
        z->bytes_zeroed += length;
    return rc;
}

/*
 * The length of the run at the start of @buf that reads as zero, or does not:
 * by sectors, for what is written maps the granule that it lies in.  Gaps in
 * between that lie in granules which are mapped anyway go along.
 */
static size_t proof_run(const struct zeroing *z, const uint8_t *buf,
                        size_t length, bool *zero)
{
    const struct lam_io_limits *l = &z->target->io->limits;
    size_t sector = max_u64(l->logical_sector, SECTOR_MIN);
    size_t gap = min_u64(PROOF_GAP, max_u64(l->discard_granularity, sector));
    size_t end = zero_run(buf, length, sector, zero);

    for (size_t at = end; !*zero && at < length; ) {
        bool is_gap;
        size_t run = zero_run(buf + at, length - at, sector, &is_gap);
        if (is_gap && run >= gap)
            break;
        at += run;
        if (!is_gap)
            end = at;
    }
    return end;
}

/* More is not zero than granules that were discarded in part explain. */
static void note_stale(struct zeroing *z, size_t run)
{
    struct lam_io *io = z->target->io;

    if (z->method == LAM_ZERO_BY_DISCARD_PROVE &&
        run >= min_u64(ZEROING_PIECE, 2 * clear_granule(&io->limits)))
        atomic_store(&io->stale_discards, true);
}

/* One piece that was freed and has been read into @buf.  What is zero stays
 * unmapped. */
static int prove_piece(struct zeroing *z, uint64_t offset, size_t length,
                       const uint8_t *buf, struct lam_error *err)
{
    for (size_t at = 0; at < length; ) {
        bool zero;
        size_t run = proof_run(z, buf + at, length - at, &zero);
        int rc = 0;
        if (!zero)
            note_stale(z, run);
        if (zero)
            z->bytes_skipped += run;
        else if (z->host_zeroes)
            rc = zero_by_host(z, offset + at, run, 0, err);
        else
            rc = write_zeroes(z, offset + at, run, err);
        if (rc < 0)
            return rc;
        at += run;
    }
    return 0;
}

/* Zeroes that were only looked at are not worth anybody's cache. */
static void forget_cached(struct zeroing *z, uint64_t offset, uint64_t length)
{
    int fd = lam_io_fd(z->target->io);

    if (fd >= 0 && !z->target->io->limits.direct)
        posix_fadvise(fd, (off_t)offset, (off_t)length, POSIX_FADV_DONTNEED);
}

int zeroing_prove(struct zeroing *z, uint64_t offset, uint64_t length,
                  void *scratch, struct lam_error *err)
{
    for (uint64_t done = 0; done < length; ) {
        uint64_t piece = min_u64(length - done, ZEROING_PIECE);
        int rc = lam_image_read(z->target, scratch, piece, offset + done, err);
        if (rc == 0)
            rc = prove_piece(z, offset + done, piece, scratch, err);
        if (rc < 0)
            return rc;
        done += piece;
    }
    forget_cached(z, offset, length);
    return 0;
}

static bool target_reads_zero(const struct lam_extent *e)
{
    return e->state == LAM_EXTENT_UNALLOCATED || e->state == LAM_EXTENT_ZERO;
}

/* Zero clusters only where the image does not read as zero anyway: an empty
 * terabyte stays empty. */
static int zero_in_metadata(struct zeroing *z, uint64_t offset,
                            uint64_t length, struct lam_error *err)
{
    struct lam_extents map = LAM_EXTENTS_INIT;
    int rc = image_map(z->target, offset, length, LAM_DEPTH_ALL, 0, &map,
                           err);
    for (size_t i = 0; i < map.count && rc == 0; i++) {
        const struct lam_extent *e = &map.items[i];
        if (target_reads_zero(e))
            z->bytes_skipped += e->length;
        else
            rc = zero_by_host(z, e->offset, e->length, LAM_ZERO_UNMAP, err);
    }
    lam_extents_deinit(&map);
    return rc;
}

static int add_zero_writes(struct zeroing *z, struct batch *batch,
                           uint64_t offset, uint64_t length,
                           struct lam_error *err)
{
    for (uint64_t done = 0, n; done < length; done += n) {
        n = min_u64(length - done, ZEROING_PIECE);
        int rc = batch_data(batch, z->zeroes, n, offset + done, err);
        if (rc < 0)
            return rc;
    }
    z->bytes_written += length;
    return 0;
}

static int add_in_metadata(struct zeroing *z, struct batch *batch,
                           uint64_t offset, uint64_t length,
                           struct lam_error *err)
{
    struct lam_extents map lam_cleanup(lam_extents_deinit) = LAM_EXTENTS_INIT;
    int rc = image_map(z->target, offset, length, LAM_DEPTH_ALL, 0, &map, err);

    for (size_t i = 0; i < map.count && rc == 0; i++) {
        const struct lam_extent *e = &map.items[i];
        if (target_reads_zero(e)) {
            z->bytes_skipped += e->length;
            continue;
        }
        rc = batch_zero(batch, e->length, e->offset, LAM_ZERO_UNMAP, err);
        z->bytes_zeroed += e->length;
    }
    return rc;
}

bool zeroing_is_placed(const struct zeroing *z)
{
    return z->method == LAM_ZERO_BY_SKIP || z->method == LAM_ZERO_BY_METADATA ||
           z->method == LAM_ZERO_BY_WRITE;
}

int zeroing_add(struct zeroing *z, struct batch *batch, uint64_t offset,
                uint64_t length, struct lam_error *err)
{
    assert(zeroing_is_placed(z));
    if (z->method == LAM_ZERO_BY_WRITE)
        return add_zero_writes(z, batch, offset, length, err);
    if (!zeroing_is_free(z))
        return add_in_metadata(z, batch, offset, length, err);
    z->bytes_skipped += length;
    return 0;
}

/* Part of the range may lie past what was cleared: less than CLEAR_UNIT. */
static int zero_past_clear(struct zeroing *z, uint64_t offset, uint64_t length,
                           struct lam_error *err)
{
    uint64_t end = offset + length;
    uint64_t start = min_u64(max_u64(offset, z->cleared_end), end);

    z->bytes_skipped += start - offset;
    return start == end ? 0 : zero_by_host(z, start, end - start, 0, err);
}

bool zeroing_is_free(const struct zeroing *z)
{
    return z->method == LAM_ZERO_BY_SKIP ||
           (z->method == LAM_ZERO_BY_METADATA && z->is_new &&
            !z->target->backing);
}

int zeroing_range(struct zeroing *z, uint64_t offset, uint64_t length,
                  void *scratch, struct lam_error *err)
{
    switch (z->method) {
    case LAM_ZERO_BY_SKIP:
        z->bytes_skipped += length;
        return 0;
    case LAM_ZERO_BY_CLEAR_ONCE:
        return zero_past_clear(z, offset, length, err);
    case LAM_ZERO_BY_PUNCH:
        return zero_by_host(z, offset, length, LAM_ZERO_UNMAP, err);
    case LAM_ZERO_BY_ZERO_RANGE:
        return zero_by_host(z, offset, length, 0, err);
    case LAM_ZERO_BY_DISCARD_PROVE:
        return zeroing_prove(z, offset, length, scratch, err);
    case LAM_ZERO_BY_METADATA:
        if (!zeroing_is_free(z))
            return zero_in_metadata(z, offset, length, err);
        z->bytes_skipped += length;
        return 0;
    case LAM_ZERO_BY_WRITE:
        break;
    }
    return write_zeroes(z, offset, length, err);
}
