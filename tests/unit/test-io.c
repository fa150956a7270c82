/* SPDX-License-Identifier: MIT */
/*
 * test-io.c - what io.c and its neighbours do above a driver: the end of an
 * object, bounds, short transfers, and parts of units under O_DIRECT's rules.
 *
 * The driver is memory behind a doorkeeper that insists on alignment as a
 * device does, transfers less than it was asked to, and gives other threads a
 * chance in the middle.
 */
#include "unit.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "io/io.h"

enum { UNIT = 512 };

static const struct lam_io_ops *real;
static size_t short_by;         /* a transfer moves at most so many bytes */
static int flush_calls, flush_result;

static void assert_allowed(struct lam_io *io, const struct iovec *iov,
                           int iovcnt, uint64_t offset)
{
    assert_true(iovcnt > 0 && iovcnt <= 1024);
    assert_true(is_aligned(offset, io->limits.request_alignment));
    for (int i = 0; i < iovcnt; i++) {
        assert_true(iov[i].iov_len > 0);
        assert_true(is_aligned(iov[i].iov_len, io->limits.request_alignment));
        assert_true(is_aligned((uintptr_t)iov[i].iov_base,
                               io->limits.memory_alignment));
    }
}

static struct iovec shorten(const struct iovec *iov, int *iovcnt)
{
    struct iovec first = *iov;
    if (short_by) {
        first.iov_len = min_u64(first.iov_len, short_by);
        *iovcnt = 1;
    }
    return first;
}

static ssize_t strict_readv(struct lam_io *io, const struct iovec *iov,
                            int iovcnt, uint64_t offset)
{
    assert_allowed(io, iov, iovcnt, offset);
    struct iovec first = shorten(iov, &iovcnt);
    return real->readv(io, iovcnt == 1 ? &first : iov, iovcnt, offset);
}

static ssize_t strict_writev(struct lam_io *io, const struct iovec *iov,
                             int iovcnt, uint64_t offset)
{
    assert_allowed(io, iov, iovcnt, offset);
    struct iovec first = shorten(iov, &iovcnt);
    if (io->limits.request_alignment > 1)
        sched_yield();          /* between a read and a write back */
    return real->writev(io, iovcnt == 1 ? &first : iov, iovcnt, offset);
}

static int strict_flush(struct lam_io *io)
{
    (void)io;
    flush_calls++;
    int rc = flush_result;
    flush_result = 0;           /* as the kernel: reported once */
    return rc;
}

static struct lam_io_ops strict_ops;

static struct lam_io *strict(uint32_t unit, uint64_t size)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io;
    assert_works(lam_io_memory_new(NULL, size, &io, &err), &err);
    real = io->ops;
    strict_ops = *real;
    strict_ops.readv = strict_readv;
    strict_ops.writev = strict_writev;
    strict_ops.flush = strict_flush;
    io->ops = &strict_ops;
    io->limits.request_alignment = unit;
    io->limits.memory_alignment = unit;
    short_by = 0;
    flush_calls = flush_result = 0;
    return io;
}

static void pattern(uint8_t *buf, size_t length, unsigned seed)
{
    for (size_t i = 0; i < length; i++)
        buf[i] = (uint8_t)(seed + i * 7 + (i >> 8) * 13 + 1);
}

/* ------------------------------------------------------------- the end */

