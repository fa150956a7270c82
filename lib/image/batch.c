/* SPDX-License-Identifier: MIT */
/*
 * batch.c - writes to one image whose host space is given out at once, and
 * whose data go out later.
 *
 * Begun writes hold their clusters.  So what would have to wait for one of our
 * own has them stored first (settle()); it is rare.
 */
#include "image/batch-item.h"

#include <inttypes.h>

#include "base/zeroes.h"
#include "image/chain.h"
#include "image/changes.h"
#include "image/cow.h"
#include "image/encrypted.h"
#include "image/write.h"

/* Places at a time: each claims clusters, and pins a part of a table. */
enum { PLACES_MAX = 256 };
/* Pieces next to each other that go out in one write. */
enum { JOIN_MAX = 64 };

struct batch_place {
    const uint8_t *buf;         /* NULL: b->packed */
    void *payloads;             /* token of payloads; or NULL, and: */
    struct format_allocation a;
};

void batch_init(struct batch *b, struct lam_image *image, bool absent)
{
    *b = (struct batch){ .image = image, .absent = absent };
}

void batch_deinit(struct batch *b)
{
    free(b->items);
    free(b->payloads);
    free(b->packed);
    free(b->places);
}

/* ---------------------------------------------------------------- storing */

static void cancel(struct batch *b, struct batch_place *p)
{
    const struct lam_image *image = b->image;

    if (p->payloads)
        image->ops->payloads->cancel(image->format, p->payloads);
    else if (p->a.token)
        image->ops->write_cancel(image->format, &p->a);
}

/* A place whose bytes nothing is copied around. */
static bool is_plain(const struct batch *b, const struct batch_place *p)
{
    const struct format_allocation *a = &p->a;

    return !p->payloads && !b->image->crypt && a->cow_start == a->offset &&
           a->cow_end == a->offset + a->length;
}

/* How many places, from @p on, one write fills. */
static size_t count_joined(const struct batch *b, const struct batch_place *p,
                           size_t max)
{
    size_t n = 1;

    if (!is_plain(b, p))
        return 1;
    while (n < max && n < JOIN_MAX && is_plain(b, &p[n]) &&
           p[n].a.io == p->a.io &&
           p[n].a.host_offset == p[n - 1].a.host_offset + p[n - 1].a.length)
        n++;
    return n;
}

static int write_joined(const struct batch_place *p, size_t count,
                        struct lam_error *err)
{
    struct iovec iov[JOIN_MAX];

    for (size_t i = 0; i < count; i++) {
        iov[i] = (struct iovec){ (void *)p[i].buf, p[i].a.length };
        lam_io_event(p[i].a.io, IO_EVENT_WRITE_AIO);
    }
    return lam_io_writev(p->a.io, iov, (int)count, p->a.host_offset, err);
}

/* Those that are done count in b->nb_stored, also after a failure. */
static int store_data(struct batch *b, struct batch_place *p, size_t count,
                      struct lam_error *err)
{
    struct lam_image *image = b->image;
    int rc = count > 1 ? write_joined(p, count, err)
                       : cow_write(image, &p->a, p->buf, err);

    for (size_t i = 0; i < count && rc == 0; i++) {
        b->nb_stored++;
        if (p[i].a.token)
            rc = image->ops->write_finish(image->format, &p[i].a, err);
    }
    return rc;
}

static int store_next(struct batch *b, struct lam_error *err)
{
    struct batch_place *p = &b->places[b->nb_stored];

    b->failed = p->a.offset;
    if (!p->payloads)
        return store_data(b, p, count_joined(b, p, b->nb_places -
                                                   b->nb_stored), err);
    b->nb_stored++;
    return b->image->ops->payloads->store(b->image->format, p->payloads,
                                          p->buf ? p->buf : b->packed, err);
}

static int name_failure(const struct batch *b, int rc, struct lam_error *err)
{
    return b->named ? rc : lam_error_prefix(err, rc, "'%s': guest offset %"
                                            PRIu64, b->image->name, b->failed);
}

static void cancel_rest(struct batch *b)
{
    while (b->nb_stored < b->nb_places)
        cancel(b, &b->places[b->nb_stored++]);
    b->nb_places = b->nb_stored = 0;
    b->held_end = 0;
}

/* Store all that has been placed; after a failure the rest is cancelled. */
static int settle(struct batch *b, struct lam_error *err)
{
    int rc = 0;

    while (b->nb_stored < b->nb_places && rc == 0)
        rc = store_next(b, err);
    cancel_rest(b);
    return rc;
}

/* ---------------------------------------------------------------- placing */

static int add_place(struct batch *b, const struct batch_place *place,
                     struct lam_error *err)
{
    void *places = b->places;
    int rc = batch_reserve(&places, b->nb_places, 1, &b->max_places,
                           sizeof *place, err);

    b->places = places;
    if (rc < 0)
        return rc;
    b->places[b->nb_places++] = *place;
    if (place->payloads || place->a.token)
        b->held_end = align_up(place->a.offset + place->a.length,
                               b->image->ops->cluster_size(b->image->format));
    return 0;
}

