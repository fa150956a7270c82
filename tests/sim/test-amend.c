/* SPDX-License-Identifier: MIT */
/*
 * test-amend.c - power fails at any moment while an image is amended.
 *
 * A workload makes an image that has something of everything; then one
 * amendment runs on a recording.  After each event, whatever of the unsynced
 * writes the disk has: the image opens, check finds leaks at worst, and the
 * disk and the snapshot read as before.  After the last it is what was asked
 * for, and without leaks.
 */
#include "sim.h"

#include <pthread.h>
#include <unistd.h>

enum { SECTOR = 512, SECTORS = 2048, PICKS = 4, OPS = 60 };

struct amend_case {
    const char *name;
    struct sim_kind kind;
    bool backing, snapshot;
    unsigned version, refcount_bits;
    enum lam_setting lazy;
};

static const struct amend_case cases[] = {
    { "to v2, 512", { "", 512, 3, 16, false, false, false }, false, false,
      2, 0, LAM_SETTING_KEEP },
    { "to v2, backing, 512", { "", 512, 3, 16, false, false, false }, true,
      false, 2, 0, LAM_SETTING_KEEP },
    { "to v2, snapshot, 4k", { "", 4096, 3, 16, false, false, false }, false,
      true, 2, 0, LAM_SETTING_KEEP },
    { "to v2, snapshot, backing, 4k", { "", 4096, 3, 16, false, false, false },
      true, true, 2, 0, LAM_SETTING_KEEP },
    { "to v2, lazy, 64 bits, backing, 64k",
      { "", 65536, 3, 64, true, false, false }, true, false, 2, 16,
      LAM_SETTING_OFF },
    { "to v3, backing, 512", { "", 512, 2, 16, false, false, false }, true,
      true, 3, 0, LAM_SETTING_KEEP },
    { "to v3, lazy, 8 bits, 4k", { "", 4096, 2, 16, false, false, false },
      true, true, 3, 8, LAM_SETTING_ON },
    { "16 to 64 bits, 512", { "", 512, 3, 16, false, false, false }, true,
      true, 0, 64, LAM_SETTING_KEEP },
    { "64 to 2 bits, 512", { "", 512, 3, 64, false, false, false }, true,
      true, 0, 2, LAM_SETTING_KEEP },
    { "1 to 32 bits, 4k", { "", 4096, 3, 1, false, false, false }, false,
      false, 0, 32, LAM_SETTING_KEEP },
    { "16 to 1 bit, subclusters", { "", 16384, 3, 16, false, true, false },
      true, false, 0, 1, LAM_SETTING_ON },
    { "lazy off, 8 bits, 64k", { "", 65536, 3, 16, true, false, false }, false,
      true, 0, 8, LAM_SETTING_OFF },
};

struct state {
    const struct amend_case *c;
    uint64_t random;
    uint8_t *disk, *snapshot;       /* what they read */
    uint8_t *base;
    uint64_t base_length;
    uint64_t replays, leaks;
};

static struct lam_image *open_backing(void)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;
    uint8_t *bytes = malloc((size_t)SECTORS * SECTOR);
    struct lam_io *io;

    assert_non_null(bytes);
    memset(bytes, 0xbb, (size_t)SECTORS * SECTOR);
    assert_int_equal(lam_io_memory_new(bytes, (uint64_t)SECTORS * SECTOR, &io,
                                       NULL), 0);
    free(bytes);
    assert_int_equal(image_open_io(io, "raw", NULL, NULL, &image, &err), 0);
    return image;
}

static struct lam_image *open_on(const struct state *s, struct lam_io *io,
                                 bool writable, const char *snapshot,
                                 const char *when)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;

    o.flags = writable ? LAM_OPEN_WRITE | LAM_OPEN_UNMAP : 0;
    o.snapshot = snapshot;
    int rc = image_open_io(io, "qcow2", &o, s->c->backing ? open_backing()
                                                          : NULL, &image, &err);
    if (rc < 0)
        fail_msg("%s, %s: open: %s", s->c->name, when, err.message);
    return image;
}

static uint8_t *read_all(struct lam_image *image)
{
    uint8_t *bytes = malloc((size_t)SECTORS * SECTOR);
    struct lam_error err = LAM_ERROR_INIT;

    assert_non_null(bytes);
    if (lam_image_read(image, bytes, (uint64_t)SECTORS * SECTOR, 0, &err) < 0)
        fail_msg("read: %s", err.message);
    return bytes;
}

