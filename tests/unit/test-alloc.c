/* SPDX-License-Identifier: MIT */
/*
 * test-alloc.c - host clusters: reserved once, never on top of the tables,
 * given back whole; refcount blocks and tables that grow; dropped clusters
 * that wait for whoever may still read them.
 */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "format/qcow2/alloc.h"
#include "format/qcow2/check.h"
#include "format/qcow2/release.h"
#include "format/format.h"

struct image {
    struct lam_io *io;
    struct qcow2 *q;
};

static struct image image_new(uint64_t cluster_size, unsigned refcount_bits,
                              uint64_t size)
{
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct image i;

    o.format = "qcow2";
    o.size = size;
    o.cluster_size = cluster_size;
    o.refcount_bits = refcount_bits;
    assert_works(lam_io_memory_new(NULL, 0, &i.io, &err), &err);
    assert_works(format_qcow2.create(i.io, NULL, &o, &err), &err);
    struct format_open open = { .io = i.io, .writable = true, .unmap = true };
    assert_works(format_qcow2.open(&open, (void **)&i.q, &err), &err);
    return i;
}

/* @end: where the clusters end that were reserved, and leak. */
static void image_close(struct image *i, uint64_t leaks, uint64_t end)
{
    struct lam_check_result r = { 0 };
    struct lam_error err = LAM_ERROR_INIT;

    assert_works(qcow2_flush(i->q, &err), &err);
    pthread_mutex_lock(&i->q->alloc_lock);
    assert_works(alloc_write_back(i->q, &err), &err);
    pthread_mutex_unlock(&i->q->alloc_lock);
    if (end > atomic_load(&i->io->size))
        assert_works(lam_io_truncate(i->io, end, &err), &err);
    assert_works(qcow2_check_run(i->io, &i->q->header, NULL, NULL, &r, &err),
                 &err);
    assert_int_equal(r.corruptions, 0);
    assert_int_equal(r.check_errors, 0);
    assert_int_equal(r.leaks, leaks);
    assert_works(format_qcow2.close(i->q, &err), &err);
    lam_io_close(i->io);
}

/* ------------------------------------------------------------------ growth */

static const struct {
    const char *name;
    uint64_t cluster_size;
    unsigned refcount_bits;
    uint64_t want, rounds;
    bool table_moves;
} growths[] = {
    { "one block is enough", 65536, 16, 7, 100, false },
    { "many blocks, 512 bytes, 16 bit", 512, 16, 5, 2000, false },
    { "the table moves, 512 bytes, 64 bit", 512, 64, 3, 4000, true },
    { "the table moves twice, one cluster at a time", 512, 64, 1, 20000,
      true },
    { "one bit a cluster", 512, 1, 33, 1000, false },
    { "long runs across blocks", 512, 32, 300, 100, true },
    { "4 KiB clusters, 8 bit", 4096, 8, 64, 200, false },
};

/* Reserves, and notes what it got: nothing twice. */
static uint64_t reserve_rounds(struct image *i, uint8_t *seen,
                               uint64_t clusters, uint64_t want,
                               uint64_t rounds)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t total = 0;

    for (uint64_t k = 0; k < rounds; k++) {
        uint64_t host, got;

        assert_works(alloc_clusters(i->q, want, &host, &got, &err), &err);
        assert_in_range(got, 1, want);
        uint64_t first = host >> i->q->g.cluster_bits;
        assert_true(first > 0 && first + got <= clusters);
        for (uint64_t c = first; c < first + got; c++) {
            assert_int_equal(seen[c], 0);
            seen[c] = 1;
        }
        total += got;
    }
    return total;
}

static void run_growth(size_t n)
{
    uint64_t clusters = 2 * growths[n].want * growths[n].rounds + 10000;
    uint8_t *seen = calloc(clusters, 1);
    struct image i = image_new(growths[n].cluster_size,
                               growths[n].refcount_bits, 1 << 20);
    uint64_t table = i.q->header.reft_offset;

    assert_non_null(seen);
    pthread_mutex_lock(&i.q->alloc_lock);
    uint64_t total = reserve_rounds(&i, seen, clusters, growths[n].want,
                                    growths[n].rounds);
    pthread_mutex_unlock(&i.q->alloc_lock);
    assert_int_equal(i.q->header.reft_offset != table,
                     growths[n].table_moves);
    /* Half of it goes back, and is what comes next. */
    pthread_mutex_lock(&i.q->alloc_lock);
    uint64_t dropped = 0;
    for (uint64_t c = 0; c < clusters && dropped < total / 2; c++)
        if (seen[c]) {
            alloc_drop(i.q, c << i.q->g.cluster_bits, 1, NULL, NULL);
            seen[c] = 0;
            dropped++;
        }
    uint64_t again = reserve_rounds(&i, seen, clusters, 1, dropped);
    assert_int_equal(again, dropped);
    pthread_mutex_unlock(&i.q->alloc_lock);
    while (!seen[clusters - 1])
        clusters--;
    free(seen);
    image_close(&i, total, clusters << i.q->g.cluster_bits);
}

