/* SPDX-License-Identifier: MIT */
/*
 * batch-fill.c - what a batch is to write: nothing is placed yet.
 */
#include "image/batch-item.h"

#include <inttypes.h>
#include <string.h>

#include "image/write.h"

bool batch_can_compress(const struct lam_image *image)
{
    return image->ops->payloads && !image_compresses_all(image);
}

/* ---------------------------------------------------------------- filling */

static int no_memory(size_t count, struct lam_error *err)
{
    return lam_fail(err, ENOMEM, "no memory for more than %zu writes", count);
}

int batch_reserve(void **array, size_t count, size_t more, size_t *max,
                  size_t size, struct lam_error *err)
{
    if (more <= *max - count)
        return 0;
    size_t wanted = max_u64(2 * *max, count + more + 8);
    void *moved = reallocarray(*array, wanted, size);
    if (!moved)
        return no_memory(count, err);
    *array = moved;
    *max = wanted;
    return 0;
}

static int add_item(struct batch *b, const struct batch_item *item,
                    struct lam_error *err)
{
    void *items = b->items;

    if (!item->range.length)
        return 0;
    int rc = batch_reserve(&items, b->nb_items, 1, &b->max_items, sizeof *item,
                           err);
    b->items = items;
    if (rc == 0)
        b->items[b->nb_items++] = *item;
    return rc;
}

static int reserve_payloads(struct batch *b, size_t more, struct lam_error *err)
{
    void *payloads = b->payloads;
    int rc = batch_reserve(&payloads, b->nb_payloads, more, &b->max_payloads,
                           sizeof *b->payloads, err);

    b->payloads = payloads;
    return rc;
}

int batch_data(struct batch *b, const void *buf, uint64_t length,
               uint64_t offset, struct lam_error *err)
{
    struct batch_item item = { .kind = ITEM_DATA, .buf = buf,
                               .range = range_make(offset, length) };

    return add_item(b, &item, err);
}

int batch_zero(struct batch *b, uint64_t length, uint64_t offset,
               unsigned flags, struct lam_error *err)
{
    struct batch_item item = { .kind = ITEM_ZERO, .flags = flags,
                               .range = range_make(offset, length) };

    return add_item(b, &item, err);
}

/* The payloads from @first on, which have been added to the list.  @plain:
 * what the first one was before it was compressed, and the others behind. */
static int add_payloads(struct batch *b, size_t first, const uint8_t *buf,
                        const uint8_t *plain, unsigned flags,
                        struct lam_error *err)
{
    const struct format_payload *p = b->payloads;
    size_t last = b->nb_payloads - 1;
    struct batch_item item = {
        .kind = ITEM_PAYLOADS, .flags = flags, .buf = buf,
        .plain = plain, .first = first, .count = b->nb_payloads - first,
    };

    if (!item.count)
        return 0;
    item.range = range_make(p[first].guest, p[last].guest - p[first].guest + 1);
    return add_item(b, &item, err);
}

int batch_payloads(struct batch *b, const struct format_payload *items,
                   size_t count, const uint8_t *buf, struct lam_error *err)
{
    size_t first = b->nb_payloads;
    int rc = reserve_payloads(b, count, err);

    if (rc < 0)
        return rc;
    memcpy(b->payloads + first, items, count * sizeof *items);
    b->nb_payloads += count;
    return add_payloads(b, first, buf, NULL, 0, err);
}

/* ------------------------------------------------------------ compressing */

static int reserve_packed(struct batch *b, uint64_t length,
                          struct lam_error *err)
{
    uint64_t wanted = b->packed_used + length;

    if (wanted <= b->packed_size)
        return 0;
    uint8_t *moved = realloc(b->packed, wanted);
    if (!moved)
        return lam_fail(err, ENOMEM, "no memory for %" PRIu64 " compressed "
                        "bytes", wanted);
    b->packed = moved;
    b->packed_size = wanted;
    return 0;
}

/* Of the @count payloads behind the list those that have shrunk join it.  The
 * others are data: @length bytes at @data, in one item where they follow each
 * other. */
static int sort_out(struct batch *b, size_t count, uint64_t cluster,
                    const uint8_t *data, uint64_t length, uint64_t offset,
                    struct lam_error *err)
{
    const struct format_payload *p = b->payloads + b->nb_payloads;
    int rc = 0;

    for (size_t i = 0, n; i < count && rc == 0; i += n) {
        uint64_t at = i * cluster;
        for (n = 1; !p[i].length && i + n < count && !p[i + n].length; n++)
            continue;
        if (p[i].length)
            b->payloads[b->nb_payloads++] = p[i];
        else
            rc = batch_data(b, data + at, min_u64(n * cluster, length - at),
                            offset + at, err);
    }
    return rc;
}

static int compress_clusters(struct batch *b, const uint8_t *data,
                             uint64_t length, uint64_t whole, uint64_t offset,
                             struct lam_error *err)
{
    uint64_t cluster = b->image->ops->cluster_size(b->image->format);
    size_t count = whole / cluster, before = b->nb_payloads;
    int rc = reserve_payloads(b, count, err);

    if (rc == 0)
        rc = reserve_packed(b, whole, err);
    if (rc < 0)
        return rc;
    struct format_payload *p = b->payloads + before;
    rc = b->image->ops->payloads->deflate(b->image->format, offset, data, whole,
                                          b->packed + b->packed_used, p, err);
    if (rc < 0)
        return rc;
    uint64_t used = b->packed_used;
    for (size_t i = 0; i < count; i++) {
        p[i].start += used;
        b->packed_used += p[i].length;
    }
    rc = sort_out(b, count, cluster, data, length, offset, err);
    if (rc < 0 || b->nb_payloads == before)
        return rc;
    return add_payloads(b, before, NULL,
                        data + (b->payloads[before].guest - offset),
                        FORMAT_PAYLOAD_EXACT |
                        (b->absent ? FORMAT_PAYLOAD_ABSENT : 0), err);
}

int batch_compress(struct batch *b, const void *buf, uint64_t length,
                   uint64_t offset, struct lam_error *err)
{
    IMAGE_INSIDE(b->image);
    const struct format_payload_ops *ops = b->image->ops->payloads;
    const uint8_t *data = buf;
    uint64_t cluster = b->image->ops->cluster_size(b->image->format);
    uint64_t whole = align_down(length, cluster);
    int rc = image_check_compressed(b->image, offset, length, err);

    if (rc == 0 && (!ops || (b->absent && !ops->fills)))
        return batch_data(b, buf, length, offset, err);
    if (rc == 0 && whole)
        rc = compress_clusters(b, data, whole, whole, offset, err);
    if (rc < 0 || whole == length)
        return rc;
    lam_autofree uint8_t *padded = image_pad_cluster(b->image, data + whole,
                                                     length - whole, err);
    if (!padded)
        return -ENOMEM;
    size_t before = b->nb_items;
    rc = compress_clusters(b, padded, length - whole, cluster, offset + whole,
                           err);
    if (rc < 0 || b->nb_items == before)
        return rc;
    /* It goes away; what did not shrink is stored from where it was. */
    struct batch_item *last = &b->items[before];
    if (last->kind == ITEM_DATA)
        last->buf = data + whole;
    else
        last->plain = data + whole;
    return 0;
}
