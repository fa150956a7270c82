/* SPDX-License-Identifier: MIT */
/*
 * refblock.c - refcounts of 1 to 64 bits inside a refcount block.
 *
 * Counters of less than a byte fill it from the least significant bit up;
 * wider ones are big-endian.
 */
#include "format/qcow2/refblock.h"

#include <assert.h>

#include "base/bytes.h"

uint64_t refblock_get(const uint8_t *block, unsigned order, uint64_t index)
{
    assert(order <= 6);
    switch (order) {
    case 3:
        return block[index];
    case 4:
        return be16_get(block + index * 2);
    case 5:
        return be32_get(block + index * 4);
    case 6:
        return be64_get(block + index * 8);
    default: {
        unsigned mask = (1u << (1u << order)) - 1;
        unsigned shift = (unsigned)(index << order) & 7;

        return (unsigned)block[(index << order) >> 3] >> shift & mask;
    }
    }
}

static void set_in_byte(uint8_t *byte, unsigned order, unsigned shift,
                        uint64_t value)
{
    unsigned mask = (1u << (1u << order)) - 1;

    assert(value <= mask);
    *byte = (uint8_t)((*byte & ~(mask << shift)) | (unsigned)value << shift);
}

void refblock_set(uint8_t *block, unsigned order, uint64_t index,
                  uint64_t value)
{
    assert(order <= 6);
    assert(order == 6 || !(value >> (1u << order)));
    switch (order) {
    case 3:
        block[index] = (uint8_t)value;
        break;
    case 4:
        be16_put(block + index * 2, (uint16_t)value);
        break;
    case 5:
        be32_put(block + index * 4, (uint32_t)value);
        break;
    case 6:
        be64_put(block + index * 8, value);
        break;
    default:
        set_in_byte(&block[(index << order) >> 3], order,
                    (unsigned)(index << order) & 7, value);
    }
}

/*
 * Number of the first zero counter in the eight bytes at @p, or the number of
 * counters there are.  Read little-endian, the counters of every width follow
 * each other from the low end up; that a wide one's bytes are swapped does not
 * matter to a test for zero.  The borrow of the subtraction starts at the
 * lowest zero counter, so that the lowest bit found is right.
 */
static unsigned first_zero_in_word(const uint8_t *p, unsigned order)
{
    unsigned bits = 1u << order;
    uint64_t low = order == 6 ? 1 : UINT64_MAX / ((UINT64_C(1) << bits) - 1);
    uint64_t word, found;

    memcpy(&word, p, sizeof word);
    word = le64toh(word);
    found = (word - low) & ~word & low << (bits - 1);
    return found ? (unsigned)__builtin_ctzll(found) >> order : 64u >> order;
}

uint64_t refblock_find_free(const uint8_t *block, unsigned order,
                            uint64_t from, uint64_t end)
{
    uint64_t per_word = UINT64_C(64) >> order;
    uint64_t i = from;

    assert(order <= 6);
    for (; i < end && i % per_word; i++) {
        if (!refblock_get(block, order, i))
            return i;
    }
    /* A block is a multiple of eight bytes long: the last word is all there,
     * whatever @end is. */
    for (; i < end; i += per_word) {
        unsigned n = first_zero_in_word(block + i / per_word * 8, order);

        if (n < per_word)
            return i + n < end ? i + n : end;
    }
    return end;
}
