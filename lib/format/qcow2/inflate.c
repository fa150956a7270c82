/* SPDX-License-Identifier: MIT */
/*
 * inflate.c - RFC 1951 as far as it is wanted.
 *
 * Bits are taken from the low end of a word that is filled up by eight bytes at
 * once.  While input and room suffice for whatever may come next, codes are
 * decoded without a look at either (quick_codes()); near the ends, one by one
 * with all checks (careful_codes()).
 */
#include "format/qcow2/inflate.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "base/bytes.h"
#include "format/qcow2/huffman.h"

struct inflater {
    uint32_t litlen[HUFFMAN_LITLEN_ROOM];
    uint32_t distance[HUFFMAN_DISTANCE_ROOM];
    uint32_t precode[HUFFMAN_PRECODE_ROOM];
};

struct stream {
    struct inflater *tables;
    const uint8_t *in, *in_end;
    uint64_t bits;                  /* none but the low nb_bits are set */
    unsigned nb_bits;
    uint8_t *out;
    size_t at, wanted, room;
    bool bad;                       /* sticks: malformed, or out of input */
};

struct inflater *inflater_new(void)
{
    return malloc(sizeof(struct inflater));
}

void inflater_free(struct inflater *inflater)
{
    free(inflater);
}

/* -------------------------------------------------------------------- bits */

static inline uint64_t low_bits(uint64_t bits, unsigned n)
{
    return bits & ((UINT64_C(1) << n) - 1);
}

/* 56 bits or more, if there are so many. */
static void refill(struct stream *s)
{
    while (s->nb_bits < 56 && s->in < s->in_end) {
        s->bits |= (uint64_t)*s->in++ << s->nb_bits;
        s->nb_bits += 8;
    }
}

static void drop_bits(struct stream *s, unsigned n)
{
    if (n > s->nb_bits) {
        s->bad = true;
        n = s->nb_bits;
    }
    s->bits >>= n;
    s->nb_bits -= n;
}

static unsigned take_bits(struct stream *s, unsigned n)
{
    refill(s);
    unsigned value = (unsigned)low_bits(s->bits, n);
    drop_bits(s, n);
    return value;
}

/* A code with the extra bits behind it.  @extra is what these say. */
static uint32_t take_code(struct stream *s, const uint32_t *table,
                          unsigned table_bits, unsigned *extra)
{
    refill(s);
    uint32_t entry = table[low_bits(s->bits, table_bits)];
    if ((entry & HUFFMAN_TABLE) == HUFFMAN_TABLE) {
        drop_bits(s, table_bits);
        entry = table[(entry >> 16) +
                      low_bits(s->bits, entry >> 8 & 15)];
    }
    unsigned all = entry & 0xff, code = entry >> 8 & 15;
    *extra = (unsigned)(low_bits(s->bits, all) >> code);
    drop_bits(s, all);
    s->bad |= (entry & HUFFMAN_BAD) == HUFFMAN_BAD;
    return entry;
}

/* -------------------------------------------------------- codes, carefully */

/* Byte by byte: source and target overlap on purpose. */
static void copy_match(struct stream *s, size_t length, size_t distance)
{
    if (distance > s->at) {
        s->bad = true;
        return;
    }
    for (; length && s->at < s->room; length--, s->at++)
        s->out[s->at] = s->out[s->at - distance];
}

/* False: the block is over. */
static bool careful_code(struct stream *s)
{
    unsigned extra;
    uint32_t entry = take_code(s, s->tables->litlen, HUFFMAN_LITLEN_BITS,
                               &extra);

    if (s->bad || (entry & HUFFMAN_SPECIAL))
        return false;
    if (entry & HUFFMAN_LITERAL) {
        s->out[s->at++] = (uint8_t)(entry >> 16);
        return true;
    }
    size_t length = (entry >> 16) + extra;
    entry = take_code(s, s->tables->distance, HUFFMAN_DISTANCE_BITS, &extra);
    if (!s->bad)
        copy_match(s, length, (entry >> 16) + extra);
    return !s->bad;
}

/* ----------------------------------------------------------- codes, quickly */

/*
 * What a turn of the loop may take and make at most, with what loads and
 * copies by words go too far.
 */
enum { QUICK_IN = 24, QUICK_OUT = 3 + 258 + 16 };

/* The stream's bits, in registers.  A load brings what is there already once
 * more, and the same: bits above nb_bits are right or zero. */
struct reader {
    const uint8_t *in;
    uint64_t bits;
    unsigned nb_bits;
};

/* 56 bits or more.  A length and a distance take 48 at most, three literals
 * from the first table 33. */
static inline void load(struct reader *r)
{
    r->bits |= le64_get(r->in) << r->nb_bits;
    r->in += (63 - r->nb_bits) >> 3;
    r->nb_bits |= 56;
}

