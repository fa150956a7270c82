/* SPDX-License-Identifier: MIT */
/*
 * write.c - write all of a range: short transfers, bounce buffers, and the
 * read-modify-write of units that are written in part.
 */
#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"
#include "base/cleanup.h"
#include "io/ahead.h"
#include "io/change.h"
#include "io/io.h"
#include "io/transfer.h"
#include "io/vector.h"

enum { MAX_SEGMENTS = 64 };     /* a system call; IOV_MAX is 1,024 */

/* The caller has announced the change. */
static int write_announced(struct lam_io *io, struct vector v,
                           uint64_t length, uint64_t offset)
{
    uint64_t done = 0;
    uint64_t max = io->limits.write_max ? io->limits.write_max : length;
    while (done < length) {
        struct iovec iov[MAX_SEGMENTS];
        uint64_t bytes;
        int count = vector_peek(&v, min_u64(length - done, max), iov,
                                MAX_SEGMENTS, &bytes);
        ssize_t n = io->ops->writev(io, iov, count, offset + done);
        if (n == -EINTR)
            continue;
        if (n < 0)
            return (int)n;
        assert((uint64_t)n <= bytes);
        /* Go on where a unit begins; the rest of a torn one is repeated. */
        uint64_t whole = align_down((uint64_t)n, io->limits.request_alignment);
        if (!whole)
            return -EIO;
        done += whole;
        vector_advance(&v, whole);
    }
    return 0;
}

void lam_io_fill(struct lam_io *io, uint64_t min)
{
    io->fill_min = io->limits.reserve_first && io->ops->allocate ? min : 0;
}

/* What fails here is for the write to tell. */
static void reserve(struct lam_io *io, uint64_t offset, uint64_t length)
{
    if (io->fill_min && length >= io->fill_min)
        io->ops->allocate(io, offset, length);
}

static int write_aligned(struct lam_io *io, struct vector v, uint64_t length,
                         uint64_t offset)
{
    struct io_change change = { .range = range_make(offset, length) };
    io_change_begin(io, &change);
    reserve(io, offset, length);
    int rc = write_announced(io, v, length, offset);
    if (rc == 0)
        io_grown(io, offset + length);
    io_change_end(io, &change);
    return rc;
}

/* ------------------------------------------------- read, modify, write */

/* One unit as it is now, zeroes past the end. */
static int load_unit(struct lam_io *io, uint8_t *buffer, uint64_t offset)
{
    uint64_t unit = io->limits.request_alignment;
    struct iovec iov = { buffer, unit };
    ssize_t n;
    do
        n = io->ops->readv(io, &iov, 1, offset);
    while (n == -EINTR);
    if (n < 0)
        return (int)n;
    memset(buffer + n, 0, unit - (uint64_t)n);
    return 0;
}

static int load_edge(struct lam_io *io, uint8_t *buffer, uint64_t offset,
                     enum io_event before, enum io_event after)
{
    lam_io_event(io, before);
    int rc = load_unit(io, buffer, offset);
    if (rc == 0)
        lam_io_event(io, after);
    return rc;
}

/* Of @units, the buffer's range, load those that @part covers not quite. */
static int load_edges(struct lam_io *io, uint8_t *buffer, struct range units,
                      struct range part)
{
    uint64_t unit = io->limits.request_alignment;
    uint64_t last = range_end(units) - unit;
    bool first_cut = part.offset > units.offset;
    bool last_cut = range_end(part) < range_end(units);
    int rc = 0;
    if (first_cut)
        rc = load_edge(io, buffer, units.offset, IO_EVENT_PWRITEV_RMW_HEAD,
                       IO_EVENT_PWRITEV_RMW_AFTER_HEAD);
    if (rc == 0 && last_cut && !(first_cut && last == units.offset))
        rc = load_edge(io, buffer + (last - units.offset), last,
                       IO_EVENT_PWRITEV_RMW_TAIL,
                       IO_EVENT_PWRITEV_RMW_AFTER_TAIL);
    return rc;
}

/*
 * Whole units are written, so a file that ended inside the last one has become
 * too long: its length may mean something (a raw image's size).  Nobody else
 * writes past our start meanwhile, see change_range().
 */
static int trim_end(struct lam_io *io, uint64_t size_before,
                    struct range units, struct range part)
{
    uint64_t size = max_u64(size_before, range_end(part));
    if (!io->limits.can_grow || range_end(units) <= size)
        return 0;
    return io->ops->truncate(io, size);
}

/* A write that moves the end of the file excludes all that lies behind it. */
static struct range change_range(struct lam_io *io, struct range units)
{
    if (range_end(units) <= atomic_load(&io->size))
        return units;
    return range_make(units.offset, UINT64_MAX - units.offset);
}

/* Writes @part, the next bytes of @v, by way of @buffer, which holds @units. */
static int write_part(struct lam_io *io, struct vector *v, uint8_t *buffer,
                      struct range units, struct range part)
{
    bool whole = units.length == part.length;
    struct io_change change = {
        .range = whole ? units : change_range(io, units),
        .exclusive = !whole,
    };
    io_change_begin(io, &change);
    uint64_t size_before = 0;
    int rc = whole ? 0 : io->ops->size(io, &size_before);
    if (rc == 0 && !whole)
        rc = load_edges(io, buffer, units, part);
    if (rc == 0) {
        vector_gather(v, buffer + (part.offset - units.offset), part.length);
        struct iovec iov = { buffer, units.length };
        rc = write_announced(io, vector_make(&iov, 1), units.length,
                             units.offset);
    }
    if (rc == 0 && !whole)
        rc = trim_end(io, size_before, units, part);
    if (rc == 0)
        io_grown(io, range_end(part));
    io_change_end(io, &change);
    return rc;
}

