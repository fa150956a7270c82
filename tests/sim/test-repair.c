/* SPDX-License-Identifier: MIT */
/*
 * test-repair.c - power fails at any moment of a repair.
 *
 * damaged: refcounts, COPIED bits and the refcount table of a sound image are
 * damaged by a seed, and the image is repaired on a recording.  Whatever part
 * of that reaches the disk, the guest reads what it read before, and another
 * repair ends with a clean image.
 *
 * lazy: power fails in a workload with lazy refcounts, and again while the
 * image is repaired because it is opened.  What was flushed is there, and the
 * refcounts are right afterwards.
 */
#include "sim.h"

#include "base/bytes.h"
#include "format/qcow2/entry.h"
#include "format/qcow2/l2.h"
#include "format/qcow2/refblock.h"

enum { DISK = 1 << 20, SECTOR = 512 };

struct subject {
    uint64_t seed, random;
    const struct sim_kind *kind;
    uint8_t *expected;          /* of the guest */
};

static struct lam_image *open_as(const struct subject *s, struct lam_io *io,
                                 unsigned flags, const char *when)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;

    o.flags = flags;
    o.l2_cache_size = o.refcount_cache_size = 1;
    int rc = image_open_io(io, "qcow2", &o, NULL, &image, &err);
    SIM_CHECK(rc == 0, s->seed, "kind %s, %s: open: %s", s->kind->name, when,
              err.message);
    return image;
}

/* On @disk, which stays when the image is closed. */
static struct lam_image *open_on(const struct subject *s, struct lam_io *disk,
                                 unsigned flags, const char *when)
{
    struct lam_io *io;

    assert_int_equal(lam_io_record_new(disk, &io, NULL), 0);
    return open_as(s, io, flags, when);
}

static void close_image(const struct subject *s, struct lam_image *image,
                        const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    int rc = lam_image_close(image, &err);

    SIM_CHECK(rc == 0, s->seed, "%s: close: %s", when, err.message);
}

static uint8_t *read_all(const struct subject *s, struct lam_io *disk,
                         const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = open_on(s, disk, 0, when);
    uint8_t *bytes = malloc(DISK);

    assert_non_null(bytes);
    int rc = lam_image_read(image, bytes, DISK, 0, &err);
    SIM_CHECK(rc == 0, s->seed, "kind %s, %s: read: %s", s->kind->name, when,
              err.message);
    close_image(s, image, when);
    return bytes;
}

static void fill(struct subject *s, struct lam_image *image, uint64_t from,
                 uint64_t to, uint8_t value)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t buf[16384];

    memset(buf, value, sizeof buf);
    for (unsigned i = 0; i < 12; i++) {
        uint64_t length = 512 * (1 + sim_below(&s->random, 32));
        uint64_t at = from + 512 * sim_below(&s->random,
                                             (to - from - length) / 512);
        int rc = sim_below(&s->random, 6) == 0
            ? lam_image_zero(image, at, length, LAM_ZERO_UNMAP, &err)
            : lam_image_write(image, buf, length, at, 0, &err);

        SIM_CHECK(rc == 0, s->seed, "write: %s", err.message);
    }
}

static void expect_clean(const struct subject *s, struct lam_io *disk,
                         const char *when)
{
    struct lam_check_result r;
    struct lam_error err = LAM_ERROR_INIT;
    bool dirty = false;
    int rc = sim_check(disk, &r, &dirty, &err);

    SIM_CHECK(rc == 0, s->seed, "%s: check: %s", when, err.message);
    SIM_CHECK(!dirty && !r.corruptions && !r.check_errors && !r.leaks,
              s->seed, "kind %s, %s: dirty %d, %llu corruptions, %llu leaks, "
              "%llu errors",
              s->kind->name, when, dirty, (unsigned long long)r.corruptions,
              (unsigned long long)r.leaks, (unsigned long long)r.check_errors);
}

static void count_low(void *opaque, enum lam_finding_kind kind,
                      const char *text)
{
    (void)kind;
    if (!strncmp(text, "ERROR cluster", 13) ||
        !strncmp(text, "ERROR refcount", 14) || !strncmp(text, "Can't", 5))
        ++*(uint64_t *)opaque;
}

/* Refcounts too low, or that cannot be had: what a writer would suffer by. */
static uint64_t low_refcounts(const struct subject *s, struct lam_io *disk)
{
    struct lam_image *image = open_on(s, disk, LAM_OPEN_CHECK, "count");
    struct lam_check_result r;
    uint64_t n = 0;

    lam_image_check(image, count_low, &n, &r, NULL);
    close_image(s, image, "count");
    return n;
}

