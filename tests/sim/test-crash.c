/* SPDX-License-Identifier: MIT */
/*
 * test-crash.c - power fails at any moment of a workload.
 *
 * The workload runs on a recording.  Then, for moments spread over it, what the
 * disk may hold is built: all that was synced, and a seeded pick of the rest,
 * torn and out of order.  That image opens; check finds leaks at worst; each
 * guest sector is as of the last flush that had ended, or as a later write
 * has it, and never anything else.  It can be written to again, too.
 */
#include "sim.h"

enum { SECTOR = 512, MAX_SECTORS = 1024, MAX_OPS = 4096 };

/* Moments of a power cut: spread over the workload, and one after another
 * within a part of it. */
enum { SPREAD = 50, DENSE = 30 };

/* Sectors hold one number, repeated: who wrote them. */
struct op {
    size_t start, end;              /* events before and after it */
    uint32_t first, count;          /* sectors */
    uint32_t value;                 /* 0: zeroes */
    bool flush;
};

struct crash {
    uint64_t seed, random;
    const struct sim_kind *kind;
    bool backing;
    uint32_t sectors;               /* of the disk, in the end */
    uint32_t first_sectors;         /* ... and at first: it grows once */
    uint32_t now_sectors;
    uint8_t *base;                  /* the image before the workload */
    uint64_t base_length;
    struct lam_io *disk, *record;
    struct lam_image *image;
    struct op *ops;
    size_t nb_ops;
    uint64_t replays, leaks;
};

static uint32_t initial_value(const struct crash *c, uint32_t sector)
{
    return c->backing && sector < c->first_sectors ? 0x80000000u | sector : 0;
}

static void fill_sector(uint8_t *p, uint32_t value)
{
    for (size_t i = 0; i < SECTOR; i += sizeof value)
        memcpy(p + i, &value, sizeof value);
}

/* ------------------------------------------------------------ the workload */

static struct lam_image *open_backing(const struct crash *c)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;
    struct lam_io *io;
    uint8_t *bytes = malloc((size_t)c->sectors * SECTOR);

    assert_non_null(bytes);
    for (uint32_t i = 0; i < c->sectors; i++)
        fill_sector(bytes + (size_t)i * SECTOR, 0x80000000u | i);
    assert_int_equal(lam_io_memory_new(bytes, (uint64_t)c->sectors * SECTOR,
                                       &io, NULL), 0);
    free(bytes);
    int rc = image_open_io(io, "raw", NULL, NULL, &image, &err);
    SIM_CHECK(rc == 0, c->seed, "open backing: %s", err.message);
    return image;
}

static struct lam_image *open_on(const struct crash *c, struct lam_io *io,
                                 bool writable, const char *when)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;

    if (writable)
        o.flags = LAM_OPEN_WRITE | LAM_OPEN_UNMAP;
    o.l2_cache_size = o.refcount_cache_size = 1;
    int rc = image_open_io(io, "qcow2", &o, c->backing ? open_backing(c)
                                                       : NULL, &image, &err);
    SIM_CHECK(rc == 0, c->seed, "%s: open: %s", when, err.message);
    return image;
}

static size_t events(const struct crash *c)
{
    size_t n;

    lam_io_record_events(c->record, &n);
    return n;
}

static void open_session(struct crash *c)
{
    struct lam_io *io;              /* closed with the image; record stays */

    assert_int_equal(lam_io_record_new(c->record, &io, NULL), 0);
    /* Each kind once as it is, and once with small steps ahead. */
    if (c->seed / LAM_ARRAY_SIZE(sim_kinds) % 2)
        lam_io_grow_ahead(io, c->kind->cluster_size);
    c->image = open_on(c, io, true, "workload");
}

static struct op *begin_op(struct crash *c)
{
    struct op *op = &c->ops[c->nb_ops];

    assert_true(c->nb_ops < MAX_OPS);
    *op = (struct op){ .start = events(c) };
    return op;
}

static void end_op(struct crash *c, struct op *op, int rc,
                   const struct lam_error *err, const char *what)
{
    SIM_CHECK(rc == 0, c->seed, "kind %s: %s: %s", c->kind->name, what,
              err->message);
    op->end = events(c);
    c->nb_ops++;
}

static void close_session(struct crash *c)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct op *op = begin_op(c);

    op->flush = true;
    end_op(c, op, lam_image_close(c->image, &err), &err, "close");
}

static void flush_op(struct crash *c)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct op *op = begin_op(c);

    op->flush = true;
    end_op(c, op, lam_image_flush(c->image, &err), &err, "flush");
}