static void some_change(struct state *s, struct lam_image *image)
{
    uint64_t cluster = s->c->kind.cluster_size;
    uint64_t clusters = (uint64_t)SECTORS * SECTOR / cluster;
    uint64_t at = sim_below(&s->random, clusters) * cluster;
    uint8_t *buf = malloc(cluster);
    int rc;

    assert_non_null(buf);
    memset(buf, (int)sim_below(&s->random, 255) + 1, cluster);
    unsigned bits = s->c->refcount_bits;
    switch (sim_below(&s->random, 6) + (bits && bits < 8)) {
    case 0:                     /* many payloads may share a cluster */
        rc = lam_image_write(image, buf, cluster, at, LAM_WRITE_COMPRESSED,
                             NULL);
        break;
    case 1:
        rc = lam_image_zero(image, at, cluster, 0, NULL);
        break;
    case 2:
        rc = lam_image_zero(image, at, cluster, LAM_ZERO_UNMAP, NULL);
        break;
    default:
        rc = lam_image_write(image, buf, cluster, at, 0, NULL);
    }
    free(buf);
    assert_int_equal(rc, 0);
}

static void make_image(struct state *s, struct lam_io *disk)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io;

    assert_int_equal(lam_io_record_new(disk, &io, NULL), 0);
    struct lam_image *image = open_on(s, io, true, NULL, "workload");
    for (unsigned i = 0; i < OPS; i++) {
        if (s->c->snapshot && i == OPS / 2 &&
            lam_image_snapshot_create(image, "then", &err) < 0)
            fail_msg("%s: %s", s->c->name, err.message);
        some_change(s, image);
    }
    s->disk = read_all(image);
    assert_int_equal(lam_image_close(image, &err), 0);
    if (!s->c->snapshot)
        return;
    assert_int_equal(lam_io_record_new(disk, &io, NULL), 0);
    image = open_on(s, io, false, "then", "snapshot");
    s->snapshot = read_all(image);
    lam_image_close(image, NULL);
}

static void expect(const struct state *s, struct lam_io *disk,
                   const char *snapshot, const uint8_t *bytes,
                   const char *when)
{
    struct lam_io *io;

    assert_int_equal(lam_io_record_new(disk, &io, NULL), 0);
    struct lam_image *image = open_on(s, io, false, snapshot, when);
    uint8_t *now = read_all(image);
    if (memcmp(now, bytes, (size_t)SECTORS * SECTOR))
        fail_msg("%s, %s: the disk has changed", s->c->name, when);
    free(now);
    lam_image_close(image, NULL);
}

static void crash_at(struct state *s, struct lam_io *record, size_t n,
                     uint64_t pick)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_check_result r;
    struct lam_io *disk;
    bool dirty = false;
    char when[64];

    snprintf(when, sizeof when, "event %zu, pick %#llx", n,
             (unsigned long long)pick);
    assert_int_equal(lam_io_record_replay(record, n, pick, s->base,
                                          s->base_length, &disk, NULL), 0);
    if (sim_check(disk, &r, &dirty, &err) < 0)
        fail_msg("%s, %s: check: %s", s->c->name, when, err.message);
    if (!dirty && (r.corruptions || r.check_errors))
        fail_msg("%s, %s: %llu corruptions", s->c->name, when,
                 (unsigned long long)r.corruptions);
    s->leaks += r.leaks != 0;
    expect(s, disk, NULL, s->disk, when);
    if (s->snapshot)
        expect(s, disk, "then", s->snapshot, when);
    lam_io_close(disk);
    s->replays++;
}

static void amend(struct state *s, struct lam_image *image)
{
    struct lam_amend_options o = LAM_AMEND_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    o.version = s->c->version;
    o.refcount_bits = s->c->refcount_bits;
    o.lazy_refcounts = s->c->lazy;
    if (lam_image_amend(image, &o, &err) < 0)
        fail_msg("%s: amend: %s", s->c->name, err.message);
}

/* It is what was asked for, and goes on being an image. */
static void verify_result(struct state *s, struct lam_io *disk)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_check_result r;
    struct lam_image_info *info;
    struct lam_io *io;
    bool dirty = false;

    assert_int_equal(sim_check(disk, &r, &dirty, &err), 0);
    if (r.corruptions || r.leaks || dirty)
        fail_msg("%s: %llu corruptions, %llu leaks", s->c->name,
                 (unsigned long long)r.corruptions,
                 (unsigned long long)r.leaks);
    assert_int_equal(lam_io_record_new(disk, &io, NULL), 0);
    struct lam_image *image = open_on(s, io, true, NULL, "result");
    assert_int_equal(lam_image_info(image, &info, &err), 0);
    if (s->c->version)
        assert_int_equal(info->version, s->c->version);
    if (s->c->refcount_bits)
        assert_int_equal(info->refcount_bits, s->c->refcount_bits);
    if (s->c->lazy != LAM_SETTING_KEEP)
        assert_int_equal(info->lazy_refcounts, s->c->lazy == LAM_SETTING_ON);
    lam_image_info_free(info);
    for (unsigned i = 0; i < OPS; i++)
        if (s->c->refcount_bits != 1 && s->c->version != 2)
            some_change(s, image);
    assert_int_equal(lam_image_close(image, &err), 0);
    assert_int_equal(sim_check(disk, &r, &dirty, &err), 0);
    assert_int_equal(r.corruptions + r.leaks, 0);
}

