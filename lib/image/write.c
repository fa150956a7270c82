/* SPDX-License-Identifier: MIT */
/*
 * write.c - guest bytes into the top layer: plan → COW fill → data → finish.
 *
 * The format says piece by piece where bytes go and what has to be copied in
 * front of and behind them (cow.c).  A piece that fails is cancelled: the old
 * content stays.
 */
#include "image/write.h"

#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "base/zeroes.h"
#include "image/changes.h"
#include "image/cow.h"
#include "image/encrypted.h"
#include "image/graph.h"
#include "image/view.h"

/* Guest bytes that are compressed before their payloads are written. */
static const uint64_t COMPRESSED_BATCH = 512 * LAM_KIB;

int image_check_writable(struct lam_image *image, struct lam_error *err)
{
    if (image->metadata_only)
        return lam_fail(err, EINVAL, "'%s' was opened for its header only",
                        image->name);
    if (!image->writable)
        return lam_fail(err, EROFS, "Block node is read-only");
    return 0;
}

/* ------------------------------------------------------------- one piece */

/* Once for each request: what has been dropped and waits for the next flush is
 * not what a full disk may fail for. */
bool image_reclaim(struct lam_image *image, int rc, bool *tried,
                   struct lam_error *err)
{
    struct lam_error local = LAM_ERROR_INIT;

    if (rc != -ENOSPC || *tried || !image->ops->reclaim)
        return false;
    *tried = true;
    if (image->ops->reclaim(image->format, &local) < 0)
        return false;
    if (err)
        *err = local;
    return true;
}

/* The next piece of a write; *@done is its length. */
typedef int piece_fn(struct lam_image *image, const void *data,
                     uint64_t length, uint64_t offset, uint64_t *done,
                     struct lam_error *err);

static int write_piece(struct lam_image *image, const void *data,
                       uint64_t length, uint64_t offset, uint64_t *done,
                       struct lam_error *err)
{
    const struct format_ops *ops = image->ops;
    struct format_allocation a;
    int rc = ops->write_begin(image->format, offset, length, &a, err);
    if (rc < 0)
        return rc;
    assert(a.offset == offset && a.length > 0 && a.length <= length);

    *done = a.length;
    rc = cow_write(image, &a, data, err);
    if (!a.token)
        return rc;
    if (rc == 0)
        return ops->write_finish(image->format, &a, err);
    ops->write_cancel(image->format, &a);
    return rc;
}

/* All of the range, a piece at a time. */
static int write_by(struct lam_image *image, piece_fn *piece,
                    const uint8_t *buf, uint64_t length, uint64_t offset,
                    struct lam_error *err)
{
    bool tried = false;

    while (length > 0) {
        uint64_t done = 0;
        uint64_t token = image_enter(image);
        int rc = piece(image, buf, length, offset, &done, err);
        image_leave(image, token);
        if (image_reclaim(image, rc, &tried, err))
            continue;
        if (rc < 0)
            return lam_error_prefix(err, rc, "'%s': guest offset %" PRIu64,
                                    image->name, offset);
        buf += done;
        offset += done;
        length -= done;
    }
    return 0;
}

static int write_pieces(struct lam_image *image, const void *buf,
                        uint64_t length, uint64_t offset, struct lam_error *err)
{
    return write_by(image, write_piece, buf, length, offset, err);
}

/* Whole clusters, some at a time: they are deflated into memory. */
static int write_some_clusters(struct lam_image *image, const void *data,
                               uint64_t length, uint64_t offset,
                               uint64_t *done, struct lam_error *err)
{
    const struct format_ops *ops = image->ops;

    *done = min_u64(length, max_u64(COMPRESSED_BATCH,
                                    ops->cluster_size(image->format)));
    return ops->write_compressed(image->format, offset, data, *done, err);
}

static int write_clusters(struct lam_image *image, const uint8_t *buf,
                          uint64_t length, uint64_t offset,
                          struct lam_error *err)
{
    return write_by(image, write_some_clusters, buf, length, offset, err);
}

/* @length bytes of the cluster at @start; the others stay as they read now. */
static int complete_cluster(struct lam_image *image, uint64_t start,
                            const void *buf, uint64_t length, uint64_t offset,
                            struct lam_error *err)
{
    uint64_t cluster = image->ops->cluster_size(image->format);
    lam_autofree uint8_t *whole = calloc(1, cluster);
    if (!whole)
        return lam_fail(err, ENOMEM, "no memory for a cluster of %" PRIu64
                        " bytes", cluster);
    int rc = image_read(image, whole, min_u64(cluster, image->size - start),
                        start, err);
    if (rc < 0)
        return rc;
    memcpy(whole + (offset - start), buf, length);
    return write_clusters(image, whole, cluster, start, err);
}

/* Where nothing but compressed clusters can be stored. */
static int write_completed(struct lam_image *image, const uint8_t *buf,
                           uint64_t length, uint64_t offset,
                           struct lam_error *err)
{
    uint64_t cluster = image->ops->cluster_size(image->format);
    int rc = 0;

