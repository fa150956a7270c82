/* SPDX-License-Identifier: MIT */
/*
 * async.c - a transfer that no thread waits for.
 */
#include "io/async.h"

#include "io/change.h"
#include "io/pool.h"

/*
 * What goes through the page cache is better left to a thread: what is in it is
 * copied while the request is submitted, by the one thread that submits, and
 * most file systems have the kernel write with a thread of its own anyway, one
 * after the other.
 */
static bool is_plain(const struct lam_io *io)
{
    return (io->ops == &file_ops || io->ops == &blockdev_ops) &&
           io->limits.direct;
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
    if (!is_plain(a->io) || !fits(a) || (a->write && !may_write(a->io)) ||
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
