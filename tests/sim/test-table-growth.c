/* SPDX-License-Identifier: MIT */
/*
 * test-table-growth.c - power fails while an image gets a larger refcount
 * table.
 *
 * With clusters of 512 bytes and counters of 64 bits a table of one cluster is
 * enough for 4,096 clusters.  An image that has nearly so many outgrows it by
 * writes, by growing, or by a snapshot, on a recording.  At every event, with
 * what was not synced there or not, check finds leaks at worst, what was
 * written before is there, and of each write what was flushed.
 */
#include "sim.h"

enum { CLUSTER = 512, FULL = 3850, DISK = 4700, WRITES = 24, COUNT = 20 };

enum variant { BY_WRITES, BY_RESIZE, BY_SNAPSHOT, VARIANTS };

static const struct sim_kind kinds[] = {
    { "512, 64 bit", CLUSTER, 3, 64, false, false, false },
    { "512, 64 bit, lazy", CLUSTER, 3, 64, true, false, false },
};

struct growth {
    enum variant variant;
    const struct sim_kind *kind;
    struct lam_io *disk, *record;
    uint8_t *base;
    uint64_t base_length;
    struct lam_image *image;
    size_t flushed[WRITES];         /* events when it was on disk; 0: never */
    uint64_t replays;
    char when[80];
};

#define GROWTH_CHECK(ok, g, fmt, ...)                                        \
    SIM_CHECK(ok, 0, "%s, variant %d, %s: " fmt, (g)->kind->name,            \
              (int)(g)->variant, (g)->when, __VA_ARGS__)

static void open_on(struct growth *g, struct lam_io *below, bool writable)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io;

    o.flags = writable ? LAM_OPEN_WRITE : 0;
    assert_int_equal(lam_io_record_new(below, &io, NULL), 0);
    int rc = image_open_io(io, "qcow2", &o, NULL, &g->image, &err);
    GROWTH_CHECK(rc == 0, g, "open: %s", err.message);
}

static void write_clusters(struct growth *g, uint64_t first, uint64_t count,
                           uint8_t value)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t *bytes = malloc(count * CLUSTER);

    assert_non_null(bytes);
    memset(bytes, value, count * CLUSTER);
    int rc = lam_image_write(g->image, bytes, count * CLUSTER, first * CLUSTER,
                             0, &err);
    GROWTH_CHECK(rc == 0, g, "write: %s", err.message);
    free(bytes);
}

static uint32_t table_clusters(struct lam_io *io)
{
    struct qcow2_header h = { 0 };
    uint8_t bytes[CLUSTER];

    assert_int_equal(lam_io_read(io, bytes, sizeof bytes, 0, NULL), 0);
    assert_int_equal(header_decode(bytes, sizeof bytes, &h, NULL), 0);
    uint32_t clusters = h.reft_clusters;
    header_deinit(&h);
    return clusters;
}

/* ------------------------------------------------------------ the workload */

static size_t events(const struct growth *g)
{
    size_t n;

    lam_io_record_events(g->record, &n);
    return n;
}

static void run_writes(struct growth *g)
{
    for (uint64_t i = 0; i < WRITES; i++) {
        write_clusters(g, FULL + i * COUNT, COUNT, (uint8_t)(i + 1));
        if (i % 3)
            continue;
        assert_int_equal(lam_image_flush(g->image, NULL), 0);
        for (uint64_t k = 0; k <= i; k++)
            if (!g->flushed[k])
                g->flushed[k] = events(g);
    }
}

static void run(struct growth *g)
{
    struct lam_error err = LAM_ERROR_INIT;
    int rc = 0;

    if (g->variant == BY_WRITES)
        run_writes(g);
    else if (g->variant == BY_RESIZE)
        rc = lam_image_resize(g->image, (DISK + 500) * CLUSTER,
                              LAM_PREALLOC_METADATA, 0, &err);
    else
        for (unsigned i = 0; rc == 0 && i < 3; i++)
            rc = lam_image_snapshot_create(g->image, "s", &err);
    GROWTH_CHECK(rc == 0, g, "%s", err.message);
    assert_int_equal(lam_image_close(g->image, NULL), 0);
}

/* ------------------------------------------------------------ after a crash */