static void ends(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t size, unit, offset, length;
        int rc;
    } cases[] = {
        { "inside", 1000, 1, 0, 1000, 0 },
        { "one too many", 1000, 1, 0, 1001, -EIO },
        { "the rest of the last unit", 1000, 512, 0, 1024, 0 },
        { "the next unit", 1000, 512, 0, 1025, -EIO },
        { "behind, in the unit", 1000, 512, 1010, 10, 0 },
        { "behind, outside", 1000, 512, 1024, 1, -EIO },
        { "no unit is cut", 1024, 512, 1024, 1, -EIO },
        { "trusted", 1000, UINT64_MAX, 500, 100000, 0 },
        { "trusted, far behind", 1000, UINT64_MAX, 1 << 30, 100, 0 },
        { "empty object", 0, 512, 0, 1, -EIO },
        { "nothing, anywhere", 0, 512, 1 << 30, 0, 0 },
    };
    for (size_t i = 0; i < 2 * LAM_ARRAY_SIZE(cases); i++) {
        size_t k = i / 2;
        struct lam_error err = LAM_ERROR_INIT;
        struct lam_io *io = strict(i % 2 ? UNIT : 1, cases[k].size);
        static uint8_t buf[100001];
        uint8_t ones[1000];
        memset(ones, 0xff, sizeof ones);
        if (cases[k].size)
            assert_works(lam_io_write(io, ones, cases[k].size % 1001, 0, &err),
                         &err);
        memset(buf, 0xaa, sizeof buf);
        io->eof_unit = cases[k].unit;
        int rc = lam_io_read(io, buf, cases[k].length, cases[k].offset, &err);
        if (rc != cases[k].rc)
            fail_msg("%s: %d %s", cases[k].name, rc, err.message);
        for (uint64_t b = 0; rc == 0 && b < cases[k].length; b++) {
            uint64_t at = cases[k].offset + b;
            bool set = at < cases[k].size && at < cases[k].size % 1001;
            if (buf[b] != (set ? 0xff : 0))
                fail_msg("%s: byte %zu is %#x", cases[k].name, (size_t)at,
                         buf[b]);
        }
        assert_int_equal(buf[cases[k].length], 0xaa);
        lam_io_close(io);
    }
}

static void refuses(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io = strict(1, 4096);
    uint8_t byte = 1;
    io->limits.can_grow = false;
    assert_int_equal(lam_io_write(io, &byte, 1, 4096, &err), -ENOSPC);
    assert_non_null(strstr(err.message, "offset 4096, length 1"));
    assert_int_equal(lam_io_zero(io, 4000, 100, 0, &err), -ENOSPC);
    assert_works(lam_io_write(io, &byte, 1, 4095, &err), &err);
    io->limits.can_grow = true;
    assert_int_equal(lam_io_write(io, &byte, 1, UINT64_MAX, &err), -EFBIG);
    assert_int_equal(lam_io_write(io, &byte, 1, INT64_MAX, &err), -EFBIG);
    assert_int_equal(lam_io_read(io, &byte, 1, UINT64_MAX, &err), -EINVAL);
    assert_int_equal(lam_io_truncate(io, UINT64_MAX, &err), -EFBIG);
    io->writable = false;
    assert_int_equal(lam_io_write(io, &byte, 1, 0, &err), -EROFS);
    assert_int_equal(lam_io_truncate(io, 0, &err), -EROFS);
    assert_int_equal(lam_io_zero(io, 0, 1, 0, &err), -EROFS);
    assert_int_equal(lam_io_discard(io, 0, 1, &err), -EROFS);
    assert_works(lam_io_flush(io, &err), &err);
    lam_io_close(io);
}

/* ------------------------------------------------------------- transfers */

/* Many offsets and lengths against an array; @short_transfers too. */
static void any_alignment(void **state)
{
    (void)state;
    static const uint32_t units[] = { 1, UNIT, 4096 };
    static const size_t shorts[] = { 0, 4096, 3 * 4096 };
    enum { SIZE = 64 << 10 };
    static uint8_t model[SIZE], data[SIZE], back[SIZE];
    uint64_t x = 88172645463325252u;
    for (size_t run = 0; run < 9; run++) {
        struct lam_error err = LAM_ERROR_INIT;
        struct lam_io *io = strict(units[run / 3], SIZE);
        short_by = shorts[run % 3];
        memset(model, 0, SIZE);
        for (unsigned i = 0; i < 300; i++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            size_t offset = x % SIZE;
            size_t length = (x >> 20) % (i % 3 ? 700 : SIZE);
            length = min_u64(length, SIZE - offset);
            pattern(data, length, i);
            struct iovec parts[] = {
                { data, length / 3 }, { data + length / 3, 0 },
                { data + length / 3, length - length / 3 },
            };
            assert_works(lam_io_writev(io, parts, 3, offset, &err), &err);
            memcpy(model + offset, data, length);
            assert_works(lam_io_read(io, back, length, offset, &err), &err);
            if (length)
                assert_memory_equal(back, data, length);
        }
        assert_works(lam_io_read(io, back, SIZE, 0, &err), &err);
        assert_memory_equal(back, model, SIZE);
        lam_io_close(io);
    }
}

