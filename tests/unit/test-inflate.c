/* SPDX-License-Identifier: MIT */
/*
 * test-inflate.c - the decoder that stops where it may: every length of every
 * kind of stream, cut, damaged, made up, beside libdeflate's and a plain one's
 * answers.
 */
#include "unit.h"

#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "format/qcow2/inflate.h"
#include "plain-inflate.h"

enum { MOST = 70000, FEW = 2000, LEVELS = 10 };

static uint8_t plain[MOST], payload[2 * MOST];
static struct inflater *inflater;
static struct libdeflate_compressor *deflaters[LEVELS];

static int make_codecs(void **state)
{
    (void)state;
    inflater = inflater_new();
    for (int level = 0; level < LEVELS; level++)
        deflaters[level] = libdeflate_alloc_compressor(level);
    return inflater ? 0 : -1;
}

static int free_codecs(void **state)
{
    (void)state;
    inflater_free(inflater);
    for (int level = 0; level < LEVELS; level++)
        libdeflate_free_compressor(deflaters[level]);
    return 0;
}

/* ----------------------------------------------------------------- contents */

/* Repeats at all distances, near ones above all, and noise. */
static void fill_mixed(size_t length, unsigned *seed)
{
    for (size_t i = 0; i < length;) {
        size_t reach = rand_r(seed) % 3 ? 20 : 32768;
        size_t back = 1 + (size_t)rand_r(seed) % reach;
        size_t n = 1 + (size_t)rand_r(seed) % (rand_r(seed) % 4 ? 20 : 600);

        for (; n && i < length; n--, i++)
            plain[i] = back <= i ? plain[i - back] : (uint8_t)(i & 63);
        if (i < length)
            plain[i++] = (uint8_t)rand_r(seed);
    }
}

/* Some bytes are rare: their codes are long. */
static void fill_skewed(size_t length, unsigned *seed)
{
    for (size_t i = 0; i < length; i++) {
        unsigned bits = (unsigned)rand_r(seed) | 1u << 20;
        unsigned rank = (unsigned)__builtin_ctz(bits);

        plain[i] = (uint8_t)(rank < 12 ? rank * 7 : (unsigned)rand_r(seed));
    }
}

static void fill_noise(size_t length, unsigned *seed)
{
    for (size_t i = 0; i < length; i++)
        plain[i] = (uint8_t)rand_r(seed);
}

static void fill_same(size_t length, unsigned *seed)
{
    memset(plain, rand_r(seed) % 256, length);
}

static void (*const fills[])(size_t length, unsigned *seed) = {
    fill_mixed, fill_skewed, fill_noise, fill_same,
};

static size_t deflate_plain(size_t length, int level)
{
    size_t n = libdeflate_deflate_compress(deflaters[level], plain, length,
                                           payload, sizeof payload);

    assert_true(n > 0);
    return n;
}

/* ------------------------------------------------------------------ answers */

/* The stream in a buffer of its own, so that a sanitizer sees a step beyond it;
 * @room bytes for what it makes, and one more that must stay. */
static ptrdiff_t inflate(const uint8_t *stream, size_t n, size_t wanted,
                         size_t room, uint8_t **out)
{
    uint8_t *exact = malloc(n + !n);

    memcpy(exact, stream, n);
    *out = malloc(room + 1);
    (*out)[room] = 0xee;
    ptrdiff_t made = inflate_until(inflater, exact, n, *out, wanted, room);
    assert_int_equal((*out)[room], 0xee);
    assert_true(made <= (ptrdiff_t)room);
    free(exact);
    return made;
}

static void assert_makes(size_t n, size_t length, size_t wanted, size_t room)
{
    uint8_t *out;
    ptrdiff_t made = inflate(payload, n, wanted, room, &out);

    assert_in_range(made, min_u64(wanted, length), length);
    assert_memory_equal(out, plain, (size_t)made);
    free(out);
}

/* All lengths of short streams, and of long ones those around a few places;
 * with no room behind them, with a little, with all. */
