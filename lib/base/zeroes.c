/* SPDX-License-Identifier: MIT */
/*
 * zeroes.c - look for zeroes at the speed of memory.
 *
 * Every method reads 256 bytes a step, ORs them together and looks at the
 * result once: the loads then run as fast as memory delivers, and data that is
 * not zero still ends the search early.  The last step overlaps the one before
 * it, so that nothing is left for a byte loop.
 */
#include "base/zeroes.h"

#include <stdint.h>
#include <string.h>

#include "base/arith.h"

enum { STEP = 256 };

static uint64_t load64(const unsigned char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Lengths below one step, whichever the method. */
static bool short_is_zero(const unsigned char *p, size_t length)
{
    uint64_t any = 0;
    if (length >= sizeof any) {
        for (size_t i = 0; i + sizeof any <= length; i += sizeof any)
            any |= load64(p + i);
        return !(any | load64(p + length - sizeof any));
    }
    for (size_t i = 0; i < length; i++)
        any |= p[i];
    return !any;
}

static bool portable_step(const unsigned char *p)
{
    uint64_t a = 0, b = 0, c = 0, d = 0;
    for (size_t i = 0; i < STEP; i += 32) {
        a |= load64(p + i);
        b |= load64(p + i + 8);
        c |= load64(p + i + 16);
        d |= load64(p + i + 24);
    }
    return !(a | b | c | d);
}

/* Defines NAME_is_zero() from NAME_step(), which looks at STEP bytes. */
#define DEFINE_IS_ZERO(name, attribute)                                     \
    attribute                                                               \
    static bool name##_is_zero(const unsigned char *p, size_t length)       \
    {                                                                       \
        if (length < STEP)                                                  \
            return short_is_zero(p, length);                                \
        const unsigned char *last = p + length - STEP;                      \
        for (; p < last; p += STEP)                                         \
            if (!name##_step(p))                                            \
                return false;                                               \
        return name##_step(last);                                           \
    }

DEFINE_IS_ZERO(portable, )

static bool always(void)
{
    return true;
}

#if defined(__x86_64__)

#include <immintrin.h>

/* always_inline: the loop and the step must agree about the target. */
#define AVX2   __attribute__((target("avx2")))
#define AVX512 __attribute__((target("avx512f")))

AVX2 static inline __attribute__((always_inline))
bool avx2_step(const unsigned char *p)
{
    const __m256i *v = (const void *)p;
    __m256i a = _mm256_or_si256(_mm256_loadu_si256(v),
                                _mm256_loadu_si256(v + 1));
    __m256i b = _mm256_or_si256(_mm256_loadu_si256(v + 2),
                                _mm256_loadu_si256(v + 3));
    __m256i c = _mm256_or_si256(_mm256_loadu_si256(v + 4),
                                _mm256_loadu_si256(v + 5));
    __m256i d = _mm256_or_si256(_mm256_loadu_si256(v + 6),
                                _mm256_loadu_si256(v + 7));
    a = _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d));
    return _mm256_testz_si256(a, a);
}

AVX512 static inline __attribute__((always_inline))
bool avx512_step(const unsigned char *p)
{
    __m512i a = _mm512_or_si512(_mm512_loadu_si512(p),
                                _mm512_loadu_si512(p + 64));
    __m512i b = _mm512_or_si512(_mm512_loadu_si512(p + 128),
                                _mm512_loadu_si512(p + 192));
    a = _mm512_or_si512(a, b);
    return !_mm512_test_epi64_mask(a, a);
}

DEFINE_IS_ZERO(avx2, AVX2)
DEFINE_IS_ZERO(avx512, AVX512)

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f");
}

#elif defined(__aarch64__)

#include <arm_neon.h>

static inline bool neon_step(const unsigned char *p)
{
    uint8x16_t any = vld1q_u8(p);
    for (size_t i = 16; i < STEP; i += 16)
        any = vorrq_u8(any, vld1q_u8(p + i));
    return !vmaxvq_u8(any);
}

DEFINE_IS_ZERO(neon, )

#endif

static const struct zeroes_method methods[] = {
#if defined(__x86_64__)
    { "avx512", has_avx512, avx512_is_zero },
    { "avx2", has_avx2, avx2_is_zero },
#elif defined(__aarch64__)
    { "neon", always, neon_is_zero },
#endif
    { "portable", always, portable_is_zero },
};

const struct zeroes_method *zeroes_methods(size_t *count)
{
    *count = LAM_ARRAY_SIZE(methods);
    return methods;
}

bool memory_is_zero(const void *p, size_t length)
{
    const unsigned char *bytes = p;
    /* Most memory that is not zero shows it in its first bytes. */
    if (length >= 8 && load64(bytes))
        return false;
    size_t i = 0;
    while (!methods[i].usable())
        i++;
    return methods[i].is_zero(bytes, length);
}

size_t zero_run(const void *p, size_t length, size_t unit, bool *zero)
{
    assert(length > 0 && unit > 0);
    const unsigned char *bytes = p;
    size_t run = min_u64(unit, length);
    *zero = memory_is_zero(bytes, run);
    while (run < length) {
        size_t block = min_u64(unit, length - run);
        if (memory_is_zero(bytes + run, block) != *zero)
            break;
        run += block;
    }
    return run;
}
