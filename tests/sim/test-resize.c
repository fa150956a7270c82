/* SPDX-License-Identifier: MIT */
/*
 * test-resize.c - power cuts and failing disks while the size changes.
 *
 * Growing and shrinking, with all modes of preallocation, over backing files of
 * other lengths.  Whatever the moment: check finds leaks at worst, the size is
 * the old one or the new one, the contents are those of that size, and growing
 * again shows zeroes, nothing of what was cut off.
 */
#include "sim.h"

enum { SECTOR = 512, MAX_SECTORS = 3072, STEPS = 4, PICKS = 2, BUT_ONE = 4 };

struct resize {
    uint64_t seed, random;
    const struct sim_kind *kind;
    uint32_t backing;               /* sectors of the backing file; 0: none */
    uint32_t max;                   /* sectors */
    struct lam_io *disk, *record;
    uint8_t *base;
    uint64_t base_length;

    /* State i of STEPS + 1: after i resizes. */
    uint32_t sectors[STEPS + 1];
    uint8_t *contents[STEPS + 1];   /* max sectors, zero behind the end */
    size_t start[STEPS + 1], end[STEPS + 1];    /* events */
    uint64_t replays, leaks;
};

/* ------------------------------------------------------------------ images */

static struct lam_image *open_backing(const struct resize *r)
{
    struct lam_image *image = NULL;
    struct lam_io *io;
    uint64_t length = (uint64_t)r->backing * SECTOR;
    uint8_t *bytes = malloc(length);

    assert_non_null(bytes);
    memset(bytes, 0xbb, length);
    assert_int_equal(lam_io_memory_new(bytes, length, &io, NULL), 0);
    free(bytes);
    assert_int_equal(image_open_io(io, "raw", NULL, NULL, &image, NULL), 0);
    return image;
}

/* Takes @io over. */
static struct lam_image *open_on(const struct resize *r, struct lam_io *io,
                                 bool writable, const char *when)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;

    if (writable)
        o.flags = LAM_OPEN_WRITE | LAM_OPEN_UNMAP;
    o.l2_cache_size = o.refcount_cache_size = 1;
    int rc = image_open_io(io, "qcow2", &o, r->backing ? open_backing(r) : NULL,
                           &image, &err);
    SIM_CHECK(rc == 0, r->seed, "%s, %s: open: %s", r->kind->name, when,
              err.message);
    return image;
}

static struct lam_image *open_view(const struct resize *r, struct lam_io *disk,
                                   bool writable, const char *when)
{
    struct lam_io *io;

    assert_int_equal(lam_io_record_new(disk, &io, NULL), 0);
    return open_on(r, io, writable, when);
}

static uint32_t pick_sectors(struct resize *r)
{
    uint32_t cluster = (uint32_t)(r->kind->cluster_size / SECTOR);
    uint32_t n = (uint32_t)(1 + sim_below(&r->random, r->max - 1));

    if (sim_below(&r->random, 2) && n > cluster)
        n -= n % cluster;
    return n;
}

/* Writes of all kinds, here and there. */
static void fill(struct resize *r, struct lam_image *image)
{
    uint32_t cluster = (uint32_t)(r->kind->cluster_size / SECTOR);
    uint8_t *contents = r->contents[0];
    uint8_t *buf = malloc((size_t)8 * cluster * SECTOR);

    assert_non_null(buf);
    for (unsigned i = 0; i < 24; i++) {
        uint64_t what = sim_below(&r->random, 4);
        uint32_t unit = what == 3 ? cluster : 1;
        uint32_t n = r->sectors[0] / unit;
        if (!n)
            continue;
        uint32_t first = (uint32_t)sim_below(&r->random, n) * unit;
        uint32_t count = (uint32_t)(1 + sim_below(&r->random, 8)) * unit;
        count = (uint32_t)min_u64(count, r->sectors[0] - first);
        if (what == 3)
            count = cluster;
        uint64_t at = (uint64_t)first * SECTOR;
        uint64_t length = (uint64_t)count * SECTOR;
        struct lam_error err = LAM_ERROR_INIT;
        int rc;

        memset(buf, what == 0 ? 0 : (int)(1 + i), length);
        memcpy(contents + at, buf, length);
        rc = what == 0 ? lam_image_zero(image, at, length, 0, &err)
                       : lam_image_write(image, buf, length, at,
                                         what == 3 ? LAM_WRITE_COMPRESSED : 0,
                                         &err);
        SIM_CHECK(rc == 0, r->seed, "fill: %s", err.message);
    }
    free(buf);
}