static void test_growth(void **state)
{
    (void)state;
    for (size_t n = 0; n < LAM_ARRAY_SIZE(growths); n++) {
        print_message("%s\n", growths[n].name);
        run_growth(n);
    }
}

static void test_contiguous(void **state)
{
    static const uint64_t wants[] = { 1, 5, 63, 64, 65, 700, 1, 3000 };
    struct lam_error err = LAM_ERROR_INIT;
    struct image i = image_new(512, 64, 1 << 20);
    uint64_t host, value, total = 0, end = 0;

    (void)state;
    pthread_mutex_lock(&i.q->alloc_lock);
    for (size_t n = 0; n < LAM_ARRAY_SIZE(wants); n++) {
        assert_works(alloc_contiguous(i.q, wants[n], &host, &err), &err);
        for (uint64_t c = 0; c < wants[n]; c++) {
            assert_works(refcount_read(i.q, host / 512 + c, &value, &err),
                         &err);
            assert_int_equal(value, 1);
        }
        total += wants[n];
        end = max_u64(end, host + wants[n] * 512);
    }
    pthread_mutex_unlock(&i.q->alloc_lock);
    image_close(&i, total, end);
}

/* ---------------------------------------------------------------- payloads */

static const struct {
    const char *name;
    unsigned refcount_bits;
    uint64_t length;
    unsigned count;
    uint64_t last_start;        /* of the last, from the first's start */
} packings[] = {
    { "sixteen in one cluster", 16, 4096, 16, 15 * 4096 },
    { "straddling clusters", 16, 50000, 3, 100000 },
    { "two bits: three a cluster", 2, 100, 4, 65536 },
    { "one bit: one a cluster", 1, 100, 2, 65536 },
};

static void test_packing(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    for (size_t n = 0; n < LAM_ARRAY_SIZE(packings); n++) {
        struct image i = image_new(65536, packings[n].refcount_bits, 1 << 20);
        uint64_t first = 0, host = 0;

        print_message("%s\n", packings[n].name);
        pthread_mutex_lock(&i.q->alloc_lock);
        for (unsigned k = 0; k < packings[n].count; k++) {
            assert_works(alloc_bytes(i.q, packings[n].length,
                                     ALLOC_ANYWHERE, &host, &err), &err);
            first = k ? first : host;
        }
        assert_int_equal(host - first, packings[n].last_start);
        for (unsigned k = 0; k < packings[n].count; k++)
            alloc_drop(i.q, first + (host - first) / (packings[n].count - 1) *
                       k, 1, NULL, NULL);
        pthread_mutex_unlock(&i.q->alloc_lock);
        assert_works(format_qcow2.close(i.q, &err), &err);
        lam_io_close(i.io);
    }
}

/* --------------------------------------------------------- dropped clusters */

static uint64_t write_cluster(struct image *i, uint64_t offset)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct format_allocation a;
    uint8_t data[65536] = { 1 };

    assert_works(qcow2_write_begin(i->q, offset, sizeof data, &a, &err), &err);
    assert_int_equal(a.length, sizeof data);
    assert_works(lam_io_write(a.io, data, a.length, a.host_offset, &err),
                 &err);
    assert_works(qcow2_write_finish(i->q, &a, &err), &err);
    return a.host_offset;
}

static void discard_cluster(struct image *i, uint64_t offset)
{
    struct lam_error err = LAM_ERROR_INIT;

    assert_works(qcow2_discard(i->q, offset, 65536, &err), &err);
}

/* Not before the entry's change is on disk, nor while a request runs that may
 * have seen the old entry; requests that came later do not count. */
static void test_quarantine(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct image i = image_new(65536, 16, 16 << 20);

    (void)state;
    uint64_t host = write_cluster(&i, 0);
    uint64_t reader = format_qcow2.enter(i.q);
    discard_cluster(&i, 0);
    assert_int_not_equal(write_cluster(&i, 1 << 20), host);     /* not synced */
    assert_works(qcow2_flush(i.q, &err), &err);
    uint64_t later = format_qcow2.enter(i.q);
    assert_int_not_equal(write_cluster(&i, 2 << 20), host);     /* reader */
    format_qcow2.leave(i.q, reader);
    assert_int_equal(write_cluster(&i, 3 << 20), host);
    format_qcow2.leave(i.q, later);
    image_close(&i, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_growth),
        cmocka_unit_test(test_contiguous),
        cmocka_unit_test(test_packing),
        cmocka_unit_test(test_quarantine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
