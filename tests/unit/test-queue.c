/* SPDX-License-Identifier: MIT */
/*
 * test-queue.c - queues of requests: what comes back, by whichever way it went.
 */
#include <poll.h>

#include "queue-disk.h"

/* ------------------------------------------------------------- every kind */

static const struct {
    const char *format;
    const char *backing;
    unsigned flags;
} ways[] = {
    { "raw", NULL, 0 },
    { "raw", NULL, LAM_QUEUE_THREADS },
    { "qcow2", NULL, 0 },
    { "qcow2", NULL, LAM_QUEUE_THREADS },
    { "qcow2", "base", 0 },
};

static void write_and_read(struct lam_image *image, unsigned flags,
                           bool in_place)
{
    struct queue_statistics s;
    struct lam_queue *queue = new_queue(image, flags);
    bool ring = has_direct && has_ring && !flags;

    fill(3);
    run_all(queue, LAM_REQUEST_WRITE);
    fill(9);
    run_all(queue, LAM_REQUEST_WRITE);
    memset(memory, 0, DISK);
    run_all(queue, LAM_REQUEST_READ);
    check(9);
    queue_statistics(queue, &s);
    /* What is written for the first time may need a cluster. */
    assert_true(s.by_ring >= (ring ? in_place ? 3 * BLOCKS : 2 * BLOCKS : 0));
    assert_true(ring || (!s.by_ring && s.by_worker == 3 * BLOCKS));
    lam_queue_free(queue);
}

static void test_ways(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        if (ways[i].backing)
            make("base", "raw", NULL);
        make("disk", ways[i].format, ways[i].backing);
        struct lam_image *image = open_named("disk", ways[i].format,
                                             LAM_OPEN_WRITE);
        write_and_read(image, ways[i].flags, !strcmp(ways[i].format, "raw"));
        assert_works(lam_image_close(image, &err), &err);
    }
}

static void test_kinds(void **state)
{
    struct lam_request all = { .kind = LAM_REQUEST_ZERO, .length = DISK / 2,
                               .cookie = &all, .err = &err };

    (void)state;
    make("disk", "qcow2", NULL);
    struct lam_image *image = open_named("disk", "qcow2",
                                         LAM_OPEN_WRITE | LAM_OPEN_UNMAP);
    struct lam_queue *queue = new_queue(image, 0);

    fill(0);
    run_all(queue, LAM_REQUEST_WRITE);
    assert_int_equal(run(queue, &all), 0);
    all = (struct lam_request){ .kind = LAM_REQUEST_DISCARD, .err = &err,
                                .offset = DISK / 2, .length = DISK / 2 };
    assert_int_equal(run(queue, &all), 0);
    all = (struct lam_request){ .kind = LAM_REQUEST_FLUSH, .err = &err };
    assert_int_equal(run(queue, &all), 0);
    run_all(queue, LAM_REQUEST_READ);
    for (size_t i = 0; i < DISK; i++)
        assert_int_equal(memory[i], 0);
    lam_queue_free(queue);
    assert_works(lam_image_close(image, &err), &err);
}

/* One read over clusters that lie apart, over zeroes, and over what the backing
 * file has. */
static void test_parts(void **state)
{
    enum { CLUSTER = 65536 };
    static const int order[] = { 0, 2, 5, 4 };

    (void)state;
    make("base", "raw", NULL);
    struct lam_image *base = open_named("base", "raw", LAM_OPEN_WRITE);
    fill(1);
    assert_works(lam_image_write(base, memory, DISK, 0, 0, &err), &err);
    assert_works(lam_image_close(base, &err), &err);
    make("disk", "qcow2", "base");
    struct lam_image *image = open_named("disk", "qcow2", LAM_OPEN_WRITE);
    fill(7);
    for (size_t i = 0; i < 4; i++)
        assert_works(lam_image_write(image, memory + order[i] * CLUSTER,
                                     CLUSTER, (uint64_t)order[i] * CLUSTER, 0,
                                     &err), &err);
    assert_works(lam_image_zero(image, 3 * CLUSTER, CLUSTER, 0, &err), &err);

    struct lam_queue *queue = new_queue(image, 0);
    for (uint64_t blocks = 8; blocks <= 128; blocks *= 2) {
        struct lam_request r = { .buf = memory, .length = blocks * BLOCK,
                                 .err = &err };
        memset(memory, 0xee, DISK);
        assert_int_equal(run(queue, &r), 0);
        for (size_t i = 0; i < blocks; i++) {
            size_t c = i / (CLUSTER / BLOCK);
            bool mine = c == 0 || c == 2 || c == 4 || c == 5;
            assert_int_equal(memory[i * BLOCK + i], c == 3 ? 0 :
                             1 + (i + (mine ? 7 : 1)) % 251);
        }
        assert_true(blocks * BLOCK == DISK || memory[blocks * BLOCK] == 0xee);
    }
    lam_queue_free(queue);
    assert_works(lam_image_close(image, &err), &err);
}

