/* SPDX-License-Identifier: MIT */
/*
 * io.c - what all host objects have in common but transfers and zeroes: birth
 * and death, size, sync, state of a range, identity.
 */
#include "io/io.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/ahead.h"
#include "io/change.h"
#include "io/pool.h"
#include "io/transfer.h"

int lam_io_init(struct lam_io *io, const struct lam_io_ops *ops,
                const char *name, struct lam_error *err)
{
    *io = (struct lam_io){ .ops = ops, .eof_unit = 1 };
    io->limits.request_alignment = 1;
    io->limits.memory_alignment = 1;
    io->name = strdup(name);
    if (!io->name)
        return lam_fail(err, ENOMEM, "no memory for a file name");
    pthread_mutex_init(&io->change_lock, NULL);
    pthread_cond_init(&io->change_ended, NULL);
    io_ahead_init(io);
    return 0;
}

void lam_io_deinit(struct lam_io *io)
{
    assert(!io->changes);
    io_ahead_deinit(io);
    pthread_cond_destroy(&io->change_ended);
    pthread_mutex_destroy(&io->change_lock);
    free(io->name);
    io->name = NULL;
}

void lam_io_close(struct lam_io *io)
{
    if (!io)
        return;
    io_ahead_stop(io);
    io->ops->close(io);
}

/* ---------------------------------------------------------------- size */

void io_grown(struct lam_io *io, uint64_t end)
{
    uint64_t size = atomic_load(&io->size);
    while (size < end &&
           !atomic_compare_exchange_weak(&io->size, &size, end))
        ;
}

int lam_io_size(struct lam_io *io, uint64_t *size, struct lam_error *err)
{
    int rc = io_ahead_size(io, size);
    if (rc < 0)
        return lam_fail_errno(err, -rc, "Could not get the size of '%s'",
                              io->name);
    atomic_store(&io->size, *size);
    return 0;
}

int lam_io_truncate(struct lam_io *io, uint64_t size, struct lam_error *err)
{
    int rc = io_check_change(io, 0, 0, "resize", err);
    if (rc < 0)
        return rc;
    if (size > INT64_MAX)
        return lam_fail_errno(err, EFBIG, "Could not resize '%s' to %" PRIu64
                              " bytes", io->name, size);
    if (io->limits.is_block_device && size != atomic_load(&io->size))
        return lam_fail(err, ENOTSUP, "Cannot %s %s",
                        size > atomic_load(&io->size) ? "grow" : "resize",
                        lam_io_fixed_kind(io));
    /* Nobody may be writing a tail back meanwhile. */
    struct io_change change = {
        .range = range_make(0, UINT64_MAX), .exclusive = true
    };
    io_change_begin(io, &change);
    rc = io->ops->truncate ? io->ops->truncate(io, size) : -ENOTSUP;
    if (rc == 0) {
        atomic_store(&io->size, size);
        io_ahead_forget(io);
    }
    io_change_end(io, &change);
    if (rc < 0)
        return lam_fail_errno(err, -rc, "Could not resize '%s' to %" PRIu64
                              " bytes", io->name, size);
    return io_sync_change(io, err);
}

/* ---------------------------------------------------------------- sync */

int lam_io_flush(struct lam_io *io, struct lam_error *err)
{
    if (!io->writable || io->cache == LAM_CACHE_UNSAFE)
        return 0;
    /*
     * The kernel reports a failed write-back once and then forgets it, with
     * the pages marked clean.  So the first failure is the last word.
     */
    int failed = atomic_load(&io->flush_error);
    if (!failed) {
        int rc;
        lam_io_event(io, IO_EVENT_FLUSH_TO_DISK);
        do
            rc = io->ops->flush(io);
        while (rc == -EINTR);
        if (rc == 0)
            return 0;
        failed = -rc;
        int none = 0;
        if (!atomic_compare_exchange_strong(&io->flush_error, &none, failed))
            failed = none;
    }
    return lam_fail_errno(err, failed, "Could not flush '%s'", io->name);
}

int io_sync_change(struct lam_io *io, struct lam_error *err)
{
    if (io->cache != LAM_CACHE_WRITETHROUGH &&
        io->cache != LAM_CACHE_DIRECTSYNC)
        return 0;
    return lam_io_flush(io, err);
}

/* ------------------------------------------------------------- allocation */

