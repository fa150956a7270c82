/* SPDX-License-Identifier: MIT */
/*
 * sim.h - what the simulations share: numbers from a seed, images in memory.
 *
 * LAM_SEED=n runs that seed alone, LAM_OPS=n sets the length of each run, and
 * LAM_SEEDS=n how many seeds are tried.  A failure prints the seed.
 */
#ifndef TEST_SIM_H
#define TEST_SIM_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/arith.h"
#include "format/qcow2/check.h"
#include "format/qcow2/header.h"
#include "image/image.h"
#include "io/record.h"

static inline uint64_t sim_random(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* 0 .. limit - 1. */
static inline uint64_t sim_below(uint64_t *state, uint64_t limit)
{
    return sim_random(state) % limit;
}

static inline uint64_t sim_setting(const char *name, uint64_t otherwise)
{
    const char *value = getenv(name);

    return value ? strtoull(value, NULL, 0) : otherwise;
}

/* Seeds [*first, *end) of this run. */
static inline void sim_seeds(uint64_t count, uint64_t *first, uint64_t *end)
{
    const char *seed = getenv("LAM_SEED");

    *first = seed ? strtoull(seed, NULL, 0) : 1;
    *end = *first + (seed ? 1 : sim_setting("LAM_SEEDS", count));
}

/* LAM_THREADS=1: of a program's tests only @test, which has threads.  The
 * others are slow under TSan and prove nothing there. */
static inline void sim_threads_only(const char *test)
{
    if (sim_setting("LAM_THREADS", 0))
        cmocka_set_test_filter(test);
}

#define SIM_CHECK(ok, seed, ...)                                            \
    do {                                                                    \
        if (!(ok)) {                                                        \
            print_message("LAM_SEED=%#llx: ", (unsigned long long)(seed));  \
            print_message(__VA_ARGS__);                                     \
            print_message("\n");                                            \
            fail();                                                         \
        }                                                                   \
    } while (0)

/* The kinds of image that a seed chooses from. */
struct sim_kind {
    const char *name;
    uint64_t cluster_size;
    unsigned version, refcount_bits;
    bool lazy, extended_l2, zstd;
};

static const struct sim_kind sim_kinds[] = {
    { "512, 16 bit", 512, 3, 16, false, false, false },
    { "512, 1 bit", 512, 3, 1, false, false, false },
    { "512, 64 bit", 512, 3, 64, false, false, true },
    { "4k", 4096, 3, 16, false, false, false },
    { "4k, v2", 4096, 2, 16, false, false, false },
    { "4k, lazy", 4096, 3, 16, true, false, false },
    { "4k, 2 bit", 4096, 3, 2, false, false, false },
    { "16k, subclusters", 16384, 3, 16, false, true, false },
    { "64k", 65536, 3, 16, false, false, false },
    { "64k, 8 bit, zstd", 65536, 3, 8, false, false, true },
    { "64k, subclusters", 65536, 3, 16, false, true, true },
};

static inline struct lam_create_options
sim_create_options(const struct sim_kind *kind, uint64_t size, bool backing)
{
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;

    o.format = "qcow2";
    o.size = size;
    o.cluster_size = kind->cluster_size;
    o.version = kind->version;
    o.refcount_bits = kind->refcount_bits;
    o.lazy_refcounts = kind->lazy;
    o.extended_l2 = kind->extended_l2;
    o.compression_type = kind->zstd ? 1 : 0;
    if (backing) {
        o.backing_file = "base";
        o.backing_format = "raw";
    }
    return o;
}

/* A new empty image in memory. */
static inline struct lam_io *sim_create(const struct sim_kind *kind,
                                        uint64_t size, bool backing)
{
    struct lam_create_options o = sim_create_options(kind, size, backing);
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io;

    assert_int_equal(lam_io_memory_new(NULL, 0, &io, &err), 0);
    if (format_qcow2.create(io, NULL, &o, &err) < 0)
        fail_msg("create %s: %s", kind->name, err.message);
    return io;
}

/* A copy of the bytes in @io. */
static inline uint8_t *sim_bytes(struct lam_io *io, uint64_t *length)
{
    assert_int_equal(lam_io_size(io, length, NULL), 0);
    uint8_t *bytes = malloc(*length ? *length : 1);
    assert_non_null(bytes);
    assert_int_equal(lam_io_read(io, bytes, *length, 0, NULL), 0);
    return bytes;
}

static inline struct lam_io *sim_copy(struct lam_io *io)
{
    uint64_t length;
    uint8_t *bytes = sim_bytes(io, &length);
    struct lam_io *copy;

    assert_int_equal(lam_io_memory_new(bytes, length, &copy, NULL), 0);
    free(bytes);
    return copy;
}

static inline void sim_print_finding(void *opaque, enum lam_finding_kind kind,
                                     const char *text)
{
    (void)opaque;
    if (kind != LAM_FINDING_LEAK)
        print_message("    %s\n", text);
}

/* Counts what check finds in the image on @io. */
static inline int sim_check(struct lam_io *io, struct lam_check_result *out,
                            bool *dirty, struct lam_error *err)
{
    struct qcow2_header h = { 0 };
    uint64_t length;
    uint8_t *bytes = sim_bytes(io, &length);

    memset(out, 0, sizeof *out);
    int rc = header_decode(bytes, length, &h, err);
    if (rc == 0) {
        *dirty = h.incompatible & QCOW2_INCOMPAT_DIRTY;
        io->eof_unit = UINT64_C(1) << h.cluster_bits;
        rc = qcow2_check_run(io, &h, *dirty ? NULL : sim_print_finding, NULL,
                             out, err);
    }
    header_deinit(&h);
    free(bytes);
    return rc;
}

#endif