static void make_base(struct resize *r)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t length = (uint64_t)r->max * SECTOR;

    for (size_t i = 0; i <= STEPS; i++) {
        r->contents[i] = calloc(1, length);
        assert_non_null(r->contents[i]);
    }
    r->sectors[0] = pick_sectors(r);
    uint32_t shown = (uint32_t)min_u64(r->backing, r->sectors[0]);
    memset(r->contents[0], 0xbb, (size_t)shown * SECTOR);
    r->disk = sim_create(r->kind, (uint64_t)r->sectors[0] * SECTOR,
                         r->backing > 0);
    struct lam_image *image = open_view(r, r->disk, true, "base");
    fill(r, image);
    SIM_CHECK(lam_image_close(image, &err) == 0, r->seed, "%s", err.message);
    r->base = sim_bytes(r->disk, &r->base_length);
}

static void next_state(struct resize *r, size_t i)
{
    do
        r->sectors[i] = pick_sectors(r);
    while (r->sectors[i] == r->sectors[i - 1]);
    memcpy(r->contents[i], r->contents[i - 1], (size_t)r->max * SECTOR);
    memset(r->contents[i] + (size_t)r->sectors[i] * SECTOR, 0,
           (size_t)(r->max - r->sectors[i]) * SECTOR);
}

static enum lam_preallocation pick_mode(struct resize *r, size_t i)
{
    return r->sectors[i] > r->sectors[i - 1]
               ? (enum lam_preallocation)sim_below(&r->random, 4)
               : LAM_PREALLOC_OFF;
}

/* -------------------------------------------------------------- verdicts */

static void check_image(struct resize *r, struct lam_io *disk, bool *dirty,
                        const char *when)
{
    struct lam_check_result result;
    struct lam_error err = LAM_ERROR_INIT;
    int rc = sim_check(disk, &result, dirty, &err);

    SIM_CHECK(rc == 0, r->seed, "%s: check: %s", when, err.message);
    if (*dirty)
        return;
    SIM_CHECK(!result.corruptions && !result.check_errors, r->seed,
              "%s, %s: %llu corruptions, %llu errors", r->kind->name, when,
              (unsigned long long)result.corruptions,
              (unsigned long long)result.check_errors);
    r->leaks += result.leaks != 0;
}

static void check_contents(const struct resize *r, struct lam_image *image,
                           size_t state, const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t length = lam_image_size(image);
    uint8_t *bytes = malloc(length);

    assert_non_null(bytes);
    int rc = lam_image_read(image, bytes, length, 0, &err);
    SIM_CHECK(rc == 0, r->seed, "%s: read: %s", when, err.message);
    for (uint64_t i = 0; i < length; i++)
        SIM_CHECK(bytes[i] == r->contents[state][i], r->seed,
                  "%s, %s: byte %llu of %llu is %#x, not %#x", r->kind->name,
                  when, (unsigned long long)i, (unsigned long long)length,
                  bytes[i], r->contents[state][i]);
    free(bytes);
}

