/* SPDX-License-Identifier: MIT */
/*
 * passthrough.c - compressed clusters into a compressed target as they are.
 *
 * An entry tells the sectors of a payload, not where in the last one it ends.
 * So each keeps its place within its sector, and those that share a sector in
 * the source share it in the target: however often an image is copied, it does
 * not grow.
 */
#include "job/passthrough.h"

#include <inttypes.h>
#include <string.h>

#include "base/arith.h"
#include "base/cleanup.h"
#include "base/zeroes.h"
#include "image/payload.h"

enum { SECTOR = 512 };

struct item {
    const struct lam_extent *extent;
    struct lam_image *layer;
    uint64_t target;
};

struct pass {
    struct passthrough *p;
    struct order *order;
    uint8_t *buf;
    uint64_t capacity, used;
    struct item *items;         /* what is to be copied; owned */
    size_t nb_items;
    struct format_payload *payloads;    /* what is in @buf; owned */
    size_t nb_payloads;
    uint8_t *cluster;           /* to look for zeroes in; owned */
};

void passthrough_init(struct passthrough *p, struct lam_image *target,
                      bool detect)
{
    *p = (struct passthrough){
        .target = target,
        .kind = image_payload_kind(target),
        .cluster_size = lam_image_cluster_size(target),
        .detect = detect,
    };
}

/*
 * Whole clusters only: behind the end of the disk a payload may hold anything.
 * And none so long that it, moved within a sector, could take more than a
 * cluster; such ones gain nothing anyway.
 */
enum walk_kind passthrough_kind(const void *passthrough,
                                struct lam_image *image,
                                const struct lam_extent *e,
                                uint64_t target_offset)
{
    const struct passthrough *p = passthrough;

    if (e->state != LAM_EXTENT_COMPRESSED || e->length != p->cluster_size ||
        !is_aligned(target_offset, p->cluster_size) || image->writable ||
        e->host_length + SECTOR > p->cluster_size)
        return WALK_DATA;
    const struct lam_image *layer = image_layer(image, e->depth);
    return lam_image_cluster_size(layer) == p->cluster_size &&
           image_payload_kind(layer) == p->kind ? WALK_PAYLOAD : WALK_DATA;
}

/* ------------------------------------------------------------ zeroes */

/* Nothing but zeroes takes less than a 256th, whatever has compressed them,
 * and the slack of its sectors. */
static bool may_be_zero(const struct passthrough *p,
                        const struct lam_extent *e)
{
    return p->detect &&
           e->host_length <= 2 * SECTOR + p->cluster_size / 256;
}

static int is_zero(struct pass *b, const struct item *item, bool *zero,
                   struct lam_error *err)
{
    struct lam_image *layer = item->layer;

    if (!b->cluster)
        b->cluster = malloc(b->p->cluster_size);
    if (!b->cluster)
        return lam_fail(err, ENOMEM, "no memory for a cluster of %" PRIu64
                        " bytes", b->p->cluster_size);
    int rc = layer->ops->read_compressed(layer->format, item->extent,
                                         b->cluster, err);
    if (rc < 0)
        return lam_error_prefix(err, rc, "error while reading at byte %" PRIu64
                                ": '%s'", item->extent->offset, layer->name);
    *zero = memory_is_zero(b->cluster, b->p->cluster_size);
    return 0;
}

static int add_item(struct pass *b, const struct item *item,
                    struct lam_error *err)
{
    bool zero = false;
    int rc = 0;

    if (may_be_zero(b->p, item->extent))
        rc = is_zero(b, item, &zero, err);
    if (rc < 0)
        return rc;
    if (!zero) {
        b->items[b->nb_items++] = *item;
        return 0;
    }
    rc = zeroing_add(b->p->zeroing, &b->order->batch, item->target,
                     b->p->cluster_size, err);
    return lam_error_prefix(err, rc, "error while writing at byte %" PRIu64,
                            item->target);
}