/* ----------------------------------------------------------------- damages */

struct damage {
    struct subject *s;
    uint8_t *bytes;
    uint64_t length;
    struct qcow2_header h;
    struct qcow2_geometry g;
};

static bool is_inside(const struct damage *d, uint64_t offset)
{
    return offset && offset < d->length &&
           d->g.cluster_size <= d->length - offset;
}

static void damage_refcount(struct damage *d)
{
    uint64_t clusters = d->length / d->g.cluster_size;
    uint64_t cluster = sim_below(&d->s->random, clusters);
    uint64_t block = be64_get(d->bytes + d->h.reft_offset +
                              reft_index(&d->g, cluster) * 8);
    uint64_t most = min_u64(d->g.refcount_max, 3);

    if (is_inside(d, block))
        refblock_set(d->bytes + block, d->g.refcount_order,
                     refblock_index(&d->g, cluster),
                     sim_below(&d->s->random, most + 1));
}

static uint8_t *some_l2_entry(struct damage *d)
{
    for (unsigned i = 0; i < 50; i++) {
        uint8_t *l1 = d->bytes + d->h.l1_offset +
                      sim_below(&d->s->random, d->h.l1_size) * 8;
        uint64_t table = entry_offset(be64_get(l1));

        if (is_inside(d, table))
            return d->bytes + table + d->g.l2_entry_size *
                   sim_below(&d->s->random, d->g.l2_entries);
    }
    return NULL;
}

static void damage_copied(struct damage *d)
{
    for (unsigned i = 0; i < 50; i++) {
        uint8_t *p = some_l2_entry(d);
        uint64_t word = p ? be64_get(p) : 0;

        if (!entry_offset(word) || (word & QCOW2_COMPRESSED))
            continue;
        be64_put(p, word ^ QCOW2_COPIED);
        return;
    }
}

static void damage_l1_copied(struct damage *d)
{
    uint8_t *l1 = d->bytes + d->h.l1_offset +
                  sim_below(&d->s->random, d->h.l1_size) * 8;

    if (entry_offset(be64_get(l1)))
        be64_put(l1, be64_get(l1) ^ QCOW2_COPIED);
}

static void damage_reft(struct damage *d)
{
    uint8_t *p = d->bytes + d->h.reft_offset +
                 sim_below(&d->s->random, d->h.reft_clusters *
                                          d->g.cluster_size / 8) * 8;

    switch (sim_below(&d->s->random, 4)) {
    case 0:
        be64_put(p, 0);
        break;
    case 1:
        be64_put(p, be64_get(p) | 4);
        break;
    case 2:
        be64_put(p, be64_get(p) + (d->g.cluster_size > 512 ? 512 : 1));
        break;
    default:
        be64_put(p, d->h.l1_offset);    /* a block on top of the L1 table */
    }
}

static void damage(struct subject *s, uint8_t *bytes, uint64_t length)
{
    struct damage d = { .s = s, .bytes = bytes, .length = length };
    struct lam_error err = LAM_ERROR_INIT;
    unsigned count = (unsigned)sim_below(&s->random, 8) + 1;

    assert_int_equal(header_decode(bytes, length, &d.h, &err), 0);
    d.g = qcow2_geometry_make(d.h.cluster_bits, d.h.refcount_order,
                              d.h.incompatible & QCOW2_INCOMPAT_EXTENDED_L2);
    for (unsigned i = 0; i < count; i++) {
        switch (sim_below(&s->random, 8)) {
        case 0:
            damage_copied(&d);
            break;
        case 1:
            damage_l1_copied(&d);
            break;
        case 2:
            damage_reft(&d);
            break;
        default:
            damage_refcount(&d);
        }
    }
    if (d.h.version >= 3 && sim_below(&s->random, 2))
        be64_put(bytes + 72, d.h.incompatible | QCOW2_INCOMPAT_DIRTY |
                             QCOW2_INCOMPAT_CORRUPT);
    header_deinit(&d.h);
}

/* --------------------------------------------------------------- the repair */

static void repair(struct subject *s, struct lam_io *io, const char *when)
{
    struct lam_image *image = open_as(s, io, LAM_OPEN_WRITE | LAM_OPEN_CHECK,
                                      when);
    struct lam_check_result r;
    struct lam_error err = LAM_ERROR_INIT;
    int rc = lam_image_repair(image, LAM_REPAIR_ALL, NULL, NULL, &r, &err);

    SIM_CHECK(rc == 0, s->seed, "kind %s, %s: repair: %s", s->kind->name, when,
              err.message);
    close_image(s, image, when);
}