static inline uint32_t look(const struct reader *r, const uint32_t *table,
                            unsigned table_bits)
{
    return table[low_bits(r->bits, table_bits)];
}

static inline void skip(struct reader *r, uint32_t entry)
{
    r->bits >>= entry & 63;
    r->nb_bits -= entry & 63;
}

static inline uint32_t look_on(struct reader *r, const uint32_t *table,
                               unsigned table_bits, uint32_t entry)
{
    if ((entry & HUFFMAN_TABLE) != HUFFMAN_TABLE)
        return entry;
    r->bits >>= table_bits;
    r->nb_bits -= table_bits;
    return table[(entry >> 16) + low_bits(r->bits, entry >> 8 & 15)];
}

/* Base and extra bits. */
static inline size_t take_value(struct reader *r, uint32_t entry)
{
    size_t value = (entry >> 16) +
                   (low_bits(r->bits, entry & 63) >> (entry >> 8 & 15));

    skip(r, entry);
    return value;
}

/* Word by word where words do not reach into what they make. */
static inline void copy_quickly(uint8_t *to, size_t length, size_t distance)
{
    const uint8_t *from = to - distance, *end = to + length;
    uint64_t same;

    if (distance >= 8) {
        do {
            memcpy(to, from, 8);
            memcpy(to + 8, from + 8, 8);
            to += 16;
            from += 16;
        } while (to < end);
    } else if (distance == 1) {
        same = *from * UINT64_C(0x0101010101010101);
        do {
            memcpy(to, &same, 8);
            to += 8;
        } while (to < end);
    } else {
        do
            *to++ = *from++;
        while (to < end);
    }
}

/* Literals, up to three; true: there was no third one, and *@entry is what
 * comes behind them. */
static inline bool take_literals(struct reader *r, const uint32_t *litlen,
                                 uint32_t *entry, uint8_t **out)
{
    for (int i = 0; i < 3; i++) {
        *(*out)++ = (uint8_t)(*entry >> 16);
        skip(r, *entry);
        *entry = look(r, litlen, HUFFMAN_LITLEN_BITS);
        if (i < 2 && !(*entry & HUFFMAN_LITERAL)) {
            load(r);
            return true;
        }
    }
    load(r);
    *entry = look(r, litlen, HUFFMAN_LITLEN_BITS);
    return false;
}

enum turn { GO_ON, BLOCK_ENDS, STREAM_BAD };

/* Up to two literals, and what comes then; or three of them.  *@entry is that
 * of the next bits, before and after. */
static inline enum turn quick_turn(struct reader *r,
                                   const struct inflater *tables,
                                   uint32_t *entry, uint8_t **out,
                                   const uint8_t *out_start)
{
    const uint32_t *litlen = tables->litlen, *distances = tables->distance;

    if ((*entry & HUFFMAN_LITERAL) && !take_literals(r, litlen, entry, out))
        return GO_ON;
    if (*entry & HUFFMAN_SPECIAL) {
        *entry = look_on(r, litlen, HUFFMAN_LITLEN_BITS, *entry);
        if (*entry & HUFFMAN_LITERAL) {
            *(*out)++ = (uint8_t)(*entry >> 16);
            skip(r, *entry);
            load(r);
            *entry = look(r, litlen, HUFFMAN_LITLEN_BITS);
            return GO_ON;
        }
        if (*entry & HUFFMAN_SPECIAL) {
            skip(r, *entry);
            return (*entry & HUFFMAN_BAD) == HUFFMAN_BAD ? STREAM_BAD
                                                         : BLOCK_ENDS;
        }
    }
    size_t length = take_value(r, *entry);
    *entry = look(r, distances, HUFFMAN_DISTANCE_BITS);
    if (*entry & HUFFMAN_SPECIAL)
        *entry = look_on(r, distances, HUFFMAN_DISTANCE_BITS, *entry);
    size_t distance = take_value(r, *entry);
    if ((*entry & HUFFMAN_SPECIAL) || distance > (size_t)(*out - out_start))
        return STREAM_BAD;
    load(r);
    *entry = look(r, litlen, HUFFMAN_LITLEN_BITS);
    copy_quickly(*out, length, distance);
    *out += length;
    return GO_ON;
}

/* False: the block is over.  Else the rest has to be taken carefully. */
static bool quick_codes(struct stream *s)
{
    struct reader r = { s->in, s->bits, s->nb_bits };
    uint8_t *out = s->out + s->at;
    enum turn turn = GO_ON;

    if (s->in_end - s->in < QUICK_IN || s->room < QUICK_OUT)
        return true;
    const uint8_t *in_last = s->in_end - QUICK_IN;
    const uint8_t *out_end = s->out + min_u64(s->wanted, s->room - QUICK_OUT);
    load(&r);
    uint32_t entry = look(&r, s->tables->litlen, HUFFMAN_LITLEN_BITS);
    while (out < out_end && r.in <= in_last && turn == GO_ON)
        turn = quick_turn(&r, s->tables, &entry, &out, s->out);
    s->in = r.in;
    s->bits = low_bits(r.bits, r.nb_bits);
    s->nb_bits = r.nb_bits;
    s->at = (size_t)(out - s->out);
    s->bad = turn == STREAM_BAD;
    return turn == GO_ON;
}