static void run_case(const struct amend_case *c, uint64_t seed)
{
    struct state s = { .c = c, .random = seed };
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *disk = sim_create(&c->kind, (uint64_t)SECTORS * SECTOR,
                                     c->backing);
    struct lam_io *record, *io;
    size_t count;

    make_image(&s, disk);
    s.base = sim_bytes(disk, &s.base_length);
    assert_int_equal(lam_io_record_new(disk, &record, NULL), 0);
    assert_int_equal(lam_io_record_new(record, &io, NULL), 0);
    struct lam_image *image = open_on(&s, io, true, NULL, "amend");
    amend(&s, image);
    assert_int_equal(lam_image_close(image, &err), 0);
    lam_io_record_events(record, &count);
    for (size_t n = 0; n <= count; n++)
        for (unsigned i = 0; i < PICKS; i++)
            crash_at(&s, record, n, i ? sim_random(&s.random) | 1 : 0);
    expect(&s, disk, NULL, s.disk, "the end");
    verify_result(&s, disk);
    if (getenv("LAM_SEED"))
        print_message("%s: %zu events, %llu replays, %llu with leaks\n",
                      c->name, count, (unsigned long long)s.replays,
                      (unsigned long long)s.leaks);
    lam_io_close(record);
    lam_io_close(disk);
    free(s.base);
    free(s.disk);
    free(s.snapshot);
}

static void test_amend(void **state)
{
    uint64_t first, end;

    (void)state;
    sim_seeds(2, &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++)
            run_case(&cases[i], seed);
}

/* ------------------------------------------------ zeroes while it happens */

struct latecomer {
    struct lam_image *image;
    pthread_t thread;
    bool discard, begun;
    int rc;
};

static struct lam_io_ops held_up_ops;
static ssize_t (*plain_writev)(struct lam_io *io, const struct iovec *iov,
                               int iovcnt, uint64_t offset);
static struct latecomer *latecomer;

static void *come_late(void *arg)
{
    struct latecomer *l = arg;

    l->rc = l->discard
        ? lam_image_discard(l->image, 0, 8 * SECTOR, NULL)
        : lam_image_zero(l->image, 0, 8 * SECTOR, 0, NULL);
    return NULL;
}

/* With the amendment's first write a request comes; it has some time to find
 * out what the image was. */
static ssize_t held_up_writev(struct lam_io *io, const struct iovec *iov,
                              int iovcnt, uint64_t offset)
{
    if (latecomer && !latecomer->begun) {
        latecomer->begun = true;
        pthread_create(&latecomer->thread, NULL, come_late, latecomer);
        usleep(50000);
    }
    return plain_writev(io, iov, iovcnt, offset);
}

static struct lam_io *held_up(struct lam_io *disk)
{
    struct lam_io *io;

    assert_int_equal(lam_io_record_new(disk, &io, NULL), 0);
    plain_writev = io->ops->writev;
    held_up_ops = *io->ops;
    held_up_ops.writev = held_up_writev;
    io->ops = &held_up_ops;
    return io;
}

/* Zeroes asked for while zero clusters are being abolished are written, and a
 * discard shows nothing of the backing file. */
static void zero_beside_amend(bool discard)
{
    static const struct amend_case c = {
        "zero beside amend", { "", 4096, 3, 16, false, false, false }, true,
        false, 2, 0, LAM_SETTING_KEEP };
    static uint8_t bytes[8 * SECTOR], got[8 * SECTOR];
    struct state s = { .c = &c };
    struct lam_io *disk = sim_create(&c.kind, (uint64_t)SECTORS * SECTOR,
                                     true);
    struct lam_image *image = open_on(&s, held_up(disk), true, NULL, "race");
    struct latecomer l = { .image = image, .discard = discard };

    memset(bytes, 0x5a, sizeof bytes);
    assert_int_equal(lam_image_write(image, bytes, sizeof bytes, 0, 0, NULL),
                     0);
    /* So that there is something to do while it is version 3. */
    assert_int_equal(lam_image_zero(image, 64 * SECTOR, sizeof bytes, 0, NULL),
                     0);
    assert_int_equal(lam_image_flush(image, NULL), 0);
    latecomer = &l;
    amend(&s, image);
    assert_true(l.begun);
    pthread_join(l.thread, NULL);
    latecomer = NULL;
    assert_int_equal(l.rc, 0);
    assert_int_equal(lam_image_read(image, got, sizeof got, 0, NULL), 0);
    for (size_t i = 0; i < sizeof got; i++)
        assert_true(got[i] == 0 || (discard && got[i] == 0x5a));
    assert_int_equal(lam_image_close(image, NULL), 0);
    lam_io_close(disk);
}

