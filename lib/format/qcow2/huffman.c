/* SPDX-License-Identifier: MIT */
/*
 * huffman.c - canonical codes (RFC 1951, 3.2.2) into tables.
 *
 * Codes are filled in by length, and by symbol among those of one length.
 * Deflate sends a code's first bit first, so a table is indexed by codes in
 * reverse; a table of n bits is one of n - 1 bits twice, but for codes of
 * length n.
 */
#include "format/qcow2/huffman.h"

#include <assert.h>
#include <string.h>

/* A table in the making. */
struct maker {
    uint32_t *table;
    unsigned bits, room;            /* of the first table; entries in all */
    unsigned used;                  /* entries */
    unsigned code;                  /* the next one, reversed */
    unsigned count[HUFFMAN_MAX_BITS + 1];   /* codes by length, still to come */
    unsigned second, second_bits;   /* the second table being filled */
    unsigned prefix;                /* its entry in the first one */
};

/* The code after @code among those of @length bits; its first bit is the one
 * that counts least. */
static void next_code(struct maker *m, unsigned length)
{
    unsigned bit = 1u << (length - 1);

    while (m->code & bit)
        bit >>= 1;
    m->code = bit ? (m->code & (bit - 1)) | bit : 0;
}

/* A second table for the codes that begin like this one: as many bits as are
 * needed for those that are still to come. */
static void begin_second(struct maker *m, unsigned length)
{
    unsigned bits = length - m->bits;
    unsigned taken = m->count[length];

    while (taken < 1u << bits && m->bits + bits < HUFFMAN_MAX_BITS) {
        bits++;
        taken = taken * 2 + m->count[m->bits + bits];
    }
    m->prefix = m->code & ((1u << m->bits) - 1);
    m->second = m->used;
    m->second_bits = bits;
    m->used += 1u << bits;
    assert(m->used <= m->room);
    for (unsigned i = m->second; i < m->used; i++)
        m->table[i] = HUFFMAN_BAD;
    m->table[m->prefix] = m->bits | bits << 8 | HUFFMAN_TABLE | m->second << 16;
}

static void add_long(struct maker *m, uint32_t symbol, unsigned length)
{
    unsigned rest = length - m->bits;

    if (m->used == 1u << m->bits ||
        m->prefix != (m->code & ((1u << m->bits) - 1)))
        begin_second(m, length);
    uint32_t entry = symbol + rest + (rest << 8);
    for (unsigned i = m->code >> m->bits; i < 1u << m->second_bits;
         i += 1u << rest)
        m->table[m->second + i] = entry;
}

/* @sorted: symbols by length and number, from the first of @length on. */
static const uint16_t *add_length(struct maker *m, const uint16_t *sorted,
                                  unsigned length, const uint32_t *symbols)
{
    for (; m->count[length]; m->count[length]--) {
        uint32_t symbol = symbols[*sorted++];

        if (length <= m->bits)
            m->table[m->code] = symbol + length + (length << 8);
        else
            add_long(m, symbol, length);
        next_code(m, length);
    }
    return sorted;
}

/* Symbols in order of their codes; false if they are too many. */
static bool sort(struct maker *m, const uint8_t *lengths, unsigned n,
                 uint16_t *sorted)
{
    unsigned next[HUFFMAN_MAX_BITS + 2];
    int left = 1;

    for (unsigned i = 0; i < n; i++)
        m->count[lengths[i]]++;
    m->count[0] = 0;
    next[1] = 0;
    for (unsigned length = 1; length <= HUFFMAN_MAX_BITS; length++) {
        left = left * 2 - (int)m->count[length];
        if (left < 0)
            return false;
        next[length + 1] = next[length] + m->count[length];
    }
    for (unsigned i = 0; i < n; i++)
        if (lengths[i])
            sorted[next[lengths[i]]++] = (uint16_t)i;
    return true;
}

