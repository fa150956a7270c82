/* SPDX-License-Identifier: MIT */
/*
 * image-io.c - an image as the host object of another one.
 *
 * Requests become ordinary requests of the inner image, of any alignment, and
 * pass its own gate: it is a chain of its own.
 */
#include "image/image-io.h"

#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "image/chain.h"
#include "image/graph.h"
#include "image/populate.h"
#include "io/window.h"

struct image_io {
    struct lam_io io;
    struct lam_image *image;
    unsigned twist;
};

static struct image_io *image_io_of(const struct lam_io *io)
{
    return (struct image_io *)io;
}

/* ------------------------------------------------------------ copy on read */

/* Whole units around the range, so that the image can take them. */
static struct range widen(struct lam_image *image, uint64_t offset,
                          uint64_t length)
{
    uint64_t unit = max_u64(lam_image_cluster_size(image), 512);
    struct range all = range_make(0, lam_image_size(image));

    return range_intersect(range_widen(range_make(offset, length), unit), all);
}

static int is_absent(struct lam_image *image, struct range r, bool *absent)
{
    struct lam_extents map lam_cleanup(lam_extents_deinit) = LAM_EXTENTS_INIT;
    int rc = lam_image_map(image, r.offset, r.length, 1, 0, &map, NULL);

    *absent = false;
    for (size_t i = 0; i < map.count && rc == 0; i++)
        *absent |= map.items[i].state == LAM_EXTENT_UNALLOCATED;
    return rc;
}

static int copy_up(struct lam_image *image, uint64_t offset, uint64_t length)
{
    struct range r = widen(image, offset, length);
    bool absent;
    int rc = is_absent(image, r, &absent);

    if (rc < 0 || !absent || !lam_image_backing(image))
        return rc;
    lam_autofree uint8_t *buffer = buffer_new(r.length);
    if (!buffer)
        return -ENOMEM;
    rc = lam_image_read(image, buffer, r.length, r.offset, NULL);
    return rc < 0 ? rc
                  : image_populate(image, buffer, r.length, r.offset, NULL);
}

/* ---------------------------------------------------------------- requests */

static ssize_t image_readv(struct lam_io *io, const struct iovec *iov,
                           int iovcnt, uint64_t offset)
{
    struct image_io *i = image_io_of(io);
    uint64_t size = lam_image_size(i->image), done = 0;

    for (int k = 0; k < iovcnt && offset + done < size; k++) {
        uint64_t n = min_u64(iov[k].iov_len, size - offset - done);
        int rc = n && i->twist & IMAGE_IO_COPY_ON_READ
            ? copy_up(i->image, offset + done, n) : 0;
        if (rc == 0)
            rc = lam_image_read(i->image, iov[k].iov_base, n, offset + done,
                                NULL);
        if (rc < 0)
            return rc;
        done += n;
    }
    return (ssize_t)done;
}

/* Whole clusters; what lies beside goes through a buffer. */
static int write_compressed(struct lam_image *image, const uint8_t *data,
                            uint64_t length, uint64_t offset)
{
    uint64_t unit = lam_image_cluster_size(image);
    uint64_t size = lam_image_size(image);
    lam_autofree uint8_t *buffer = buffer_new(unit);

    if (!buffer)
        return -ENOMEM;
    while (length > 0) {
        uint64_t start = align_down(offset, unit);
        uint64_t whole = min_u64(unit, size - start);
        uint64_t n = min_u64(start + whole - offset, length);
        int rc = 0;
        if (n < whole)
            rc = lam_image_read(image, buffer, whole, start, NULL);
        memcpy(buffer + (offset - start), data, n);
        if (rc == 0)
            rc = lam_image_write(image, buffer, whole, start,
                                 LAM_WRITE_COMPRESSED, NULL);
        if (rc < 0)
            return rc;
        data += n;
        offset += n;
        length -= n;
    }
    return 0;
}

static ssize_t image_writev(struct lam_io *io, const struct iovec *iov,
                            int iovcnt, uint64_t offset)
{
    struct image_io *i = image_io_of(io);
    uint64_t size = lam_image_size(i->image), done = 0;

    if (offset >= size)
        return -ENOSPC;
    for (int k = 0; k < iovcnt && offset + done < size; k++) {
        uint64_t n = min_u64(iov[k].iov_len, size - offset - done);
        int rc = i->twist & IMAGE_IO_COMPRESS
            ? write_compressed(i->image, iov[k].iov_base, n, offset + done)
            : lam_image_write(i->image, iov[k].iov_base, n, offset + done, 0,
                              NULL);
        if (rc < 0)
            return rc;
        done += n;
    }
    return (ssize_t)done;
}

static int image_io_flush(struct lam_io *io)
{
    return lam_image_flush(image_io_of(io)->image, NULL);
}

static int image_size_now(struct lam_io *io, uint64_t *size)
{
    *size = lam_image_size(image_io_of(io)->image);
    return 0;
}

