/* SPDX-License-Identifier: MIT */
/*
 * test-queue-threads.c - queues of requests beside others who wait, where there
 * is no ring, and from many threads at once.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "queue-disk.h"

#include "image/graph.h"

/* ------------------------------------------------------------------ waiting */

/* While the chain is being changed a request waits, and who reaps only as long
 * as he said. */
static void test_timeout(void **state)
{
    struct lam_request r = block_request(LAM_REQUEST_READ, 0);
    struct lam_result result;

    (void)state;
    make("disk", "raw", NULL);
    struct lam_image *image = open_named("disk", "raw", 0);
    struct lam_queue *queue = new_queue(image, 0);
    image_graph_lock(image);
    image_graph_begin_change(image);
    assert_int_equal(lam_queue_submit(queue, &r, 1), 1);
    assert_int_equal(lam_queue_reap(queue, &result, 1, 1, 0), 0);
    assert_int_equal(lam_queue_reap(queue, &result, 1, 1, 3), 0);
    image_graph_end_change(image);
    image_graph_unlock(image);
    assert_int_equal(lam_queue_reap(queue, &result, 1, 1, -1), 1);
    assert_int_equal(result.rc, 0);
    lam_queue_free(queue);
    assert_works(lam_image_close(image, &err), &err);
}

/* Nobody reaps, and the one who would waits for all requests to end himself:
 * for the place of an overlay, and for the rest of a block. */
static void test_nobody_reaps(void **state)
{
    struct lam_request requests[DEPTH];
    struct lam_result results[DEPTH];

    (void)state;
    make("disk", "qcow2", NULL);
    struct lam_image *image = open_named("disk", "qcow2", LAM_OPEN_WRITE);
    struct lam_queue *queue = new_queue(image, 0);
    fill(2);
    run_all(queue, LAM_REQUEST_WRITE);
    fill(4);
    for (size_t i = 0; i < DEPTH; i++)
        requests[i] = block_request(LAM_REQUEST_WRITE, i);
    assert_int_equal(lam_queue_submit(queue, requests, DEPTH / 2), DEPTH / 2);
    assert_works(lam_image_zero(image, DISK - 1024, 512, 0, &err), &err);
    assert_int_equal(lam_queue_submit(queue, requests + DEPTH / 2, DEPTH / 2),
                     DEPTH / 2);
    unlink("over");
    assert_works(lam_image_snapshot_external(image, "over", NULL, &err), &err);
    assert_int_equal(lam_queue_reap(queue, results, DEPTH, DEPTH, -1), DEPTH);
    memset(memory, 0, DEPTH * BLOCK);
    assert_works(lam_image_read(image, memory, DEPTH * BLOCK, 0, &err), &err);
    for (size_t i = 0; i < DEPTH; i++)
        assert_int_equal(memory[i * BLOCK], 1 + (i + 4) % 251);
    lam_queue_free(queue);
    assert_works(lam_image_close(image, &err), &err);
}

/* ------------------------------------------------------------- no ring here */

static void expect_threads(const char *name)
{
    struct lam_image *image = open_named(name, "raw", 0);
    struct queue_statistics s;
    struct lam_queue *queue;

    queue = new_queue(image, 0);
    memset(memory, 0xff, DISK);
    run_all(queue, LAM_REQUEST_READ);
    queue_statistics(queue, &s);
    assert_false(s.has_ring);
    assert_int_equal(s.by_worker, BLOCKS);
    lam_queue_free(queue);
    assert_works(lam_image_close(image, &err), &err);
}

/* The build may lack the call altogether: then it is refused as well. */
static int refuse_ring(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),      /* the number */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 425, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { 4, code };

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static void *run_refused(void *opaque)
{
    bool *refused = opaque;

    /* The filter is this thread's, and of those that it starts. */
    *refused = refuse_ring() == 0;
    if (*refused)
        expect_threads("disk");
    return NULL;
}

static void test_seccomp(void **state)
{
    bool refused = false;
    pthread_t thread;

    (void)state;
    make("disk", "raw", NULL);
    assert_int_equal(pthread_create(&thread, NULL, run_refused, &refused), 0);
    pthread_join(thread, NULL);
    if (!refused) {
        print_message("SKIP: no seccomp here\n");
        skip();
    }
}