/* @symbols: entries of all symbols, but for the code's length. */
static bool make(uint32_t *table, unsigned bits, unsigned room,
                 const uint8_t *lengths, unsigned n, const uint32_t *symbols)
{
    struct maker m = { .table = table, .bits = bits, .room = room,
                       .used = 1u << bits };
    uint16_t sorted[HUFFMAN_NB_LITLEN];
    const uint16_t *at = sorted;

    assert(n <= HUFFMAN_NB_LITLEN);
    if (!sort(&m, lengths, n, sorted))
        return false;
    table[0] = HUFFMAN_BAD;
    for (unsigned length = 1; length <= bits; length++) {
        unsigned half = 1u << (length - 1);

        memcpy(table + half, table, half * sizeof *table);
        at = add_length(&m, at, length, symbols);
    }
    for (unsigned length = bits + 1; length <= HUFFMAN_MAX_BITS; length++)
        at = add_length(&m, at, length, symbols);
    return true;
}

/* ------------------------------------------------------ the three alphabets */

/* Literals, by the dozen; base and extra bits of a length or a distance. */
#define L(v)    HUFFMAN_LITERAL | (uint32_t)(v) << 16
#define L4(v)   L(v), L((v) + 1), L((v) + 2), L((v) + 3)
#define L16(v)  L4(v), L4((v) + 4), L4((v) + 8), L4((v) + 12)
#define L64(v)  L16(v), L16((v) + 16), L16((v) + 32), L16((v) + 48)
#define B(base, extra) (uint32_t)(base) << 16 | (extra)
#define S4(v)   B(v, 0), B((v) + 1, 0), B((v) + 2, 0), B((v) + 3, 0)

static const uint32_t litlen_symbols[HUFFMAN_NB_LITLEN] = {
    L64(0), L64(64), L64(128), L64(192), HUFFMAN_SPECIAL,
    B(3, 0), B(4, 0), B(5, 0), B(6, 0), B(7, 0), B(8, 0), B(9, 0), B(10, 0),
    B(11, 1), B(13, 1), B(15, 1), B(17, 1),
    B(19, 2), B(23, 2), B(27, 2), B(31, 2),
    B(35, 3), B(43, 3), B(51, 3), B(59, 3),
    B(67, 4), B(83, 4), B(99, 4), B(115, 4),
    B(131, 5), B(163, 5), B(195, 5), B(227, 5), B(258, 0),
    HUFFMAN_BAD, HUFFMAN_BAD,
};

static const uint32_t distance_symbols[HUFFMAN_NB_DISTANCES] = {
    B(1, 0), B(2, 0), B(3, 0), B(4, 0), B(5, 1), B(7, 1), B(9, 2), B(13, 2),
    B(17, 3), B(25, 3), B(33, 4), B(49, 4), B(65, 5), B(97, 5), B(129, 6),
    B(193, 6), B(257, 7), B(385, 7), B(513, 8), B(769, 8), B(1025, 9),
    B(1537, 9), B(2049, 10), B(3073, 10), B(4097, 11), B(6145, 11),
    B(8193, 12), B(12289, 12), B(16385, 13), B(24577, 13),
    HUFFMAN_BAD, HUFFMAN_BAD,
};

bool huffman_litlen(uint32_t table[HUFFMAN_LITLEN_ROOM], const uint8_t *lengths,
                    unsigned n)
{
    return make(table, HUFFMAN_LITLEN_BITS, HUFFMAN_LITLEN_ROOM, lengths, n,
                litlen_symbols);
}

bool huffman_distance(uint32_t table[HUFFMAN_DISTANCE_ROOM],
                      const uint8_t *lengths, unsigned n)
{
    return make(table, HUFFMAN_DISTANCE_BITS, HUFFMAN_DISTANCE_ROOM, lengths,
                n, distance_symbols);
}

bool huffman_precode(uint32_t table[HUFFMAN_PRECODE_ROOM],
                     const uint8_t *lengths, unsigned n)
{
    static const uint32_t symbols[HUFFMAN_NB_PRECODES] = {
        S4(0), S4(4), S4(8), S4(12), B(16, 0), B(17, 0), B(18, 0),
    };

    return make(table, HUFFMAN_PRECODE_BITS, HUFFMAN_PRECODE_ROOM, lengths, n,
                symbols);
}