static int image_stat(struct lam_io *io, struct stat *st)
{
    struct lam_io *file = image_io_of(io)->image->io;
    int fd = lam_io_fd(file);

    if (file->ops->stat)
        return file->ops->stat(file, st);
    if (fd < 0)
        return -EBADF;
    return fstat(fd, st) < 0 ? -errno : 0;
}

static int image_resize(struct lam_io *io, uint64_t size)
{
    return lam_image_resize(image_io_of(io)->image, size, LAM_PREALLOC_OFF,
                            LAM_TRUNCATE_SHRINK, NULL);
}

static int zero(struct lam_io *io, uint64_t offset, uint64_t length,
                unsigned flags)
{
    int rc = lam_image_zero(image_io_of(io)->image, offset, length,
                            flags | LAM_ZERO_NO_FALLBACK, NULL);
    return rc == -ENOTSUP ? -EOPNOTSUPP : rc;
}

static int image_punch(struct lam_io *io, uint64_t offset, uint64_t length)
{
    return zero(io, offset, length, LAM_ZERO_UNMAP);
}

static int image_zero_range(struct lam_io *io, uint64_t offset,
                            uint64_t length)
{
    return zero(io, offset, length, 0);
}

static int image_io_discard(struct lam_io *io, uint64_t offset,
                            uint64_t length)
{
    return lam_image_discard(image_io_of(io)->image, offset, length, NULL);
}

static int image_extent(struct lam_io *io, uint64_t offset, uint64_t length,
                        enum lam_io_state *state, uint64_t *run)
{
    struct lam_extents map lam_cleanup(lam_extents_deinit) = LAM_EXTENTS_INIT;
    int rc = lam_image_map(image_io_of(io)->image, offset, length,
                           LAM_DEPTH_ALL, 0, &map, NULL);

    *run = 0;
    for (size_t i = 0; i < map.count && rc == 0; i++) {
        enum lam_extent_state s = (enum lam_extent_state)map.items[i].state;
        enum lam_io_state is = s == LAM_EXTENT_DATA
            || s == LAM_EXTENT_COMPRESSED ? LAM_IO_DATA : LAM_IO_HOLE;
        if (i && is != *state)
            break;
        *state = is;
        *run += map.items[i].length;
    }
    return rc;
}

/* The inner image is opened as it stays. */
static int image_set_writable(struct lam_io *io, bool writable,
                              enum lam_io_locking locking,
                              struct lam_error *err)
{
    (void)locking;
    if (writable && !image_io_of(io)->image->writable)
        return lam_fail(err, EROFS, "'%s' is open read-only", io->name);
    io->writable = writable;
    return 0;
}

static void image_io_close(struct lam_io *io)
{
    struct image_io *i = image_io_of(io);

    lam_image_close(i->image, NULL);
    lam_io_deinit(io);
    free(i);
}

static const struct lam_io_ops image_ops = {
    .name = "image",
    .readv = image_readv,
    .writev = image_writev,
    .flush = image_io_flush,
    .size = image_size_now,
    .stat = image_stat,
    .truncate = image_resize,
    .punch = image_punch,
    .zero_range = image_zero_range,
    .discard = image_io_discard,
    .extent = image_extent,
    .set_writable = image_set_writable,
    .close = image_io_close,
};

int image_io_new(struct lam_image *image, struct lam_io **out,
                 struct lam_error *err)
{
    struct image_io *i = calloc(1, sizeof *i);
    int rc = i ? lam_io_init(&i->io, &image_ops, image->name, err)
               : lam_fail(err, ENOMEM, "no memory for an image");

    if (rc < 0) {
        free(i);
        lam_image_close(image, NULL);
        return rc;
    }
    i->image = image;
    i->io.writable = image->writable;
    i->io.unmap = image->unmap;
    i->io.cache = LAM_CACHE_WRITEBACK;
    i->io.limits.can_punch = i->io.limits.can_zero_range = true;
    i->io.limits.can_discard = image->unmap;
    atomic_store(&i->io.size, lam_image_size(image));
    *out = &i->io;
    return 0;
}

static struct lam_io *find_image(const struct lam_io *io)
{
    while (io && io->ops != &image_ops && !lam_io_is_window(io))
        io = io->ops->inner ? io->ops->inner(io) : NULL;
    return io && io->ops == &image_ops ? (struct lam_io *)io : NULL;
}

void image_io_set_twist(struct lam_io *io, unsigned twist)
{
    struct lam_io *found = find_image(io);

    assert(found);
    image_io_of(found)->twist |= twist;
}

struct lam_image *image_io_image(const struct lam_io *io)
{
    struct lam_io *found = find_image(io);

    return found ? image_io_of(found)->image : NULL;
}

struct lam_image *image_through(struct lam_image *image)
{
    struct lam_image *inner = image;

    while (inner && inner->driver) {
        image = inner;
        inner = image_io_image(inner->io);
    }
    return inner ? inner : image;
}