/* Room for one more, and nothing in the way of it. */
static int prepare(struct batch *b, uint64_t offset, struct lam_error *err)
{
    if (b->nb_places < PLACES_MAX && offset >= b->held_end)
        return 0;
    return settle(b, err);
}

/* Whether to try again after @rc. */
static bool reclaim(struct batch *b, int rc, struct lam_error *err)
{
    if (rc != -ENOSPC || b->reclaimed)
        return false;
    if (settle(b, err) < 0)
        return false;
    image_leave(b->image, b->token);
    bool again = image_reclaim(b->image, rc, &b->reclaimed, err);
    b->token = image_enter(b->image);
    return again;
}

/* What has been begun counts only if all of it is absent, and then stays so.
 * *@length: of what is settled with this, 0: look again at *@limit. */
static int keep_absent(struct batch *b, struct batch_place *p, uint64_t *length,
                       uint64_t *limit, struct lam_error *err)
{
    struct lam_image *image = b->image;
    uint64_t run;
    bool absent;

    if (!p->a.token)
        return 0;               /* it has been written to */
    int rc = chain_first_run(image, range_make(p->a.offset, p->a.length), &run,
                             &absent, err);
    if (rc == 0 && absent && run == p->a.length) {
        rc = add_place(b, p, err);
        if (rc == 0)
            return 0;
    } else if (rc == 0) {
        *length = absent ? 0 : run;
        *limit = run;
    }
    image->ops->write_cancel(image->format, &p->a);
    return rc;
}

/* A prefix of @r: *@done. */
static int place_piece(struct batch *b, struct range r, const uint8_t *buf,
                       uint64_t *limit, uint64_t *done, struct lam_error *err)
{
    struct lam_image *image = b->image;
    struct batch_place p = { .buf = buf };
    int rc = prepare(b, r.offset, err);

    if (rc == 0)
        rc = image->ops->write_begin(image->format, r.offset,
                                     min_u64(r.length, *limit), &p.a, err);
    if (rc < 0)
        return rc;
    assert(p.a.offset == r.offset && p.a.length > 0);
    *done = p.a.length;
    if (b->absent)
        return keep_absent(b, &p, done, limit, err);
    rc = add_place(b, &p, err);
    if (rc < 0)
        cancel(b, &p);
    return rc;
}

/* Outside all that others could wait for. */
static int alone(struct batch *b, const struct batch_item *item,
                 struct lam_error *err)
{
    struct lam_image *image = b->image;
    struct range r = item->range;
    int rc = settle(b, err);

    if (rc < 0)
        return rc;
    image_leave(image, b->token);
    pthread_rwlock_unlock(&image->whole_units);
    if (item->kind == ITEM_ZERO) {
        rc = image_zero(image, r.offset, r.length, item->flags, err);
    } else {
        image_lock_write(image, r.offset, r.length);
        rc = image_write_pieces(image, item->buf, r.length, r.offset, err);
        pthread_rwlock_unlock(&image->whole_units);
    }
    image_lock_write(image, 0, 0);
    b->token = image_enter(image);
    b->named = rc < 0;
    return rc;
}

static int place_data(struct batch *b, const struct batch_item *item,
                      struct lam_error *err)
{
    struct range r = item->range;
    const uint8_t *buf = item->buf;
    uint64_t limit = r.length;

    if (encrypted_is_partial(b->image, r.offset, r.length) && !b->absent)
        return alone(b, item, err);
    while (r.length > 0) {
        uint64_t done = 0;
        int rc = place_piece(b, r, buf, &limit, &done, err);

        b->failed = r.offset;
        if (reclaim(b, rc, err))
            continue;
        if (rc < 0)
            return rc;
        buf += done;
        r = range_make(r.offset + done, r.length - done);
        if (done)
            limit = r.length;
    }
    return 0;
}

/* The guest has written to a part of the cluster at @guest since it was
 * compressed: the rest is data. */
static int place_plain(struct batch *b, const struct batch_item *item,
                       uint64_t guest, struct lam_error *err)
{
    uint64_t cluster = b->image->ops->cluster_size(b->image->format);
    struct batch_item data = {
        .kind = ITEM_DATA,
        .buf = item->plain + (guest - item->range.offset),
        .range = range_intersect(range_make(guest, cluster),
                                 range_make(0, b->image->size)),
    };

    return place_data(b, &data, err);
}

static int place_payloads(struct batch *b, const struct batch_item *item,
                          struct lam_error *err)
{
    const struct lam_image *image = b->image;
    const struct format_payload *p = b->payloads + item->first;

