/* SPDX-License-Identifier: MIT */
/*
 * test-record.c - what was recorded, what a power cut can leave, what fails.
 */
#include "unit.h"

#include <string.h>

#include "io/record.h"

enum { BASE = 4096 };

struct fixture {
    struct lam_io *inner, *io;
    uint8_t base[BASE];
};

static void set_up(struct fixture *f)
{
    struct lam_error err = LAM_ERROR_INIT;
    memset(f->base, 0xbb, BASE);
    assert_works(lam_io_memory_new(f->base, BASE, &f->inner, &err), &err);
    assert_works(lam_io_record_new(f->inner, &f->io, &err), &err);
}

static void tear_down(struct fixture *f)
{
    lam_io_close(f->io);
    lam_io_close(f->inner);
}

static void notes_everything(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct fixture f;
    set_up(&f);
    assert_works(lam_io_write(f.io, "abc", 3, 10, &err), &err);
    assert_works(lam_io_flush(f.io, &err), &err);
    assert_works(lam_io_zero(f.io, 100, 50, LAM_ZERO_UNMAP, &err), &err);
    assert_works(lam_io_zero(f.io, 200, 60, 0, &err), &err);
    assert_works(lam_io_discard(f.io, 300, 70, &err), &err);
    assert_works(lam_io_allocate(f.io, 0, 10, &err), &err);
    assert_works(lam_io_allocate(f.io, 0, 5000, &err), &err);
    assert_works(lam_io_truncate(f.io, 4500, &err), &err);
    static const struct {
        enum record_kind kind;
        uint64_t offset, length;
    } want[] = {
        { RECORD_WRITE, 10, 3 },   { RECORD_FLUSH, 0, 0 },
        { RECORD_PUNCH, 100, 50 }, { RECORD_ZERO, 200, 60 },
        { RECORD_DISCARD, 300, 70 }, { RECORD_TRUNCATE, 5000, 0 },
        { RECORD_TRUNCATE, 4500, 0 },
    };
    size_t count;
    const struct record_event *events = lam_io_record_events(f.io, &count);
    assert_int_equal(count, LAM_ARRAY_SIZE(want));
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(events[i].kind, want[i].kind);
        assert_int_equal(events[i].offset, want[i].offset);
        assert_int_equal(events[i].length, want[i].length);
    }
    assert_memory_equal(events[0].data, "abc", 3);
    tear_down(&f);
}

static void assert_same(struct lam_io *a, struct lam_io *b)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t x[3 * BASE], y[3 * BASE];
    uint64_t size, other;
    assert_works(lam_io_size(a, &size, &err), &err);
    assert_works(lam_io_size(b, &other, &err), &err);
    assert_int_equal(size, other);
    assert_true(size <= sizeof x);
    assert_works(lam_io_read(a, x, size, 0, &err), &err);
    assert_works(lam_io_read(b, y, size, 0, &err), &err);
    assert_memory_equal(x, y, size);
}

static void workload(struct lam_io *io)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t data[2000];
    for (unsigned i = 0; i < 12; i++) {
        memset(data, (int)(i + 1), sizeof data);
        assert_works(lam_io_write(io, data, sizeof data, i * 701, &err), &err);
        if (i % 3 == 1)
            assert_works(lam_io_zero(io, i * 650, 500,
                                     i % 2 ? LAM_ZERO_UNMAP : 0, &err), &err);
        if (i == 5)
            assert_works(lam_io_flush(io, &err), &err);
        if (i == 8)
            assert_works(lam_io_truncate(io, 5000, &err), &err);
    }
}

static void replays_all(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct fixture f;
    struct lam_io *disk;
    size_t count;
    set_up(&f);
    workload(f.io);
    lam_io_record_events(f.io, &count);
    /* Everything written equals what the workload saw, flushed or not. */
    assert_works(lam_io_record_replay(f.io, count, 0, f.base, BASE, &disk,
                                      &err), &err);
    assert_same(disk, f.inner);
    lam_io_close(disk);
    assert_works(lam_io_record_replay(f.io, 0, 7, f.base, BASE, &disk, &err),
                 &err);
    uint8_t back[BASE];
    assert_works(lam_io_read(disk, back, BASE, 0, &err), &err);
    assert_memory_equal(back, f.base, BASE);
    lam_io_close(disk);
    tear_down(&f);
}

static void same_seed_same_disk(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct fixture f;
    size_t count;
    set_up(&f);
    workload(f.io);
    lam_io_record_events(f.io, &count);
    for (uint64_t seed = 1; seed < 50; seed++) {
        struct lam_io *one, *two;
        assert_works(lam_io_record_replay(f.io, count, seed, f.base, BASE,
                                          &one, &err), &err);
        assert_works(lam_io_record_replay(f.io, count, seed, f.base, BASE,
                                          &two, &err), &err);
        assert_same(one, two);
        lam_io_close(one);
        lam_io_close(two);
    }
    tear_down(&f);
}

/* What was flushed is always there; what was not comes in all shapes: kept,
 * lost, and torn, but never inside a sector. */