/* ---------------------------------------------------------------- the rules */

static void test_depth(void **state)
{
    struct lam_request requests[DEPTH + 8];
    struct lam_result results[DEPTH + 8];

    (void)state;
    make("disk", "raw", NULL);
    struct lam_image *image = open_named("disk", "raw", 0);
    for (unsigned flags = 0; flags <= LAM_QUEUE_THREADS; flags++) {
        struct lam_queue *queue = new_queue(image, flags);
        for (size_t i = 0; i < DEPTH + 8; i++)
            requests[i] = block_request(LAM_REQUEST_READ, i);
        assert_int_equal(lam_queue_submit(queue, requests, DEPTH + 8), DEPTH);
        assert_int_equal(lam_queue_submit(queue, requests, 1), 0);
        assert_int_equal(lam_queue_reap(queue, results, 0, 0, -1), 0);
        assert_int_equal(lam_queue_reap(queue, results, 3, 3, -1), 3);
        assert_int_equal(lam_queue_submit(queue, requests + DEPTH, 8), 3);
        /* More than there are: all there are. */
        assert_int_equal(lam_queue_reap(queue, results, DEPTH + 8, DEPTH + 8,
                                        -1), DEPTH);
        assert_int_equal(lam_queue_reap(queue, results, 1, 1, -1), 0);
        lam_queue_free(queue);
    }
    assert_works(lam_image_close(image, &err), &err);
}

static void test_options(void **state)
{
    struct lam_queue_options wrong[] = {
        { .depth = LAM_QUEUE_DEPTH_MAX + 1 },
        { .workers = LAM_QUEUE_DEPTH_MAX + 1 },
        { .flags = 1u << 31 },
    };
    struct lam_queue *queue = NULL;

    (void)state;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(lam_queue_new(NULL, &wrong[i], &queue, &err),
                         -EINVAL);
    lam_queue_free(NULL);
}

static void test_errors(void **state)
{
    struct { struct lam_request request; int rc; const char *text; } cases[] = {
        { { .kind = LAM_REQUEST_READ, .offset = DISK, .length = 1 }, -EINVAL,
          "ends beyond the image's size" },
        { { .kind = LAM_REQUEST_READ, .length = 1, .flags = LAM_WRITE_FUA },
          -EINVAL, "flags 0x1 are not known" },
        { { .kind = LAM_REQUEST_WRITE, .length = BLOCK }, -EROFS,
          "Block node is read-only" },
        { { .kind = LAM_REQUEST_WRITE, .length = 1, .flags = 64 }, -EINVAL,
          "flags 0x40 are not known" },
        { { .kind = LAM_REQUEST_ZERO, .length = 1 }, -EROFS, "read-only" },
        { { .kind = LAM_REQUEST_DISCARD, .length = 1, .flags = 1 }, -EINVAL,
          "flags 0x1 are not known" },
        { { .kind = LAM_REQUEST_FLUSH, .flags = 1 }, -EINVAL,
          "flags 0x1 are not known" },
        { { .kind = 77 }, -EINVAL, "unknown kind of request: 77" },
    };

    (void)state;
    make("disk", "raw", NULL);
    struct lam_image *image = open_named("disk", "raw", 0);
    struct lam_queue *queue = new_queue(image, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cases[i].request.buf = memory;
        cases[i].request.err = &err;
        assert_int_equal(run(queue, &cases[i].request), cases[i].rc);
        if (!strstr(err.message, cases[i].text))
            fail_msg("case %zu: %s", i, err.message);
        cases[i].request.err = NULL;
        assert_int_equal(run(queue, &cases[i].request), cases[i].rc);
    }
    lam_queue_free(queue);
    assert_works(lam_image_close(image, &err), &err);
}

/* The file has been cut behind our back: what the ring reads is short, and the
 * message is that of a thread. */
static void test_short_read(void **state)
{
    struct lam_request r = block_request(LAM_REQUEST_READ, BLOCKS / 2);
    struct lam_error plain = LAM_ERROR_INIT;

    (void)state;
    make("disk", "raw", NULL);
    struct lam_image *image = open_named("disk", "raw", 0);
    struct lam_queue *queue = new_queue(image, 0);
    assert_int_equal(run(queue, &r), 0);
    assert_int_equal(truncate("disk", DISK / 2), 0);
    assert_int_equal(run(queue, &r), -EIO);
    assert_int_equal(lam_image_read(image, memory, BLOCK, r.offset, &plain),
                     -EIO);
    assert_string_equal(err.message, plain.message);
    assert_non_null(strstr(err.message, "the file ends at"));
    lam_queue_free(queue);
    assert_works(lam_image_close(image, &err), &err);
}