static void every_length(void **state)
{
    (void)state;
    unsigned seed = 7;

    for (unsigned round = 0; round < 48; round++) {
        bool small = round % 4 != 3;
        size_t length = small ? 1 + (size_t)rand_r(&seed) % FEW : MOST;

        fills[round / 4 % LAM_ARRAY_SIZE(fills)](length, &seed);
        size_t n = deflate_plain(length, (int)(round % LEVELS));
        for (size_t wanted = 0; wanted <= length + 1;
             wanted += small ? 1 + wanted % 3 : 2741) {
            assert_makes(n, length, wanted, wanted);
            assert_makes(n, length, wanted, wanted + wanted % 700);
            assert_makes(n, length, wanted, wanted < MOST ? MOST : wanted);
        }
        assert_makes(n, length, length, length);
    }
}

/* What a reader of the whole stream says first is what one of a part says. */
static void assert_as_plain(const uint8_t *stream, size_t n, size_t wanted,
                            size_t room)
{
    lam_autofree uint8_t *expected = malloc(room + 1);
    ptrdiff_t whole = plain_inflate(stream, n, expected, wanted);
    uint8_t *out;
    ptrdiff_t made = inflate(stream, n, wanted, room, &out);

    if (whole < 0) {
        assert_int_equal(made, -1);
    } else {
        assert_true(whole == made ||
                    (made >= whole && whole == (ptrdiff_t)wanted));
        assert_memory_equal(out, expected, (size_t)whole);
    }
    free(out);
}

/* Cut anywhere: what is there, or an error. */
static void cut_streams(void **state)
{
    (void)state;
    unsigned seed = 17;

    for (unsigned round = 0; round < 16; round++) {
        size_t length = FEW;

        fills[round % LAM_ARRAY_SIZE(fills)](length, &seed);
        size_t n = deflate_plain(length, (int)(round % LEVELS));
        for (size_t cut = 0; cut < n; cut += 1 + cut % 5) {
            size_t wanted = (size_t)rand_r(&seed) % (length + 1);

            assert_as_plain(payload, cut, length, length);
            assert_as_plain(payload, cut, wanted, wanted);
            assert_as_plain(payload, cut, wanted, 2 * length);
        }
    }
}

/* Bits turned over: codes that do not exist, too many of them, distances beyond
 * the beginning, lengths beyond the end. */
static void damaged_streams(void **state)
{
    (void)state;
    unsigned seed = 19;

    for (unsigned round = 0; round < 6000; round++) {
        size_t length = 1 + (size_t)rand_r(&seed) % FEW;

        if (round % 20 == 0)
            fills[round / 20 % LAM_ARRAY_SIZE(fills)](FEW, &seed);
        size_t n = deflate_plain(length, (int)(round % LEVELS));
        for (int i = 0; i < 1 + (int)round % 3; i++) {
            /* Most of what can be wrong is at the beginning. */
            size_t reach = round % 2 ? min_u64(n, 60) : n;
            payload[(size_t)rand_r(&seed) % reach] ^=
                (uint8_t)(1u << rand_r(&seed) % 8);
        }
        size_t wanted = (size_t)rand_r(&seed) % (length + 2);
        assert_as_plain(payload, n, wanted, wanted);
        assert_as_plain(payload, n, wanted, wanted + 1000);
    }
}

/* Any bytes at all. */
static void noise(void **state)
{
    (void)state;
    unsigned seed = 13;

    for (int round = 0; round < 20000; round++) {
        size_t n = (size_t)rand_r(&seed) % 300;

        for (size_t i = 0; i < n; i++)
            payload[i] = (uint8_t)rand_r(&seed);
        /* Of a block type that is not refused at once. */
        if (n)
            payload[0] = (uint8_t)((payload[0] & ~6) | (round % 3) << 1);
        assert_as_plain(payload, n, 512, round % 2 ? 512 : 1024);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_length),
        cmocka_unit_test(cut_streams),
        cmocka_unit_test(damaged_streams),
        cmocka_unit_test(noise),
    };
    return cmocka_run_group_tests(tests, make_codecs, free_codecs);
}
