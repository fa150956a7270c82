/* SPDX-License-Identifier: MIT */
/*
 * test-write.c - writes, zeroes and COW of the image layer.
 *
 * On a format made for this test: clusters of 4 KiB, a table in memory, host
 * clusters handed out in order.  The host object is dirty, so that a byte that
 * nobody wrote shows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "image/image.h"
#include "image/layer.h"

enum {
    CLUSTER = 4096,
    CLUSTERS = 8,
    SIZE = CLUSTERS * CLUSTER - 512,    /* the last cluster is cut */
    BELOW = 5 * CLUSTER + 700,          /* length of the backing file */
    HOST_CLUSTERS = 3 * CLUSTERS,
};

enum { NONE = -1, ZERO = -2 };

struct toy {
    struct lam_io *io;
    int table[CLUSTERS];        /* host cluster, NONE or ZERO */
    int next;
    bool host_is_zero;
    int begun, finished, cancelled, zeroed, flushed;
    bool no_zero;               /* zero_unit() is 0 */
};

static struct toy *toy;         /* of the image under test */

static uint64_t toy_size(void *format)
{
    (void)format;
    return SIZE;
}

static uint64_t toy_cluster_size(void *format)
{
    (void)format;
    return CLUSTER;
}

static uint64_t toy_zero_unit(void *format)
{
    struct toy *t = format;
    return t->no_zero ? 0 : CLUSTER;
}

static int toy_map(void *format, uint64_t offset, uint64_t length,
                   struct lam_extents *out, struct lam_error *err)
{
    struct toy *t = format;
    while (length > 0) {
        uint64_t in = offset % CLUSTER;
        int host = t->table[offset / CLUSTER];
        struct lam_extent e = {
            .offset = offset, .length = min_u64(CLUSTER - in, length),
            .state = host == NONE ? LAM_EXTENT_UNALLOCATED
                   : host == ZERO ? LAM_EXTENT_ZERO : LAM_EXTENT_DATA,
        };
        if (host >= 0) {
            e.host_offset = (uint64_t)host * CLUSTER + in;
            e.flags = LAM_EXTENT_HAS_HOST;
        }
        int rc = extents_append(out, &e, err);
        if (rc < 0)
            return rc;
        offset += e.length;
        length -= e.length;
    }
    return 0;
}

static int toy_write_begin(void *format, uint64_t offset, uint64_t length,
                           struct format_allocation *a, struct lam_error *err)
{
    struct toy *t = format;
    uint64_t start = align_down(offset, CLUSTER);
    uint64_t n = min_u64(length, start + CLUSTER - offset);
    int host = t->table[offset / CLUSTER];

    (void)err;
    t->begun++;
    *a = (struct format_allocation){
        .offset = offset, .length = n,
        .cow_start = offset, .cow_end = offset + n,
        .io = t->io, .host_is_zero = t->host_is_zero,
    };
    if (host < 0) {
        a->cow_start = start;
        a->cow_end = start + CLUSTER;
        host = t->next++;
        a->token = &t->table[offset / CLUSTER];
    }
    a->host_offset = (uint64_t)host * CLUSTER + offset - start;
    return 0;
}

static int toy_write_finish(void *format, struct format_allocation *a,
                            struct lam_error *err)
{
    struct toy *t = format;
    (void)err;
    t->finished++;
    *(int *)a->token = (int)(a->host_offset / CLUSTER);
    return 0;
}

static void toy_write_cancel(void *format, struct format_allocation *a)
{
    struct toy *t = format;
    (void)a;
    t->cancelled++;
}

static int toy_zero(void *format, uint64_t offset, uint64_t length,
                    unsigned flags, struct lam_error *err)
{
    struct toy *t = format;
    (void)err;
    (void)flags;
    assert_true(is_aligned(offset, CLUSTER));
    assert_true(is_aligned(length, CLUSTER) || offset + length == SIZE);
    t->zeroed++;
    for (uint64_t c = offset / CLUSTER; c * CLUSTER < offset + length; c++)
        t->table[c] = ZERO;
    return 0;
}

static int toy_flush(void *format, struct lam_error *err)
{
    struct toy *t = format;
    (void)err;
    t->flushed++;
    return 0;
}

static int toy_close(void *format, struct lam_error *err)
{
    (void)format;
    (void)err;
    return 0;
}

static const struct format_ops toy_ops = {
    .name = "toy",
    .size = toy_size,
    .cluster_size = toy_cluster_size,
    .zero_unit = toy_zero_unit,
    .map = toy_map,
    .write_begin = toy_write_begin,
    .write_finish = toy_write_finish,
    .write_cancel = toy_write_cancel,
    .zero = toy_zero,
    .flush = toy_flush,
    .close = toy_close,
};

/* ------------------------------------------------------------- one image */

static struct toy the_toy;
static struct lam_image *image;
static uint8_t model[SIZE];

