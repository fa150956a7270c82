/* SPDX-License-Identifier: MIT */
/*
 * test-l2.c - geometry, and L2 entries → extents row by row (format document
 * 3.1, 3.3, 3.4, 4.1, examples A.2 to A.5 and A.9).
 */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "format/qcow2/l2.h"

enum {
    U = LAM_EXTENT_UNALLOCATED,
    Z = LAM_EXTENT_ZERO,
    D = LAM_EXTENT_DATA,
    P = LAM_EXTENT_COMPRESSED,
    H = LAM_EXTENT_HAS_HOST,
    F = LAM_EXTENT_DATA_FILE,
    CS = 65536,
};

/* ---------------------------------------------------------------- geometry */

static void geometry_follows_from_the_widths(void **state)
{
    (void)state;
    static const struct {
        unsigned bits, order;
        bool extended;
        uint64_t entries, cover, refblock_entries, largest;
    } cases[] = {
        { 9, 4, false, 64, 32768, 256, UINT64_C(128) << 30 },
        { 16, 4, false, 8192, UINT64_C(512) << 20, 32768, UINT64_C(2) << 50 },
        { 16, 4, true, 4096, UINT64_C(256) << 20, 32768, UINT64_C(1) << 50 },
        { 21, 0, false, 262144, UINT64_C(512) << 30, 16777216,
          UINT64_C(2) << 60 },
        { 14, 6, true, 1024, 16 << 20, 2048, UINT64_C(64) << 40 },
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct qcow2_geometry g = qcow2_geometry_make(
            cases[i].bits, cases[i].order, cases[i].extended);

        assert_int_equal(g.l2_entries, cases[i].entries);
        assert_int_equal(g.l2_cover, cases[i].cover);
        assert_int_equal(g.refblock_entries, cases[i].refblock_entries);
        assert_int_equal(l1_needed(&g, cases[i].largest), QCOW2_MAX_L1_ENTRIES);
        assert_int_equal(l1_needed(&g, cases[i].cover + 1), 2);
        assert_int_equal(l1_index(&g, cases[i].cover), 1);
        assert_int_equal(l2_index(&g, cases[i].cover - 1),
                         cases[i].entries - 1);
        assert_int_equal(reft_index(&g, g.refblock_entries), 1);
        assert_int_equal(refblock_index(&g, g.refblock_entries + 5), 5);
    }
}

/* A.3, and both ends of the field's range. */
static void compressed_descriptors(void **state)
{
    (void)state;
    static const struct {
        unsigned bits;
        uint64_t word, offset, length;
    } cases[] = {
        { 16, 0x4180000000070000, 0x70000, 3584 },
        { 16, 0x40c0000000070dd7, 0x70dd7, 1577 },
        { 9, 0x4000000000000600, 0x600, 512 },
        { 9, 0x60000000000007ff, 0x7ff, 513 },
        { 16, 0x7fc0000000000000, 0, 131072 },
        { 21, 0x7ffe000000000000, 0, 8192 * 512 },
        { 21, 0x4001ffffffffffff, 0x1ffffffffffff, 1 },
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct qcow2_geometry g = qcow2_geometry_make(cases[i].bits, 4, false);

        assert_int_equal(compressed_offset(&g, cases[i].word), cases[i].offset);
        assert_int_equal(compressed_length(&g, cases[i].word), cases[i].length);
    }
    struct qcow2_geometry g = qcow2_geometry_make(16, 4, false);
    assert_int_equal(compressed_entry(&g, 0x70000, 3543), 0x4180000000070000);
    assert_int_equal(compressed_entry(&g, 0x70dd7, 1151), 0x40c0000000070dd7);
}

/* ------------------------------------------------------------ one entry */

struct expect { uint64_t length; int state; unsigned flags; uint64_t host; };

enum { V2 = 1, EXT = 2, DATA_FILE = 4 };

