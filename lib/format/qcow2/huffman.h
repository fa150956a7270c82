/* SPDX-License-Identifier: MIT */
/*
 * huffman.h - tables that decode the codes of RFC 1951.  Pure.
 *
 * An entry says all about the code that the next bits of a stream begin with,
 * so that decoding is a look and a shift.  Codes that are longer than a table
 * has bits go on in a second one behind it.
 *
 *   bits  0..7   how many bits of the stream it stands for: the code's and,
 *                with a length or a distance, the extra ones behind it
 *   bits  8..11  how many are the code's; of a HUFFMAN_TABLE: bits of the
 *                second table
 *   bits 12..15  enum huffman_kind; none: a length or a distance
 *   bits 16..31  a literal; the base of a length or a distance; where the
 *                second table begins
 */
#ifndef LAM_QCOW2_HUFFMAN_H
#define LAM_QCOW2_HUFFMAN_H

#include <stdbool.h>
#include <stdint.h>

enum huffman_kind {
    HUFFMAN_LITERAL = 1 << 12,
    HUFFMAN_SPECIAL = 1 << 13,      /* alone: the end of the block; or with: */
    HUFFMAN_TABLE = HUFFMAN_SPECIAL | 1 << 14,
    HUFFMAN_BAD = HUFFMAN_SPECIAL | 1 << 15,
};

/*
 * Room: codes are given out in order, so all second tables but the last are
 * full, and a full one of 2^k entries takes k + 1 symbols at least: of 288
 * symbols and k up to 4, or of 32 and k up to 7.
 */
enum {
    HUFFMAN_MAX_BITS = 15,
    HUFFMAN_NB_LITLEN = 288,
    HUFFMAN_NB_DISTANCES = 32,
    HUFFMAN_NB_PRECODES = 19,
    HUFFMAN_LITLEN_BITS = 11,
    HUFFMAN_DISTANCE_BITS = 8,
    HUFFMAN_PRECODE_BITS = 7,
    HUFFMAN_LITLEN_ROOM = (1 << 11) + 288 / 5 * 16 + 16,
    HUFFMAN_DISTANCE_ROOM = (1 << 8) + 32 / 8 * 128 + 128,
    HUFFMAN_PRECODE_ROOM = 1 << 7,
};

/*
 * The table of a code with the @lengths of its @n symbols (0: no such symbol).
 * False if they claim more codes than there are.  Too few are allowed: bits
 * that are no code are HUFFMAN_BAD, which is wrong where a stream has them.
 */
bool huffman_litlen(uint32_t table[HUFFMAN_LITLEN_ROOM], const uint8_t *lengths,
                    unsigned n);
bool huffman_distance(uint32_t table[HUFFMAN_DISTANCE_ROOM],
                      const uint8_t *lengths, unsigned n);
/* The symbol is in bits 16 and up. */
bool huffman_precode(uint32_t table[HUFFMAN_PRECODE_ROOM],
                     const uint8_t *lengths, unsigned n);

#endif
