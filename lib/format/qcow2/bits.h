/* SPDX-License-Identifier: MIT */
/*
 * bits.h - a long row of bits of which most are alike.
 *
 * Kept in pages; a page that is all zeroes or all ones takes no memory.  Bits
 * are numbered from the least significant one of byte 0 (format document 9.1).
 * Pure; no locking.
 */
#ifndef LAM_QCOW2_BITS_H
#define LAM_QCOW2_BITS_H

#include "base/arith.h"

struct bits {
    uint64_t count;             /* of bits; those behind are never set */
    size_t page_size;           /* bytes, a power of two */
    size_t nb_pages;
    uint8_t **pages;            /* NULL: zeroes; bits_ones: ones */
};

/* What stands for a page of ones; never looked into. */
extern uint8_t bits_ones[1];

/* All zero.  Functions that return int: 0 or -ENOMEM, and then no bit has
 * changed that was not to change. */
int bits_init(struct bits *b, uint64_t count, size_t page_size);
void bits_deinit(struct bits *b);

/* Sets [first, first + n), as far as there are such bits. */
int bits_set(struct bits *b, uint64_t first, uint64_t n);
void bits_clear_all(struct bits *b);
bool bits_get(const struct bits *b, uint64_t i);

/* The first run of ones at or after @from; false: none. */
bool bits_next(const struct bits *b, uint64_t from, uint64_t *first,
               uint64_t *n);

/* Page @i becomes a copy of @page (page_size bytes), cut at the end. */
int bits_put_page(struct bits *b, size_t i, const uint8_t *page);
int bits_put_ones(struct bits *b, size_t i);

int bits_copy(struct bits *to, const struct bits *from);

/* Now there are @count bits; new ones are zero.  After a failure the contents
 * are not to be used. */
int bits_resize(struct bits *b, uint64_t count);

#endif