static void pick(struct crash *c, struct op *op, uint32_t unit)
{
    uint32_t units = c->now_sectors / unit;
    uint32_t most = (uint32_t)(2 * c->kind->cluster_size / SECTOR / unit + 1);

    op->first = (uint32_t)sim_below(&c->random, units) * unit;
    op->count = (uint32_t)(1 + sim_below(&c->random, most)) * unit;
    if (op->count > c->now_sectors - op->first)
        op->count = c->now_sectors - op->first;
}

static void write_op(struct crash *c, bool compressed)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct op *op = begin_op(c);

    pick(c, op, compressed ? (uint32_t)(c->kind->cluster_size / SECTOR) : 1);
    op->value = (uint32_t)c->nb_ops + 1;
    uint64_t length = (uint64_t)op->count * SECTOR;
    uint8_t *buf = malloc(length);
    assert_non_null(buf);
    for (uint32_t i = 0; i < op->count; i++)
        fill_sector(buf + (size_t)i * SECTOR, op->value);
    int rc = lam_image_write(c->image, buf, length,
                             (uint64_t)op->first * SECTOR,
                             compressed ? LAM_WRITE_COMPRESSED : 0, &err);
    free(buf);
    end_op(c, op, rc, &err, compressed ? "write -c" : "write");
}

static void zero_op(struct crash *c, bool unmap)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct op *op = begin_op(c);

    pick(c, op, 1);
    int rc = lam_image_zero(c->image, (uint64_t)op->first * SECTOR,
                            (uint64_t)op->count * SECTOR,
                            unmap ? LAM_ZERO_UNMAP : 0, &err);
    end_op(c, op, rc, &err, "zero");
}

static void discard_op(struct crash *c)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint32_t unit = (uint32_t)(c->kind->cluster_size / SECTOR);
    struct op *op = begin_op(c);

    pick(c, op, unit);
    int rc = lam_image_discard(c->image, (uint64_t)op->first * SECTOR,
                               (uint64_t)op->count * SECTOR, &err);
    if (c->kind->version == 2 && c->backing)
        op->count = 0;
    end_op(c, op, rc, &err, "discard");
}

/* The backing file is as long as the disk becomes: what it has there must not
 * show, not even after a crash in between. */
static void grow_op(struct crash *c)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct op *op = begin_op(c);

    op->first = c->now_sectors;
    op->count = c->sectors - c->now_sectors;
    int rc = lam_image_truncate(c->image, (uint64_t)c->sectors * SECTOR, 0,
                                &err);
    end_op(c, op, rc, &err, "truncate");
    c->now_sectors = c->sectors;
    flush_op(c);
}

static void run_op(struct crash *c)
{
    uint64_t what = sim_below(&c->random, 20);

    if (what < 10)
        write_op(c, false);
    else if (what < 12)
        write_op(c, true);
    else if (what < 16)
        zero_op(c, what < 14);
    else if (what < 18)
        discard_op(c);
    else if (what < 19)
        flush_op(c);
    else if (sim_below(&c->random, 4) == 0) {
        close_session(c);
        open_session(c);
    } else if (c->now_sectors < c->sectors) {
        grow_op(c);
    }
}

/* ------------------------------------------------------------ after a crash */

static bool touches(const struct op *op, uint32_t sector)
{
    return !op->flush && sector >= op->first &&
           sector - op->first < op->count;
}

/* May @sector hold @value after the first @n events? */
static bool is_allowed(const struct crash *c, size_t n, uint32_t sector,
                       uint32_t value)
{
    for (size_t i = c->nb_ops; i-- > 0;) {
        const struct op *op = &c->ops[i];

        if (op->start > n || !touches(op, sector))
            continue;
        if (op->value == value)
            return true;
        /* Flushed, and nothing later has it: the end of the search. */
        for (size_t k = i + 1; k < c->nb_ops; k++)
            if (c->ops[k].flush && c->ops[k].end <= n)
                return false;
    }
    return value == initial_value(c, sector);
}

static void verify_contents(const struct crash *c, size_t n,
                            const uint8_t *bytes, uint32_t sectors,
                            const char *when)
{
    for (uint32_t s = 0; s < sectors; s++) {
        const uint8_t *p = bytes + (size_t)s * SECTOR;
        uint32_t value;

        memcpy(&value, p, sizeof value);
        SIM_CHECK(!memcmp(p, p + sizeof value, SECTOR - sizeof value), c->seed,
                  "%s: sector %u is a mixture", when, s);
        SIM_CHECK(is_allowed(c, n, s, value), c->seed,
                  "kind %s, %s: sector %u holds %#x", c->kind->name, when, s,
                  value);
    }
}

static void check_crashed(struct crash *c, struct lam_io *disk, bool *dirty,
                          const char *when)
{
    struct lam_check_result r;
    struct lam_error err = LAM_ERROR_INIT;

    int rc = sim_check(disk, &r, dirty, &err);
    SIM_CHECK(rc == 0, c->seed, "%s: check: %s", when, err.message);
    if (*dirty)
        return;                     /* refcounts are to be rebuilt */
    SIM_CHECK(!r.corruptions && !r.check_errors, c->seed,
              "kind %s, %s: %llu corruptions, %llu errors", c->kind->name,
              when, (unsigned long long)r.corruptions,
              (unsigned long long)r.check_errors);
    c->leaks += r.leaks != 0;
}