static void verify_clusters(struct growth *g, size_t n)
{
    static uint8_t bytes[DISK * CLUSTER];
    struct lam_error err = LAM_ERROR_INIT;

    int rc = lam_image_read(g->image, bytes, sizeof bytes, 0, &err);
    GROWTH_CHECK(rc == 0, g, "read: %s", err.message);
    for (uint64_t c = 0; c < DISK; c++) {
        uint64_t i = c < FULL ? 0 : (c - FULL) / COUNT;
        uint8_t want = c < FULL ? 0xab : i < WRITES ? (uint8_t)(i + 1) : 0;
        uint8_t got = bytes[c * CLUSTER];
        bool may_lack = c >= FULL && (i >= WRITES || !g->flushed[i] ||
                                      g->flushed[i] > n);

        GROWTH_CHECK(got == want || (may_lack && !got), g,
                     "cluster %llu holds %#x", (unsigned long long)c, got);
    }
}

static void check(struct growth *g, struct lam_io *disk)
{
    struct lam_check_result r;
    struct lam_error err = LAM_ERROR_INIT;
    bool dirty = false;

    int rc = sim_check(disk, &r, &dirty, &err);
    GROWTH_CHECK(rc == 0, g, "check: %s", err.message);
    GROWTH_CHECK((dirty && g->kind->lazy) || !(r.corruptions | r.check_errors),
                 g, "%llu corruptions", (unsigned long long)r.corruptions);
}

static void crash_at(struct growth *g, size_t n, struct record_pick pick)
{
    struct lam_io *disk;

    snprintf(g->when, sizeof g->when, "event %zu, pick %d %llu", n,
             (int)pick.how, (unsigned long long)pick.value);
    assert_int_equal(lam_io_record_rebuild(g->record, n, pick, g->base,
                                           g->base_length, &disk, NULL), 0);
    check(g, disk);
    open_on(g, disk, false);
    verify_clusters(g, n);
    lam_image_close(g->image, NULL);
    if (g->replays++ % 8 == 0) {
        open_on(g, disk, true);
        write_clusters(g, DISK - 9, 9, 0);
        assert_int_equal(lam_image_close(g->image, NULL), 0);
        check(g, disk);
    }
    lam_io_close(disk);
}

/* All before the last barrier is on the disk. */
static size_t unsynced(const struct growth *g, size_t n)
{
    size_t count;
    const struct record_event *e = lam_io_record_events(g->record, &count);

    while (n > 0 && e[n - 1].kind != RECORD_FLUSH)
        n--;
    return n;
}

/* Before each barrier each write may be missing, or be there alone. */
static void cut_power(struct growth *g)
{
    size_t count;
    const struct record_event *e = lam_io_record_events(g->record, &count);

    for (size_t n = 0; n <= count; n++) {
        if (n < count && e[n].kind != RECORD_FLUSH)
            continue;
        size_t from = unsynced(g, n), step = (n - from) / 8 + 1;

        crash_at(g, n, (struct record_pick){ RECORD_ALL, 0 });
        crash_at(g, n, (struct record_pick){ RECORD_SEEDED, n + 1 });
        for (size_t k = n; k > from; k -= min_u64(step, k - from)) {
            crash_at(g, n, (struct record_pick){ RECORD_ALL_BUT, k - 1 });
            crash_at(g, n, (struct record_pick){ RECORD_ONLY, k - 1 });
        }
    }
}

static void run_variant(const struct sim_kind *kind, enum variant variant)
{
    struct growth g = { .variant = variant, .kind = kind, .when = "workload" };

    g.disk = sim_create(kind, DISK * CLUSTER, false);
    open_on(&g, g.disk, true);
    write_clusters(&g, 0, FULL, 0xab);
    assert_int_equal(lam_image_close(g.image, NULL), 0);
    assert_int_equal(table_clusters(g.disk), 1);
    g.base = sim_bytes(g.disk, &g.base_length);
    assert_int_equal(lam_io_record_new(g.disk, &g.record, NULL), 0);
    open_on(&g, g.record, true);
    run(&g);
    assert_true(table_clusters(g.disk) > 1);
    cut_power(&g);
    if (getenv("LAM_SEED"))
        print_message("%s, variant %d: %zu events, %llu replays\n", kind->name,
                      (int)variant, events(&g),
                      (unsigned long long)g.replays);
    lam_io_close(g.record);
    lam_io_close(g.disk);
    free(g.base);
}

static void test_growth(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(kinds); i++)
        for (enum variant v = 0; v < VARIANTS; v++)
            run_variant(&kinds[i], v);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_growth) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
