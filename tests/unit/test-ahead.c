/* SPDX-License-Identifier: MIT */
/*
 * test-ahead.c - files that take their space ahead of the writes: when they do,
 * what anybody sees of it, and that it is given back.
 */
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "io/ahead.h"

enum { KIB = 1024, UNIT = 4 * KIB, STEP = 64 * KIB };

static const char path[] = "test-ahead.img";

static uint8_t page[UNIT];

/* What the host says, not what we show. */
static uint64_t host_size(void)
{
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

static struct lam_io *open_file(void)
{
    struct lam_io_open_options o = LAM_IO_OPEN_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io;

    o.writable = o.create = o.truncate = true;
    o.cache = LAM_CACHE_WRITEBACK;
    assert_works(lam_io_open(path, &o, &io, &err), &err);
    return io;
}

static void write_at(struct lam_io *io, uint64_t offset, uint64_t length)
{
    struct lam_error err = LAM_ERROR_INIT;

    memset(page, 7, sizeof page);
    for (uint64_t end = offset + length; offset < end; offset += UNIT)
        assert_works(lam_io_write(io, page, UNIT, offset, &err), &err);
}

static uint64_t shown_size(struct lam_io *io)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t size;

    assert_works(lam_io_size(io, &size, &err), &err);
    return size;
}

/* Nobody sees the space but the host, and the host gets it back. */
static void test_taken_and_given_back(void **state)
{
    (void)state;
    struct lam_io *io = open_file();

    lam_io_grow_ahead(io, STEP);
    write_at(io, 0, 256 * KIB);
    assert_true(host_size() > 256 * KIB);
    assert_int_equal(shown_size(io), 256 * KIB);
    assert_int_equal(lam_io_read(io, page, UNIT, 256 * KIB, NULL), -EIO);
    /* A write there finds zeroes around it. */
    write_at(io, 272 * KIB, UNIT);
    assert_int_equal(lam_io_read(io, page, UNIT, 260 * KIB, NULL), 0);
    for (size_t i = 0; i < sizeof page; i++)
        assert_int_equal(page[i], 0);
    lam_io_close(io);
    assert_int_equal(host_size(), 276 * KIB);
}

static void test_sparse_writers_keep_their_holes(void **state)
{
    (void)state;
    struct lam_io *io = open_file();

    lam_io_grow_ahead(io, STEP);
    for (uint64_t at = 0; at < 4096 * KIB; at += 64 * KIB)
        write_at(io, at, UNIT);
    assert_int_equal(host_size(), 4096 * KIB - 60 * KIB);
    lam_io_close(io);
}

/* From when gaps are announced on, nothing more is taken; what was is given
 * back as ever. */
static void test_writers_of_gaps_take_nothing(void **state)
{
    (void)state;
    struct lam_io *io = open_file();

    lam_io_grow_ahead(io, STEP);
    write_at(io, 0, 256 * KIB);
    uint64_t taken = host_size();
    assert_true(taken > 256 * KIB);
    lam_io_grow_with_gaps(io);
    write_at(io, 256 * KIB, taken);
    assert_int_equal(host_size(), 256 * KIB + taken);
    assert_int_equal(shown_size(io), 256 * KIB + taken);
    lam_io_close(io);
    assert_int_equal(host_size(), 256 * KIB + taken);

    io = open_file();
    lam_io_grow_ahead(io, STEP);
    write_at(io, 0, 256 * KIB);
    lam_io_grow_with_gaps(io);
    lam_io_close(io);
    assert_int_equal(host_size(), 256 * KIB);
}

static void test_steps_end_at_truncate_and_stop(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io = open_file();

    lam_io_grow_ahead(io, STEP);
    write_at(io, 0, 512 * KIB);
    assert_true(host_size() > 512 * KIB);
    assert_works(lam_io_truncate(io, 100 * KIB, &err), &err);
    assert_int_equal(host_size(), 100 * KIB);
    assert_int_equal(shown_size(io), 100 * KIB);

    write_at(io, 100 * KIB, 1024 * KIB);
    assert_true(host_size() > 1124 * KIB);
    assert_works(lam_io_set_writable(io, false, LAM_IO_LOCKED, &err), &err);
    assert_int_equal(host_size(), 1124 * KIB);
    lam_io_close(io);
    assert_int_equal(host_size(), 1124 * KIB);
}

/* Longer than we left it: somebody else's, and not ours to cut. */
static void test_nothing_taken_nothing_cut(void **state)
{
    (void)state;
    struct lam_io *io = open_file();

    write_at(io, 0, 256 * KIB);
    assert_int_equal(truncate(path, 300 * KIB), 0);
    assert_int_equal(shown_size(io), 300 * KIB);
    lam_io_close(io);
    assert_int_equal(host_size(), 300 * KIB);
}

static int calls;

static int no_space(struct lam_io *io, uint64_t offset, uint64_t length)
{
    (void)io;
    (void)offset;
    (void)length;
    calls++;
    return -ENOSPC;
}

/* A host that cannot is asked once, and the writes go on. */
static void test_refused(void **state)
{
    (void)state;
    struct lam_io *io = open_file();
    struct lam_io_ops ops = *io->ops;

    ops.allocate = no_space;
    io->ops = &ops;
    calls = 0;
    lam_io_grow_ahead(io, STEP);
    write_at(io, 0, 1024 * KIB);
    assert_int_equal(calls, 1);
    assert_int_equal(shown_size(io), 1024 * KIB);
    lam_io_close(io);
    assert_int_equal(host_size(), 1024 * KIB);
}

static int writing_out;

/* Takes so long that others write meanwhile, and have filled more. */
static void slow_write_out(struct lam_io *io, uint64_t offset, uint64_t length)
{
    (void)offset;
    (void)length;
    assert_int_equal(writing_out++, 0);
    calls++;
    write_at(io, shown_size(io), 8192 * KIB);
    writing_out--;
}

/* It is the business of one at a time: all others would wait for the device
 * as well, and nobody would write. */
static void test_one_writes_out(void **state)
{
    (void)state;
    struct lam_io *io = open_file();
    struct lam_io_ops ops = *io->ops;

    ops.write_out = slow_write_out;
    io->ops = &ops;
    calls = writing_out = 0;
    lam_io_grow_ahead(io, STEP);
    write_at(io, 0, 8192 * KIB);
    assert_true(calls > 0);
    assert_int_equal(writing_out, 0);
    lam_io_close(io);
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_taken_and_given_back, teardown),
        cmocka_unit_test_teardown(test_sparse_writers_keep_their_holes,
                                  teardown),
        cmocka_unit_test_teardown(test_writers_of_gaps_take_nothing, teardown),
        cmocka_unit_test_teardown(test_steps_end_at_truncate_and_stop,
                                  teardown),
        cmocka_unit_test_teardown(test_nothing_taken_nothing_cut, teardown),
        cmocka_unit_test_teardown(test_refused, teardown),
        cmocka_unit_test_teardown(test_one_writes_out, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
