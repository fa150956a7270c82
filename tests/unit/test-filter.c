/* SPDX-License-Identifier: MIT */
/*
 * test-filter.c - host objects that stand on others, or on nothing: windows,
 * throttles, space taken ahead, the null object.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arith.h"
#include "base/cleanup.h"
#include "io/filter.h"
#include "io/null.h"
#include "io/reserve.h"
#include "io/throttle.h"
#include "io/window.h"

static struct lam_io *memory(uint64_t length)
{
    struct lam_io *io = NULL;
    lam_autofree uint8_t *bytes = malloc(length);

    for (uint64_t i = 0; i < length; i++)
        bytes[i] = (uint8_t)i;
    assert_int_equal(lam_io_memory_new(bytes, length, &io, NULL), 0);
    io->writable = true;
    return io;
}

/* What is seen behind an offset, and how far it goes. */
static void test_through(void **state)
{
    static const struct {
        uint64_t offset, length, seen;
        bool fails, window;
    } cases[] = {
        { 0, 64, 64, false, false },
        { 10, 64, 54, false, true },
        { 64, 64, 0, false, true },
        { 65, 64, 0, true, true },
    };
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct lam_io *io = NULL;
        uint8_t first;
        int rc = lam_io_through_new(memory(cases[i].length), cases[i].offset,
                                    &io, NULL);
        assert_int_equal(rc < 0, cases[i].fails);
        if (rc < 0)
            continue;
        assert_int_equal(atomic_load(&io->size), cases[i].seen);
        assert_int_equal(lam_io_is_window(io), cases[i].window);
        if (cases[i].seen) {
            assert_int_equal(lam_io_read(io, &first, 1, 0, NULL), 0);
            assert_int_equal(first, cases[i].offset);
        }
        /* Behind the end there is nothing to read, and room to write. */
        assert_true(lam_io_read(io, &first, 1, cases[i].seen, NULL) < 0);
        assert_int_equal(lam_io_write(io, "x", 1, cases[i].seen, NULL), 0);
        assert_int_equal(lam_io_read(io, &first, 1, cases[i].seen, NULL), 0);
        assert_int_equal(first, 'x');
        assert_int_equal(atomic_load(&io->size), cases[i].seen + 1);
        lam_io_close(io);
    }
}

/* The host must not copy past one: its offsets are others. */
static void test_no_short_cut(void **state)
{
    char a[] = "/tmp/lamella-filter-XXXXXX", b[] = "/tmp/lamella-filter-XXXXXX";
    struct lam_io_open_options o = LAM_IO_OPEN_INIT;
    struct lam_io *from = NULL, *to = NULL, *window = NULL;

    (void)state;
    close(mkstemp(a));
    close(mkstemp(b));
    o.writable = true;
    assert_int_equal(lam_io_open(a, &o, &from, NULL), 0);
    assert_int_equal(lam_io_open(b, &o, &to, NULL), 0);
    unlink(a);
    unlink(b);
    assert_int_equal(lam_io_write(from, "0123456789", 10, 0, NULL), 0);
    assert_true(lam_io_can_copy_range(to, from));
    assert_int_equal(lam_io_window_new(from, 2, 4, &window, NULL), 0);
    assert_false(lam_io_can_copy_range(to, window));
    lam_io_close(window);
    lam_io_close(to);
}

static void test_null(void **state)
{
    const struct io_null_options o = { .size = 4096, .writable = true };
    struct lam_io *io = NULL;
    enum lam_io_state is;
    uint8_t bytes[16];
    uint64_t run;

    (void)state;
    assert_int_equal(io_null_new("null-co", &o, &io, NULL), 0);
    assert_int_equal(lam_io_write(io, "x", 1, 0, NULL), 0);
    memset(bytes, 0xff, sizeof bytes);
    assert_int_equal(lam_io_read(io, bytes, sizeof bytes, 0, NULL), 0);
    assert_int_equal(bytes[0] | bytes[15], 0);
    assert_int_equal(lam_io_extent(io, 0, 4096, &is, &run, NULL), 0);
    assert_int_equal(is, LAM_IO_HOLE);
    assert_int_equal(run, 4096);
    assert_true(lam_io_write(io, "x", 1, 4096, NULL) < 0);
    assert_true(lam_io_read(io, bytes, 1, 4096, NULL) < 0);
    assert_true(lam_io_truncate(io, 1, NULL) < 0);
    lam_io_close(io);
}

/* ------------------------------------------------------------- preallocate */

static uint64_t length_of(int fd)
{
    return (uint64_t)lseek(fd, 0, SEEK_END);
}