static int write_bounced(struct lam_io *io, struct vector v, uint64_t length,
                         uint64_t offset)
{
    struct range request = range_make(offset, length);
    struct range all = range_widen(request, io->limits.request_alignment);
    uint64_t max = max_u64(IO_PIECE, io->limits.request_alignment);
    size_t size = min_u64(all.length, max);
    lam_autofree uint8_t *buffer = buffer_new(size);
    if (!buffer)
        return -ENOMEM;
    for (uint64_t at = all.offset; at < range_end(all); at += size) {
        struct range units =
            range_make(at, min_u64(size, range_end(all) - at));
        int rc = write_part(io, &v, buffer, units,
                            range_intersect(units, request));
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* -------------------------------------------------------------- interface */

int io_write_all(struct lam_io *io, const struct iovec *iov, int iovcnt,
                 uint64_t length, uint64_t offset)
{
    const struct lam_io_limits *limits = &io->limits;
    struct vector v = vector_make(iov, iovcnt);
    lam_io_event(io, IO_EVENT_PWRITEV);
    io_ahead_begin(io, offset, length);
    bool aligned = is_aligned(offset, limits->request_alignment) &&
                   vector_is_aligned(iov, iovcnt, limits->memory_alignment,
                                     limits->request_alignment);
    int rc = aligned ? write_aligned(io, v, length, offset)
                     : write_bounced(io, v, length, offset);
    if (rc == 0)
        io_ahead_end(io, offset, length);
    lam_io_event(io, IO_EVENT_PWRITEV_DONE);
    return rc;
}

int io_check_change(struct lam_io *io, uint64_t offset, uint64_t length,
                    const char *what, struct lam_error *err)
{
    if (!io->writable)
        return lam_fail(err, EROFS, "Could not %s '%s': it is open read-only",
                        what, io->name);
    uint64_t size = atomic_load(&io->size);
    uint64_t end;
    if (add_overflows(offset, length, &end) || end > INT64_MAX)
        return lam_fail(err, EFBIG, "Could not %s '%s' at offset %" PRIu64
                        ": offset and length exceed 63 bits", what, io->name,
                        offset);
    if (end <= size || io->limits.can_grow)
        return 0;
    return lam_fail(err, ENOSPC, "Could not %s '%s' at offset %" PRIu64
                    ", length %" PRIu64 ": its size is %" PRIu64, what,
                    io->name, offset, length, size);
}

int lam_io_writev(struct lam_io *io, const struct iovec *iov, int iovcnt,
                  uint64_t offset, struct lam_error *err)
{
    uint64_t length;
    if (!vector_total(iov, iovcnt, &length))
        return lam_fail(err, EINVAL, "Could not write '%s': the length exceeds "
                        "63 bits", io->name);
    int rc = io_check_change(io, offset, length, "write", err);
    if (rc < 0 || !length)
        return rc;
    rc = io_write_all(io, iov, iovcnt, length, offset);
    if (rc < 0)
        return lam_fail_errno(err, -rc, "Could not write '%s' at offset %"
                              PRIu64 ", length %" PRIu64, io->name, offset,
                              length);
    return io_sync_change(io, err);
}

int lam_io_write(struct lam_io *io, const void *buf, uint64_t length,
                 uint64_t offset, struct lam_error *err)
{
    struct iovec iov = { (void *)buf, length };
    return lam_io_writev(io, &iov, 1, offset, err);
}

/* ----------------------------------------------------------- past the cache */

/* What is shorter may be read again as well, and costs no more. */
enum { PAST_CACHE_MIN = 1 << 20 };

/* In cache mode unsafe nothing has to reach the disk, and does not. */
static bool goes_past_cache(const struct lam_io *io, uint64_t length)
{
    return io->ops->write_past_cache && length >= PAST_CACHE_MIN &&
           !io->limits.direct && io->cache != LAM_CACHE_UNSAFE;
}

static bool write_past_cache(struct lam_io *io, const void *buf,
                             uint64_t length, uint64_t offset)
{
    struct io_change change = { .range = range_make(offset, length) };

    io_ahead_begin(io, offset, length);
    io_change_begin(io, &change);
    bool done = io->ops->write_past_cache(io, buf, length, offset);
    if (done)
        io_grown(io, offset + length);
    io_change_end(io, &change);
    if (done)
        io_ahead_end(io, offset, length);
    return done;
}

int lam_io_write_past_cache(struct lam_io *io, const void *buf, uint64_t length,
                            uint64_t offset, struct lam_error *err)
{
    int rc = io_check_change(io, offset, length, "write", err);

    if (rc < 0)
        return rc;
    /* Whatever was in the way, the other way finds it, too, or does it. */
    if (!goes_past_cache(io, length) ||
        !write_past_cache(io, buf, length, offset))
        return lam_io_write(io, buf, length, offset, err);
    return io_sync_change(io, err);
}