static void unsynced_writes(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct fixture f;
    uint8_t data[1536], back[BASE];
    unsigned kept = 0, lost = 0, torn = 0;
    set_up(&f);
    memset(data, 1, sizeof data);
    assert_works(lam_io_write(f.io, data, 512, 0, &err), &err);
    assert_works(lam_io_flush(f.io, &err), &err);
    memset(data, 2, sizeof data);
    assert_works(lam_io_write(f.io, data, 1536, 512, &err), &err);
    for (uint64_t seed = 1; seed <= 400; seed++) {
        struct lam_io *disk;
        assert_works(lam_io_record_replay(f.io, 3, seed, f.base, BASE, &disk,
                                          &err), &err);
        assert_works(lam_io_read(disk, back, BASE, 0, &err), &err);
        unsigned there = 0;
        for (size_t i = 0; i < BASE; i++) {
            if (i < 512)
                assert_int_equal(back[i], 1);
            else if (i >= 2048)
                assert_int_equal(back[i], 0xbb);
            else if (i % 512)
                assert_int_equal(back[i], back[i - 1]);
            else
                there += back[i] == 2;
        }
        kept += there == 3;
        lost += there == 0;
        torn += there == 1 || there == 2;
        lam_io_close(disk);
    }
    assert_true(kept > 40 && lost > 40 && torn > 10);
    tear_down(&f);
}

static uint8_t byte_after(struct lam_io *io, size_t events,
                          struct record_pick pick, const uint8_t *base,
                          uint64_t offset)
{
    struct lam_io *disk;
    uint8_t byte;
    assert_int_equal(lam_io_record_rebuild(io, events, pick, base, BASE, &disk,
                                           NULL), 0);
    assert_int_equal(lam_io_read(disk, &byte, 1, offset, NULL), 0);
    lam_io_close(disk);
    return byte;
}

/* One sequence, and each object has barriers of its own. */
static void two_objects(void **state)
{
    (void)state;
    struct fixture f;
    struct lam_io *inner, *other;
    size_t count;
    set_up(&f);
    assert_int_equal(lam_io_memory_new(f.base, BASE, &inner, NULL), 0);
    assert_int_equal(lam_io_record_join(inner, f.io, &other, NULL), 0);
    assert_int_equal(lam_io_write(f.io, "a", 1, 0, NULL), 0);       /* 0 */
    assert_int_equal(lam_io_write(other, "b", 1, 0, NULL), 0);      /* 1 */
    assert_int_equal(lam_io_flush(other, NULL), 0);                 /* 2 */
    assert_int_equal(lam_io_write(other, "c", 1, 1, NULL), 0);      /* 3 */
    assert_int_equal(lam_io_write(f.io, "d", 1, 1, NULL), 0);       /* 4 */
    assert_int_equal(lam_io_write(f.io, "e", 1, 2, NULL), 0);       /* 5 */
    const struct record_event *events = lam_io_record_events(f.io, &count);
    assert_int_equal(count, 6);
    assert_int_equal(events[1].object, 1);
    assert_int_equal(events[4].object, 0);

    static const struct {
        struct record_pick pick;
        char want[4], others[3];        /* '.': what was there before */
    } cases[] = {
        { { RECORD_ALL, 0 }, "ade", "bc" },
        { { RECORD_ALL_BUT, 4 }, "a.e", "bc" },
        { { RECORD_ALL_BUT, 3 }, "ade", "b." },
        { { RECORD_ONLY, 4 }, ".d.", "b." },
        { { RECORD_ONLY, 3 }, "...", "bc" },
        { { RECORD_ALL_BUT, 1 }, "ade", "bc" },     /* it was synced */
    };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        for (size_t k = 0; k < 3; k++) {
            char c = cases[i].want[k];
            assert_int_equal(byte_after(f.io, 6, cases[i].pick, f.base, k),
                             c == '.' ? 0xbb : c);
        }
        for (size_t k = 0; k < 2; k++) {
            char c = cases[i].others[k];
            assert_int_equal(byte_after(other, 6, cases[i].pick, f.base, k),
                             c == '.' ? 0xbb : c);
        }
    }
    lam_io_record_fail(other, 1, EIO, true);
    assert_int_equal(lam_io_write(f.io, "x", 1, 0, NULL), 0);
    assert_int_equal(lam_io_write(other, "x", 1, 0, NULL), -EIO);
    assert_int_equal(lam_io_write(f.io, "x", 1, 0, NULL), -EIO);
    lam_io_close(f.io);
    lam_io_close(other);
    lam_io_close(inner);
    lam_io_close(f.inner);
}

static void fails_on_demand(void **state)
{
    (void)state;
    static const struct {
        size_t nth;
        bool sticky;
        int results[5];
    } cases[] = {
        { SIZE_MAX, false, { 0, 0, 0, 0, 0 } },
        { 0, false, { -ENOSPC, 0, 0, 0, 0 } },
        { 2, false, { 0, 0, -ENOSPC, 0, 0 } },
        { 2, true, { 0, 0, -ENOSPC, -ENOSPC, -ENOSPC } },
        { 3, false, { 0, 0, 0, -ENOSPC, 0 } },
    };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct fixture f;
        set_up(&f);
        lam_io_record_fail(f.io, cases[i].nth, ENOSPC, cases[i].sticky);
        int got[5];
        char byte;
        got[0] = lam_io_write(f.io, "a", 1, 0, NULL);
        assert_int_equal(lam_io_read(f.io, &byte, 1, 0, NULL), 0);
        got[1] = lam_io_zero(f.io, 5, 5, 0, NULL);
        got[2] = lam_io_truncate(f.io, 100, NULL);
        got[3] = lam_io_write(f.io, "b", 1, 0, NULL);
        got[4] = lam_io_flush(f.io, NULL);
        size_t count, fine = 0;
        lam_io_record_events(f.io, &count);
        for (size_t k = 0; k < 5; k++) {
            assert_int_equal(got[k], cases[i].results[k]);
            fine += !got[k];
        }
        /* What failed did not happen. */
        assert_int_equal(count, fine);
        tear_down(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(notes_everything),
        cmocka_unit_test(replays_all),
        cmocka_unit_test(same_seed_same_disk),
        cmocka_unit_test(unsynced_writes),
        cmocka_unit_test(two_objects),
        cmocka_unit_test(fails_on_demand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