static void test_reserve(void **state)
{
    char path[] = "/tmp/lamella-filter-XXXXXX";
    struct lam_io_open_options o = LAM_IO_OPEN_INIT;
    struct lam_io *file = NULL, *io = NULL;
    int fd = mkstemp(path);
    uint8_t byte;

    (void)state;
    o.writable = true;
    assert_int_equal(lam_io_open(path, &o, &file, NULL), 0);
    unlink(path);
    assert_int_equal(lam_io_reserve_new(file, 4096, 10000, &io, NULL), 0);
    assert_int_equal(lam_io_write(io, "x", 1, 0, NULL), 0);
    /* 10,001 bytes up to a multiple of 4,096; nobody sees more than one. */
    assert_int_equal(length_of(fd), 12288);
    assert_int_equal(atomic_load(&io->size), 1);
    assert_true(lam_io_read(io, &byte, 1, 1, NULL) < 0);
    assert_int_equal(lam_io_write(io, "y", 1, 5000, NULL), 0);
    assert_int_equal(length_of(fd), 12288);
    assert_int_equal(lam_io_write(io, "z", 1, 12288, NULL), 0);
    assert_int_equal(length_of(fd), 24576);
    assert_int_equal(lam_io_truncate(io, 6000, NULL), 0);
    assert_int_equal(length_of(fd), 6000);
    assert_int_equal(lam_io_write(io, "z", 1, 6000, NULL), 0);
    lam_io_close(io);
    assert_int_equal(length_of(fd), 6001);
    close(fd);
}

/* ---------------------------------------------------------------- throttle */

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* How long @requests of @bytes each take in a group of these limits. */
static double time_requests(enum lam_throttle_kind kind, uint64_t average,
                            uint64_t burst, unsigned requests, uint64_t bytes)
{
    struct lam_throttle_options o = LAM_THROTTLE_OPTIONS_INIT;
    struct lam_throttles *list = NULL;
    struct lam_io *io = NULL;
    lam_autofree uint8_t *buffer = malloc(bytes);

    o.id = "g";
    o.limits[kind].average = average;
    o.limits[kind].burst = burst;
    assert_int_equal(lam_throttles_new(&list, NULL), 0);
    assert_int_equal(lam_throttles_add(list, &o, NULL), 0);
    assert_null(throttle_find(list, "h"));
    struct throttle_group *group = throttle_find(list, "g");
    assert_int_equal(lam_io_throttle_new(memory(bytes), group, &io, NULL), 0);
    throttle_group_put(group);
    lam_throttles_free(list);       /* the object has its own reference */
    double start = seconds();
    for (unsigned i = 0; i < requests; i++)
        assert_int_equal(lam_io_read(io, buffer, bytes, 0, NULL), 0);
    double took = seconds() - start;
    lam_io_close(io);
    return took;
}

static void test_throttle(void **state)
{
    (void)state;
    /* The bucket lets a tenth of a second's worth through at once. */
    assert_true(time_requests(LAM_THROTTLE_IOPS_TOTAL, 100, 0, 40, 512) > 0.25);
    assert_true(time_requests(LAM_THROTTLE_BPS_READ, 1 << 20, 0, 8, 65536)
                > 0.25);
    /* Writes are limited, and these are reads; a burst that is not used up. */
    assert_true(time_requests(LAM_THROTTLE_BPS_WRITE, 1, 0, 8, 65536) < 0.25);
    assert_true(time_requests(LAM_THROTTLE_IOPS_TOTAL, 10, 1000, 40, 512)
                < 0.25);
}

static void test_throttle_limits(void **state)
{
    static const struct {
        uint64_t total, read, burst, seconds;
        bool fails;
    } cases[] = {
        { 10, 0, 0, 1, false },
        { 10, 0, 20, 1, false },
        { 10, 0, 20, 5, false },
        { 10, 10, 0, 1, true },
        { 10, 0, 5, 1, true },
        { 0, 0, 5, 1, true },
        { 10, 0, 0, 5, true },
        { 10, 0, 20, 0, true },
        { LAM_THROTTLE_MAX + 1, 0, 0, 1, true },
    };
    struct lam_throttles *list = NULL;

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct lam_throttle_options o = LAM_THROTTLE_OPTIONS_INIT;
        o.id = "g";
        o.limits[LAM_THROTTLE_IOPS_TOTAL] = (struct lam_throttle_limit){
            cases[i].total, cases[i].burst, cases[i].seconds
        };
        o.limits[LAM_THROTTLE_IOPS_READ].average = cases[i].read;
        assert_int_equal(lam_throttles_new(&list, NULL), 0);
        int rc = lam_throttles_add(list, &o, NULL);
        assert_int_equal(rc < 0, cases[i].fails);
        if (rc == 0)
            assert_int_equal(lam_throttles_add(list, &o, NULL), -EEXIST);
        lam_throttles_free(list);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_through),
        cmocka_unit_test(test_no_short_cut),
        cmocka_unit_test(test_null),
        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_throttle),
        cmocka_unit_test(test_throttle_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