static uint8_t below_byte(uint64_t offset)
{
    /* Its second cluster is zero. */
    if (offset / CLUSTER == 1 || offset >= BELOW)
        return 0;
    return (uint8_t)(1 + offset % 251);
}

static struct lam_io *memory(uint64_t length, uint8_t fill)
{
    struct lam_io *io;
    lam_autofree uint8_t *bytes = malloc(length);
    assert_non_null(bytes);
    memset(bytes, fill, length);
    assert_int_equal(lam_io_memory_new(bytes, length, &io, NULL), 0);
    return io;
}

static struct lam_image *make_backing(void)
{
    struct lam_image *backing;
    struct lam_io *io = memory(BELOW, 0);
    for (uint64_t i = 0; i < BELOW; i++) {
        uint8_t byte = below_byte(i);
        assert_int_equal(lam_io_write(io, &byte, 1, i, NULL), 0);
    }
    assert_int_equal(image_open_io(io, "raw", NULL, NULL, &backing, NULL), 0);
    return backing;
}

static int setup(void **state)
{
    (void)state;
    the_toy = (struct toy){ .next = 0 };
    toy = &the_toy;
    for (int i = 0; i < CLUSTERS; i++)
        toy->table[i] = NONE;
    assert_int_equal(layer_new(memory(HOST_CLUSTERS * CLUSTER, 0xee), "toy",
                               NULL, &image, NULL), 0);
    toy->io = image->io;
    image->ops = &toy_ops;
    image->format = toy;
    image->size = SIZE;
    image->writable = true;
    image->backing = make_backing();
    assert_int_equal(image_link(image, NULL), 0);
    for (uint64_t i = 0; i < SIZE; i++)
        model[i] = below_byte(i);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    image_free(image);
    return 0;
}

static void check_content(void)
{
    static uint8_t got[SIZE];
    assert_int_equal(lam_image_read(image, got, SIZE, 0, NULL), 0);
    assert_memory_equal(got, model, SIZE);
    /* Piece by piece, at odd places, it is the same. */
    for (uint64_t at = 0; at < SIZE; at += 777) {
        uint64_t n = min_u64(1999, SIZE - at);
        assert_int_equal(lam_image_read(image, got, n, at, NULL), 0);
        assert_memory_equal(got, model + at, n);
    }
}

static void write_byte(uint64_t offset, uint64_t length, uint8_t byte)
{
    static uint8_t bytes[SIZE];
    memset(bytes, byte, length);
    assert_int_equal(lam_image_write(image, bytes, length, offset, 0, NULL), 0);
    memset(model + offset, byte, length);
}

static const struct {
    const char *name;
    uint64_t offset, length;
    int host_clusters;          /* how many it takes */
} write_cases[] = {
    { "a whole cluster", 0, CLUSTER, 1 },
    { "a head only", 512, CLUSTER - 512, 1 },
    { "a tail only", 0, 512, 1 },
    { "both", 100, 100, 1 },
    { "over zeroes from below", CLUSTER + 512, 512, 1 },
    { "across a boundary", CLUSTER - 7, 14, 2 },
    { "several", 700, 3 * CLUSTER, 4 },
    { "where the backing file ends", 5 * CLUSTER + 600, 50, 1 },
    { "past the backing file's end", 6 * CLUSTER + 600, 50, 1 },
    { "in the last cluster", SIZE - 10, 10, 1 },
    { "everything", 0, SIZE, CLUSTERS },
};

static void run_writes(bool host_is_zero)
{
    for (size_t i = 0; i < LAM_ARRAY_SIZE(write_cases); i++) {
        teardown(NULL);
        setup(NULL);
        toy->host_is_zero = host_is_zero;
        if (host_is_zero)
            assert_int_equal(lam_io_zero(toy->io, 0, HOST_CLUSTERS * CLUSTER, 0,
                                         NULL), 0);
        write_byte(write_cases[i].offset, write_cases[i].length, 0xaa);
        check_content();
        assert_int_equal(toy->next, write_cases[i].host_clusters);
        assert_int_equal(toy->finished, write_cases[i].host_clusters);
        assert_int_equal(toy->cancelled, 0);
        /* The second time it goes in place. */
        write_byte(write_cases[i].offset, write_cases[i].length, 0xbb);
        check_content();
        assert_int_equal(toy->next, write_cases[i].host_clusters);
    }
}

static void test_writes(void **state)
{
    (void)state;
    run_writes(false);
    run_writes(true);
}

/* What lies past the end of the disk in its last cluster is zero on the host:
 * nothing of what was there before, nothing of a longer backing file. */
static void test_past_the_end(void **state)
{
    (void)state;
    static const uint8_t zeroes[512];
    uint8_t past[512];
    static const uint64_t sizes[] = { SIZE, 3 * CLUSTER - 512 };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(sizes); i++) {
        /* The buffer that is taken next is not zero. */
        image->size = SIZE;
        write_byte((3 + i) * CLUSTER + 2000, 100, 0xcc);
        image->size = sizes[i];
        write_byte(sizes[i] - 600, 100, 0xaa);
        uint64_t host = (uint64_t)toy->table[sizes[i] / CLUSTER] * CLUSTER;
        assert_int_equal(lam_io_read(toy->io, past, 512, host + CLUSTER - 512,
                                     NULL), 0);
        assert_memory_equal(past, zeroes, 512);
    }
}

