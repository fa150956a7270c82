/* SPDX-License-Identifier: MIT */
/*
 * batch-item.h - between batch-fill.c, which lists what is to be written, and
 * batch.c, which places and stores it.
 */
#ifndef LAM_IMAGE_BATCH_ITEM_H
#define LAM_IMAGE_BATCH_ITEM_H

#include "extent/range.h"
#include "image/batch.h"

struct batch_item {
    enum { ITEM_DATA, ITEM_ZERO, ITEM_PAYLOADS } kind;
    struct range range;         /* guest */
    unsigned flags;             /* LAM_ZERO_...; FORMAT_PAYLOAD_... */
    const uint8_t *buf;         /* NULL: b->packed */
    const uint8_t *plain;       /* what b->packed has of it, as it was */
    size_t first, count;        /* of b->payloads */
};

/* Room for @more items of @size bytes behind @count. */
int batch_reserve(void **array, size_t count, size_t more, size_t *max,
                  size_t size, struct lam_error *err);

#endif