static const struct row {
    const char *name;
    unsigned kind;              /* V2, EXT, DATA_FILE */
    uint64_t word, bitmap;
    uint64_t guest, length;     /* within the cluster at 0x20000 */
    int rc;
    struct expect out[6];
} rows[] = {
    { "unallocated", 0, 0, 0, 0, CS, 0, { { CS, U, 0, 0 } } },
    { "COPIED alone", 0, 0x8000000000000000, 0, 0, CS, 0,
      { { CS, U, 0, 0 } } },
    { "zero", 0, 1, 0, 0, CS, 0, { { CS, Z, 0, 0 } } },
    { "zero, COPIED", 0, 0x8000000000000001, 0, 0, CS, 0, { { CS, Z, 0, 0 } } },
    { "zero with host", 0, 0x8000000000060001, 0, 0, CS, 0,
      { { CS, Z, H, 0x60000 } } },
    { "normal", 0, 0x8000000000050000, 0, 0, CS, 0, { { CS, D, H, 0x50000 } } },
    { "normal, shared", 0, 0x50000, 0, 0, CS, 0, { { CS, D, H, 0x50000 } } },
    { "normal, part", 0, 0x50000, 0, 1000, 24, 0,
      { { 24, D, H, 0x503e8 } } },
    { "reserved bits are masked", 0, 0xbf000000000501fe, 0, 0, CS, 0,
      { { CS, D, H, 0x50000 } } },
    { "reserved bits alone", 0, 0x3f000000000001fe, 0, 0, CS, 0,
      { { CS, U, 0, 0 } } },
    { "highest offset", 0, 0x00ffffffffff0000, 0, 0, CS, 0,
      { { CS, D, H, 0x00ffffffffff0000 } } },
    { "unaligned", 0, 0x50200, 0, 0, CS, -EUCLEAN, { { 0 } } },
    { "zero, unaligned", 0, 0x50201, 0, 0, CS, -EUCLEAN, { { 0 } } },
    { "compressed", 0, 0x40c0000000070dd7, 0, 0, CS, 0,
      { { CS, P, H, 0x70dd7 } } },
    { "compressed, part", 0, 0x40c0000000070dd7, 0, 512, 100, 0,
      { { 100, P, H, 0x70dd7 } } },
    { "compressed, COPIED", 0, 0xc0c0000000070dd7, 0, 0, CS, 0,
      { { CS, P, H, 0x70dd7 } } },

    { "v2 normal", V2, 0x8000000000050000, 0, 0, CS, 0,
      { { CS, D, H, 0x50000 } } },
    { "v2 zero", V2, 1, 0, 0, CS, -EUCLEAN, { { 0 } } },
    { "v2 zero with host", V2, 0x50001, 0, 0, CS, -EUCLEAN, { { 0 } } },
    { "v2 compressed", V2, 0x40c0000000070dd7, 0, 0, CS, 0,
      { { CS, P, H, 0x70dd7 } } },

    { "data file, normal", DATA_FILE, 0x8000000000020000, 0, 0, CS, 0,
      { { CS, D, H | F, 0x20000 } } },
    { "data file, zero", DATA_FILE, 0x8000000000020001, 0, 0, CS, 0,
      { { CS, Z, H | F, 0x20000 } } },
    { "data file, unallocated", DATA_FILE, 0, 0, 0, CS, 0,
      { { CS, U, 0, 0 } } },
    { "data file, elsewhere", DATA_FILE, 0x8000000000030000, 0, 0, CS,
      -EUCLEAN, { { 0 } } },
    { "data file, offset 0", DATA_FILE, 0x8000000000000000, 0, 0, CS,
      -EUCLEAN, { { 0 } } },
    { "data file, compressed", DATA_FILE, 0x4000000000020000, 0, 0, CS,
      -EUCLEAN, { { 0 } } },

    { "subclusters as in A.5", EXT, 0x8000000000050000, 0x0000000480000003, 0,
      CS, 0, { { 4096, D, H, 0x50000 }, { 2048, Z, H, 0x51000 },
               { 57344, U, H, 0x51800 }, { 2048, D, H, 0x5f800 } } },
    { "subclusters, zero alone", EXT, 0, 0x0000000100000000, 0, CS, 0,
      { { 2048, Z, 0, 0 }, { 63488, U, 0, 0 } } },
    { "subclusters, compressed", EXT, 0x4000000000060000, 0, 0, CS, 0,
      { { CS, P, H, 0x60000 } } },
    { "subclusters, bitmap of a compressed one", EXT, 0x4000000000060000, 5, 0,
      CS, 0, { { CS, P, H, 0x60000 } } },
    { "subclusters, all zero", EXT, 0, QCOW2_ALL_ZERO, 0, CS, 0,
      { { CS, Z, 0, 0 } } },
    { "subclusters, all zero with host", EXT, 0x50000, QCOW2_ALL_ZERO, 0, CS,
      0, { { CS, Z, H, 0x50000 } } },
    { "subclusters, all data", EXT, 0x50000, QCOW2_ALL_ALLOCATED, 0, CS, 0,
      { { CS, D, H, 0x50000 } } },
    { "subclusters, none", EXT, 0, 0, 0, CS, 0, { { CS, U, 0, 0 } } },
    { "subclusters, preallocated", EXT, 0x50000, 0, 0, CS, 0,
      { { CS, U, H, 0x50000 } } },
    { "subclusters, bit 0 says nothing", EXT, 1, 0, 0, CS, 0,
      { { CS, U, 0, 0 } } },
    { "subclusters, bit 0 of a normal one", EXT, 0x50001, QCOW2_ALL_ALLOCATED,
      0, CS, 0, { { CS, D, H, 0x50000 } } },
    { "subclusters, part", EXT, 0x50000, 0x0000000480000003, 4095, 2050, 0,
      { { 1, D, H, 0x50fff }, { 2048, Z, H, 0x51000 },
        { 1, U, H, 0x51800 } } },
    { "subclusters, last byte", EXT, 0x50000, 0x80000000, CS - 1, 1, 0,
      { { 1, D, H, 0x5ffff } } },
    { "subclusters, both bits", EXT, 0x50000, 0x0000000100000001, CS - 1, 1,
      -EUCLEAN, { { 0 } } },
    { "subclusters, data without host", EXT, 0, 2, 0, 1, -EUCLEAN, { { 0 } } },
    { "subclusters, unaligned", EXT, 0x50200, 2, 0, 1, -EUCLEAN, { { 0 } } },
};