static const struct {
    const char *name;
    uint64_t offset, length;
    int zeroed, written;        /* calls of zero(), pieces written */
} zero_cases[] = {
    { "whole clusters", CLUSTER * 2, CLUSTER * 2, 1, 0 },
    { "part of a cluster with data", 512, 512, 0, 1 },
    { "part of one with zero bytes below", CLUSTER + 512, 512, 0, 1 },
    { "part of one past the backing file", 6 * CLUSTER + 5, 9, 1, 0 },
    { "head, body and tail", 512, 3 * CLUSTER, 1, 2 },
    { "the rest of the disk", 7 * CLUSTER, CLUSTER - 512, 1, 0 },
    { "nothing", 512, 0, 0, 0 },
};

static void test_zeroes(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(zero_cases); i++) {
        teardown(NULL);
        setup(NULL);
        assert_int_equal(lam_image_zero(image, zero_cases[i].offset,
                                        zero_cases[i].length, 0, NULL), 0);
        memset(model + zero_cases[i].offset, 0, zero_cases[i].length);
        check_content();
        assert_int_equal(toy->zeroed, zero_cases[i].zeroed);
        assert_int_equal(toy->begun, zero_cases[i].written);
    }
}

/* A format that has no zero clusters gets zeroes written. */
static void test_zeroes_written(void **state)
{
    (void)state;
    toy->no_zero = true;
    assert_int_equal(lam_image_zero(image, 100, 3 * CLUSTER, 0, NULL), 0);
    memset(model + 100, 0, 3 * CLUSTER);
    check_content();
    assert_int_equal(lam_image_zero(image, 100, 3 * CLUSTER,
                                    LAM_ZERO_NO_FALLBACK, NULL), -ENOTSUP);
}

static ssize_t fail_writev(struct lam_io *io, const struct iovec *iov,
                           int iovcnt, uint64_t offset)
{
    (void)io;
    (void)iov;
    (void)iovcnt;
    (void)offset;
    return -ENOSPC;
}

/* A write that fails leaves what was there. */
static void test_cancel(void **state)
{
    (void)state;
    const struct lam_io_ops *ops = toy->io->ops;
    struct lam_io_ops failing = *ops;
    uint8_t byte = 1;

    failing.writev = fail_writev;
    toy->io->ops = &failing;
    assert_int_equal(lam_image_write(image, &byte, 1, 100, 0, NULL), -ENOSPC);
    toy->io->ops = ops;
    assert_int_equal(toy->cancelled, 1);
    assert_int_equal(toy->finished, 0);
    check_content();
}

static void test_refusals(void **state)
{
    (void)state;
    uint8_t bytes[16] = { 0 };
    assert_int_equal(lam_image_write(image, bytes, 16, SIZE - 15, 0, NULL),
                     -EINVAL);
    assert_int_equal(lam_image_write(image, bytes, 16, UINT64_MAX - 3, 0, NULL),
                     -EINVAL);
    assert_int_equal(lam_image_read(image, bytes, 16, SIZE, NULL), -EINVAL);
    assert_int_equal(lam_image_zero(image, SIZE, 1, 0, NULL), -EINVAL);
    assert_int_equal(lam_image_write(image, bytes, 16, 0, LAM_WRITE_COMPRESSED,
                                     NULL), -ENOTSUP);
    image->writable = false;
    assert_int_equal(lam_image_write(image, bytes, 1, 0, 0, NULL), -EROFS);
    assert_int_equal(lam_image_zero(image, 0, 1, 0, NULL), -EROFS);
    assert_int_equal(lam_image_discard(image, 0, 1, NULL), -EROFS);
    assert_int_equal(lam_image_truncate(image, 512, 0, NULL), -EROFS);
    image->metadata_only = true;
    assert_int_equal(lam_image_read(image, bytes, 1, 0, NULL), -EINVAL);
}

static void test_flushes(void **state)
{
    (void)state;
    uint8_t byte = 1;
    assert_int_equal(lam_image_write(image, &byte, 1, 0, 0, NULL), 0);
    assert_int_equal(toy->flushed, 0);
    assert_int_equal(lam_image_write(image, &byte, 1, 0, LAM_WRITE_FUA, NULL),
                     0);
    assert_int_equal(toy->flushed, 1);
    image->flush_writes = true;
    assert_int_equal(lam_image_write(image, &byte, 1, 0, 0, NULL), 0);
    assert_int_equal(lam_image_zero(image, 0, 1, 0, NULL), 0);
    assert_int_equal(toy->flushed, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_past_the_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zeroes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_zeroes_written, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refusals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flushes, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
