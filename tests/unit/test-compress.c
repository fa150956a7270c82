/* SPDX-License-Identifier: MIT */
/*
 * test-compress.c - payloads that a reader takes and refuses (format document
 * 4.2, 4.3), and what we write.
 */
#include "unit.h"

#include <libdeflate.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "format/qcow2/compress.h"

enum { CS = 65536, ROOM = 4 * CS };

static uint8_t payload[ROOM], plain[ROOM], out[CS + 1];

/* Text-like: repeats at all distances, some noise. */
static void fill_plain(size_t length, unsigned seed)
{
    for (size_t i = 0; i < length; i++) {
        size_t back = 1 + (size_t)rand_r(&seed) % 30000;

        if (rand_r(&seed) % 50 == 0 || i < 16) {
            plain[i] = (uint8_t)(rand_r(&seed) % 64);
            continue;
        }
        for (size_t n = 3 + (size_t)rand_r(&seed) % 40;
             back <= i && n && i < length; n--, i++)
            plain[i] = plain[i - back];
        if (i < length)
            plain[i] = (uint8_t)(rand_r(&seed) % 64);
    }
}

static struct codec *make_codec(enum qcow2_compression type)
{
    struct codec *codec;
    struct lam_error err = LAM_ERROR_INIT;

    assert_works(codec_new(type, &codec, &err), &err);
    return codec;
}

/* One byte behind the cluster tells an overrun even without a sanitizer. */
static int inflate(enum qcow2_compression type, size_t length)
{
    struct codec *codec = make_codec(type);
    uint8_t *exact = malloc(length + !length);

    memcpy(exact, payload, length);     /* for the sanitizer's sake */
    memset(out, 0xee, sizeof out);
    int rc = codec_inflate(codec, exact, length, out, CS, NULL);
    assert_int_equal(out[CS], 0xee);
    if (rc == 0)
        assert_memory_equal(out, plain, CS);
    free(exact);
    codec_free(codec);
    return rc;
}

/* ----------------------------------------------------------------- deflate */

static size_t deflate_plain(size_t length, int level)
{
    struct libdeflate_compressor *c = libdeflate_alloc_compressor(level);
    size_t n = libdeflate_deflate_compress(c, plain, length, payload, ROOM);

    assert_true(n > 0);
    libdeflate_free_compressor(c);
    return n;
}

/* @length bytes of @plain in stored blocks; the last has @final in it. */
static size_t stored_plain(size_t length, int final)
{
    size_t n = 0;

    for (size_t at = 0; at < length;) {
        size_t block = min_u64(length - at, 65535);

        payload[n++] = final && at + block == length;
        payload[n++] = (uint8_t)block;
        payload[n++] = (uint8_t)(block >> 8);
        payload[n++] = (uint8_t)~block;
        payload[n++] = (uint8_t)(~block >> 8);
        memcpy(payload + n, plain + at, block);
        n += block;
        at += block;
    }
    return n;
}

enum source { DEFLATE, STORED, STORED_OPEN };

static const struct {
    const char *name;
    enum source source;
    size_t length;              /* bytes that the stream makes */
    int cut, garbage;           /* bytes off, or on, its end */
    int rc;
} deflate_cases[] = {
    { "whole cluster", DEFLATE, CS, 0, 0, 0 },
    { "stored blocks, longer than the cluster", STORED, CS, 0, 0, 0 },
    { "garbage behind the end", DEFLATE, CS, 0, 1000, 0 },
    { "garbage behind stored blocks", STORED, CS, 0, 511, 0 },
    { "more than a cluster", DEFLATE, CS + 1, 0, 0, 0 },
    { "twice a cluster", DEFLATE, 2 * CS, 0, 0, 0 },
    { "more than a cluster, stored", STORED, CS + 5000, 0, 0, 0 },
    { "more than a cluster, garbage", DEFLATE, CS + 1, 0, 300, 0 },
    { "full, but no final block", STORED_OPEN, CS, 0, 0, 0 },
    { "full, no final block, padding", STORED_OPEN, CS, 0, 400, 0 },
    { "one byte short", DEFLATE, CS - 1, 0, 0, -EUCLEAN },
    { "one byte short, stored, garbage", STORED, CS - 1, 0, 7, -EUCLEAN },
    { "nothing", STORED, 0, 0, 0, -EUCLEAN },
    { "cut", DEFLATE, CS, 600, 0, -EUCLEAN },
    { "cut, stored", STORED, CS, 1, 0, -EUCLEAN },
    { "more, cut where it does not matter", STORED, 2 * CS, 5000, 0, 0 },
};

static size_t make_stream(enum source source, size_t length)
{
    if (source == DEFLATE)
        return deflate_plain(length, 6);
    return stored_plain(length, source == STORED);
}

static void deflate_streams(void **state)
{
    (void)state;
    fill_plain(2 * CS, 1);
    for (size_t i = 0; i < LAM_ARRAY_SIZE(deflate_cases); i++) {
        size_t n = make_stream(deflate_cases[i].source,
                               deflate_cases[i].length);

        n -= (size_t)deflate_cases[i].cut;
        memset(payload + n, 0xa5, (size_t)deflate_cases[i].garbage);
        n += (size_t)deflate_cases[i].garbage;
        int rc = inflate(QCOW2_DEFLATE, n);
        if (rc != deflate_cases[i].rc)
            fail_msg("%s: %d", deflate_cases[i].name, rc);
    }
}

