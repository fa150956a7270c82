/* SPDX-License-Identifier: MIT */
/*
 * cow-ahead.c - what the next copy on write will read, read beforehand.
 */
#include "image/cow-ahead.h"

#include "base/cleanup.h"
#include "base/thread.h"
#include "image/chain.h"
#include "image/graph.h"
#include "io/async.h"

/* So many equal strides are a pattern; twice as many after each time that it
 * was none, up to 2^IN_VAIN_MAX times. */
enum { PATTERN = 2, IN_VAIN_MAX = 10 };

void cow_ahead_init(struct cow_ahead *a)
{
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->asked, NULL);
    pthread_cond_init(&a->ended, NULL);
}

void cow_ahead_stop(struct cow_ahead *a)
{
    if (!a->has_thread)
        return;
    pthread_mutex_lock(&a->lock);
    a->stop = true;
    pthread_cond_signal(&a->asked);
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->thread, NULL);
    a->has_thread = false;
}

void cow_ahead_deinit(struct cow_ahead *a, struct buffer_pool *pool)
{
    assert(!a->has_thread);
    buffer_pool_put(pool, a->bytes, a->capacity);
    pthread_cond_destroy(&a->ended);
    pthread_cond_destroy(&a->asked);
    pthread_mutex_destroy(&a->lock);
}

/* ---------------------------------------------------------------- the place */

struct place {
    struct lam_io *io;
    uint64_t offset;
};

static bool covers(const struct lam_extent *e, struct range r)
{
    return e->offset <= r.offset && range_end(r) <= e->offset + e->length;
}

/* One piece of a lower layer has it all, as it is, in a file or device that is
 * read past the page cache; and nobody is writing to any lower layer. */
static bool find_place(struct lam_image *image,
                       const struct lam_extents *extents, struct range r,
                       struct place *out)
{
    const struct lam_extent *e = extents->items;

    if (image->level || image->written || image->io->ops->event ||
        extents->count != 1 || !e->depth || e->state != LAM_EXTENT_DATA ||
        e->flags & (LAM_EXTENT_ENCRYPTED | LAM_EXTENT_HOST_HOLE) ||
        !covers(e, r))
        return false;
    out->io = image_extent_io(image, e);
    out->offset = e->host_offset + (r.offset - e->offset);
    return out->io->limits.direct && !out->io->ops->event;
}

/* ----------------------------------------------------------------- the read */

/* Holds the file open, and says whether it is as plain as that. */
static bool read_place(struct cow_ahead *a)
{
    struct io_async plain = {
        .io = a->io, .buf = a->bytes, .length = a->range.length,
        .offset = a->host_offset,
    };

    if (!io_async_begin(&plain))
        return false;
    int rc = lam_io_read(a->io, a->bytes, a->range.length, a->host_offset,
                         NULL);
    io_async_end(&plain);
    return rc == 0;
}

static bool read_mapped(struct lam_image *image, struct cow_ahead *a)
{
    struct lam_extents extents lam_cleanup(lam_extents_deinit) =
        LAM_EXTENTS_INIT;
    struct place place;

    if (chain_map_cached(image, a->range.offset, a->range.length,
                         &extents) < 0 ||
        !find_place(image, &extents, a->range, &place))
        return false;
    a->io = place.io;
    a->host_offset = place.offset;
    a->changes = image_graph_changes(image);
    return read_place(a);
}

/* Whoever waits for the bytes is inside the gate, and so may not be waited for
 * by who changes the chain: if the gate is shut, there are none. */
static bool read_inside(struct lam_image *image, struct cow_ahead *a)
{
    unsigned token;

    if (!graph_try_enter(image->graph, &token))
        return false;
    uint64_t entered = image_enter(image);
    bool done = read_mapped(image, a);
    image_leave(image, entered);
    graph_leave(image->graph, token);
    return done;
}

