/* SPDX-License-Identifier: MIT */
/*
 * refblock.h - refcounts of 1 to 64 bits inside a refcount block (format
 * document 5.1).  Pure: bytes and numbers.
 */
#ifndef LAM_QCOW2_REFBLOCK_H
#define LAM_QCOW2_REFBLOCK_H

#include <stdint.h>

/* Counter @index of @block, whose counters are 1 << @order bits wide. */
uint64_t refblock_get(const uint8_t *block, unsigned order, uint64_t index);

/* @value fits the width. */
void refblock_set(uint8_t *block, unsigned order, uint64_t index,
                  uint64_t value);

/* Index of the first counter that is 0 in [from, end), or @end. */
uint64_t refblock_find_free(const uint8_t *block, unsigned order,
                            uint64_t from, uint64_t end);

#endif