static void every_row_of_the_tables(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(rows); i++) {
        const struct row *r = &rows[i];
        struct qcow2_geometry g = qcow2_geometry_make(16, 4, r->kind & EXT);
        struct l2_context ctx = { &g, r->kind & V2 ? 2 : 3,
                                  r->kind & DATA_FILE, false };
        struct lam_extents out = LAM_EXTENTS_INIT;
        struct lam_error err = LAM_ERROR_INIT;
        uint8_t table[16];
        size_t n = 0;

        l2_put(&g, table, 0, (struct qcow2_l2_entry){ r->word, r->bitmap });
        int rc = l2_extents(&ctx, table, 0x20000 + r->guest, r->length, &out,
                            &err);
        if (rc != r->rc)
            fail_msg("%s: %d, %s", r->name, rc, err.message);
        for (uint64_t at = 0x20000 + r->guest; rc == 0 && n < out.count; n++) {
            const struct lam_extent *e = &out.items[n];
            const struct expect *x = &r->out[n];

            if (e->offset != at || e->length != x->length ||
                e->state != x->state || e->flags != x->flags ||
                e->host_offset != x->host)
                fail_msg("%s: extent %zu: %#lx+%lu state %u flags %u host %#lx",
                         r->name, n, (unsigned long)e->offset,
                         (unsigned long)e->length, e->state, e->flags,
                         (unsigned long)e->host_offset);
            at += e->length;
        }
        if (rc == 0 && (n == 6 ? 0 : r->out[n].length))
            fail_msg("%s: extent %zu is missing", r->name, n);
        if (rc < 0)
            assert_int_equal(out.count, 0);
        lam_extents_deinit(&out);
    }
}

/* ---------------------------------------------------------------- many */

