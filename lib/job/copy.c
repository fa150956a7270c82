/* SPDX-License-Identifier: MIT */
/*
 * copy.c - moves the guest data of a walk into a target, with several workers.
 */
#include "job/copy.h"

#include <inttypes.h>
#include <string.h>

#include "base/arith.h"
#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/workers.h"
#include "base/zeroes.h"
#include "job/cancel.h"

/* What a worker has to itself. */
struct copy_worker {
    struct walk_chunk chunk;
    uint8_t *buf;               /* data_max bytes */
    uint8_t *scratch;           /* for proving that zeroes are there */
    uint64_t bytes_read, bytes_written;
    struct order order;
};

struct copy {
    const struct copy_options *options;
    struct walk *walk;
    bool ordered;               /* places are given out in turn */
    struct turn turn;
    struct copy_worker *workers;
    struct progress progress;
};

int copy_cancelled(const struct lam_convert_options *convert,
                   struct lam_error *err)
{
    if (cancel_wanted(convert->cancel))
        return lam_fail(err, ECANCELED, "conversion was cancelled");
    return 0;
}

/* ------------------------------------------------------------ reading */

/*
 * The extents were asked for once, by the walk.  They hold for as long as
 * nobody writes to the image, which only an image opened read-only is sure of.
 */
static int read_segment(const struct walk_chunk *chunk,
                        const struct walk_segment *s, struct range part,
                        uint8_t *buf, struct lam_error *err)
{
    struct lam_extents extents = {
        .items = chunk->extents.items + s->first,
        .count = s->count,
        .capacity = s->count,
    };
    uint64_t offset = s->offset + (part.offset - s->target_offset);

    int rc = s->shared || s->image->writable
        ? lam_image_read(s->image, buf, part.length, offset, err)
        : image_read_extents(s->image, &extents, buf, part.length, offset,
                             err);
    return lam_error_prefix(err, rc, "error while reading at byte %" PRIu64,
                            offset);
}

static uint64_t count_data(const struct walk_chunk *chunk,
                           const struct walk_segment *s)
{
    uint64_t bytes = 0;

    for (size_t e = s->first; e < s->first + s->count; e++)
        if (s->shared || !extent_reads_zero(&chunk->extents.items[e]))
            bytes += chunk->extents.items[e].length;
    return bytes;
}

