/* SPDX-License-Identifier: MIT */
/*
 * bits.c - a long row of bits of which most are alike.
 *
 * A page of ones is one in which all bits exist: the last page of a row that
 * does not fill it is never bits_ones, and has zeroes behind the end.
 */
#include "format/qcow2/bits.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/zeroes.h"

uint8_t bits_ones[1];

static uint64_t bits_a_page(const struct bits *b)
{
    return (uint64_t)b->page_size * 8;
}

static size_t pages_for(uint64_t count, size_t page_size)
{
    return (size_t)div_up(div_up(count, 8), page_size);
}

/* Bits of page @i that exist. */
static uint64_t bits_in_page(const struct bits *b, size_t i)
{
    return min_u64(b->count - i * bits_a_page(b), bits_a_page(b));
}

int bits_init(struct bits *b, uint64_t count, size_t page_size)
{
    *b = (struct bits){
        .count = count,
        .page_size = page_size,
        .nb_pages = pages_for(count, page_size),
    };
    b->pages = calloc(b->nb_pages ? b->nb_pages : 1, sizeof *b->pages);
    return b->pages ? 0 : -ENOMEM;
}

static void drop_page(struct bits *b, size_t i)
{
    if (b->pages[i] != bits_ones)
        free(b->pages[i]);
    b->pages[i] = NULL;
}

void bits_clear_all(struct bits *b)
{
    for (size_t i = 0; b->pages && i < b->nb_pages; i++)
        drop_page(b, i);
}

void bits_deinit(struct bits *b)
{
    bits_clear_all(b);
    free(b->pages);
    *b = (struct bits){ 0 };
}

/* ----------------------------------------------------------------- setting */

/* Bits [from, to) of @page. */
static void set_in_page(uint8_t *page, uint64_t from, uint64_t to)
{
    uint64_t first = from / 8, last = (to - 1) / 8;
    uint8_t head = (uint8_t)(0xff << (from & 7));
    uint8_t tail = (uint8_t)(0xff >> (7 - ((to - 1) & 7)));

    if (first == last) {
        page[first] |= head & tail;
        return;
    }
    page[first] |= head;
    memset(page + first + 1, 0xff, last - first - 1);
    page[last] |= tail;
}

static int own_page(struct bits *b, size_t i)
{
    if (!b->pages[i])
        b->pages[i] = calloc(1, b->page_size);
    return b->pages[i] ? 0 : -ENOMEM;
}

int bits_set(struct bits *b, uint64_t first, uint64_t n)
{
    uint64_t per = bits_a_page(b);
    uint64_t end = first + min_u64(n, b->count - min_u64(first, b->count));

    while (first < end) {
        size_t i = (size_t)(first / per);
        uint64_t from = first & (per - 1);
        uint64_t to = min_u64(per, from + (end - first));

        first += to - from;
        if (b->pages[i] == bits_ones)
            continue;
        if (to - from == per) {
            drop_page(b, i);
            b->pages[i] = bits_ones;
            continue;
        }
        if (own_page(b, i) < 0)
            return -ENOMEM;
        set_in_page(b->pages[i], from, to);
    }
    return 0;
}

int bits_put_ones(struct bits *b, size_t i)
{
    return bits_set(b, i * bits_a_page(b), bits_a_page(b));
}

int bits_put_page(struct bits *b, size_t i, const uint8_t *page)
{
    uint64_t there = bits_in_page(b, i);
    size_t bytes = (size_t)div_up(there, 8);

    drop_page(b, i);
    if (memory_is_zero(page, b->page_size))
        return 0;
    if (own_page(b, i) < 0)
        return -ENOMEM;
    memcpy(b->pages[i], page, bytes);
    if (there & 7)
        b->pages[i][bytes - 1] &= (uint8_t)(0xff >> (8 - (there & 7)));
    return 0;
}

int bits_copy(struct bits *to, const struct bits *from)
{
    int rc = bits_init(to, from->count, from->page_size);

    for (size_t i = 0; i < from->nb_pages && rc == 0; i++) {
        if (from->pages[i] == bits_ones)
            to->pages[i] = bits_ones;
        else if (from->pages[i])
            rc = bits_put_page(to, i, from->pages[i]);
    }
    if (rc < 0)
        bits_deinit(to);
    return rc;
}

/* ----------------------------------------------------------------- reading */

bool bits_get(const struct bits *b, uint64_t i)
{
    const uint8_t *page = b->pages[i / bits_a_page(b)];
    uint64_t bit = i & (bits_a_page(b) - 1);

    if (!page || page == bits_ones)
        return page;
    return page[bit / 8] >> (bit & 7) & 1;
}

/* The first bit at or after @from that is @value, or the count. */
static uint64_t find(const struct bits *b, uint64_t from, bool value)
{
    const uint8_t other = value ? 0x00 : 0xff;
    uint64_t per = bits_a_page(b);

    while (from < b->count) {
        const uint8_t *page = b->pages[from / per];
        uint64_t bit = from & (per - 1);

        if (!page || page == bits_ones) {
            if ((page != NULL) == value)
                return from;
            from += per - bit;
        } else if (!(bit & 7) && page[bit / 8] == other) {
            from += 8;
        } else if ((page[bit / 8] >> (bit & 7) & 1) == value) {
            return from;
        } else {
            from++;
        }
    }
    return b->count;
}

bool bits_next(const struct bits *b, uint64_t from, uint64_t *first,
               uint64_t *n)
{
    *first = find(b, from, true);
    if (*first >= b->count)
        return false;
    *n = find(b, *first, false) - *first;
    return true;
}

/* ---------------------------------------------------------------- resizing */

/* The last page as it has to be if there are only @count bits. */
static int cut_last_page(struct bits *b, uint64_t count)
{
    uint64_t per = bits_a_page(b), there = count & (per - 1);
    size_t i = (size_t)(count / per);

    if (!there || i >= b->nb_pages || !b->pages[i])
        return 0;
    uint8_t *page = calloc(1, b->page_size);
    if (!page)
        return -ENOMEM;
    set_in_page(page, 0, there);
    for (size_t k = 0; b->pages[i] != bits_ones && k < b->page_size; k++)
        page[k] &= b->pages[i][k];
    drop_page(b, i);
    b->pages[i] = page;
    return 0;
}

int bits_resize(struct bits *b, uint64_t count)
{
    size_t pages = pages_for(count, b->page_size);

    if (count < b->count && cut_last_page(b, count) < 0)
        return -ENOMEM;
    for (size_t i = pages; i < b->nb_pages; i++)
        drop_page(b, i);
    uint8_t **grown = realloc(b->pages, (pages ? pages : 1) * sizeof *grown);
    if (!grown)
        return -ENOMEM;
    for (size_t i = b->nb_pages; i < pages; i++)
        grown[i] = NULL;
    b->pages = grown;
    b->nb_pages = pages;
    b->count = count;
    return 0;
}