/* Larger than the buffer of ours, in more segments than one call takes. */
static void large_and_scattered(void **state)
{
    (void)state;
    enum { SIZE = (3 << 20) + 777, PARTS = 700 };
    struct lam_error err = LAM_ERROR_INIT;
    lam_io_close(strict(1, 0));
    uint8_t *data = malloc(SIZE), *back = malloc(SIZE);
    assert_true(data && back);
    pattern(data, SIZE, 5);
    for (uint32_t unit = 1; unit <= UNIT; unit *= UNIT) {
        struct lam_io *io = strict(unit, 0);
        struct iovec iov[PARTS];
        for (size_t i = 0; i < PARTS; i++)
            iov[i] = (struct iovec){ data + SIZE / PARTS * i, SIZE / PARTS };
        iov[PARTS - 1].iov_len = SIZE - SIZE / PARTS * (PARTS - 1);
        assert_works(lam_io_writev(io, iov, PARTS, 99, &err), &err);
        uint64_t size;
        assert_works(lam_io_size(io, &size, &err), &err);
        assert_int_equal(size, SIZE + 99);
        assert_works(lam_io_read(io, back, SIZE, 99, &err), &err);
        assert_memory_equal(back, data, SIZE);
        lam_io_close(io);
    }
    free(data);
    free(back);
}

static void keeps_the_size(void **state)
{
    (void)state;
    /* Whole units are written, but the length is the caller's. */
    static const struct { uint64_t before, offset, length, after; } cases[] = {
        { 0, 0, 100, 100 },       { 100, 50, 10, 100 },
        { 100, 90, 20, 110 },     { 1000, 100, 10, 1000 },
        { 1000, 512, 512, 1024 }, { 100, 5000, 1, 5001 },
        { 1024, 1000, 24, 1024 }, { 0, 512, 1024, 1536 },
    };
    uint8_t data[1024] = { 1 };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct lam_error err = LAM_ERROR_INIT;
        struct lam_io *io = strict(UNIT, cases[i].before);
        assert_works(lam_io_write(io, data, cases[i].length, cases[i].offset,
                                  &err), &err);
        assert_int_equal(atomic_load(&io->size), cases[i].after);
        uint64_t size;
        assert_works(lam_io_size(io, &size, &err), &err);
        assert_int_equal(size, cases[i].after);
        lam_io_close(io);
    }
}

/* ------------------------------------------------- neighbours in one unit */

enum { WRITERS = 6, SLOT = 48, ROUNDS = 400 };

struct writer {
    struct lam_io *io;
    unsigned index;
    int rc;
};

static void *write_slot(void *opaque)
{
    struct writer *w = opaque;
    static const uint8_t whole[UNIT] __attribute__((aligned(UNIT))) = { 9 };
    for (unsigned i = 1; i <= ROUNDS && !w->rc; i++) {
        uint8_t slot[SLOT];
        memset(slot, (int)(w->index * 40 + i % 40), sizeof slot);
        w->rc = lam_io_write(w->io, slot, SLOT, w->index * SLOT, NULL);
        /* and one that needs no reading, into a unit that others cut */
        if (!w->rc && w->index == 0)
            w->rc = lam_io_write(w->io, whole, UNIT, UNIT, NULL);
        if (!w->rc && w->index == 1)
            w->rc = lam_io_write(w->io, slot, 8, 2 * UNIT - 4, NULL);
    }
    return NULL;
}

