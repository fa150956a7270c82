/* SPDX-License-Identifier: MIT */
/*
 * test-queue.c - queues of requests: what comes back, by whichever way it went.
 *
 * In a directory on disk, since only what is open with O_DIRECT goes to the
 * ring.  Where the file system has no O_DIRECT, or the kernel no ring, the same
 * is tested of the threads.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "unit.h"

#include "image/graph.h"
#include "image/queue.h"
#include "io/uring.h"

enum { BLOCK = 4096, BLOCKS = 256, DISK = BLOCK * BLOCKS, DEPTH = 32 };

static bool has_direct;         /* the file system has O_DIRECT */
static bool has_ring;           /* so have the kernel and the build one */
static uint8_t *memory;         /* a block for each of the disk's */

static struct lam_error err = LAM_ERROR_INIT;

static void make(const char *name, const char *format, const char *backing)
{
    struct lam_create_options c = LAM_CREATE_OPTIONS_INIT;

    c.format = format;
    c.size = DISK;
    c.backing_file = backing;
    c.backing_format = backing ? "raw" : NULL;
    unlink(name);
    assert_works(lam_image_create(name, &c, &err), &err);
}

static struct lam_image *open_named(const char *name, const char *format,
                                    unsigned flags)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_image *image = NULL;

    o.format = format;
    o.flags = flags;
    o.cache = has_direct ? LAM_CACHE_NONE : LAM_CACHE_WRITEBACK;
    assert_works(lam_image_open(name, &o, &image, &err), &err);
    return image;
}

static struct lam_queue *new_queue(struct lam_image *image, unsigned flags)
{
    struct lam_queue_options o = { .depth = DEPTH, .flags = flags };
    struct lam_queue *queue = NULL;

    assert_works(lam_queue_new(image, &o, &queue, &err), &err);
    return queue;
}

static struct lam_request block_request(enum lam_request_kind kind,
                                        uint64_t block)
{
    return (struct lam_request){
        .kind = kind, .buf = memory + block * BLOCK, .length = BLOCK,
        .offset = block * BLOCK, .cookie = memory + block * BLOCK,
        .err = &err,
    };
}

/* Submits one and takes its result. */
static int run(struct lam_queue *queue, const struct lam_request *request)
{
    struct lam_result result = { NULL, 1 };

    assert_int_equal(lam_queue_submit(queue, request, 1), 1);
    assert_int_equal(lam_queue_reap(queue, &result, 1, 1, -1), 1);
    assert_ptr_equal(result.cookie, request->cookie);
    return result.rc;
}

/* All blocks, as many at once as the queue takes. */
static void run_all(struct lam_queue *queue, enum lam_request_kind kind)
{
    uint8_t seen[BLOCKS] = { 0 };

    for (uint64_t next = 0, ended = 0; ended < BLOCKS; ) {
        struct lam_request requests[8];
        struct lam_result results[8];
        size_t count = 0;

        while (count < 8 && next + count < BLOCKS) {
            requests[count] = block_request(kind, next + count);
            count++;
        }
        next += lam_queue_submit(queue, requests, count);
        size_t n = lam_queue_reap(queue, results, 8, 1, -1);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(results[i].rc, 0);
            seen[((uint8_t *)results[i].cookie - memory) / BLOCK]++;
        }
        ended += n;
    }
    for (size_t i = 0; i < BLOCKS; i++)
        assert_int_equal(seen[i], 1);
}

static void fill(uint8_t salt)
{
    for (size_t i = 0; i < BLOCKS; i++)
        memset(memory + i * BLOCK, (int)(1 + (i + salt) % 251), BLOCK);
}

static void check(uint8_t salt)
{
    for (size_t i = 0; i < DISK; i += 512)
        assert_int_equal(memory[i], 1 + (i / BLOCK + salt) % 251);
}

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
    assert_true(ring || !s.by_ring);
    assert_true(s.by_worker <= (ring ? in_place ? 0 : BLOCKS : 3 * BLOCKS));
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
            /* Whatever was there is taken; then nothing is. */
            assert_int_equal(lam_queue_reap(queue, results, 3, 0, -1), 0);
            assert_false(can_read(fd, 0));
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

/* --------------------------------------------------------------- no ring here */

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

/* -------------------------------------------------------------------- threads */

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

/* ----------------------------------------------------------------- the place */

static char directory[] = "queue-XXXXXX";

static int setup(void **state)
{
    struct uring *ring;

    (void)state;
    memory = aligned_alloc(BLOCK, DISK);
    if (!memory || !mkdtemp(directory) || chdir(directory) < 0)
        return -1;
    int fd = open("probe", O_RDWR | O_CREAT | O_DIRECT, 0600);
    has_direct = fd >= 0;
    if (fd >= 0)
        close(fd);
    has_ring = uring_new(1, &ring) == 0;
    uring_free(ring);
    return 0;
}

static int teardown(void **state)
{
    static const char *const names[] = { "probe", "disk", "base", "over",
                                         "over0", "over1", "over2" };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(names[i]);
    free(memory);
    return chdir("..") < 0 ? -1 : rmdir(directory);
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
        cmocka_unit_test(test_unaligned),
        cmocka_unit_test(test_free_under_way),
        cmocka_unit_test(test_eventfd),
        cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_nobody_reaps),
        cmocka_unit_test(test_seccomp),
        cmocka_unit_test(test_no_descriptor),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
