/* SPDX-License-Identifier: MIT */
/*
 * plain-inflate.h - RFC 1951, plainly: what the fast decoder is held against.
 *
 * Simple rather than fast: codes are decoded bit by bit from counts and a
 * sorted list of symbols.
 */
#ifndef LAM_TEST_PLAIN_INFLATE_H
#define LAM_TEST_PLAIN_INFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    MAX_BITS = 15,
    NB_LITLEN = 288,
    NB_DISTANCES = 30,
    NB_CODE_LENGTHS = 19,
    END_OF_BLOCK = 256,
};

struct plain_stream {
    const uint8_t *in, *in_end;
    uint32_t bits;
    unsigned nb_bits;
    uint8_t *out;
    size_t at, length;
    bool bad;                       /* sticks: malformed, or out of input */
};

/* A canonical Huffman code: how many codes have each length, and the symbols
 * in the order of their codes. */
struct huffman {
    uint16_t count[MAX_BITS + 1];
    uint16_t symbol[NB_LITLEN];
};

static unsigned take_bits(struct plain_stream *s, unsigned n)
{
    while (s->nb_bits < n) {
        if (s->in == s->in_end) {
            s->bad = true;
            return 0;
        }
        s->bits |= (uint32_t)*s->in++ << s->nb_bits;
        s->nb_bits += 8;
    }
    unsigned value = s->bits & ((1u << n) - 1);

    s->bits >>= n;
    s->nb_bits -= n;
    return value;
}

/* False if the lengths claim more codes than there are.  Too few are allowed:
 * a code that is not there is bad when it is met. */
static bool huffman_init(struct huffman *h, const uint8_t *lengths, unsigned n)
{
    uint16_t next[MAX_BITS + 1];
    int left = 1;

    memset(h->count, 0, sizeof h->count);
    for (unsigned i = 0; i < n; i++)
        h->count[lengths[i]]++;
    h->count[0] = 0;
    next[0] = next[1] = 0;
    for (unsigned bits = 1; bits <= MAX_BITS; bits++) {
        left = left * 2 - h->count[bits];
        if (left < 0)
            return false;
        if (bits < MAX_BITS)
            next[bits + 1] = (uint16_t)(next[bits] + h->count[bits]);
    }
    for (unsigned i = 0; i < n; i++) {
        if (lengths[i])
            h->symbol[next[lengths[i]]++] = (uint16_t)i;
    }
    return true;
}

static unsigned take_symbol(struct plain_stream *s, const struct huffman *h)
{
    int code = 0, first = 0, index = 0;

    for (unsigned bits = 1; bits <= MAX_BITS && !s->bad; bits++) {
        code |= (int)take_bits(s, 1);
        if (code - first < h->count[bits])
            return h->symbol[index + code - first];
        index += h->count[bits];
        first = (first + h->count[bits]) << 1;
        code <<= 1;
    }
    s->bad = true;
    return END_OF_BLOCK;
}

static void stored_block(struct plain_stream *s)
{
    s->bits = 0;                    /* the rest of the byte */
    s->nb_bits = 0;
    if (s->in_end - s->in < 4) {
        s->bad = true;
        return;
    }
    size_t length = s->in[0] | (size_t)s->in[1] << 8;
    size_t check = s->in[2] | (size_t)s->in[3] << 8;
    size_t room = s->length - s->at;

    s->in += 4;
    if (length != (check ^ 0xffff)) {
        s->bad = true;
        return;
    }
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

static void copy_match(struct plain_stream *s, unsigned symbol,
                       const struct huffman *distances)
{
    static const uint16_t length_base[29] = {
        3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51,
        59, 67, 83, 99, 115, 131, 163, 195, 227, 258,
    };
    static const uint8_t length_extra[29] = {
        0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4,
        5, 5, 5, 5, 0,
    };
    static const uint16_t distance_base[NB_DISTANCES] = {
        1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385,
        513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577,
    };

    symbol -= END_OF_BLOCK + 1;
    if (symbol >= 29) {
        s->bad = true;
        return;
    }
    size_t length = length_base[symbol] + take_bits(s, length_extra[symbol]);
    unsigned code = take_symbol(s, distances);
    if (s->bad || code >= NB_DISTANCES) {
        s->bad = true;
        return;
    }
    size_t distance = distance_base[code] +
                      take_bits(s, code < 4 ? 0 : code / 2 - 1);
    if (s->bad || distance > s->at) {
        s->bad = true;
        return;
    }
    /* Byte by byte: source and target overlap on purpose. */
    for (; length && s->at < s->length; length--, s->at++)
        s->out[s->at] = s->out[s->at - distance];
}

static void coded_block(struct plain_stream *s, const struct huffman *litlen,
                        const struct huffman *distances)
{
    while (!s->bad && s->at < s->length) {
        unsigned symbol = take_symbol(s, litlen);

        if (s->bad || symbol == END_OF_BLOCK)
            return;
        if (symbol < END_OF_BLOCK)
            s->out[s->at++] = (uint8_t)symbol;
        else
            copy_match(s, symbol, distances);
    }
}

static void fixed_block(struct plain_stream *s)
{
    uint8_t lengths[NB_LITLEN];
    struct huffman litlen, distances;

    memset(lengths, 8, 144);
    memset(lengths + 144, 9, 256 - 144);
    memset(lengths + 256, 7, 280 - 256);
    memset(lengths + 280, 8, NB_LITLEN - 280);
    huffman_init(&litlen, lengths, NB_LITLEN);
    memset(lengths, 5, NB_DISTANCES);
    huffman_init(&distances, lengths, NB_DISTANCES);
    coded_block(s, &litlen, &distances);
}

/* The @n code lengths of a dynamic block, themselves coded by @code. */
static void take_lengths(struct plain_stream *s, const struct huffman *code,
                         uint8_t *lengths, unsigned n)
{
    for (unsigned i = 0; i < n && !s->bad;) {
        unsigned symbol = take_symbol(s, code);
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

static void dynamic_block(struct plain_stream *s)
{
    static const uint8_t order[NB_CODE_LENGTHS] = {
        16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
    };
    uint8_t lengths[286 + NB_DISTANCES] = { 0 };
    struct huffman litlen, distances;
    unsigned nb_litlen = take_bits(s, 5) + 257;
    unsigned nb_distances = take_bits(s, 5) + 1;
    unsigned nb_codes = take_bits(s, 4) + 4;

    if (nb_litlen > 286 || nb_distances > NB_DISTANCES) {
        s->bad = true;
        return;
    }
    for (unsigned i = 0; i < nb_codes; i++)
        lengths[order[i]] = (uint8_t)take_bits(s, 3);
    if (s->bad || !huffman_init(&litlen, lengths, NB_CODE_LENGTHS)) {
        s->bad = true;
        return;
    }
    take_lengths(s, &litlen, lengths, nb_litlen + nb_distances);
    if (s->bad || !huffman_init(&litlen, lengths, nb_litlen) ||
        !huffman_init(&distances, lengths + nb_litlen, nb_distances)) {
        s->bad = true;
        return;
    }
    coded_block(s, &litlen, &distances);
}

/* Stops as soon as @out is full; the number of bytes written, or -1 if the
 * stream is malformed or cut off before. */
static ptrdiff_t plain_inflate(const uint8_t *in, size_t in_length,
                               uint8_t *out, size_t out_length)
{
    struct plain_stream s = {
        .in = in, .in_end = in + in_length, .out = out, .length = out_length,
    };
    bool last = false;

    while (!last && !s.bad && s.at < s.length) {
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
    return s.at == s.length || !s.bad ? (ptrdiff_t)s.at : -1;
}

#endif