static void loses_no_neighbour(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io = strict(UNIT, 100);
    pthread_t threads[WRITERS];
    struct writer writers[WRITERS];
    for (unsigned i = 0; i < WRITERS; i++) {
        writers[i] = (struct writer){ .io = io, .index = i };
        assert_int_equal(0, pthread_create(&threads[i], NULL, write_slot,
                                           &writers[i]));
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(writers[i].rc, 0);
    }
    uint8_t back[3 * UNIT];
    uint64_t size = 2 * UNIT + 4;
    assert_int_equal(atomic_load(&io->size), size);
    assert_works(lam_io_read(io, back, size, 0, &err), &err);
    for (unsigned i = 0; i < WRITERS * SLOT; i++)
        assert_int_equal(back[i], i / SLOT * 40 + ROUNDS % 40);
    assert_int_equal(back[UNIT], 9);
    lam_io_close(io);
}

/* ---------------------------------------------------- zeroes and syncing */

static void zeroes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool punch, zero_range;
        unsigned flags;
        int rc;
    } cases[] = {
        { "punch", true, true, LAM_ZERO_UNMAP, 0 },
        { "zero range", true, true, 0, 0 },
        { "zero range for want of punch", false, true, LAM_ZERO_UNMAP, 0 },
        { "written", false, false, 0, 0 },
        { "not written", false, false, LAM_ZERO_NO_FALLBACK, -ENOTSUP },
        { "punched, no fallback needed", true, false,
          LAM_ZERO_UNMAP | LAM_ZERO_NO_FALLBACK, 0 },
        { "kept allocated, not written", true, false, LAM_ZERO_NO_FALLBACK,
          -ENOTSUP },
    };
    enum { SIZE = 5000 };
    for (size_t i = 0; i < 2 * LAM_ARRAY_SIZE(cases); i++) {
        size_t k = i / 2;
        struct lam_error err = LAM_ERROR_INIT;
        struct lam_io *io = strict(i % 2 ? UNIT : 1, SIZE);
        uint8_t data[SIZE], back[SIZE + 3000];
        memset(data, 0xee, SIZE);
        assert_works(lam_io_write(io, data, SIZE, 0, &err), &err);
        io->limits.can_punch = cases[k].punch;
        io->limits.can_zero_range = cases[k].zero_range;
        int rc = lam_io_zero(io, 777, 6000, cases[k].flags, &err);
        if (rc != cases[k].rc)
            fail_msg("%s: %d %s", cases[k].name, rc, err.message);
        uint64_t size;
        assert_works(lam_io_size(io, &size, &err), &err);
        assert_int_equal(size, rc ? SIZE : 6777);
        assert_int_equal(size, atomic_load(&io->size));
        assert_works(lam_io_read(io, back, size, 0, &err), &err);
        for (uint64_t b = 0; b < size; b++)
            if (back[b] != (rc || b < 777 ? 0xee : 0))
                fail_msg("%s: byte %zu", cases[k].name, (size_t)b);
        lam_io_close(io);
    }
}

static int unsupported_calls;

static int unsupported(struct lam_io *io, uint64_t offset, uint64_t length)
{
    (void)io, (void)offset, (void)length;
    unsupported_calls++;
    return -EOPNOTSUPP;
}

static void learns_what_fails(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io = strict(1, 4096);
    strict_ops.punch = strict_ops.zero_range = unsupported;
    strict_ops.discard = unsupported;
    unsupported_calls = 0;
    for (int i = 0; i < 3; i++) {
        assert_works(lam_io_zero(io, 0, 4096, LAM_ZERO_UNMAP, &err), &err);
        assert_works(lam_io_discard(io, 0, 4096, &err), &err);
    }
    assert_int_equal(unsupported_calls, 3);
    assert_true(io->no_punch && io->no_zero_range && io->no_discard);
    lam_io_close(io);
}

