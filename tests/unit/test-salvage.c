/* SPDX-License-Identifier: MIT */
/*
 * test-salvage.c - a source that cannot be read everywhere: what is lost is
 * what cannot be read, it is told once, and nothing else changes.
 */
#include <stdlib.h>
#include <string.h>

#include "memory-image.h"

enum { SECTOR = 512, SIZE = 4 << 20, SECTORS = SIZE / SECTOR };

static const struct lam_io_ops *memory;     /* the table underneath */
static bool bad[SECTORS];
static int bad_code;

/* As a disk: a request that touches a bad sector fails as a whole. */
static ssize_t bad_readv(struct lam_io *io, const struct iovec *iov,
                         int iovcnt, uint64_t offset)
{
    uint64_t length = 0;

    for (int i = 0; i < iovcnt; i++)
        length += iov[i].iov_len;
    for (uint64_t at = offset / SECTOR; at * SECTOR < offset + length; at++)
        if (at < SECTORS && bad[at])
            return -bad_code;
    return memory->readv(io, iov, iovcnt, offset);
}

static struct lam_image *open_disk(const void *bytes, unsigned flags,
                                   bool failing)
{
    static struct lam_io_ops ops;
    struct lam_io *io = new_memory(bytes, SIZE, flags);

    if (failing) {
        memory = io->ops;
        ops = *memory;
        ops.readv = bad_readv;
        io->ops = &ops;
    }
    return open_raw(io, flags);
}

static struct { uint64_t lost; bool told[SECTORS]; } seen;

static void on_unreadable(void *opaque, struct lam_image *source,
                          uint64_t offset, uint64_t length,
                          const struct lam_error *err)
{
    assert_ptr_equal(opaque, &seen);
    assert_non_null(source);
    assert_int_equal(err->code, bad_code);
    assert_int_equal(offset % SECTOR, 0);
    assert_int_equal(length % SECTOR, 0);
    seen.lost += length;
    for (uint64_t at = offset / SECTOR; at < (offset + length) / SECTOR; at++) {
        assert_false(seen.told[at]);
        seen.told[at] = true;
    }
}

/* [first, first + count) sectors that cannot be read; 0, 0 ends. */
struct spot { unsigned first, count; };

static const struct { const char *name; int code; struct spot spots[4]; }
cases[] = {
    { "none", EIO, { { 0, 0 } } },
    { "the first", EIO, { { 0, 1 } } },
    { "the last", EIO, { { SECTORS - 1, 1 } } },
    { "two apart", EIO, { { 100, 1 }, { 102, 1 } } },
    { "over a chunk's end", EIO, { { (1 << 20) / SECTOR - 3, 7 } } },
    { "a whole chunk", EIO, { { (1 << 20) / SECTOR, (1 << 20) / SECTOR } } },
    { "everything", EREMOTEIO, { { 0, SECTORS } } },
};

static void convert(struct lam_image *source, struct lam_image *target,
                    bool digest, struct lam_convert_result *result)
{
    struct lam_convert_options options = LAM_CONVERT_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    options.flags = LAM_CONVERT_SALVAGE;
    options.unreadable = on_unreadable;
    options.unreadable_opaque = &seen;
    if (digest && lam_digest_name(0))
        options.digest = lam_digest_name(0);
    assert_works(lam_convert(&source, 1, target, &options, result, &err),
                 &err);
}

static void run_case(size_t i, const uint8_t *bytes)
{
    uint8_t *expected = malloc(SIZE), *found = malloc(SIZE);
    struct lam_convert_result result;
    uint64_t lost = 0;

    assert_true(expected && found);
    memcpy(expected, bytes, SIZE);
    memset(bad, 0, sizeof bad);
    memset(&seen, 0, sizeof seen);
    for (const struct spot *s = cases[i].spots; s->count; s++) {
        memset(bad + s->first, true, s->count);
        memset(expected + s->first * SECTOR, 0, s->count * SECTOR);
        lost += s->count * SECTOR;
    }
    bad_code = cases[i].code;
    struct lam_image *source = open_disk(bytes, 0, true);
    struct lam_image *target = open_disk(bytes, LAM_OPEN_WRITE, false);
    convert(source, target, i % 2, &result);
    assert_works(lam_image_read(target, found, SIZE, 0, NULL),
                 &(struct lam_error)LAM_ERROR_INIT);
    if (memcmp(found, expected, SIZE))
        fail_msg("%s: other bytes", cases[i].name);
    assert_int_equal(result.bytes_unreadable, lost);
    assert_int_equal(seen.lost, lost);
    assert_memory_equal(seen.told, bad, sizeof bad);
    lam_image_close(target, NULL);
    lam_image_close(source, NULL);
    free(expected);
    free(found);
}

static uint8_t *make_bytes(void)
{
    uint8_t *bytes = malloc(SIZE);

    assert_non_null(bytes);
    for (size_t i = 0; i < SIZE; i++)
        bytes[i] = (uint8_t)(i / SECTOR % 251 + 1);
    return bytes;
}

static void test_lost_is_zero(void **state)
{
    uint8_t *bytes = make_bytes();

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++)
        run_case(i, bytes);
    free(bytes);
}

/* Without salvage it is an error that says where. */
static void test_error_names_the_place(void **state)
{
    uint8_t *bytes = make_bytes();
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    memset(bad, 0, sizeof bad);
    bad[5000] = true;
    bad_code = EIO;
    struct lam_image *source = open_disk(bytes, 0, true);
    struct lam_image *target = open_disk(bytes, LAM_OPEN_WRITE, false);
    assert_int_equal(lam_convert(&source, 1, target, NULL, NULL, &err), -EIO);
    assert_non_null(strstr(err.message, "guest offset 2097152"));
    assert_non_null(strstr(err.message, lam_image_name(source)));
    lam_image_close(target, NULL);
    lam_image_close(source, NULL);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lost_is_zero),
        cmocka_unit_test(test_error_names_the_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