static int collect(struct pass *b, const struct walk_chunk *chunk,
                   struct lam_error *err)
{
    for (size_t s = 0; s < chunk->nb_segments; s++) {
        const struct walk_segment *segment = &chunk->segments[s];
        const struct lam_extent *e = chunk->extents.items + segment->first;

        for (size_t i = 0; i < segment->count; i++, e++) {
            struct item item = {
                .extent = e,
                .layer = image_layer(segment->image, e->depth),
                .target = segment->target_offset +
                          (e->offset - segment->offset),
            };
            assert(e->length == b->p->cluster_size);
            int rc = add_item(b, &item, err);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

/* ------------------------------------------------------------ copying */

static uint64_t host_end(const struct lam_extent *e)
{
    return e->host_offset + e->host_length;
}

/* How many of @items, the first of which begins at @place in the buffer, lie
 * together on the host. */
static size_t count_run(const struct pass *b, const struct item *items,
                        size_t max, uint64_t place)
{
    uint64_t room = b->capacity - place;
    size_t n = 1;

    while (n < max) {
        const struct lam_extent *last = items[n - 1].extent;
        const struct lam_extent *next = items[n].extent;

        if (items[n].layer != items[0].layer ||
            next->host_offset < last->host_offset ||
            next->host_offset > host_end(last) ||
            host_end(next) < host_end(last) ||
            host_end(next) - items[0].extent->host_offset > room)
            break;
        n++;
    }
    return n;
}

/* The extents of a run, which in the chunk's list are apart where a cluster
 * between them was zero. */
static int read_run(const struct item *items, size_t count, uint8_t *buf,
                    struct lam_error *err)
{
    lam_autofree struct lam_extent *run = calloc(count, sizeof *run);

    if (!run)
        return lam_fail(err, ENOMEM, "no memory for %zu extents", count);
    for (size_t i = 0; i < count; i++)
        run[i] = *items[i].extent;
    int rc = image_read_payloads(items[0].layer, run, count, buf, err);
    return lam_error_prefix(err, rc, "error while reading at byte %" PRIu64,
                            run[0].offset);
}

/* Where a payload that begins at host offset @host goes in the buffer. */
static uint64_t place_of(const struct pass *b, uint64_t host)
{
    return b->used + (host - b->used) % SECTOR;
}

static int load_run(struct pass *b, const struct item *items, size_t max,
                    size_t *count, struct lam_error *err)
{
    uint64_t host = items[0].extent->host_offset;
    uint64_t place = place_of(b, host);

    *count = count_run(b, items, max, place);
    memset(b->buf + b->used, 0, place - b->used);
    int rc = read_run(items, *count, b->buf + place, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < *count; i++)
        b->payloads[b->nb_payloads++] = (struct format_payload){
            .guest = items[i].target,
            .start = place + (items[i].extent->host_offset - host),
            .length = items[i].extent->host_length,
        };
    b->used = place + (host_end(items[*count - 1].extent) - host);
    return 0;
}

/* What is in the buffer is to be written. */
static int hand_over(struct pass *b, struct lam_error *err)
{
    size_t count = b->nb_payloads;

    b->nb_payloads = 0;
    return count ? batch_payloads(&b->order->batch, b->payloads, count, b->buf,
                                  err) : 0;
}

/* The buffer is full. */
static int store(struct pass *b, struct lam_error *err)
{
    int rc = hand_over(b, err);

    b->used = 0;
    return rc < 0 ? rc : order_write(b->order, false, err);
}

static bool has_room(const struct pass *b, const struct lam_extent *e)
{
    return place_of(b, e->host_offset) + e->host_length <= b->capacity;
}

static int copy_items(struct pass *b, struct lam_error *err)
{
    int rc = 0;

    for (size_t i = 0, n; i < b->nb_items && rc == 0; i += n) {
        if (!has_room(b, b->items[i].extent))
            rc = store(b, err);
        if (rc == 0)
            rc = load_run(b, &b->items[i], b->nb_items - i, &n, err);
    }
    return rc < 0 ? rc : hand_over(b, err);
}

static void pass_deinit(struct pass *b)
{
    free(b->items);
    free(b->payloads);
    free(b->cluster);
}

int passthrough_chunk(struct passthrough *p, const struct walk_chunk *chunk,
                      uint8_t *buf, struct order *order,
                      uint64_t *bytes_written, struct lam_error *err)
{
    struct pass b lam_cleanup(pass_deinit) = {
        .p = p, .order = order, .buf = buf, .capacity = chunk->length,
        .items = calloc(chunk->extents.count, sizeof *b.items),
        .payloads = calloc(chunk->extents.count, sizeof *b.payloads),
    };

    if (!b.items || !b.payloads)
        return lam_fail(err, ENOMEM, "no memory for %zu clusters",
                        chunk->extents.count);
    int rc = collect(&b, chunk, err);
    if (rc == 0)
        rc = copy_items(&b, err);
    if (rc == 0)
        *bytes_written += b.nb_items * p->cluster_size;
    return rc;
}