/* Life goes on: what leaked does not hurt. */
static void write_again(struct crash *c, struct lam_io *disk, const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io;
    uint8_t buf[4 * SECTOR] = { 0x77 };
    bool dirty = false;

    assert_int_equal(lam_io_record_new(disk, &io, NULL), 0);
    struct lam_image *image = open_on(c, io, true, when);
    for (unsigned i = 0; i < 8; i++) {
        uint64_t at = sim_below(&c->random, c->first_sectors - 4) *
                      SECTOR;
        int rc = lam_image_write(image, buf, sizeof buf, at, 0, &err);

        SIM_CHECK(rc == 0, c->seed, "%s: write again: %s", when, err.message);
    }
    int rc = lam_image_close(image, &err);
    SIM_CHECK(rc == 0, c->seed, "%s: close: %s", when, err.message);
    check_crashed(c, disk, &dirty, when);
}

static void crash_at(struct crash *c, size_t n, uint64_t pick_seed)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *disk, *io;
    bool dirty = false;
    char when[96];

    snprintf(when, sizeof when, "power cut after event %zu of %zu, pick %llu",
             n, events(c), (unsigned long long)pick_seed);
    assert_int_equal(lam_io_record_replay(c->record, n, pick_seed, c->base,
                                          c->base_length, &disk, NULL), 0);
    check_crashed(c, disk, &dirty, when);
    assert_int_equal(lam_io_record_new(disk, &io, NULL), 0);
    struct lam_image *image = open_on(c, io, false, when);
    uint64_t length = lam_image_size(image);
    SIM_CHECK(length == (uint64_t)c->first_sectors * SECTOR ||
              length == (uint64_t)c->sectors * SECTOR, c->seed,
              "%s: the disk has %llu bytes", when, (unsigned long long)length);
    uint8_t *bytes = malloc(length);
    assert_non_null(bytes);
    int rc = lam_image_read(image, bytes, length, 0, &err);
    SIM_CHECK(rc == 0, c->seed, "%s: read: %s", when, err.message);
    verify_contents(c, n, bytes, (uint32_t)(length / SECTOR), when);
    lam_image_close(image, NULL);
    if (!dirty && c->replays % 4 == 0)
        write_again(c, disk, when);
    lam_io_close(disk);
    free(bytes);
    c->replays++;
}

static void cut_power(struct crash *c)
{
    size_t count = events(c), step = count / SPREAD + 1;

    for (size_t n = sim_below(&c->random, step); n <= count; n += step)
        for (unsigned i = 0; i < 3; i++)
            crash_at(c, n, i ? sim_random(&c->random) | 1 : 0);
    size_t start = sim_below(&c->random, count);
    for (size_t n = start; n < start + DENSE && n <= count; n++)
        for (unsigned i = 0; i < 3; i++)
            crash_at(c, n, sim_random(&c->random) | 1);
    crash_at(c, count, 0);
}

static void run_seed(uint64_t seed, uint64_t ops)
{
    struct crash c = { .seed = seed, .random = seed };

    c.kind = &sim_kinds[seed % LAM_ARRAY_SIZE(sim_kinds)];
    c.backing = sim_below(&c.random, 2);
    c.sectors = c.kind->cluster_size < 4096 ? 512 : MAX_SECTORS;
    c.first_sectors = c.sectors - 100;
    c.now_sectors = c.first_sectors;
    c.disk = sim_create(c.kind, (uint64_t)c.now_sectors * SECTOR, c.backing);
    c.base = sim_bytes(c.disk, &c.base_length);
    c.ops = calloc(MAX_OPS, sizeof *c.ops);
    assert_non_null(c.ops);
    assert_int_equal(lam_io_record_new(c.disk, &c.record, NULL), 0);

    open_session(&c);
    for (uint64_t i = 0; i < ops; i++)
        run_op(&c);
    close_session(&c);

    cut_power(&c);
    if (getenv("LAM_SEED"))
        print_message("%s: %zu events, %llu replays, %llu with leaks\n",
                      c.kind->name, events(&c), (unsigned long long)c.replays,
                      (unsigned long long)c.leaks);
    lam_io_close(c.record);
    lam_io_close(c.disk);
    free(c.base);
    free(c.ops);
}

static void test_crash(void **state)
{
    uint64_t first, end, ops = sim_setting("LAM_OPS", 150);

    (void)state;
    sim_seeds(2 * LAM_ARRAY_SIZE(sim_kinds), &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_seed(seed, ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_crash) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