/* One of states [from, to] by its size. */
static size_t find_state(const struct resize *r, struct lam_image *image,
                         size_t from, size_t to, const char *when)
{
    uint64_t sectors = lam_image_size(image) / SECTOR;

    for (size_t i = from; i <= to; i++)
        if (r->sectors[i] == sectors)
            return i;
    SIM_CHECK(false, r->seed, "%s, %s: size of %llu sectors, not %u or %u",
              r->kind->name, when, (unsigned long long)sectors,
              r->sectors[from], r->sectors[to]);
    return from;
}

/* Nothing comes back. */
static void grow_again(struct resize *r, struct lam_io *disk, size_t state,
                       const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = open_view(r, disk, true, when);
    bool dirty = false;
    int rc = lam_image_resize(image, (uint64_t)r->max * SECTOR,
                              pick_mode(r, 1), LAM_TRUNCATE_SHRINK, &err);

    SIM_CHECK(rc == 0, r->seed, "%s: grow again: %s", when, err.message);
    check_contents(r, image, state, when);
    rc = lam_image_close(image, &err);
    SIM_CHECK(rc == 0, r->seed, "%s: close: %s", when, err.message);
    check_image(r, disk, &dirty, when);
}

static void verify(struct resize *r, struct lam_io *disk, size_t from,
                   size_t to, const char *when)
{
    bool dirty = false;

    check_image(r, disk, &dirty, when);
    struct lam_image *image = open_view(r, disk, false, when);
    size_t state = find_state(r, image, from, to, when);
    check_contents(r, image, state, when);
    lam_image_close(image, NULL);
    if (!dirty && r->replays % 3 == 0)
        grow_again(r, disk, state, when);
    r->replays++;
}

/* -------------------------------------------------------------- power cuts */

static size_t events(const struct resize *r)
{
    size_t n;

    lam_io_record_events(r->record, &n);
    return n;
}

static void run_steps(struct resize *r)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = open_view(r, r->record, true, "workload");

    for (size_t i = 1; i <= STEPS; i++) {
        next_state(r, i);
        r->start[i] = events(r);
        int rc = lam_image_resize(image, (uint64_t)r->sectors[i] * SECTOR,
                                  pick_mode(r, i), LAM_TRUNCATE_SHRINK, &err);
        SIM_CHECK(rc == 0, r->seed, "%s: %u to %u sectors: %s", r->kind->name,
                  r->sectors[i - 1], r->sectors[i], err.message);
        r->end[i] = events(r);
        check_contents(r, image, i, "after a resize");
    }
    SIM_CHECK(lam_image_close(image, &err) == 0, r->seed, "%s", err.message);
}

static void cut_at(struct resize *r, size_t n, struct record_pick pick)
{
    static const char *const how[] = { "all", "seed", "all but", "only" };
    struct lam_io *disk;
    size_t from = 0, to = 0;
    char when[96];

    for (size_t i = 1; i <= STEPS; i++) {
        from = r->end[i] <= n ? i : from;
        to = r->start[i] < n ? i : to;
    }
    snprintf(when, sizeof when, "power cut after event %zu of %zu, %s %llu",
             n, events(r), how[pick.how], (unsigned long long)pick.value);
    assert_int_equal(lam_io_record_rebuild(r->record, n, pick, r->base,
                                           r->base_length, &disk, NULL), 0);
    verify(r, disk, from, max_u64(from, to), when);
    lam_io_close(disk);
}

/* Before the barrier behind @n: one of what it is to bring to disk is missing,
 * which tells of an order that nothing keeps. */
static void cut_before_barrier(struct resize *r, size_t n)
{
    size_t count, from = n;
    const struct record_event *e = lam_io_record_events(r->record, &count);

    if (n == count || e[n].kind != RECORD_FLUSH)
        return;
    while (from > 0 && e[from - 1].kind != RECORD_FLUSH)
        from--;
    size_t step = (n - from) / BUT_ONE + 1;
    for (size_t k = from; k + 1 < n; k += step)
        cut_at(r, n, (struct record_pick){ RECORD_ALL_BUT, k });
}