/* @part of the chunk, in the target's offsets. */
static int read_part(const struct walk_chunk *chunk, struct range part,
                     uint8_t *buf, struct lam_error *err)
{
    for (size_t i = 0; i < chunk->nb_segments; i++) {
        const struct walk_segment *s = &chunk->segments[i];
        struct range here = range_intersect(
            part, range_make(s->target_offset, s->length));
        int rc = here.length
            ? read_segment(chunk, s, here, buf + (here.offset - part.offset),
                           err) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_segments(const struct walk_chunk *chunk, uint8_t *buf,
                         uint64_t *bytes_read, struct lam_error *err)
{
    for (size_t i = 0; i < chunk->nb_segments; i++)
        *bytes_read += count_data(chunk, &chunk->segments[i]);
    return read_part(chunk, range_make(chunk->offset, chunk->length), buf,
                     err);
}

int copy_read_chunk(const struct walk_chunk *chunk, struct salvage *salvage,
                    uint8_t *buf, uint64_t *bytes_read, struct lam_error *err)
{
    int rc = read_segments(chunk, buf, bytes_read, err);

    if (!salvage || !salvage_applies(rc))
        return rc;
    return salvage_chunk(salvage, chunk, buf, err);
}

/* ------------------------------------------------------------ writing */

/* Compressed writes take whole clusters only, or up to the end of the disk:
 * the end of a source shorter than the target goes out plain. */
static uint64_t compressible(const struct copy *copy, uint64_t offset,
                             uint64_t length)
{
    const struct lam_image *target = copy->options->target;

    if (!copy->options->compress)
        return 0;
    if (offset + length == lam_image_size(target))
        return length;
    return align_down(length, lam_image_cluster_size(target));
}

/* To be placed and written with what else there is in the chunk. */
static int add_data(struct copy *copy, struct copy_worker *w, uint64_t offset,
                    uint64_t length, struct lam_error *err)
{
    const uint8_t *from = w->buf + (offset - w->chunk.offset);
    uint64_t compressed = compressible(copy, offset, length);
    struct batch *batch = &w->order.batch;
    int rc = 0;

    if (compressed)
        rc = batch_compress(batch, from, compressed, offset, err);
    if (rc == 0)
        rc = batch_data(batch, from + compressed, length - compressed,
                        offset + compressed, err);
    w->bytes_written += length;
    return rc;
}

static int write_data(struct copy *copy, struct copy_worker *w,
                      uint64_t offset, uint64_t length, struct lam_error *err)
{
    struct lam_image *target = copy->options->target;
    const uint8_t *from = w->buf + (offset - w->chunk.offset);
    uint64_t compressed = compressible(copy, offset, length);
    int rc = 0;

    if (copy->ordered)
        return add_data(copy, w, offset, length, err);

    if (compressed)
        rc = lam_image_write(target, from, compressed, offset,
                             LAM_WRITE_COMPRESSED, err);
    if (rc == 0 && compressed < length)
        rc = lam_image_write(target, from + compressed, length - compressed,
                             offset + compressed, 0, err);
    if (rc < 0)
        return lam_error_prefix(err, rc, "error while writing at byte %"
                                PRIu64, offset);
    w->bytes_written += length;
    return 0;
}

static int write_zeroes(struct copy *copy, struct copy_worker *w,
                        uint64_t offset, uint64_t length,
                        struct lam_error *err)
{
    struct zeroing *zeroing = copy->options->zeroing;
    int rc = copy->ordered
        ? zeroing_add(zeroing, &w->order.batch, offset, length, err)
        : zeroing_range(zeroing, offset, length, w->scratch, err);

    return lam_error_prefix(err, rc, "error while writing at byte %" PRIu64,
                            offset);
}

/* Where the block of sparse_min bytes ends that @at lies in: blocks are counted
 * from the start of the disk; the chunk may have parts of the outer ones. */
static uint64_t block_end(const struct copy *copy, const struct copy_worker *w,
                          uint64_t at)
{
    uint64_t block = copy->options->sparse_min;
    uint64_t left = block - (w->chunk.offset + at) % block;

    return at + min_u64(left, w->chunk.length - at);
}

/*
 * The length of the run of data, or of zeroes that are worth a range of their
 * own, at @at.  As with qemu-img, what is left out with -S is blocks of that
 * size that hold nothing else; a shorter run does not split what is around it.
 */
static uint64_t next_run(const struct copy *copy, const struct copy_worker *w,
                         uint64_t at, bool *zero)
{
    const struct copy_options *o = copy->options;
    uint64_t length = w->chunk.length, end = block_end(copy, w, at);

    if (o->sparse_min <= o->grain)
        return zero_run(w->buf + at, length - at, o->grain, zero);
    *zero = memory_is_zero(w->buf + at, end - at);
    while (end < length) {
        uint64_t next = block_end(copy, w, end);
        if (memory_is_zero(w->buf + end, next - end) != *zero)
            break;
        end = next;
    }
    return end - at;
}

static int write_runs(struct copy *copy, struct copy_worker *w,
                      struct lam_error *err)
{
    uint64_t at = 0, length = w->chunk.length;
    int rc = 0;

    if (!copy->options->detect)
        return write_data(copy, w, w->chunk.offset, length, err);
    while (at < length && rc == 0) {
        bool zero;
        uint64_t run = next_run(copy, w, at, &zero);
        uint64_t offset = w->chunk.offset + at;
        rc = zero ? write_zeroes(copy, w, offset, run, err)
                  : write_data(copy, w, offset, run, err);
        at += run;
    }
    return rc;
}

/* ------------------------------------------------------------ the workers */

static int wait_rate(struct copy *copy, uint64_t length, struct lam_error *err)
{
    const struct copy_options *o = copy->options;

    return o->rate && rate_take(o->rate, length, o->convert->cancel) < 0
        ? copy_cancelled(o->convert, err) : 0;
}

static int read_chunk(struct copy *copy, struct copy_worker *w,
                      struct lam_error *err)
{
    const struct copy_options *o = copy->options;

    int rc = wait_rate(copy, w->chunk.length, err);
    return rc < 0 ? rc : copy_read_chunk(&w->chunk, o->salvage, w->buf,
                                         &w->bytes_read, err);
}

static int pass_chunk(struct copy *copy, struct copy_worker *w,
                      struct lam_error *err)
{
    int rc = wait_rate(copy, w->chunk.length, err);

    if (rc < 0)
        return rc;
    w->bytes_read += w->chunk.length;
    return passthrough_chunk(copy->options->pass, &w->chunk, w->buf, &w->order,
                             &w->bytes_written, err);
}

/* The chunk is larger than our buffer. */
static int copy_pieces(struct copy *copy, struct copy_worker *w,
                       struct lam_error *err)
{
    const struct range all = range_make(w->chunk.offset, w->chunk.length);
    uint64_t max = copy->walk->options.data_max;
    int rc = 0;

    for (uint64_t at = all.offset; at < range_end(all) && rc == 0;) {
        uint64_t end = min_u64(align_down(at, max) + max, range_end(all));
        rc = copy_cancelled(copy->options->convert, err);
        if (rc == 0)
            rc = read_part(&w->chunk, range_make(at, end - at), w->buf, err);
        w->chunk.offset = at;
        w->chunk.length = end - at;
        if (rc == 0)
            rc = write_runs(copy, w, err);
        if (rc == 0)
            rc = order_write(&w->order, false, err);
        at = end;
    }
    w->chunk.offset = all.offset;
    w->chunk.length = all.length;
    return rc;
}

static int offload(struct copy *copy, struct copy_worker *w,
                   struct lam_error *err)
{
    struct lam_error refusal = LAM_ERROR_INIT;

    w->bytes_read += w->chunk.length;
    int rc = order_wait(&w->order, err);
    if (rc < 0)
        return rc;
    rc = offload_chunk(copy->options->offload, &w->chunk, &refusal);
    if (rc == -ENOTSUP)
        return copy_pieces(copy, w, err);
    if (rc == 0)
        w->bytes_written += w->chunk.length;
    else if (err)
        *err = refusal;
    return lam_error_prefix(err, rc, "error while writing at byte %" PRIu64,
                            w->chunk.offset);
}

static int copy_chunk(struct copy *copy, struct copy_worker *w,
                      struct lam_error *err)
{
    int rc = 0;

    switch (w->chunk.kind) {
    case WALK_ZERO:
        return write_zeroes(copy, w, w->chunk.offset, w->chunk.length, err);
    case WALK_DATA:
        rc = read_chunk(copy, w, err);
        return rc < 0 ? rc : write_runs(copy, w, err);
    case WALK_PAYLOAD:
        return pass_chunk(copy, w, err);
    case WALK_OFFLOAD:
        return offload(copy, w, err);
    case WALK_SHARED:
        /* Stays where it is; its bytes count all the same. */
        return copy->options->digest ? read_chunk(copy, w, err) : 0;
    }
    return 0;
}

static int hash_chunk(struct copy *copy, struct copy_worker *w,
                      struct lam_error *err)
{
    const struct walk_chunk *chunk = &w->chunk;

    if (!copy->options->digest)
        return 0;
    return digest_put(copy->options->digest, chunk->sequence, chunk->offset,
                      chunk->length, chunk->kind == WALK_ZERO ? NULL : &w->buf,
                      err);
}

static int next_chunk(struct copy *copy, unsigned worker,
                      struct walk_chunk *chunk, struct lam_error *err)
{
    struct journal *journal = copy->options->journal;

    return journal ? journal_next(journal, worker, chunk, err)
                   : walk_next(copy->walk, chunk, err);
}

static int copy_step(void *job, unsigned worker, struct lam_error *err)
{
    struct copy *copy = job;
    struct copy_worker *w = &copy->workers[worker];

    int rc = copy_cancelled(copy->options->convert, err);
    if (rc == 0)
        rc = next_chunk(copy, worker, &w->chunk, err);
    if (rc == 0)
        return 0;
    if (rc > 0) {
        order_take(&w->order, w->chunk.sequence);
        rc = copy_chunk(copy, w, err);
        if (rc == 0)
            rc = order_write(&w->order, true, err);
    }
    if (rc >= 0)
        rc = hash_chunk(copy, w, err);
    if (rc >= 0) {
        progress_add(&copy->progress, w->chunk.length);
        return 1;
    }
    rc = order_fail(&w->order, rc, err);
    if (copy->options->digest)
        digest_abort(copy->options->digest, rc, err);
    return rc;
}

static int workers_new(struct copy *copy, struct lam_error *err)
{
    unsigned n = copy->options->workers;
    size_t bytes = copy->walk->options.data_max;

    copy->workers = calloc(n, sizeof *copy->workers);
    if (!copy->workers)
        return lam_fail(err, ENOMEM, "no memory for %u workers", n);
    for (unsigned i = 0; i < n; i++) {
        struct copy_worker *w = &copy->workers[i];
        order_init(&w->order, copy->ordered ? &copy->turn : NULL,
                   copy->options->target, false);
        w->order.tells_byte = true;
        w->buf = copy->options->direct ? buffer_new_contiguous(bytes)
                                       : buffer_new(bytes);
        if (!w->buf)
            return lam_fail(err, ENOMEM, "no memory for %zu bytes", bytes);
        if (copy->options->zeroing->method != LAM_ZERO_BY_DISCARD_PROVE)
            continue;
        w->scratch = buffer_new(ZEROING_PIECE);
        if (!w->scratch)
            return lam_fail(err, ENOMEM, "no memory for %d bytes",
                            ZEROING_PIECE);
    }
    return 0;
}

static void workers_free(struct copy *copy, struct copy_counts *counts)
{
    for (unsigned i = 0; copy->workers && i < copy->options->workers; i++) {
        struct copy_worker *w = &copy->workers[i];
        counts->bytes_read += w->bytes_read;
        counts->bytes_written += w->bytes_written;
        walk_chunk_deinit(&w->chunk);
        order_deinit(&w->order);
        free(w->scratch);
        free(w->buf);
    }
    free(copy->workers);
}

/* Where a target's clusters come to lie nobody sees but in its tables; and one
 * that is written by the host's means has none. */
static bool needs_order(const struct copy_options *o)
{
    const struct lam_image *target = o->target;

    return !(o->convert->flags & LAM_CONVERT_OUT_OF_ORDER) &&
           lam_image_cluster_size(target) && !image_compresses_all(target) &&
           (!o->compress || batch_can_compress(target)) &&
           zeroing_is_placed(o->zeroing);
}

int copy_run(struct walk *walk, const struct copy_options *options,
             struct copy_counts *counts, struct lam_error *err)
{
    struct copy copy = { .options = options, .walk = walk };

    copy.ordered = needs_order(options);
    turn_init(&copy.turn);
    progress_init(&copy.progress, walk->total, options->convert->progress,
                  options->convert->progress_opaque);
    copy.progress.done = walk->offset;
    int rc = workers_new(&copy, err);
    if (rc == 0)
        rc = workers_run(options->workers, copy_step, &copy, err);
    workers_free(&copy, counts);
    turn_deinit(&copy.turn);
    progress_deinit(&copy.progress);
    return rc;
}