/* A device takes whole sectors: the rest is written. */
static void sectors_of_a_device(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io = strict(1, 8192);
    uint8_t data[8192], back[8192];
    memset(data, 1, sizeof data);
    io->limits.is_block_device = true;
    io->limits.can_grow = false;
    io->limits.logical_sector = 512;
    assert_works(lam_io_write(io, data, 8192, 0, &err), &err);
    assert_works(lam_io_zero(io, 100, 1000, LAM_ZERO_UNMAP, &err), &err);
    assert_works(lam_io_zero(io, 2000, 10, LAM_ZERO_UNMAP, &err), &err);
    memset(data + 100, 0, 1000);
    memset(data + 2000, 0, 10);
    /* Only what is whole is given back; no zero_max: no slow zeroing. */
    assert_works(lam_io_discard(io, 4000, 1200, &err), &err);
    memset(data + 4096, 0, 1024);
    assert_int_equal(lam_io_zero(io, 0, 512, LAM_ZERO_NO_FALLBACK, &err),
                     -ENOTSUP);
    assert_works(lam_io_read(io, back, 8192, 0, &err), &err);
    assert_memory_equal(back, data, 8192);
    lam_io_close(io);
}

static void discards_only_if_asked(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io = strict(1, 0);
    uint8_t data[100], back[100];
    memset(data, 7, sizeof data);
    assert_works(lam_io_write(io, data, 100, 0, &err), &err);
    io->unmap = false;
    assert_works(lam_io_discard(io, 0, 100, &err), &err);
    assert_works(lam_io_read(io, back, 100, 0, &err), &err);
    assert_memory_equal(back, data, 100);
    io->unmap = true;
    assert_works(lam_io_discard(io, 50, 1000, &err), &err);
    assert_works(lam_io_read(io, back, 100, 0, &err), &err);
    assert_int_equal(back[49], 7);
    assert_int_equal(back[50], 0);
    assert_works(lam_io_discard(io, 5000, 10, &err), &err);
    assert_int_equal(atomic_load(&io->size), 100);
    lam_io_close(io);
}

static void syncs_as_the_mode_says(void **state)
{
    (void)state;
    static const struct {
        enum lam_cache_mode mode;
        int writes, flush;
    } cases[] = {
        { LAM_CACHE_WRITEBACK, 0, 1 },    { LAM_CACHE_NONE, 0, 1 },
        { LAM_CACHE_WRITETHROUGH, 3, 4 }, { LAM_CACHE_DIRECTSYNC, 3, 4 },
        { LAM_CACHE_UNSAFE, 0, 0 },
    };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct lam_error err = LAM_ERROR_INIT;
        struct lam_io *io = strict(1, 0);
        io->cache = cases[i].mode;
        assert_works(lam_io_write(io, "x", 1, 0, &err), &err);
        assert_works(lam_io_zero(io, 0, 3 << 20, 0, &err), &err);
        assert_works(lam_io_truncate(io, 10, &err), &err);
        assert_int_equal(flush_calls, cases[i].writes);
        assert_works(lam_io_flush(io, &err), &err);
        assert_int_equal(flush_calls, cases[i].flush);
        lam_io_close(io);
    }
}

static void a_failed_flush_sticks(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io = strict(1, 0);
    assert_works(lam_io_flush(io, &err), &err);
    flush_result = -EINTR;
    assert_works(lam_io_flush(io, &err), &err);
    flush_result = -EIO;
    assert_int_equal(lam_io_flush(io, &err), -EIO);
    assert_int_equal(lam_io_flush(io, &err), -EIO);
    assert_string_equal(err.message,
                        "Could not flush 'memory': Input/output error");
    lam_io_close(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends),
        cmocka_unit_test(refuses),
        cmocka_unit_test(any_alignment),
        cmocka_unit_test(large_and_scattered),
        cmocka_unit_test(keeps_the_size),
        cmocka_unit_test(loses_no_neighbour),
        cmocka_unit_test(zeroes),
        cmocka_unit_test(learns_what_fails),
        cmocka_unit_test(sectors_of_a_device),
        cmocka_unit_test(discards_only_if_asked),
        cmocka_unit_test(syncs_as_the_mode_says),
        cmocka_unit_test(a_failed_flush_sticks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