static void repair_on(struct subject *s, struct lam_io *disk, const char *when)
{
    struct lam_io *io;

    assert_int_equal(lam_io_record_new(disk, &io, NULL), 0);
    repair(s, io, when);
}

static void expect_contents(struct subject *s, struct lam_io *disk,
                            const char *when)
{
    uint8_t *now = read_all(s, disk, when);

    for (uint64_t i = 0; i < DISK; i += SECTOR)
        SIM_CHECK(!memcmp(now + i, s->expected + i, SECTOR), s->seed,
                  "kind %s, %s: guest sector at %llu has changed",
                  s->kind->name, when, (unsigned long long)i);
    free(now);
}

static void cut_repair(struct subject *s, const struct lam_io *record,
                       const uint8_t *base, uint64_t length, uint64_t low)
{
    size_t count;
    char when[80];

    lam_io_record_events(record, &count);
    for (size_t n = 0; n <= count; n++) {
        for (unsigned i = 0; i < 3; i++) {
            uint64_t pick = i ? sim_random(&s->random) | 1 : 0;
            struct lam_io *disk;

            snprintf(when, sizeof when, "power cut after event %zu of %zu, "
                     "pick %llu", n, count, (unsigned long long)pick);
            assert_int_equal(lam_io_record_replay(record, n, pick, base,
                                                  length, &disk, NULL), 0);
            expect_contents(s, disk, when);
            SIM_CHECK(low_refcounts(s, disk) <= low, s->seed, "kind %s, %s: "
                      "refcounts are worse than before", s->kind->name, when);
            repair_on(s, disk, when);
            expect_clean(s, disk, when);
            expect_contents(s, disk, when);
            lam_io_close(disk);
        }
    }
}

static struct lam_io *make_image(struct subject *s)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *disk = sim_create(s->kind, DISK, false);
    struct lam_image *image = open_on(s, disk, LAM_OPEN_WRITE, "make");
    int rc = 0;

    fill(s, image, 0, DISK, 1);
    if (s->kind->refcount_bits > 2 && sim_below(&s->random, 2))
        rc = lam_image_snapshot_create(image, "s", &err);
    SIM_CHECK(rc == 0, s->seed, "snapshot: %s", err.message);
    fill(s, image, 0, DISK, 2);
    close_image(s, image, "make");
    return disk;
}

static void run_damaged(uint64_t seed)
{
    struct subject s = { .seed = seed, .random = seed };
    struct lam_io *disk, *record, *io;
    uint64_t length;

    s.kind = &sim_kinds[seed % LAM_ARRAY_SIZE(sim_kinds)];
    disk = make_image(&s);
    expect_clean(&s, disk, "sound");
    s.expected = read_all(&s, disk, "sound");
    uint8_t *base = sim_bytes(disk, &length);
    lam_io_close(disk);

    damage(&s, base, length);
    assert_int_equal(lam_io_memory_new(base, length, &disk, NULL), 0);
    assert_int_equal(lam_io_record_new(disk, &record, NULL), 0);
    assert_int_equal(lam_io_record_new(record, &io, NULL), 0);
    uint64_t low = low_refcounts(&s, disk);
    repair(&s, io, "repair");
    expect_clean(&s, disk, "repaired");
    cut_repair(&s, record, base, length, low);
    lam_io_close(record);
    lam_io_close(disk);
    free(base);
    free(s.expected);
}

