/* SPDX-License-Identifier: MIT */
/*
 * arith.h - alignment and checked arithmetic on sizes and offsets.
 */
#ifndef LAM_BASE_ARITH_H
#define LAM_BASE_ARITH_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LAM_KIB (UINT64_C(1) << 10)
#define LAM_MIB (UINT64_C(1) << 20)
#define LAM_GIB (UINT64_C(1) << 30)
#define LAM_TIB (UINT64_C(1) << 40)

#define LAM_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static inline bool is_power_of_two(uint64_t v)
{
    return v && !(v & (v - 1));
}

/* @unit is a power of two in the three functions below. */
static inline bool is_aligned(uint64_t v, uint64_t unit)
{
    return !(v & (unit - 1));
}

static inline uint64_t align_down(uint64_t v, uint64_t unit)
{
    return v & ~(unit - 1);
}

/* The caller knows that v + unit - 1 does not wrap. */
static inline uint64_t align_up(uint64_t v, uint64_t unit)
{
    assert(v <= UINT64_MAX - (unit - 1));
    return (v + unit - 1) & ~(unit - 1);
}

static inline uint64_t div_up(uint64_t v, uint64_t unit)
{
    return v / unit + (v % unit != 0);
}

/* True if the result does not fit; *@out is unspecified then. */
static inline bool add_overflows(uint64_t a, uint64_t b, uint64_t *out)
{
    return __builtin_add_overflow(a, b, out);
}

static inline bool mul_overflows(uint64_t a, uint64_t b, uint64_t *out)
{
    return __builtin_mul_overflow(a, b, out);
}

#endif