static void cut_power(struct resize *r)
{
    uint64_t points = sim_setting("LAM_OPS", 40);
    size_t count = events(r), step = count / points + 1;

    for (size_t n = sim_below(&r->random, step); n <= count; n += step)
        for (uint64_t pick = 0; pick < PICKS; pick++)
            cut_at(r, n, (struct record_pick){
                pick ? RECORD_SEEDED : RECORD_ALL,
                pick ? sim_random(&r->random) : 0 });
    for (size_t n = 0; n < count; n++)
        cut_before_barrier(r, n);
    cut_at(r, count, (struct record_pick){ RECORD_ALL, 0 });
}

static void start_seed(struct resize *r, uint64_t seed)
{
    *r = (struct resize){ .seed = seed, .random = seed };
    r->kind = &sim_kinds[seed % LAM_ARRAY_SIZE(sim_kinds)];
    r->max = r->kind->cluster_size < 4096 ? MAX_SECTORS / 3 : MAX_SECTORS;
    if (r->kind->cluster_size == 4096)
        r->max *= 2;
    if (sim_below(&r->random, 2))
        r->backing = (uint32_t)(1 + sim_below(&r->random, r->max));
    make_base(r);
}

static void end_seed(struct resize *r)
{
    lam_io_close(r->record);
    lam_io_close(r->disk);
    for (size_t i = 0; i <= STEPS; i++)
        free(r->contents[i]);
    free(r->base);
}

static void test_power_cuts(void **state)
{
    uint64_t first, end;

    (void)state;
    sim_seeds(LAM_ARRAY_SIZE(sim_kinds), &first, &end);
    for (uint64_t seed = first; seed < end; seed++) {
        struct resize r;

        start_seed(&r, seed);
        assert_int_equal(lam_io_record_new(r.disk, &r.record, NULL), 0);
        run_steps(&r);
        cut_power(&r);
        if (getenv("LAM_SEED"))
            print_message("%s: %zu events, %llu replays, %llu with leaks\n",
                          r.kind->name, events(&r),
                          (unsigned long long)r.replays,
                          (unsigned long long)r.leaks);
        end_seed(&r);
    }
}

/* ----------------------------------------------------------- failing disks */

/* The n-th change of the host file fails; true while there is an n-th. */
static bool fail_at(struct resize *r, size_t n, int code)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *disk = sim_copy(r->disk), *io;
    char when[64];
    size_t before, after;

    snprintf(when, sizeof when, "change %zu fails with %d", n, code);
    assert_int_equal(lam_io_record_new(disk, &io, NULL), 0);
    struct lam_image *image = open_on(r, io, true, when);
    lam_io_record_events(io, &before);
    lam_io_record_fail(io, n, code, false);
    int rc = lam_image_resize(image, (uint64_t)r->sectors[1] * SECTOR,
                              pick_mode(r, 1), LAM_TRUNCATE_SHRINK, &err);
    size_t state = find_state(r, image, 0, 1, when);
    SIM_CHECK(rc < 0 || state == 1, r->seed, "%s: no error, old size", when);
    check_contents(r, image, state, when);
    lam_io_record_fail(io, SIZE_MAX, 0, false);
    lam_io_record_events(io, &after);
    lam_image_close(image, NULL);
    verify(r, disk, 0, 1, when);
    lam_io_close(disk);
    return after - before > n;
}

static void test_failing_disk(void **state)
{
    uint64_t first, end;

    (void)state;
    sim_seeds(LAM_ARRAY_SIZE(sim_kinds), &first, &end);
    for (uint64_t seed = first; seed < end; seed++) {
        struct resize r;

        start_seed(&r, seed + 1000);
        next_state(&r, 1);
        for (size_t n = 0; fail_at(&r, n, n % 2 ? EIO : ENOSPC); n++)
            ;
        end_seed(&r);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_cuts),
        cmocka_unit_test(test_failing_disk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
