/* SPDX-License-Identifier: MIT */
/*
 * test-buffer.c - large buffers; and the pool: none in two hands, more than
 * there is room for, all sizes, any thread.
 */
#include "unit.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"

enum { HELD = 48, ROUNDS = 20000, THREADS = 4 };

struct held {
    uint8_t *bytes;
    size_t length;
    uint8_t mark;
};

static struct buffer_pool pool;

static void take(struct held *h, unsigned *seed)
{
    static const size_t most[] = { 1, 4096, 65536, 65537, 300000, 3 << 20 };

    h->length = (size_t)rand_r(seed) % most[rand_r(seed) % 6] + 1;
    h->mark = (uint8_t)rand_r(seed);
    h->bytes = buffer_pool_get(&pool, h->length);
    if (!h->bytes || (uintptr_t)h->bytes % 4096)
        abort();
    h->bytes[0] = h->bytes[h->length - 1] = h->mark;
}

/* True: nobody else has written there. */
static bool put(struct held *h)
{
    bool kept = h->bytes[0] == h->mark && h->bytes[h->length - 1] == h->mark;

    buffer_pool_put(&pool, h->bytes, h->length);
    h->bytes = NULL;
    return kept;
}

static void *take_and_put(void *opaque)
{
    struct held held[HELD] = { { 0 } };
    unsigned seed = *(unsigned *)opaque;
    bool kept = true;

    for (int i = 0; i < ROUNDS; i++) {
        struct held *h = &held[rand_r(&seed) % HELD];

        if (h->bytes)
            kept &= put(h);
        else
            take(h, &seed);
    }
    for (int i = 0; i < HELD; i++)
        if (held[i].bytes)
            kept &= put(&held[i]);
    return kept ? NULL : opaque;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    unsigned seeds[THREADS];

    buffer_pool_init(&pool);
    for (unsigned i = 0; i < THREADS; i++) {
        seeds[i] = i + 1;
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_put,
                                        &seeds[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    buffer_pool_deinit(&pool);
}

/* The page is full to the last byte, and whole again afterwards. */
static void test_all_of_the_page(void **state)
{
    (void)state;
    void *parts[33];

    buffer_pool_init(&pool);
    for (int i = 0; i < 16; i++)
        buffer_pool_put(&pool, buffer_pool_get(&pool, 1), 1);
    for (int round = 0; round < 3; round++) {
        uint8_t *whole = buffer_pool_get(&pool, 2 << 20);

        memset(whole, round, 2 << 20);
        buffer_pool_put(&pool, whole, 2 << 20);
        for (int i = 0; i < 33; i++)
            parts[i] = buffer_pool_get(&pool, 64 << 10);
        for (int i = 0; i < 32; i++)
            assert_ptr_equal(parts[i], whole + i * 65536);
        assert_false((uint8_t *)parts[32] >= whole &&
                     (uint8_t *)parts[32] < whole + (2 << 20));
        for (int i = 0; i < 33; i++)
            buffer_pool_put(&pool, parts[i], 64 << 10);
    }
    buffer_pool_deinit(&pool);
}

/* What is large begins where a large page may; all can be written. */
static void test_contiguous(void **state)
{
    (void)state;
    static const size_t sizes[] = { 0, 1, 65536, 512 << 10, 1 << 20,
                                    (2 << 20) + 1, 5 << 20 };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(sizes); i++) {
        uint8_t *bytes = buffer_new_contiguous(sizes[i]);

        assert_non_null(bytes);
        assert_int_equal((uintptr_t)bytes %
                         (sizes[i] < 512 << 10 ? 4096 : 2 << 20), 0);
        memset(bytes, 0xa5, sizes[i]);
        free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_contiguous),
        cmocka_unit_test(test_all_of_the_page),
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