static void wrappers_are_refused(void **state)
{
    (void)state;
    struct libdeflate_compressor *c = libdeflate_alloc_compressor(6);

    fill_plain(CS, 2);
    size_t n = libdeflate_zlib_compress(c, plain, CS, payload, ROOM);
    assert_int_equal(inflate(QCOW2_DEFLATE, n), -EUCLEAN);
    n = libdeflate_gzip_compress(c, plain, CS, payload, ROOM);
    assert_int_equal(inflate(QCOW2_DEFLATE, n), -EUCLEAN);
    libdeflate_free_compressor(c);
}

/* -------------------------------------------------------------------- zstd */

/* A frame of @length bytes at plain + @at, appended to the @n of payload. */
static size_t add_frame(size_t n, size_t at, size_t length, bool size,
                        bool checksum)
{
    ZSTD_CCtx *c = ZSTD_createCCtx();

    ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, size);
    ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, checksum);
    size_t made = ZSTD_compress2(c, payload + n, ROOM - n, plain + at, length);
    assert_false(ZSTD_isError(made));
    ZSTD_freeCCtx(c);
    return n + made;
}

static size_t add_skippable(size_t n)
{
    memcpy(payload + n, "\x50\x2a\x4d\x18\4\0\0\0skip", 12);
    return n + 12;
}

static void zstd_frames(void **state)
{
    (void)state;
    fill_plain(2 * CS, 3);
    for (unsigned flags = 0; flags < 4; flags++) {
        size_t n = add_frame(0, 0, CS, flags & 1, flags & 2);
        assert_int_equal(inflate(QCOW2_ZSTD, n), 0);
        memset(payload + n, 0, 512);
        assert_int_equal(inflate(QCOW2_ZSTD, n + 300), 0);
        memset(payload + n, 0xa5, 512);
        assert_int_equal(inflate(QCOW2_ZSTD, n + 512), 0);
        assert_int_equal(inflate(QCOW2_ZSTD, n - 1), -EUCLEAN);

        n = add_frame(0, 0, 1000, flags & 1, flags & 2);
        n = add_frame(n, 1000, 0, flags & 1, flags & 2);
        n = add_frame(n, 1000, CS - 1000, flags & 1, flags & 2);
        assert_int_equal(inflate(QCOW2_ZSTD, n), 0);
        n = add_frame(n, 0, 5, true, false);
        assert_int_equal(inflate(QCOW2_ZSTD, n), 0);

        n = add_frame(0, 0, CS + 1, flags & 1, flags & 2);
        assert_int_equal(inflate(QCOW2_ZSTD, n), -EUCLEAN);
        n = add_frame(0, 0, CS - 1, flags & 1, flags & 2);
        assert_int_equal(inflate(QCOW2_ZSTD, n), -EUCLEAN);
        n = add_frame(n, CS - 1, 2, flags & 1, flags & 2);
        assert_int_equal(inflate(QCOW2_ZSTD, n), -EUCLEAN);
    }
    size_t n = add_frame(add_skippable(0), 0, CS, true, false);
    assert_int_equal(inflate(QCOW2_ZSTD, n), 0);
    n = add_skippable(add_frame(0, 0, CS, true, false));
    assert_int_equal(inflate(QCOW2_ZSTD, n), 0);
    assert_int_equal(inflate(QCOW2_ZSTD, add_skippable(0)), -EUCLEAN);
    assert_int_equal(inflate(QCOW2_ZSTD, 0), -EUCLEAN);
    memset(payload, 0, 512);
    assert_int_equal(inflate(QCOW2_ZSTD, 512), -EUCLEAN);
    /* Window_Descriptor of 2^41 bytes, no content size. */
    memcpy(payload, "\x28\xb5\x2f\xfd\x00\xf8\x01\x00\x00", 9);
    assert_int_equal(inflate(QCOW2_ZSTD, 9), -EUCLEAN);
}

/* ---------------------------------------------------------------- our own */

static void what_we_write_we_read(void **state)
{
    (void)state;
    static const size_t sizes[] = { 512, 4096, 8192, 16384, 32768, CS };
    uint8_t *small = malloc(CS), *back = malloc(CS);

    fill_plain(CS, 4);
    for (int type = QCOW2_DEFLATE; type <= QCOW2_ZSTD; type++) {
        struct codec *codec = make_codec((enum qcow2_compression)type);

        for (size_t i = 0; i < LAM_ARRAY_SIZE(sizes); i++) {
            size_t n = codec_deflate(codec, plain, sizes[i], small, CS);

            if (!n)
                continue;
            assert_in_range(n, 1, sizes[i] - 1);
            assert_int_equal(codec_inflate(codec, small, n, back, sizes[i],
                                           NULL), 0);
            assert_memory_equal(back, plain, sizes[i]);
            /* It never takes more than it is given. */
            assert_int_equal(codec_deflate(codec, plain, sizes[i], small,
                                           n - 1), 0);
        }
        codec_free(codec);
    }
    free(small);
    free(back);
}

static void noise_is_stored_plain(void **state)
{
    (void)state;
    unsigned seed = 17;

    for (size_t i = 0; i < CS; i++)
        plain[i] = (uint8_t)rand_r(&seed);
    for (int type = QCOW2_DEFLATE; type <= QCOW2_ZSTD; type++) {
        struct codec *codec = make_codec((enum qcow2_compression)type);
        assert_int_equal(codec_deflate(codec, plain, CS, payload, ROOM), 0);
        codec_free(codec);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deflate_streams),
        cmocka_unit_test(wrappers_are_refused),
        cmocka_unit_test(zstd_frames),
        cmocka_unit_test(what_we_write_we_read),
        cmocka_unit_test(noise_is_stored_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
