/* SPDX-License-Identifier: MIT */
/*
 * test-race.c - threads that share clusters and no sector.
 *
 * Each thread writes and zeroes sectors of its own, in clusters that all of
 * them use.  A zero request may take a whole cluster for zero: it must never
 * take a neighbour's write along, nor may one COW undo another's data.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "image/image.h"

enum {
    THREADS = 4, SECTOR = 512, CLUSTER = 4096, CLUSTERS = 400,
    IN_CLUSTER = CLUSTER / SECTOR, SECTORS = IN_CLUSTER * CLUSTERS,
    STEPS = 4 * CLUSTERS,
};

static struct lam_image *image;
static uint8_t expected[SECTORS];       /* the byte that fills each sector */

struct worker {
    pthread_t thread;
    unsigned number;
    uint64_t random;
    bool failed;
};

static uint64_t next_random(struct worker *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}

/* All threads go through the clusters together, so that they meet where nothing
 * is stored yet: there it matters most. */
static int step(struct worker *w, unsigned i)
{
    uint64_t r = next_random(w);
    uint64_t sector = (uint64_t)i * CLUSTERS / STEPS * IN_CLUSTER
        + r % (IN_CLUSTER / THREADS) * THREADS + w->number;
    uint8_t byte = (uint8_t)(1 + (r >> 32) % 255), bytes[SECTOR];

    switch (r >> 60 & 3) {
    case 0:
        expected[sector] = 0;
        return lam_image_zero(image, sector * SECTOR, SECTOR, 0, NULL);
    case 1:
        if (lam_image_read(image, bytes, SECTOR, sector * SECTOR, NULL) < 0)
            return -1;
        for (size_t k = 0; k < SECTOR; k++)
            if (bytes[k] != expected[sector])
                return -1;
        return 0;
    default:
        expected[sector] = byte;
        memset(bytes, byte, SECTOR);
        return lam_image_write(image, bytes, SECTOR, sector * SECTOR, 0, NULL);
    }
}

static void *work(void *opaque)
{
    struct worker *w = opaque;
    for (unsigned i = 0; i < STEPS && !w->failed; i++)
        w->failed = step(w, i) < 0;
    return NULL;
}

static void open_image(bool below)
{
    struct lam_create_options c = LAM_CREATE_OPTIONS_INIT;
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_image *backing = NULL;
    struct lam_io *io;

    for (size_t i = 0; i < SECTORS; i++)
        expected[i] = below ? (uint8_t)(i % 7) : 0;
    if (below) {
        static uint8_t bytes[SECTORS * SECTOR];
        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = expected[i / SECTOR];
        assert_int_equal(lam_io_memory_new(bytes, sizeof bytes, &io, NULL), 0);
        assert_int_equal(image_open_io(io, "raw", NULL, NULL, &backing, NULL),
                         0);
        c.backing_file = "below";
        c.backing_format = "raw";
    }
    c.size = SECTORS * SECTOR;
    c.cluster_size = CLUSTER;
    o.flags = LAM_OPEN_WRITE;
    assert_int_equal(lam_io_memory_new(NULL, 0, &io, NULL), 0);
    assert_int_equal(format_qcow2.create(io, NULL, &c, NULL), 0);
    assert_int_equal(image_open_io(io, "qcow2", &o, backing, &image, NULL), 0);
}

static void run(bool below, uint64_t seed)
{
    struct worker workers[THREADS];
    uint8_t bytes[SECTOR];

    open_image(below);
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){ .number = i, .random = seed + i };
        assert_int_equal(pthread_create(&workers[i].thread, NULL, work,
                                        &workers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        if (workers[i].failed)
            fail_msg("seed %llu, thread %u", (unsigned long long)seed, i);
    }
    for (size_t s = 0; s < SECTORS; s++) {
        assert_int_equal(lam_image_read(image, bytes, SECTOR, s * SECTOR,
                                        NULL), 0);
        for (size_t i = 0; i < SECTOR; i++)
            if (bytes[i] != expected[s])
                fail_msg("seed %llu, sector %zu", (unsigned long long)seed, s);
    }
    assert_int_equal(lam_image_close(image, NULL), 0);
}

static void test_shared_clusters(void **state)
{
    const char *text = getenv("LAM_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : 1;

    (void)state;
    for (uint64_t i = 0; i < 4; i++) {
        run(false, (seed + i) * 1000);
        run(true, (seed + i) * 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared_clusters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