static void coded_block(struct stream *s)
{
    if (!quick_codes(s))
        return;
    while (s->at < s->wanted && careful_code(s))
        ;
}

/* ------------------------------------------------------------------ blocks */

static void stored_block(struct stream *s)
{
    drop_bits(s, s->nb_bits & 7);   /* the rest of the byte */
    size_t length = take_bits(s, 16), check = take_bits(s, 16);
    size_t room = s->room - s->at;

    if (s->bad || length != (check ^ 0xffff)) {
        s->bad = true;
        return;
    }
    s->in -= s->nb_bits / 8;
    s->bits = 0;
    s->nb_bits = 0;
    size_t n = length < room ? length : room;
    size_t there = (size_t)(s->in_end - s->in);
    if (n > there) {
        n = there;
        s->bad = true;
    }
    memcpy(s->out + s->at, s->in, n);
    s->in += n;
    s->at += n;
}

static void fixed_block(struct stream *s)
{
    uint8_t lengths[HUFFMAN_NB_LITLEN];

    memset(lengths, 8, 144);
    memset(lengths + 144, 9, 256 - 144);
    memset(lengths + 256, 7, 280 - 256);
    memset(lengths + 280, 8, HUFFMAN_NB_LITLEN - 280);
    huffman_litlen(s->tables->litlen, lengths, HUFFMAN_NB_LITLEN);
    memset(lengths, 5, HUFFMAN_NB_DISTANCES);
    huffman_distance(s->tables->distance, lengths, HUFFMAN_NB_DISTANCES);
    coded_block(s);
}

/* The @n code lengths of a dynamic block, themselves coded. */
static void take_lengths(struct stream *s, uint8_t *lengths, unsigned n)
{
    for (unsigned i = 0; i < n && !s->bad;) {
        unsigned extra;
        unsigned symbol = take_code(s, s->tables->precode,
                                    HUFFMAN_PRECODE_BITS, &extra) >> 16;
        unsigned repeat = 1;
        uint8_t value = 0;

        if (symbol < 16) {
            value = (uint8_t)symbol;
        } else if (symbol == 16) {
            s->bad |= i == 0;
            value = i ? lengths[i - 1] : 0;
            repeat = 3 + take_bits(s, 2);
        } else {
            repeat = symbol == 17 ? 3 + take_bits(s, 3) : 11 + take_bits(s, 7);
        }
        if (repeat > n - i) {
            s->bad = true;
            return;
        }
        memset(lengths + i, value, repeat);
        i += repeat;
    }
}

static void dynamic_block(struct stream *s)
{
    static const uint8_t order[HUFFMAN_NB_PRECODES] = {
        16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
    };
    uint8_t lengths[286 + 30], precode[HUFFMAN_NB_PRECODES] = { 0 };
    unsigned nb_litlen = take_bits(s, 5) + 257;
    unsigned nb_distances = take_bits(s, 5) + 1;
    unsigned nb_codes = take_bits(s, 4) + 4;

    if (nb_litlen > 286 || nb_distances > 30) {
        s->bad = true;
        return;
    }
    for (unsigned i = 0; i < nb_codes; i++)
        precode[order[i]] = (uint8_t)take_bits(s, 3);
    if (s->bad || !huffman_precode(s->tables->precode, precode,
                                   HUFFMAN_NB_PRECODES)) {
        s->bad = true;
        return;
    }
    take_lengths(s, lengths, nb_litlen + nb_distances);
    if (s->bad || !huffman_litlen(s->tables->litlen, lengths, nb_litlen) ||
        !huffman_distance(s->tables->distance, lengths + nb_litlen,
                          nb_distances)) {
        s->bad = true;
        return;
    }
    coded_block(s);
}

ptrdiff_t inflate_until(struct inflater *inflater, const uint8_t *in,
                        size_t in_length, uint8_t *out, size_t wanted,
                        size_t room)
{
    struct stream s = {
        .tables = inflater, .in = in, .in_end = in + in_length, .out = out,
        .wanted = wanted, .room = room,
    };
    bool last = false;

    assert(wanted <= room);
    while (!last && !s.bad && s.at < s.wanted) {
        last = take_bits(&s, 1);
        switch (take_bits(&s, 2)) {
        case 0:
            stored_block(&s);
            break;
        case 1:
            fixed_block(&s);
            break;
        case 2:
            dynamic_block(&s);
            break;
        default:
            s.bad = true;
        }
    }
    return s.at >= s.wanted || !s.bad ? (ptrdiff_t)s.at : -1;
}
