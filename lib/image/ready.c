/* SPDX-License-Identifier: MIT */
/*
 * ready.c - requests that are nothing but transfers.
 *
 * What is asked here is what the ordinary ways ask (read.c, write.c), in the
 * same order; but each question may be answered by "not ready".
 */
#include "image/ready.h"

#include <string.h>

#include "base/cleanup.h"
#include "image/chain.h"
#include "image/graph.h"
#include "image/write.h"

static bool add_part(struct ready *r, struct lam_io *io, void *buf,
                     uint64_t length, uint64_t offset, void *owner)
{
    if (r->nb_parts == READY_PARTS || io->ops->event)
        return false;
    struct io_async *a = &r->parts[r->nb_parts];
    *a = (struct io_async){
        .io = io, .buf = buf, .length = length, .offset = offset,
        .write = r->write, .owner = owner,
    };
    if (!io_async_begin(a))
        return false;
    r->nb_parts++;
    return true;
}

/* -------------------------------------------------------------------- reads */

static bool is_zero(const struct lam_extent *e)
{
    return e->state == LAM_EXTENT_UNALLOCATED || e->state == LAM_EXTENT_ZERO ||
           e->flags & LAM_EXTENT_HOST_HOLE;
}

static bool add_extent(struct ready *r, const struct lam_extent *e,
                       uint8_t *buf, void *owner)
{
    if (is_zero(e)) {
        memset(buf, 0, e->length);
        return true;
    }
    return e->state == LAM_EXTENT_DATA && !(e->flags & LAM_EXTENT_ENCRYPTED) &&
           add_part(r, image_extent_io(r->image, e), buf, e->length,
                    e->host_offset, owner);
}

static bool add_reads(struct ready *r, const struct lam_request *q,
                      void *owner)
{
    struct lam_extents extents lam_cleanup(lam_extents_deinit) =
        LAM_EXTENTS_INIT;

    if (chain_map_cached(r->image, q->offset, q->length, &extents) < 0)
        return false;
    for (size_t i = 0; i < extents.count; i++) {
        const struct lam_extent *e = &extents.items[i];

        if (!add_extent(r, e, (uint8_t *)q->buf + (e->offset - q->offset),
                        owner))
            return false;
    }
    return true;
}

/* ------------------------------------------------------------------- writes */

/* What is not bytes to the place where they are shown: a look at the content,
 * encryption, compression, a flush after it, a note for a job. */
static bool is_plain_write(struct lam_image *image,
                           const struct lam_request *q)
{
    return image_check_writable(image, NULL) == 0 && !q->flags &&
           image->ops->write_in_place && !image->crypt && !image->changes &&
           !image->flush_writes && !image_compresses_all(image) &&
           image->detect_zeroes == LAM_DETECT_ZEROES_OFF &&
           !(image->guessed && image->ops == &format_raw);
}

static bool add_writes(struct ready *r, const struct lam_request *q,
                       void *owner)
{
    struct lam_image *image = r->image;

    for (uint64_t done = 0; done < q->length; ) {
        struct format_allocation a;

        if (image->ops->write_in_place(image->format, q->offset + done,
                                       q->length - done, &a) < 0)
            return false;
        assert(!a.token && a.cow_start == a.offset &&
               a.cow_end == a.offset + a.length);
        if (!add_part(r, a.io, (uint8_t *)q->buf + done, a.length,
                      a.host_offset, owner))
            return false;
        done += a.length;
    }
    return true;
}

/* A write among those that image_lock_units() waits for. */
static bool set_afloat(struct lam_image *image)
{
    if (pthread_rwlock_tryrdlock(&image->whole_units))
        return false;
    pthread_mutex_lock(&image->afloat.lock);
    image->afloat.count++;
    pthread_mutex_unlock(&image->afloat.lock);
    pthread_rwlock_unlock(&image->whole_units);
    return true;
}

static void end_afloat(struct lam_image *image)
{
    LAM_LOCKED(&image->afloat.lock);
    if (--image->afloat.count == 0)
        pthread_cond_broadcast(&image->afloat.none);
}

/* --------------------------------------------------------------------- both */

void ready_end(struct ready *r)
{
    struct graph *graph = r->image->graph;

    for (unsigned i = 0; i < r->nb_parts; i++)
        io_async_end(&r->parts[i]);
    image_leave(r->image, r->token);
    if (r->write)
        end_afloat(r->image);
    graph_leave(graph, r->inside);
}

/* Inside the gate; false: nothing but that has happened. */
static bool begin_inside(struct ready *r, const struct lam_request *q)
{
    if (image_check_range(r->image, q->offset, q->length, NULL) < 0 ||
        r->image->io->ops->event)
        return false;
    if (r->write && (!is_plain_write(r->image, q) || !set_afloat(r->image)))
        return false;
    r->token = image_enter(r->image);
    return true;
}

bool ready_begin(struct lam_image *image, const struct lam_request *q,
                 void *owner, struct ready *r)
{
    r->image = image;
    r->write = q->kind == LAM_REQUEST_WRITE;
    r->nb_parts = 0;
    if ((!r->write && q->kind != LAM_REQUEST_READ) || !q->length ||
        (!r->write && q->flags) || !graph_try_enter(image->graph, &r->inside))
        return false;
    if (!begin_inside(r, q)) {
        graph_leave(image->graph, r->inside);
        return false;
    }
    if (r->write ? add_writes(r, q, owner) : add_reads(r, q, owner))
        return true;
    ready_end(r);
    return false;
}