static void test_damaged(void **state)
{
    uint64_t first, end;

    (void)state;
    sim_seeds(3 * LAM_ARRAY_SIZE(sim_kinds), &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_damaged(seed);
}

/* ---------------------------------------------------------- lazy refcounts */

static const struct sim_kind lazy_kinds[] = {
    { "512, lazy", 512, 3, 16, true, false, false },
    { "4k, lazy", 4096, 3, 16, true, false, false },
    { "4k, lazy, 4 bit", 4096, 3, 4, true, false, false },
    { "16k, lazy, subclusters", 16384, 3, 16, true, true, false },
    { "64k, lazy", 65536, 3, 16, true, false, false },
};

/* The first half was flushed; in the other one each sector is old or new. */
static void expect_flushed(struct subject *s, struct lam_io *disk,
                           const char *when)
{
    uint8_t *now = read_all(s, disk, when);

    SIM_CHECK(!memcmp(now, s->expected, DISK / 2), s->seed,
              "kind %s, %s: flushed data are gone", s->kind->name, when);
    for (size_t i = DISK / 2; i < DISK; i++)
        SIM_CHECK(now[i] == 0 || now[i] == 2, s->seed,
                  "kind %s, %s: byte %zu is %u", s->kind->name, when, i,
                  now[i]);
    free(now);
}

/* Opening for writing repairs; @io records that. */
static void reopen(struct subject *s, struct lam_io *io, const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = open_as(s, io, LAM_OPEN_WRITE, when);
    uint8_t buf[4096];

    memset(buf, 2, sizeof buf);
    int rc = lam_image_write(image, buf, sizeof buf, DISK - 65536, 0, &err);
    SIM_CHECK(rc == 0, s->seed, "%s: write again: %s", when, err.message);
    close_image(s, image, when);
}

static void reopen_on(struct subject *s, struct lam_io *disk, const char *when)
{
    struct lam_io *io;

    assert_int_equal(lam_io_record_new(disk, &io, NULL), 0);
    reopen(s, io, when);
    expect_flushed(s, disk, when);
    expect_clean(s, disk, when);
}

/* Power fails once more while the repair is going on. */
static void cut_again(struct subject *s, struct lam_io *disk, const char *when)
{
    uint64_t length;
    uint8_t *base = sim_bytes(disk, &length);
    struct lam_io *record, *io, *again;
    size_t count;

    assert_int_equal(lam_io_record_new(disk, &record, NULL), 0);
    assert_int_equal(lam_io_record_new(record, &io, NULL), 0);
    reopen(s, io, when);
    expect_clean(s, disk, when);
    lam_io_record_events(record, &count);
    for (unsigned i = 0; i < 12; i++) {
        size_t n = sim_below(&s->random, count + 1);
        uint64_t pick = i % 3 ? sim_random(&s->random) | 1 : 0;

        assert_int_equal(lam_io_record_replay(record, n, pick, base, length,
                                              &again, NULL), 0);
        expect_flushed(s, again, when);
        reopen_on(s, again, when);
        lam_io_close(again);
    }
    lam_io_close(record);
    free(base);
}

static void cut_lazy(struct subject *s, const struct lam_io *record,
                     const uint8_t *base, uint64_t length, size_t from)
{
    size_t count;
    char when[80];

    lam_io_record_events(record, &count);
    for (unsigned i = 0; i < 40; i++) {
        size_t n = from + sim_below(&s->random, count - from + 1);
        uint64_t pick = i % 3 ? sim_random(&s->random) | 1 : 0;
        struct lam_io *disk;

        snprintf(when, sizeof when, "power cut after event %zu of %zu, pick "
                 "%llu", n, count, (unsigned long long)pick);
        assert_int_equal(lam_io_record_replay(record, n, pick, base, length,
                                              &disk, NULL), 0);
        expect_flushed(s, disk, when);
        if (i % 8 == 0)
            cut_again(s, disk, when);
        else
            reopen_on(s, disk, when);
        lam_io_close(disk);
    }
}

static void run_lazy(uint64_t seed)
{
    struct subject s = { .seed = seed, .random = seed };
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *record, *io;
    uint64_t length;
    size_t flushed;

    s.kind = &lazy_kinds[seed % LAM_ARRAY_SIZE(lazy_kinds)];
    struct lam_io *disk = sim_create(s.kind, DISK, false);
    uint8_t *base = sim_bytes(disk, &length);
    assert_int_equal(lam_io_record_new(disk, &record, NULL), 0);
    assert_int_equal(lam_io_record_new(record, &io, NULL), 0);
    struct lam_image *image = open_as(&s, io, LAM_OPEN_WRITE, "workload");
    fill(&s, image, 0, DISK / 2, 1);
    assert_int_equal(lam_image_flush(image, &err), 0);
    lam_io_record_events(record, &flushed);
    s.expected = malloc(DISK);
    assert_non_null(s.expected);
    assert_int_equal(lam_image_read(image, s.expected, DISK, 0, &err), 0);
    fill(&s, image, DISK / 2, DISK, 2);
    close_image(&s, image, "workload");

    cut_lazy(&s, record, base, length, flushed);
    lam_io_close(record);
    lam_io_close(disk);
    free(base);
    free(s.expected);
}

static void test_lazy(void **state)
{
    uint64_t first, end;

    (void)state;
    sim_seeds(2 * LAM_ARRAY_SIZE(lazy_kinds), &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_lazy(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_lazy),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