/* No descriptor is left for the ring. */
static void test_no_descriptor(void **state)
{
    struct rlimit before, none;
    struct queue_statistics s;

    (void)state;
    make("disk", "raw", NULL);
    struct lam_image *image = open_named("disk", "raw", 0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    struct lam_queue *queue = new_queue(image, 0);
    assert_int_equal(lam_queue_fd(queue), -1);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    run_all(queue, LAM_REQUEST_READ);
    queue_statistics(queue, &s);
    assert_false(s.has_ring);
    lam_queue_free(queue);
    assert_works(lam_image_close(image, &err), &err);
}

/* ------------------------------------------------------------------ threads */

enum { THREADS = 16, STEPS = 30, AT_ONCE = 4 };

struct slot {
    atomic_bool ended;
    atomic_int rc;
    uint8_t block;              /* of the thread's */
    bool read;
    uint8_t *buf;
};

struct submitter {
    pthread_t thread;
    struct lam_queue *queue;
    unsigned number;
    uint64_t random;
    uint8_t expected[BLOCKS / THREADS];
    struct slot slots[AT_ONCE];
    const char *failed;
};

static uint64_t next_random(struct submitter *s)
{
    s->random ^= s->random << 13;
    s->random ^= s->random >> 7;
    s->random ^= s->random << 17;
    return s->random;
}

/* Neighbouring blocks are different threads'. */
static struct lam_request next_request(struct submitter *s, struct slot *slot,
                                       uint8_t block)
{
    uint64_t r = next_random(s);
    struct lam_request request = {
        .kind = r % 8 == 0 ? LAM_REQUEST_ZERO
              : r % 2 ? LAM_REQUEST_WRITE : LAM_REQUEST_READ,
        .buf = slot->buf, .length = BLOCK, .cookie = slot,
        .offset = ((uint64_t)block * THREADS + s->number) * BLOCK,
    };

    slot->block = block;
    slot->read = request.kind == LAM_REQUEST_READ;
    atomic_store(&slot->ended, false);
    if (request.kind == LAM_REQUEST_ZERO)
        s->expected[block] = 0;
    if (request.kind == LAM_REQUEST_WRITE)
        s->expected[block] = (uint8_t)(r >> 32);
    memset(slot->buf, request.kind == LAM_REQUEST_WRITE
           ? s->expected[block] : 0x5a, BLOCK);
    return request;
}

/* Results are anybody's: who gets one tells whose it is. */
static void reap_some(struct submitter *s)
{
    struct lam_result results[AT_ONCE];
    size_t n = lam_queue_reap(s->queue, results, AT_ONCE, 1, -1);

    for (size_t i = 0; i < n; i++) {
        struct slot *slot = results[i].cookie;
        atomic_store(&slot->rc, results[i].rc);
        atomic_store(&slot->ended, true);
    }
}

static void await(struct submitter *s, unsigned count)
{
    for (unsigned i = 0; i < count && !s->failed; i++) {
        struct slot *slot = &s->slots[i];

        while (!atomic_load(&slot->ended))
            reap_some(s);
        if (atomic_load(&slot->rc) < 0)
            s->failed = "request";
        for (size_t k = 0; slot->read && k < BLOCK; k += 64)
            if (slot->buf[k] != s->expected[slot->block])
                s->failed = "content";
    }
}

static void *submit_all(void *opaque)
{
    struct submitter *s = opaque;

    for (unsigned i = 0; i < STEPS && !s->failed; i++) {
        struct lam_request requests[AT_ONCE];
        unsigned count = 1 + (unsigned)(next_random(s) % AT_ONCE);
        size_t done = 0;

        for (unsigned k = 0; k < count; k++)
            requests[k] = next_request(s, &s->slots[k],
                                       (uint8_t)((i * AT_ONCE + k) %
                                                 (BLOCKS / THREADS)));
        while ((done += lam_queue_submit(s->queue, requests + done,
                                         count - done)) < count)
            reap_some(s);
        await(s, count);
    }
    return NULL;
}

/* Several queues, so that not all threads reap from one. */
static void run_threads(struct lam_image *image, bool snapshots, uint64_t seed)
{
    static struct submitter all[THREADS];
    struct lam_queue *queues[2] = { new_queue(image, 0), new_queue(image, 0) };
    uint8_t *buffers = aligned_alloc(BLOCK, THREADS * AT_ONCE * BLOCK);

    for (unsigned i = 0; i < THREADS; i++) {
        all[i] = (struct submitter){ .number = i, .random = seed + i,
                                     .queue = queues[i % 5 == 0] };
        for (unsigned k = 0; k < AT_ONCE; k++)
            all[i].slots[k].buf = buffers + (i * AT_ONCE + k) * BLOCK;
        assert_int_equal(pthread_create(&all[i].thread, NULL, submit_all,
                                        &all[i]), 0);
    }
    for (unsigned i = 0; snapshots && i < 3; i++) {
        char name[16];
        snprintf(name, sizeof name, "over%u", i);
        unlink(name);
        assert_works(lam_image_snapshot_external(image, name, NULL, &err),
                     &err);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(all[i].thread, NULL);
        if (all[i].failed)
            fail_msg("seed %llu, thread %u: %s", (unsigned long long)seed, i,
                     all[i].failed);
    }
    lam_queue_free(queues[0]);
    lam_queue_free(queues[1]);
    free(buffers);
    assert_works(lam_image_read(image, memory, DISK, 0, &err), &err);
    for (size_t i = 0; i < BLOCKS; i++)
        assert_int_equal(memory[i * BLOCK],
                         all[i % THREADS].expected[i / THREADS]);
}

static void test_threads(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        const char *format = i ? "qcow2" : "raw";
        make("disk", format, NULL);
        struct lam_image *image = open_named("disk", format, LAM_OPEN_WRITE);
        run_threads(image, i == 2, 1000 + i);
        assert_works(lam_image_close(image, &err), &err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_nobody_reaps),
        cmocka_unit_test(test_seccomp),
        cmocka_unit_test(test_no_descriptor),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
