/* SPDX-License-Identifier: MIT */
/*
 * hex.h - test vectors as they are published.
 */
#ifndef LAM_TESTS_HEX_H
#define LAM_TESTS_HEX_H

#include "unit.h"

#include <stdio.h>
#include <string.h>

/* How many bytes; @out has room for them. */
static inline size_t unhex(const char *text, uint8_t *out)
{
    size_t n = strlen(text) / 2;
    unsigned byte;

    for (size_t i = 0; i < n; i++) {
        assert_int_equal(sscanf(text + 2 * i, "%2x", &byte), 1);
        out[i] = (uint8_t)byte;
    }
    return n;
}

#endif