int lam_io_allocate(struct lam_io *io, uint64_t offset, uint64_t length,
                    struct lam_error *err)
{
    int rc = io_check_change(io, offset, length, "allocate", err);
    if (rc < 0 || !length)
        return rc;
    struct io_change change = { .range = range_make(offset, length) };
    io_change_begin(io, &change);
    do
        rc = io->ops->allocate ? io->ops->allocate(io, offset, length)
                               : -ENOTSUP;
    while (rc == -EINTR);
    if (rc == 0)
        io_grown(io, offset + length);
    io_change_end(io, &change);
    if (rc == -EOPNOTSUPP)
        rc = -ENOTSUP;
    if (rc < 0)
        return lam_fail_errno(err, -rc, "Could not allocate %" PRIu64
                              " bytes at offset %" PRIu64 " of '%s'", length,
                              offset, io->name);
    return io_sync_change(io, err);
}

int lam_io_extent(struct lam_io *io, uint64_t offset, uint64_t length,
                  enum lam_io_state *state, uint64_t *run,
                  struct lam_error *err)
{
    assert(length > 0);
    uint64_t size = atomic_load(&io->size);
    *state = LAM_IO_DATA;
    *run = length;
    if (offset >= size) {
        *state = LAM_IO_HOLE;
        return 0;
    }
    uint64_t inside = min_u64(length, size - offset);
    *run = inside;
    if (!io->ops->extent)
        return 0;
    int rc = io->ops->extent(io, offset, inside, state, run);
    if (rc < 0)
        return lam_fail_errno(err, -rc, "Could not look for holes at offset %"
                              PRIu64 " of '%s'", offset, io->name);
    assert(*run > 0 && *run <= inside);
    return 0;
}

uint64_t lam_io_hole(struct lam_io *io, uint64_t offset, uint64_t length)
{
    return io->ops->hole && range_fits(offset, length, atomic_load(&io->size))
        ? io->ops->hole(io, offset, length) : 0;
}

/* --------------------------------------------------------------- identity */

int lam_io_fd(const struct lam_io *io)
{
    return io->ops->descriptor ? io->ops->descriptor(io) : -1;
}

bool lam_io_has_fd(const struct lam_io *io)
{
    return io->ops == &file_ops || lam_io_fd(io) >= 0;
}

int lam_io_borrow_fd(const struct lam_io *io)
{
    int fd;

    if (io->ops != &file_ops)
        return lam_io_fd(io);
    return file_use(file_of((struct lam_io *)io), &fd) < 0 ? -1 : fd;
}

void lam_io_return_fd(const struct lam_io *io)
{
    if (io->ops == &file_ops)
        file_unuse(file_of((struct lam_io *)io));
}

int lam_io_stat(const struct lam_io *io, struct stat *st)
{
    if (io->ops->stat)
        return io->ops->stat((struct lam_io *)io, st);
    int fd = lam_io_fd(io);
    if (fd < 0)
        return -EBADF;
    return fstat(fd, st) < 0 ? -errno : 0;
}

int lam_io_allocated_size(struct lam_io *io, uint64_t *bytes,
                          struct lam_error *err)
{
    struct stat st;
    int rc = lam_io_stat(io, &st);
    if (rc == -EBADF) {
        *bytes = atomic_load(&io->size);
        return 0;
    }
    if (rc < 0)
        return lam_fail_errno(err, -rc, "Could not stat '%s'", io->name);
    *bytes = (uint64_t)st.st_blocks * 512;
    return 0;
}

void lam_io_identity(const struct lam_io *io, struct lam_io_identity *id)
{
    struct stat st;
    *id = (struct lam_io_identity){ .known = false };
    if (lam_io_stat(io, &st) < 0)
        return;
    id->known = true;
    id->is_block_device = S_ISBLK(st.st_mode);
    id->dev = id->is_block_device ? st.st_rdev : st.st_dev;
    id->ino = id->is_block_device ? 0 : st.st_ino;
}

bool lam_io_same_object(const struct lam_io *a, const struct lam_io *b)
{
    struct lam_io_identity x, y;

    lam_io_identity(a, &x);
    lam_io_identity(b, &y);
    return x.known && y.known && x.is_block_device == y.is_block_device &&
           x.dev == y.dev && x.ino == y.ino;
}
