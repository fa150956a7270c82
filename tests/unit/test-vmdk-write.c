/* SPDX-License-Identifier: MIT */
/*
 * test-vmdk-write.c - VMDKs that many threads write to, and on a disk that is
 * full now and then.
 */
#include "unit.h"

#include <pthread.h>
#include <string.h>

#include "format/format.h"
#include "image/image.h"
#include "io/record.h"

enum { SECTOR = 512, SECTORS = 4096, THREADS = 4, GRAIN = 128 };

/* A new disk of SECTORS sectors in memory. */
static struct lam_io *make(const char *option, const char *value)
{
    const struct lam_named_option named = { option, value };
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io;

    assert_works(lam_io_memory_new(NULL, 0, &io, &err), &err);
    const struct format_new set = { .path = "x.vmdk", .io = io };
    o.size = SECTORS * SECTOR;
    o.named = &named;
    o.nb_named = 1;
    assert_works(format_find("vmdk")->create_set(&set, &o, &err), &err);
    return io;
}

static struct lam_image *open_on(struct lam_io *io)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;

    o.flags = LAM_OPEN_WRITE;
    io->writable = true;
    assert_works(image_open_io(io, "vmdk", &o, NULL, &image, &err), &err);
    return image;
}

static void assert_sound(struct lam_image *image)
{
    struct lam_check_result result;
    struct lam_error err = LAM_ERROR_INIT;

    assert_works(lam_image_check(image, NULL, NULL, &result, &err), &err);
    assert_int_equal(result.corruptions + result.leaks + result.check_errors,
                     0);
}

/* ------------------------------------------------------------------ threads */

struct writer {
    struct lam_image *image;
    unsigned number;
    int rc;
};

/* Each has sectors in every grain: who comes first allocates it. */
static void *write_own(void *argument)
{
    struct writer *w = argument;
    uint8_t sector[SECTOR];

    memset(sector, (int)w->number + 1, sizeof sector);
    for (unsigned i = 0; i < SECTORS / THREADS && w->rc == 0; i++) {
        uint64_t at = (i * 37 % (SECTORS / THREADS)) * THREADS + w->number;
        w->rc = at % 16 == 15
            ? lam_image_zero(w->image, at * SECTOR, SECTOR, 0, NULL)
            : lam_image_write(w->image, sector, SECTOR, at * SECTOR, 0, NULL);
        if (w->rc == 0 && i % 100 == w->number)
            w->rc = lam_image_flush(w->image, NULL);
    }
    return NULL;
}

static void verify(struct lam_image *image)
{
    uint8_t sector[SECTOR], expected[SECTOR];
    struct lam_error err = LAM_ERROR_INIT;

    for (unsigned at = 0; at < SECTORS; at++) {
        memset(expected, at % 16 == 15 ? 0 : at % THREADS + 1,
               sizeof expected);
        assert_works(lam_image_read(image, sector, SECTOR,
                                    (uint64_t)at * SECTOR, &err), &err);
        assert_memory_equal(sector, expected, SECTOR);
    }
}

static void test_threads(void **state)
{
    (void)state;
    for (int zeroed = 0; zeroed < 2; zeroed++) {
        struct lam_image *image = open_on(make("zeroed_grain",
                                               zeroed ? "on" : "off"));
        struct writer writers[THREADS];
        pthread_t threads[THREADS];

        for (unsigned i = 0; i < THREADS; i++) {
            writers[i] = (struct writer){ image, i, 0 };
            pthread_create(&threads[i], NULL, write_own, &writers[i]);
        }
        for (unsigned i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
            assert_int_equal(writers[i].rc, 0);
        }
        verify(image);
        assert_int_equal(lam_image_flush(image, NULL), 0);
        assert_sound(image);
        assert_int_equal(lam_image_close(image, NULL), 0);
    }
}

/* ---------------------------------------------------------------- full disk */

/* One write that fails at @nth operation and changes nothing; then it goes. */
static bool fail_at(size_t nth)
{
    static uint8_t data[3 * GRAIN * SECTOR];
    static uint8_t found[sizeof data];
    struct lam_io *memory = make("zeroed_grain", "on"), *record;

    assert_int_equal(lam_io_record_new(memory, &record, NULL), 0);
    struct lam_image *image = open_on(record);
    memset(data, 7, sizeof data);
    assert_int_equal(lam_image_write(image, data, SECTOR, 0, 0, NULL), 0);
    lam_io_record_fail(record, nth, ENOSPC, false);
    int rc = lam_image_write(image, data, sizeof data, 1000, 0, NULL);
    if (rc == 0)
        rc = lam_image_flush(image, NULL);
    assert_true(rc == 0 || rc == -ENOSPC);
    lam_io_record_fail(record, SIZE_MAX, 0, false);
    /* A barrier that failed once is not trusted again. */
    if (lam_image_flush(image, NULL) < 0) {
        assert_int_equal(rc, -ENOSPC);
        assert_true(lam_image_close(image, NULL) < 0);
        lam_io_close(memory);
        return true;
    }
    assert_sound(image);
    assert_int_equal(lam_image_write(image, data, sizeof data, 1000, 0, NULL),
                     0);
    assert_int_equal(lam_image_read(image, found, sizeof found, 1000, NULL),
                     0);
    assert_memory_equal(found, data, sizeof data);
    assert_int_equal(lam_image_flush(image, NULL), 0);
    assert_sound(image);
    assert_int_equal(lam_image_close(image, NULL), 0);
    lam_io_close(memory);
    return rc < 0;
}

static void test_full_disk(void **state)
{
    size_t failed = 0;

    (void)state;
    for (size_t nth = 0; nth < 20; nth++)
        failed += fail_at(nth);
    assert_in_range(failed, 4, 19);
}

/* --------------------------------------------------------- stream-optimized */

static void test_stream(void **state)
{
    struct lam_image *image = open_on(make("subformat", "streamOptimized"));
    uint8_t data[GRAIN * SECTOR], found[GRAIN * SECTOR];
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(i * i >> 7);
    assert_works(lam_image_write(image, data, sizeof data, sizeof data, 0,
                                 &err), &err);
    assert_int_equal(lam_image_write(image, data, 1, sizeof data, 0, &err),
                     -EIO);
    assert_works(lam_image_write(image, data, 100, 3 * sizeof data + 5, 0,
                                 &err), &err);
    assert_works(lam_image_read(image, found, sizeof data, sizeof data, &err),
                 &err);
    assert_memory_equal(found, data, sizeof data);
    assert_works(lam_image_read(image, found, 100, 3 * sizeof data + 5, &err),
                 &err);
    assert_memory_equal(found, data, 100);
    assert_int_equal(lam_image_flush(image, NULL), 0);
    assert_sound(image);
    assert_int_equal(lam_image_close(image, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