    for (size_t left = item->count, n; left > 0; p += n, left -= n) {
        struct batch_place place = { .buf = item->buf,
                                     .a = { .offset = p->guest } };
        int rc;

        do {
            n = left;
            rc = b->nb_places < PLACES_MAX ? 0 : settle(b, err);
            if (rc == 0)
                rc = image->ops->payloads->place(image->format, p, &n,
                                                 item->flags, &place.payloads,
                                                 err);
            b->failed = p->guest;
        } while (reclaim(b, rc, err));
        if (rc == 0 && n == 0) {
            n = 1;
            rc = place_plain(b, item, p->guest, err);
        } else if (rc == 0) {
            place.a.length = p[n - 1].guest - p->guest + 1;
            rc = add_place(b, &place, err);
            if (rc < 0)
                cancel(b, &place);
        }
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int place_absent_zero(struct batch *b, struct range r,
                             struct lam_error *err)
{
    struct lam_image *image = b->image;
    int rc = prepare(b, r.offset, err);

    b->failed = r.offset;
    return rc < 0 ? rc : image->ops->zero(image->format, r.offset, r.length,
                                          FORMAT_ZERO_ABSENT, err);
}

/* Only units that the format zeroes by itself, and none of which we hold. */
static int place_zero(struct batch *b, const struct batch_item *item,
                      struct lam_error *err)
{
    struct lam_image *image = b->image;
    struct range r = item->range;
    uint64_t unit = image->ops->zero_unit(image->format);
    unsigned flags = item->flags;

    if (b->absent)
        return place_absent_zero(b, r, err);
    if (!image->unmap)
        flags &= ~(unsigned)LAM_ZERO_UNMAP;
    if (!unit || !is_aligned(r.offset, unit) || r.offset < b->held_end ||
        (!is_aligned(range_end(r), unit) && range_end(r) != image->size))
        return alone(b, item, err);
    int rc = image->ops->zero(image->format, r.offset, r.length, flags, err);
    b->failed = r.offset;
    return rc == -ENOTSUP ? alone(b, item, err) : rc;
}

/* What the image takes for zeroes by itself. */
static struct batch_item detect_zeroes(const struct batch *b,
                                       const struct batch_item *item)
{
    enum lam_detect_zeroes detect = b->image->detect_zeroes;
    struct batch_item found = *item;

    if (detect == LAM_DETECT_ZEROES_OFF || b->absent ||
        item->kind != ITEM_DATA ||
        !memory_is_zero(item->buf, item->range.length))
        return found;
    found.kind = ITEM_ZERO;
    found.flags = detect == LAM_DETECT_ZEROES_UNMAP ? LAM_ZERO_UNMAP : 0;
    return found;
}

static int place_item(struct batch *b, const struct batch_item *asked,
                      struct lam_error *err)
{
    struct lam_image *image = b->image;
    const struct batch_item item = detect_zeroes(b, asked);

    b->failed = item.range.offset;
    int rc = image_check_range(image, item.range.offset, item.range.length,
                               err);
    if (rc < 0)
        return rc;
    lam_io_event(image->io, asked->kind == ITEM_ZERO ? IO_EVENT_PWRITEV_ZERO
                                                     : IO_EVENT_PWRITEV);
    switch (item.kind) {
    case ITEM_ZERO:
        return place_zero(b, &item, err);
    case ITEM_DATA:
        return place_data(b, &item, err);
    case ITEM_PAYLOADS:
        break;
    }
    return place_payloads(b, &item, err);
}

/* --------------------------------------------------------- place and store */

static void enter(struct batch *b)
{
    b->inside = graph_inside(b->image->graph);
    if (!b->absent)
        change_begin(b->image);
    image_lock_write(b->image, 0, 0);
    b->token = image_enter(b->image);
    b->reclaimed = b->named = false;
}

static void end_changes(const struct batch *b)
{
    struct changes *changes = b->image->changes;

    for (size_t i = 0; i < b->nb_items; i++) {
        const struct batch_item *item = &b->items[i];

        lam_io_event(b->image->io, IO_EVENT_PWRITEV_DONE);
        if (!changes)
            continue;
        struct range r = item->kind == ITEM_PAYLOADS
            ? range_widen(item->range,
                          b->image->ops->cluster_size(b->image->format))
            : item->range;

        change_note(changes, r.offset, r.length);
    }
}

static void leave(struct batch *b, int rc)
{
    image_leave(b->image, b->token);
    pthread_rwlock_unlock(&b->image->whole_units);
    if (!b->absent) {
        end_changes(b);
        change_end(b->image, 0, 0, rc);
    }
    graph_inside_end(&b->inside);
    b->nb_items = b->nb_payloads = 0;
    b->packed_used = 0;
}

int batch_place(struct batch *b, struct lam_error *err)
{
    enter(b);
    int rc = image_check_writable(b->image, err);

    for (size_t i = 0; i < b->nb_items && rc == 0; i++)
        rc = name_failure(b, place_item(b, &b->items[i], err), err);
    if (rc == 0)
        return 0;
    cancel_rest(b);
    leave(b, rc);
    return rc;
}

int batch_store(struct batch *b, struct lam_error *err)
{
    int rc = name_failure(b, settle(b, err), err);

    if (rc == 0)
        rc = image_end_write(b->image, 0, err);
    leave(b, rc);
    return rc;
}