    while (length > 0 && rc == 0) {
        uint64_t start = align_down(offset, cluster);
        uint64_t n = min_u64(length, start + cluster - offset);
        if (n == cluster)
            rc = write_clusters(image, buf, n = align_down(length, cluster),
                                offset, err);
        else
            rc = complete_cluster(image, start, buf, n, offset, err);
        buf += n;
        offset += n;
        length -= n;
    }
    return rc;
}

int image_write_pieces(struct lam_image *image, const void *buf,
                       uint64_t length, uint64_t offset, struct lam_error *err)
{
    if (image_compresses_all(image))
        return write_completed(image, buf, length, offset, err);
    return encrypted_is_partial(image, offset, length)
        ? encrypted_write_partial(image, write_pieces, buf, length, offset, err)
        : write_pieces(image, buf, length, offset, err);
}

void image_lock_units(struct lam_image *image)
{
    pthread_rwlock_wrlock(&image->whole_units);
    LAM_LOCKED(&image->afloat.lock);
    while (image->afloat.count > 0)
        pthread_cond_wait(&image->afloat.none, &image->afloat.lock);
}

void image_lock_write(struct lam_image *image, uint64_t offset,
                      uint64_t length)
{
    if (encrypted_is_partial(image, offset, length))
        image_lock_units(image);
    else
        pthread_rwlock_rdlock(&image->whole_units);
}

/* ------------------------------------------------------------ compressed */

int image_check_compressed(const struct lam_image *image, uint64_t offset,
                           uint64_t length, struct lam_error *err)
{
    const struct format_ops *ops = image->ops;

    if (!ops->can_compress)
        return lam_fail(err, ENOTSUP, "format '%s' cannot store compressed "
                        "clusters", ops->name);
    if (image->crypt)
        return lam_fail(err, ENOTSUP, "Compression and encryption not "
                        "supported at the same time");
    if (image->data)
        return lam_fail(err, ENOTSUP, "an image with an external data file "
                        "holds no compressed clusters");
    uint64_t cluster = ops->cluster_size(image->format);
    if (is_aligned(offset, cluster) && (is_aligned(length, cluster)
                                        || offset + length == image->size))
        return 0;
    return lam_fail(err, EINVAL, "a compressed write of %" PRIu64 " bytes "
                    "at offset %" PRIu64 " is not made of whole clusters of"
                    " %" PRIu64, length, offset, cluster);
}

uint8_t *image_pad_cluster(const struct lam_image *image, const void *data,
                           uint64_t length, struct lam_error *err)
{
    uint64_t cluster = image->ops->cluster_size(image->format);
    uint8_t *padded = calloc(1, cluster);

    if (padded)
        memcpy(padded, data, length);
    else
        lam_fail(err, ENOMEM, "no memory for a cluster of %" PRIu64 " bytes",
                 cluster);
    return padded;
}

static int write_compressed(struct lam_image *image, const uint8_t *buf,
                            uint64_t length, uint64_t offset,
                            struct lam_error *err)
{
    int rc = image_check_compressed(image, offset, length, err);
    if (rc < 0)
        return rc;
    uint64_t cluster = image->ops->cluster_size(image->format);
    uint64_t whole = align_down(length, cluster);
    rc = write_clusters(image, buf, whole, offset, err);
    if (rc < 0 || whole == length)
        return rc;
    lam_autofree uint8_t *padded = image_pad_cluster(image, buf + whole,
                                                     length - whole, err);
    if (!padded)
        return -ENOMEM;
    return write_clusters(image, padded, cluster, offset + whole, err);
}

/* ------------------------------------------------------------- public calls */

/*
 * A disk that was taken for raw by its looks must go on looking raw: else the
 * guest could make it name any file of the host as its backing file the next
 * time somebody looks (format document 11.3).
 */
static int guard_first_sector(struct lam_image *image, const void *buf,
                              uint64_t length, uint64_t offset,
                              struct lam_error *err)
{
    uint8_t sector[512] = { 0 };

    if (!image->guessed || image->ops != &format_raw || offset >= sizeof sector)
        return 0;
    int rc = image_read(image, sector, min_u64(sizeof sector, image->size),
                        0, err);
    if (rc < 0)
        return rc;
    memcpy(sector + offset, buf, min_u64(length, sizeof sector - offset));
    if (format_probe(sector, sizeof sector, NULL, false) == &format_raw)
        return 0;
    return lam_fail(err, EPERM, "Operation not permitted: the first sector "
                    "would look like another format than raw, which was "
                    "guessed; give the format to allow it");
}

int image_end_write(struct lam_image *image, unsigned flags,
                    struct lam_error *err)
{
    return flags & LAM_WRITE_FUA || image->flush_writes
        ? image_flush(image, err) : 0;
}

