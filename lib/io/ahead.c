/* SPDX-License-Identifier: MIT */
/*
 * ahead.c - space behind the end of a growing file, taken in steps.
 */
#include "io/ahead.h"

#include "base/cleanup.h"

/* The largest step, which is what a crash may leave too much. */
static const uint64_t STEP_MAX = 16 * LAM_MIB;

/* So much is filled when it begins its way to the disk: enough for the device
 * to be busy with, and a part only of what a flush would have to wait for. */
static const uint64_t WRITE_OUT = 4 * LAM_MIB;

/* Of each so many bytes of growth all but one have to be written. */
enum { DENSE = 8 };

void io_ahead_init(struct lam_io *io)
{
    pthread_mutex_init(&io->ahead.lock, NULL);
}

void io_ahead_deinit(struct lam_io *io)
{
    pthread_mutex_destroy(&io->ahead.lock);
}

void lam_io_grow_ahead(struct lam_io *io, uint64_t step)
{
    struct io_ahead *a = &io->ahead;
    uint64_t size = atomic_load(&io->size);

    if (!io->writable || !io->limits.can_grow || !io->ops->allocate ||
        !io->ops->truncate || atomic_load(&a->step))
        return;
    LAM_LOCKED(&a->lock);
    atomic_store(&a->base, size);
    atomic_store(&a->written_out, size);
    atomic_store(&a->filled, 0);
    atomic_store(&a->end, 0);
    atomic_store(&a->step, step);
}

void lam_io_grow_with_gaps(struct lam_io *io)
{
    atomic_store_explicit(&io->ahead.step, 0, memory_order_relaxed);
}

/* ------------------------------------------------------------------ taking */

/* What we took and what writes in flight have added, as far as it went. */
static void give_up(struct lam_io *io)
{
    uint64_t size;

    atomic_store(&io->ahead.step, 0);
    if (io->ops->size(io, &size) == 0)
        atomic_store(&io->ahead.end, size);
}

/* The next stretch, which holds the write up to @end.  Under ahead.lock. */
static void take(struct lam_io *io, uint64_t end)
{
    struct io_ahead *a = &io->ahead;
    uint64_t from = max_u64(atomic_load(&io->size), atomic_load(&a->end));
    uint64_t step = atomic_load(&a->step);
    uint64_t to = align_up(end, step) + step;
    int rc;

    do
        rc = io->ops->allocate(io, from, to - from);
    while (rc == -EINTR);
    if (rc < 0) {
        give_up(io);
        return;
    }
    atomic_store(&a->end, to);
    atomic_store(&a->step, min_u64(2 * step, STEP_MAX));
}

/* Under ahead.lock: is the growth since the last look worth more of it? */
static bool is_dense(struct lam_io *io, uint64_t end)
{
    struct io_ahead *a = &io->ahead;
    uint64_t base = atomic_load(&a->base), growth = end - base;

    if (end < base || growth < atomic_load(&a->step))
        return false;
    bool dense = atomic_load(&a->filled) >= growth - growth / DENSE;
    atomic_store(&a->base, end);
    atomic_store(&a->filled, 0);
    return dense;
}

void io_ahead_begin(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct io_ahead *a = &io->ahead;
    uint64_t end = offset + length;

    if (!atomic_load_explicit(&a->step, memory_order_relaxed) ||
        end <= atomic_load_explicit(&a->base, memory_order_relaxed))
        return;
    atomic_fetch_add(&a->filled, length);
    if (end <= atomic_load(&a->end))
        return;
    LAM_LOCKED(&a->lock);
    if (end > atomic_load(&a->end) && atomic_load(&a->step) &&
        end < INT64_MAX / 2 && is_dense(io, end))
        take(io, end);
}

/*
 * What was filled two stretches ago has no writers left, most probably.  Where
 * the device has enough to do this takes until it has not, so one does it at a
 * time, and the other writers go on.
 */
void io_ahead_end(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct io_ahead *a = &io->ahead;
    uint64_t end = offset + length, from = atomic_load(&a->written_out);

    if (!atomic_load_explicit(&a->end, memory_order_relaxed) ||
        end < from + 2 * WRITE_OUT || !io->ops->write_out ||
        io->limits.direct || io->cache != LAM_CACHE_WRITEBACK ||
        atomic_exchange(&a->writing_out, true))
        return;
    if (atomic_compare_exchange_strong(&a->written_out, &from,
                                       from + WRITE_OUT))
        io->ops->write_out(io, from, WRITE_OUT);
    atomic_store(&a->writing_out, false);
}

/* ------------------------------------------------------------------ the end */

int io_ahead_size(struct lam_io *io, uint64_t *size)
{
    LAM_LOCKED(&io->ahead.lock);        /* not in the midst of a step */
    int rc = io->ops->size(io, size);

    if (rc == 0 && *size <= atomic_load(&io->ahead.end))
        *size = min_u64(*size, atomic_load(&io->size));
    return rc;
}

int64_t io_ahead_inside(struct lam_io *io, uint64_t offset, int64_t got)
{
    if (got <= 0 || !atomic_load_explicit(&io->ahead.end, memory_order_relaxed))
        return got;
    /* Looked at after the read: what a finished write has put there counts. */
    uint64_t size = atomic_load(&io->size);
    return offset < size ? (int64_t)min_u64((uint64_t)got, size - offset) : 0;
}

void io_ahead_forget(struct lam_io *io)
{
    struct io_ahead *a = &io->ahead;

    LAM_LOCKED(&a->lock);
    uint64_t size = atomic_load(&io->size);
    atomic_store(&a->base, size);
    atomic_store(&a->written_out, size);
    atomic_store(&a->filled, 0);
    atomic_store(&a->end, 0);
}

void io_ahead_stop(struct lam_io *io)
{
    struct io_ahead *a = &io->ahead;
    uint64_t size = atomic_load(&io->size);

    LAM_LOCKED(&a->lock);
    atomic_store(&a->step, 0);
    /* What stays too long is no harm. */
    if (atomic_load(&a->end) > size)
        io->ops->truncate(io, size);
    atomic_store(&a->end, 0);
}
