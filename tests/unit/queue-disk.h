/* SPDX-License-Identifier: MIT */
/*
 * queue-disk.h - what the tests of queues share: a small disk, and requests for
 * each of its blocks.
 *
 * In a directory on disk, since only what is open with O_DIRECT goes to the
 * ring.  Where the file system has no O_DIRECT, or the kernel no ring, the same
 * is tested of the threads.
 */
#ifndef LAM_TESTS_QUEUE_DISK_H
#define LAM_TESTS_QUEUE_DISK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "unit.h"

#include "image/queue.h"
#include "io/uring.h"

enum { BLOCK = 4096, BLOCKS = 256, DISK = BLOCK * BLOCKS, DEPTH = 32 };

static bool has_direct;         /* the file system has O_DIRECT */
static bool has_ring;           /* so have the kernel and the build one */
static uint8_t *memory;         /* a block for each of the disk's */

static struct lam_error err = LAM_ERROR_INIT;

static inline void make(const char *name, const char *format,
                        const char *backing)
{
    struct lam_create_options c = LAM_CREATE_OPTIONS_INIT;

    c.format = format;
    c.size = DISK;
    c.backing_file = backing;
    c.backing_format = backing ? "raw" : NULL;
    unlink(name);
    assert_works(lam_image_create(name, &c, &err), &err);
}

static inline struct lam_image *open_named(const char *name,
                                           const char *format,
                                           unsigned flags)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_image *image = NULL;

    o.format = format;
    o.policy = LAM_POLICY_TRUST;
    o.flags = flags;
    o.cache = has_direct ? LAM_CACHE_NONE : LAM_CACHE_WRITEBACK;
    assert_works(lam_image_open(name, &o, &image, &err), &err);
    return image;
}

static inline struct lam_queue *new_queue(struct lam_image *image,
                                          unsigned flags)
{
    struct lam_queue_options o = { .depth = DEPTH, .flags = flags };
    struct lam_queue *queue = NULL;

    assert_works(lam_queue_new(image, &o, &queue, &err), &err);
    return queue;
}

static inline struct lam_request block_request(enum lam_request_kind kind,
                                               uint64_t block)
{
    return (struct lam_request){
        .kind = kind, .buf = memory + block * BLOCK, .length = BLOCK,
        .offset = block * BLOCK, .cookie = memory + block * BLOCK,
        .err = &err,
    };
}

/* Submits one and takes its result. */
static inline int run(struct lam_queue *queue,
                      const struct lam_request *request)
{
    struct lam_result result = { NULL, 1 };

    assert_int_equal(lam_queue_submit(queue, request, 1), 1);
    assert_int_equal(lam_queue_reap(queue, &result, 1, 1, -1), 1);
    assert_ptr_equal(result.cookie, request->cookie);
    return result.rc;
}

/* All blocks, as many at once as the queue takes. */
static inline void run_all(struct lam_queue *queue, enum lam_request_kind kind)
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

static inline void fill(uint8_t salt)
{
    for (size_t i = 0; i < BLOCKS; i++)
        memset(memory + i * BLOCK, (int)(1 + (i + salt) % 251), BLOCK);
}

static inline void check(uint8_t salt)
{
    for (size_t i = 0; i < DISK; i += 512)
        assert_int_equal(memory[i], 1 + (i / BLOCK + salt) % 251);
}

/* ---------------------------------------------------------------- the place */

static char directory[] = "queue-XXXXXX";

static inline int setup(void **state)
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

static inline int teardown(void **state)
{
    static const char *const names[] = { "probe", "disk", "base", "over",
                                         "over0", "over1", "over2" };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        unlink(names[i]);
    free(memory);
    return chdir("..") < 0 ? -1 : rmdir(directory);
}

#endif