static bool is_zero_write(const struct lam_image *image, const void *buf,
                          uint64_t length, unsigned flags)
{
    return image->detect_zeroes != LAM_DETECT_ZEROES_OFF &&
           !(flags & LAM_WRITE_COMPRESSED) && length &&
           memory_is_zero(buf, length);
}

static unsigned detected_flags(const struct lam_image *image, unsigned flags)
{
    return (flags & LAM_WRITE_FUA) |
           (image->detect_zeroes == LAM_DETECT_ZEROES_UNMAP ? LAM_ZERO_UNMAP
                                                            : 0);
}

/* Where an image of the format may compress everything, one that does not takes
 * such a write as any other. */
static bool is_compressed(const struct lam_image *image, unsigned flags)
{
    return flags & LAM_WRITE_COMPRESSED &&
           (!image->ops->compresses_all || image_compresses_all(image));
}

static int write_guarded(struct lam_image *image, const void *buf,
                         uint64_t length, uint64_t offset, unsigned flags,
                         struct lam_error *err)
{
    if (is_zero_write(image, buf, length, flags))
        return image_zero(image, offset, length,
                          detected_flags(image, flags), err);

    image_lock_write(image, offset, length);
    int rc = is_compressed(image, flags)
        ? write_compressed(image, buf, length, offset, err)
        : image_write_pieces(image, buf, length, offset, err);
    pthread_rwlock_unlock(&image->whole_units);
    return rc < 0 ? rc : image_end_write(image, flags, err);
}

int lam_image_write(struct lam_image *image, const void *buf,
                    uint64_t length, uint64_t offset, unsigned flags,
                    struct lam_error *err)
{
    IMAGE_INSIDE(image);
    struct lam_image *inner = flags & LAM_WRITE_COMPRESSED && image->driver
        ? view_compressing(image->view) : NULL;

    if (inner)
        return lam_image_write(inner, buf, length, offset, flags, err);
    int rc = lam_check_flags(flags, LAM_WRITE_FUA | LAM_WRITE_COMPRESSED, err);
    if (rc == 0)
        rc = image_check_writable(image, err);
    if (rc == 0)
        rc = image_check_range(image, offset, length, err);
    if (rc == 0)
        rc = guard_first_sector(image, buf, length, offset, err);
    if (rc < 0)
        return rc;
    change_begin(image);
    lam_io_event(image->io, IO_EVENT_PWRITEV);
    rc = write_guarded(image, buf, length, offset, flags, err);
    lam_io_event(image->io, IO_EVENT_PWRITEV_DONE);
    return change_end(image, offset, length, rc);
}

int lam_image_discard(struct lam_image *image, uint64_t offset,
                      uint64_t length, struct lam_error *err)
{
    IMAGE_INSIDE(image);
    int rc = image_check_writable(image, err);
    if (rc == 0)
        rc = image_check_range(image, offset, length, err);
    if (rc < 0 || !image->unmap || !length)
        return rc;
    change_begin(image);
    if (image->ops->discard)
        rc = image->ops->discard(image->format, offset, length, err);
    lam_error_prefix(err, rc, "'%s': guest offset %" PRIu64, image->name,
                     offset);
    change_end(image, offset, length, rc);
    return rc < 0 ? rc : image_end_write(image, 0, err);
}

/* A layer that the top has covered a moment ago goes to disk first: the guest
 * does not know that there are two.  Whoever put the top there sees to it, and
 * holds its resize_lock meanwhile. */
static int flush_settling(struct lam_image *layer, struct lam_error *err)
{
    if (atomic_load(&layer->settling) > 0) {
        pthread_mutex_lock(&layer->resize_lock);
        pthread_mutex_unlock(&layer->resize_lock);
    }
    int state = atomic_load(&layer->settling);
    if (state == 0)
        return 0;
    return lam_fail_errno(err, -state, "'%s': what was written before the "
                          "snapshot could not be brought to disk",
                          layer->name);
}

/* What has to be done inside the gate; *@format is NULL if that was all. */
static int flush_begin(struct lam_image *image, void **format,
                       struct lam_error *err)
{
    *format = NULL;
    if (!image->writable || image->metadata_only)
        return 0;
    lam_io_event(image->io, IO_EVENT_FLUSH_TO_OS);
    int rc = image->backing ? flush_settling(image->backing, err) : 0;
    if (rc == 0)
        *format = image->format;
    return rc;
}

int image_flush(struct lam_image *image, struct lam_error *err)
{
    void *format;
    int rc = flush_begin(image, &format, err);

    return format ? image->ops->flush(format, err) : rc;
}

int lam_image_flush(struct lam_image *image, struct lam_error *err)
{
    const struct format_ops *ops;
    struct graph *graph;
    void *format;
    int rc;

    graph_flush_wait(image->graph);
    {
        IMAGE_INSIDE(image);
        rc = flush_begin(image, &format, err);
        ops = image->ops;
        graph = image->graph;
        if (format)
            graph_flush_begin(graph);
    }
    if (!format)
        return rc;
    rc = ops->flush(format, err);
    graph_flush_end(graph);
    return rc;
}