/* What listens or fails on purpose is asked by a thread. */
static void test_filter(void **state)
{
    struct lam_request r = block_request(LAM_REQUEST_READ, 1);
    struct queue_statistics s;

    (void)state;
    make("disk", "raw", NULL);
    struct lam_image *image = open_named(
        "json:{\"driver\": \"raw\", \"file\": {\"driver\": \"blkdebug\", "
        "\"image\": {\"driver\": \"file\", \"filename\": \"disk\"}, "
        "\"inject-error\": [{\"event\": \"read_aio\", "
        "\"sector\": 8}]}}", NULL, 0);
    struct lam_queue *queue = new_queue(image, 0);
    assert_int_equal(run(queue, &r), -EIO);
    r = block_request(LAM_REQUEST_READ, 2);
    assert_int_equal(run(queue, &r), 0);
    queue_statistics(queue, &s);
    assert_int_equal(s.by_ring, 0);
    assert_int_equal(s.by_worker, 2);
    lam_queue_free(queue);
    assert_works(lam_image_close(image, &err), &err);
}

/* A buffer or a place that O_DIRECT does not take goes by a thread. */
static void test_unaligned(void **state)
{
    struct lam_request w = { .kind = LAM_REQUEST_WRITE, .buf = memory + 3,
                             .offset = 1001, .length = 2003, .err = &err };
    uint8_t bytes[BLOCK];

    (void)state;
    make("disk", "raw", NULL);
    struct lam_image *image = open_named("disk", "raw", LAM_OPEN_WRITE);
    struct lam_queue *queue = new_queue(image, 0);
    fill(5);
    assert_int_equal(run(queue, &w), 0);
    assert_works(lam_image_read(image, bytes, BLOCK, 0, &err), &err);
    assert_memory_equal(bytes + 1001, memory + 3, 2003);
    assert_int_equal(bytes[1000] | bytes[3004], 0);
    lam_queue_free(queue);
    assert_works(lam_image_close(image, &err), &err);
}

static void test_free_under_way(void **state)
{
    struct lam_request requests[DEPTH];

    (void)state;
    make("disk", "qcow2", NULL);
    struct lam_image *image = open_named("disk", "qcow2", LAM_OPEN_WRITE);
    for (int round = 0; round < 4; round++) {
        struct lam_queue *queue = new_queue(image, 0);
        fill((uint8_t)round);
        for (size_t i = 0; i < DEPTH; i++)
            requests[i] = block_request(LAM_REQUEST_WRITE, i);
        assert_int_equal(lam_queue_submit(queue, requests, DEPTH), DEPTH);
        lam_queue_free(queue);
        memset(memory, 0, DISK);
        assert_works(lam_image_read(image, memory, DEPTH * BLOCK, 0, &err),
                     &err);
        for (size_t i = 0; i < DEPTH; i++)
            assert_int_equal(memory[i * BLOCK + 99], 1 + (i + round) % 251);
    }
    assert_works(lam_image_close(image, &err), &err);
}

static bool can_read(int fd, int timeout_ms)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };

    return poll(&p, 1, timeout_ms) == 1;
}

static void test_eventfd(void **state)
{
    struct lam_request requests[3];
    struct lam_result results[3];

    (void)state;
    make("disk", "qcow2", NULL);
    struct lam_image *image = open_named("disk", "qcow2", LAM_OPEN_WRITE);
    for (unsigned flags = 0; flags <= LAM_QUEUE_THREADS; flags++) {
        struct lam_queue *queue = new_queue(image, flags);
        int fd = lam_queue_fd(queue);
        assert_true(fd >= 0);
        assert_int_equal(lam_queue_fd(queue), fd);
        for (unsigned round = 0; round < 3; round++) {
            /* Nothing is there, though the kernel may say so late. */
            for (int late = 0; can_read(fd, 0); late++) {
                assert_int_equal(lam_queue_reap(queue, results, 3, 0, -1), 0);
                assert_true(late < 100);
            }
            for (size_t i = 0; i < 3; i++)
                requests[i] = block_request(round == 2 ? LAM_REQUEST_READ
                                            : LAM_REQUEST_WRITE, i);
            assert_int_equal(lam_queue_submit(queue, requests, 3), 3);
            /* One at a time: the others keep it readable. */
            for (size_t n = 0; n < 3; ) {
                assert_true(can_read(fd, 60000));
                n += lam_queue_reap(queue, results, 1, 0, -1);
            }
        }
        lam_queue_free(queue);
    }
    assert_works(lam_image_close(image, &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ways),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_short_read),
        cmocka_unit_test(test_filter),
        cmocka_unit_test(test_unaligned),
        cmocka_unit_test(test_free_under_way),
        cmocka_unit_test(test_eventfd),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