static void test_zero_beside_amend(void **state)
{
    (void)state;
    zero_beside_amend(false);
    zero_beside_amend(true);
}

/* ----------------------------------------------------------------- refused */

/* Amendments of several steps of which a later one cannot be. */
static const struct {
    const char *name;
    struct amend_case before;
    struct lam_amend_options o;
    int code;
} refusals[] = {
    { "zstd clusters", { "", { "", 4096, 3, 16, true, false, true }, false,
                         false, 0, 0, LAM_SETTING_KEEP },
      { .version = 2, .lazy_refcounts = LAM_SETTING_OFF,
        .size = LAM_SIZE_KEEP }, ENOTSUP },
    { "zstd clusters, smaller", { "", { "", 4096, 3, 16, false, false, true },
                                  false, true, 0, 0, LAM_SETTING_KEEP },
      { .version = 2, .size = 900 * SECTOR }, ENOTSUP },
    { "zstd clusters, bits", { "", { "", 512, 3, 8, false, false, true }, true,
                               false, 0, 0, LAM_SETTING_KEEP },
      { .version = 2, .refcount_bits = 16, .size = LAM_SIZE_KEEP }, ENOTSUP },
    { "1 bit with a snapshot", { "", { "", 4096, 3, 16, false, false, false },
                                 false, true, 0, 0, LAM_SETTING_KEEP },
      { .refcount_bits = 1, .lazy_refcounts = LAM_SETTING_ON,
        .size = LAM_SIZE_KEEP }, EINVAL },
    { "1 bit, from version 2", { "", { "", 4096, 2, 16, false, false, false },
                                 false, true, 0, 0, LAM_SETTING_KEEP },
      { .version = 3, .refcount_bits = 1, .size = LAM_SIZE_KEEP }, EINVAL },
    { "no such size", { "", { "", 4096, 3, 16, false, false, false }, false,
                        false, 0, 0, LAM_SETTING_KEEP },
      { .refcount_bits = 64, .size = 1000 }, EINVAL },
    { "too large", { "", { "", 512, 3, 16, false, false, false }, false, false,
                     0, 0, LAM_SETTING_KEEP },
      { .lazy_refcounts = LAM_SETTING_ON, .size = UINT64_C(1) << 50 }, EFBIG },
    { "other size with a snapshot", { "", { "", 4096, 3, 16, false, false,
                                            false }, false, true, 0, 0,
                                      LAM_SETTING_KEEP },
      { .version = 2, .size = 4096 * SECTOR }, ENOTSUP },
    { "version 2 with a snapshot", { "", { "", 4096, 2, 16, false, false,
                                           false }, false, true, 0, 0,
                                     LAM_SETTING_KEEP },
      { .size = 4096 * SECTOR }, ENOTSUP },
};

/* Nothing has changed then: no step has been taken. */
static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(refusals); i++) {
        struct state s = { .c = &refusals[i].before, .random = i };
        struct lam_io *io, *disk = sim_create(&s.c->kind, (uint64_t)SECTORS *
                                                          SECTOR, s.c->backing);
        struct lam_error err = LAM_ERROR_INIT;
        uint8_t before[104], after[104];

        make_image(&s, disk);
        assert_int_equal(lam_io_read(disk, before, sizeof before, 0, NULL), 0);
        assert_int_equal(lam_io_record_new(disk, &io, NULL), 0);
        struct lam_image *image = open_on(&s, io, true, NULL, "refused");
        int rc = lam_image_amend(image, &refusals[i].o, &err);
        if (rc != -refusals[i].code)
            fail_msg("%s: %d (%s)", refusals[i].name, rc, err.message);
        assert_int_equal(lam_image_size(image), SECTORS * SECTOR);
        assert_int_equal(lam_image_close(image, NULL), 0);
        assert_int_equal(lam_io_read(disk, after, sizeof after, 0, NULL), 0);
        if (memcmp(before, after, sizeof before))
            fail_msg("%s: the header has changed", refusals[i].name);
        expect(&s, disk, NULL, s.disk, "refused");
        lam_io_close(disk);
        free(s.disk);
        free(s.snapshot);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_amend),
        cmocka_unit_test(test_zero_beside_amend),
        cmocka_unit_test(test_refused),
    };

    sim_threads_only("test_zero_beside_amend");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
