/* SPDX-License-Identifier: MIT */
/*
 * async.c - a transfer that no thread waits for.
 */
#include "io/async.h"

#include "io/change.h"
#include "io/pool.h"

/*
 * What the page cache has is copied while the request is submitted, which for a
 * short read costs far less than another thread, and for a long one keeps the
 * others from copying beside it.  Buffered writes the kernel does by threads of
 * its own on most file systems, and here there is more to them (write.c).
 */
static const uint64_t BUFFERED_READ_MAX = 128 * LAM_KIB;

static bool is_plain(const struct io_async *a)
{
    const struct lam_io *io = a->io;

    return (io->ops == &file_ops || io->ops == &blockdev_ops) &&
           (io->limits.direct ||
            (!a->write && a->length <= BUFFERED_READ_MAX));
}

static bool fits(const struct io_async *a)
{
    const struct lam_io *io = a->io;
    uint32_t unit = io->limits.request_alignment;

    return a->length <= IO_ASYNC_MAX && is_aligned(a->offset, unit) &&
           is_aligned(a->length, unit) &&
           is_aligned((uintptr_t)a->buf, io->limits.memory_alignment) &&
           range_fits(a->offset, a->length, atomic_load(&io->size));
}

static bool may_write(const struct lam_io *io)
{
    return io->writable && !io->limits.write_max && !io->fill_min &&
           io->cache != LAM_CACHE_DIRECTSYNC;
}

bool io_async_begin(struct io_async *a)
{
    if (!is_plain(a) || !fits(a) || (a->write && !may_write(a->io)) ||
        !file_use_open(file_of(a->io), &a->fd))
        return false;
    a->change = (struct io_change){ .range = range_make(a->offset,
                                                        a->length) };
    if (!a->write || io_change_try(a->io, &a->change))
        return true;
    file_unuse(file_of(a->io));
    return false;
}

void io_async_end(struct io_async *a)
{
    if (a->write)
        io_change_end(a->io, &a->change);
    file_unuse(file_of(a->io));
}