static void count_in_vain(struct cow_ahead *a)
{
    if (a->in_vain < IN_VAIN_MAX)
        a->in_vain++;
}

static void *run(void *opaque)
{
    struct lam_image *image = opaque;
    struct cow_ahead *a = &image->ahead;

    LAM_LOCKED(&a->lock);
    for (;;) {
        while (a->state != COW_AHEAD_ASKED && !a->stop)
            pthread_cond_wait(&a->asked, &a->lock);
        if (a->stop)
            return NULL;
        a->state = COW_AHEAD_READING;
        pthread_mutex_unlock(&a->lock);
        bool done = read_inside(image, a);
        pthread_mutex_lock(&a->lock);
        a->state = done ? COW_AHEAD_READY : COW_AHEAD_NOTHING;
        if (!done)
            count_in_vain(a);
        pthread_cond_broadcast(&a->ended);
    }
}

/* ------------------------------------------------------------------ the use */

static bool same(struct range a, struct range b)
{
    return a.offset == b.offset && a.length == b.length;
}

static void wait_for(struct cow_ahead *a, struct range r)
{
    if (a->state == COW_AHEAD_ASKED && same(a->range, r))
        a->state = COW_AHEAD_NOTHING;       /* sooner read by who asks */
    while (a->state == COW_AHEAD_READING && same(a->range, r))
        pthread_cond_wait(&a->ended, &a->lock);
}

static bool take(struct cow_ahead *a, const struct place *place,
                 uint64_t changes, struct range r, uint8_t **bytes)
{
    wait_for(a, r);
    if (a->state != COW_AHEAD_READY || !same(a->range, r) ||
        a->io != place->io || a->host_offset != place->offset ||
        a->changes != changes)
        return false;
    uint8_t *mine = a->bytes;
    a->bytes = *bytes;
    *bytes = mine;
    a->state = COW_AHEAD_NOTHING;
    a->in_vain = 0;
    a->used++;
    return true;
}

/* ---------------------------------------------------------------- the guess */

static bool is_pattern(struct cow_ahead *a, struct range r)
{
    uint64_t stride = r.offset - a->last.offset;

    a->in_row = stride == a->stride && r.length == a->last.length
        ? a->in_row + 1 : 0;
    a->stride = stride;
    a->last = r;
    return stride && a->in_row >= (unsigned)PATTERN << a->in_vain;
}

static bool make_room(struct cow_ahead *a, struct buffer_pool *pool,
                      uint64_t length)
{
    if (a->bytes && a->capacity == length)
        return true;
    buffer_pool_put(pool, a->bytes, a->capacity);
    a->bytes = buffer_pool_get(pool, length);
    a->capacity = length;
    return a->bytes;
}

static bool start(struct lam_image *image, struct cow_ahead *a)
{
    if (!a->has_thread)
        a->has_thread = !thread_start(&a->thread, run, image);
    return a->has_thread;
}

static void guess(struct lam_image *image, struct cow_ahead *a, struct range r)
{
    struct range next = range_make(r.offset + a->stride, r.length);

    if (a->state == COW_AHEAD_READY)
        count_in_vain(a);
    a->state = COW_AHEAD_NOTHING;
    if (!range_fits(next.offset, next.length, image->size) ||
        !make_room(a, &image->buffers, next.length) || !start(image, a))
        return;
    a->range = next;
    a->state = COW_AHEAD_ASKED;
    pthread_cond_signal(&a->asked);
}

bool cow_ahead_take(struct lam_image *image, const struct lam_extents *extents,
                    struct range r, uint8_t **bytes)
{
    struct cow_ahead *a = &image->ahead;
    struct place place;

    if (!find_place(image, extents, r, &place))
        return false;
    LAM_LOCKED(&a->lock);
    bool taken = take(a, &place, image_graph_changes(image), r, bytes);
    if (is_pattern(a, r) && a->state != COW_AHEAD_READING)
        guess(image, a, r);
    return taken;
}