/* Slowly and simply: one entry a call, appended one by one. */
static void runs_are_what_single_entries_are(void **state)
{
    (void)state;
    enum { N = 64 };
    unsigned seed = 7;

    for (unsigned round = 0; round < 2000; round++) {
        bool extended = round & 1, data_file = round & 2;
        struct qcow2_geometry g = qcow2_geometry_make(16, 4, extended);
        struct l2_context ctx = { &g, 3, data_file, false };
        struct lam_extents fast = LAM_EXTENTS_INIT, slow = LAM_EXTENTS_INIT;
        uint8_t table[N * 16];
        uint64_t last = 0x500000;

        for (unsigned i = 0; i < N; i++) {
            static const uint64_t words[] = { 0, 0, 1, 0x8000000000000001 };
            unsigned pick = (unsigned)rand_r(&seed) % 8;
            uint64_t host = data_file ? (uint64_t)i * CS : last + CS;
            struct qcow2_l2_entry e = { 0, 0 };

            last += CS;
            if (pick < 4)
                e.word = words[pick] & ~(uint64_t)extended;
            else if (pick == 7 && !data_file)
                e.word = compressed_entry(&g, last, 300);
            else
                e.word = host | QCOW2_COPIED | (pick == 6 && !extended);
            if (extended && pick == 5)
                e.bitmap = (uint64_t)rand_r(&seed) & 0x0f0f0f0f;
            else if (extended && pick == 4)
                e.bitmap = QCOW2_ALL_ALLOCATED;
            if (pick == 3 && !data_file)
                last += CS;
            /* In a data file COPIED makes offset 0 a real one. */
            if (data_file && i && !entry_offset(e.word))
                e.word &= ~QCOW2_COPIED;
            if (extended && !entry_offset(e.word) &&
                !(data_file && entry_copied(e.word)))
                e.bitmap &= QCOW2_ALL_ZERO;
            l2_put(&g, table, i, e);
        }
        uint64_t from = (uint64_t)rand_r(&seed) % (N * CS);
        uint64_t length = 1 + (uint64_t)rand_r(&seed) % (N * CS - from);
        struct lam_error err = LAM_ERROR_INIT;

        assert_works(l2_extents(&ctx, table + from / CS * g.l2_entry_size, from,
                                length, &fast, &err), &err);
        for (uint64_t at = from; at < from + length;) {
            uint64_t n = min_u64(CS - at % CS, from + length - at);
            assert_works(l2_extents(&ctx, table + at / CS * g.l2_entry_size, at,
                                    n, &slow, &err), &err);
            at += n;
        }
        assert_int_equal(fast.count, slow.count);
        for (size_t i = 0; i < fast.count; i++)
            assert_memory_equal(&fast.items[i], &slow.items[i],
                                sizeof fast.items[i]);
        lam_extents_deinit(&fast);
        lam_extents_deinit(&slow);
    }
}

/* A failure takes back what was appended, merged or not. */
static void a_failure_leaves_the_list(void **state)
{
    (void)state;
    struct qcow2_geometry g = qcow2_geometry_make(16, 4, false);
    struct l2_context ctx = { &g, 3, false, false };
    struct lam_extents out = LAM_EXTENTS_INIT;
    static const uint64_t words[] = { 0, 0, 0x50000, 0x60200 };
    uint8_t table[sizeof words];

    for (unsigned i = 0; i < LAM_ARRAY_SIZE(words); i++)
        l2_put(&g, table, i, (struct qcow2_l2_entry){ words[i], 0 });
    assert_int_equal(l2_extents(&ctx, table, 0, CS, &out, NULL), 0);
    struct lam_extent before = out.items[0];
    assert_int_equal(l2_extents(&ctx, table + 8, CS, 3 * CS, &out, NULL),
                     -EUCLEAN);
    assert_int_equal(out.count, 1);
    assert_memory_equal(&before, &out.items[0], sizeof before);
    lam_extents_deinit(&out);
}

/* Host offsets at the top of their field do not run over into the next. */
static void runs_stop_at_the_top(void **state)
{
    (void)state;
    struct qcow2_geometry g = qcow2_geometry_make(16, 4, false);
    struct l2_context ctx = { &g, 3, false, false };
    struct lam_extents out = LAM_EXTENTS_INIT;
    uint8_t table[16];

    l2_put(&g, table, 0, (struct qcow2_l2_entry){ 0x00ffffffffff0000, 0 });
    l2_put(&g, table, 1, (struct qcow2_l2_entry){ 0x0100000000000000, 0 });
    assert_int_equal(l2_extents(&ctx, table, 0, 2 * CS, &out, NULL), 0);
    assert_int_equal(out.count, 2);
    assert_int_equal(out.items[1].state, U);
    lam_extents_deinit(&out);
}

/* COPIED may differ within a run, but in a data file it means something. */
static void copied_within_a_run(void **state)
{
    (void)state;
    struct qcow2_geometry g = qcow2_geometry_make(16, 4, false);
    uint8_t table[16] = { 0 };

    l2_put(&g, table, 1, (struct qcow2_l2_entry){ QCOW2_COPIED, 0 });
    for (int data_file = 0; data_file < 2; data_file++) {
        struct l2_context ctx = { &g, 3, data_file, false };
        struct lam_extents out = LAM_EXTENTS_INIT;

        assert_int_equal(l2_extents(&ctx, table, CS, 2 * CS, &out, NULL),
                         data_file ? -EUCLEAN : 0);
        assert_int_equal(out.count, !data_file);
        lam_extents_deinit(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(geometry_follows_from_the_widths),
        cmocka_unit_test(compressed_descriptors),
        cmocka_unit_test(every_row_of_the_tables),
        cmocka_unit_test(runs_are_what_single_entries_are),
        cmocka_unit_test(a_failure_leaves_the_list),
        cmocka_unit_test(runs_stop_at_the_top),
        cmocka_unit_test(copied_within_a_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
