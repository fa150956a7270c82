/* SPDX-License-Identifier: MIT */
/*
 * test-bitmap.c - power fails while bitmaps are made, changed and stored.
 *
 * A workload of writes and of changes of bitmaps runs on a recording, beside a
 * model.  Whatever a power cut leaves, the image opens and checks clean but for
 * leaks, has the bitmaps that it had before or after the operation under way,
 * and each is equal to the model's, bit by bit, or marked in use: that is not
 * allowed before something was written.
 */
#include "sim.h"

#include <errno.h>

#include "format/qcow2/bitmap.h"

enum { SECTORS = 640, GROWN = 720, SECTOR = 512, MAX_OPS = 512, NAMES = 4,
       GRANULARITY = 4096, CELLS = GROWN * SECTOR / GRANULARITY };

struct model {
    bool exists, recording;
    uint64_t granularity;
    bool dirty[GROWN];          /* by sector */
};

struct state {
    struct model bitmaps[NAMES];
    uint32_t sectors;
    bool written;               /* since the image was opened */
};

struct op {
    size_t start, end;          /* events before and after it */
    const char *what;
    struct state after;
};

struct crash {
    uint64_t seed, random;
    const struct sim_kind *kind;
    char name[400];             /* of the backing file: moves the extensions */
    struct lam_io *disk, *record;
    struct lam_image *image;
    struct op *ops;
    size_t nb_ops;
    struct state now;
    uint8_t *base;
    uint64_t base_length, replays, in_use;
};

static const char *const names[NAMES] = { "a", "monday", "b b", "x" };

/* ------------------------------------------------------------ the workload */

static struct lam_image *open_on(const struct crash *c, struct lam_io *io,
                                 bool writable, const char *when)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;

    o.flags = writable ? LAM_OPEN_WRITE | LAM_OPEN_UNMAP : 0;
    o.flags |= LAM_OPEN_NO_BACKING;
    int rc = image_open_io(io, "qcow2", &o, NULL, &image, &err);
    SIM_CHECK(rc == 0, c->seed, "%s, %s: open: %s", c->kind->name, when,
              err.message);
    return image;
}

static void open_session(struct crash *c)
{
    struct lam_io *io;

    assert_int_equal(lam_io_record_new(c->record, &io, NULL), 0);
    c->image = open_on(c, io, true, "workload");
    c->now.written = false;
}

static size_t events(const struct crash *c)
{
    size_t n;

    lam_io_record_events(c->record, &n);
    return n;
}

static void mark(struct state *s, uint32_t first, uint32_t count)
{
    for (size_t i = 0; i < NAMES; i++) {
        struct model *m = &s->bitmaps[i];
        uint32_t unit = (uint32_t)(m->granularity / SECTOR);

        if (!m->exists || !m->recording)
            continue;
        uint32_t from = first / unit * unit;
        for (uint32_t k = from; k < (first + count - 1) / unit * unit + unit &&
                                k < s->sectors; k++)
            m->dirty[k] = true;
    }
}

static int write_op(struct crash *c, struct lam_error *err)
{
    static const uint8_t bytes[64 * SECTOR] = { 1, 2, 3 };
    uint32_t unit = (uint32_t)(c->kind->cluster_size / SECTOR);
    uint32_t first = (uint32_t)sim_below(&c->random, c->now.sectors);
    uint32_t count = 1 + (uint32_t)sim_below(&c->random, 64);
    uint64_t kind = sim_below(&c->random, 4);

    if (unit > 64)
        kind = 0;
    if (kind) {                 /* zeroes go by clusters */
        first = first / unit * unit;
        count = (count + unit - 1) / unit * unit;
    }
    if (count > c->now.sectors - first)
        count = c->now.sectors - first;
    if (kind && (first + count) % unit)
        kind = 0;
    if (count > 64)
        count = 64;
    c->now.written = true;
    mark(&c->now, first, count);
    uint64_t at = (uint64_t)first * SECTOR, length = (uint64_t)count * SECTOR;
    if (kind == 1)
        return lam_image_zero(c->image, at, length, 0, err);
    if (kind == 2)
        return lam_image_discard(c->image, at, length, err);
    if (kind == 3 && length == c->kind->cluster_size)
        return lam_image_write(c->image, bytes, length, at,
                               LAM_WRITE_COMPRESSED, err);
    return lam_image_write(c->image, bytes, length, at, 0, err);
}

static int add_op(struct crash *c, size_t i, struct lam_error *err)
{
    struct model *m = &c->now.bitmaps[i];
    bool recording = sim_below(&c->random, 3);

    *m = (struct model){
        .exists = true,
        .recording = recording,
        .granularity = UINT64_C(512) << sim_below(&c->random, 4),
    };
    return lam_image_bitmap_add(c->image, names[i], m->granularity,
                                recording ? 0 : LAM_BITMAP_DISABLED, err);
}

static int merge_op(struct crash *c, size_t to, size_t from,
                    struct lam_error *err)
{
    struct model *t = &c->now.bitmaps[to], *f = &c->now.bitmaps[from];
    uint32_t unit = (uint32_t)(t->granularity / SECTOR);

    for (uint32_t k = 0; k < c->now.sectors; k++)
        for (uint32_t n = 0; f->dirty[k] && n < unit; n++)
            if (k / unit * unit + n < c->now.sectors)
                t->dirty[k / unit * unit + n] = true;
    return lam_image_bitmap_merge(c->image, names[to], c->image, names[from],
                                  err);
}

static int bitmap_op(struct crash *c, struct op *op, struct lam_error *err)
{
    size_t i = sim_below(&c->random, NAMES), k = sim_below(&c->random, NAMES);
    struct model *m = &c->now.bitmaps[i];

    op->what = "add";
    if (!m->exists)
        return add_op(c, i, err);
    switch (sim_below(&c->random, 5)) {
    case 0:
        op->what = "remove";
        *m = (struct model){ 0 };
        return lam_image_bitmap_remove(c->image, names[i], err);
    case 1:
        op->what = "clear";
        memset(m->dirty, 0, sizeof m->dirty);
        return lam_image_bitmap_clear(c->image, names[i], err);
    case 2:
        op->what = "enable";
        m->recording = true;
        return lam_image_bitmap_enable(c->image, names[i], err);
    case 3:
        op->what = "disable";
        m->recording = false;
        return lam_image_bitmap_disable(c->image, names[i], err);
    default:
        op->what = "merge";
        return c->now.bitmaps[k].exists ? merge_op(c, i, k, err) : 0;
    }
}

static int resize_op(struct crash *c, struct lam_error *err)
{
    uint32_t to = c->now.sectors == SECTORS ? GROWN : SECTORS;

    for (size_t i = 0; i < NAMES; i++) {
        struct model *m = &c->now.bitmaps[i];
        uint32_t unit = m->exists ? (uint32_t)(m->granularity / SECTOR) : 1;
        /* A bit that lies across the end stays. */
        bool across = c->now.sectors < to && c->now.sectors % unit &&
                      m->dirty[c->now.sectors - 1];

        for (uint32_t k = c->now.sectors; across && k % unit && k < to; k++)
            m->dirty[k] = true;
        for (uint32_t k = to; k < GROWN; k++)
            m->dirty[k] = false;
    }
    c->now.sectors = to;
    c->now.written = true;
    return lam_image_truncate(c->image, (uint64_t)to * SECTOR,
                              LAM_TRUNCATE_SHRINK, err);
}

static void run_op(struct crash *c)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct op *op = &c->ops[c->nb_ops++];
    uint64_t what = sim_below(&c->random, 16);
    int rc;

    *op = (struct op){ .start = events(c) };
    if (what < 6) {
        op->what = "write";
        rc = write_op(c, &err);
    } else if (what < 12) {
        rc = bitmap_op(c, op, &err);
    } else if (what < 13) {
        op->what = "resize";
        rc = resize_op(c, &err);
    } else if (what < 14) {
        op->what = "flush";
        rc = lam_image_flush(c->image, &err);
    } else {
        op->what = "close";
        rc = lam_image_close(c->image, &err);
        c->image = NULL;
    }
    SIM_CHECK(rc == 0, c->seed, "%s: %s: %s", c->kind->name, op->what,
              err.message);
    op->end = events(c);
    op->after = c->now;
    if (!c->image)
        open_session(c);
}

/* ------------------------------------------------------------ after a crash */

/* -1: not there. */
static int find_name(const char *name)
{
    for (int i = 0; i < NAMES; i++)
        if (!strcmp(names[i], name))
            return i;
    return -1;
}

static bool same_bits(struct lam_image *image, const struct state *s,
                      const struct model *m, const char *name)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t at = 0, size = lam_image_size(image);
    bool dirty[GROWN] = { false };

    while (at < size) {
        uint64_t start, length;
        if (lam_image_bitmap_next(image, name, at, &start, &length, &err) < 0)
            fail_msg("%s: %s", name, err.message);
        for (uint64_t k = start; k < start + length; k += SECTOR)
            dirty[k / SECTOR] = true;
        at = length ? start + length : size;
    }
    return size == (uint64_t)s->sectors * SECTOR &&
           !memcmp(dirty, m->dirty, sizeof dirty);
}

/* Is what the disk has this state? */
static bool matches(struct lam_image *image, const struct lam_image_info *info,
                    const struct state *s, bool written)
{
    size_t count = 0;

    for (size_t i = 0; i < NAMES; i++)
        count += s->bitmaps[i].exists;
    if (count != info->nb_bitmaps)
        return false;
    for (size_t i = 0; i < info->nb_bitmaps; i++) {
        const struct lam_bitmap_info *b = &info->bitmaps[i];
        int k = find_name(b->name);
        const struct model *m = k < 0 ? NULL : &s->bitmaps[k];

        if (!m || !m->exists || m->granularity != b->granularity ||
            m->recording != b->automatic)
            return false;
        if (b->in_use ? !written : !same_bits(image, s, m, b->name))
            return false;
    }
    return true;
}

static void crash_at(struct crash *c, size_t n, uint64_t pick)
{
    static const struct state nothing = { .sectors = SECTORS };
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_check_result r;
    struct lam_image_info *info;
    struct lam_io *disk, *io;
    const struct state *before = &nothing, *during = NULL;
    bool dirty;
    char when[160];

    snprintf(when, sizeof when, "cut after event %zu of %zu, pick %llu", n,
             events(c), (unsigned long long)pick);
    for (size_t i = 0; i < c->nb_ops && c->ops[i].start < n; i++) {
        if (c->ops[i].end <= n) {
            before = &c->ops[i].after;
            continue;
        }
        during = &c->ops[i].after;
        snprintf(when, sizeof when, "cut after event %zu, pick %llu, in %s", n,
                 (unsigned long long)pick, c->ops[i].what);
        break;
    }
    assert_int_equal(lam_io_record_replay(c->record, n, pick, c->base,
                                          c->base_length, &disk, NULL), 0);
    int rc = sim_check(disk, &r, &dirty, &err);
    SIM_CHECK(rc == 0 && (dirty || !(r.corruptions | r.check_errors)),
              c->seed, "%s, %s: check: %llu corruptions %s", c->kind->name,
              when, (unsigned long long)r.corruptions, err.message);
    assert_int_equal(lam_io_record_new(disk, &io, NULL), 0);
    struct lam_image *image = open_on(c, io, false, when);
    rc = lam_image_info(image, &info, &err);
    SIM_CHECK(rc == 0, c->seed, "%s: info: %s", when, err.message);
    SIM_CHECK(!strcmp(info->backing_filename, c->name), c->seed,
              "%s: backing file '%s'", when, info->backing_filename);
    bool written = before->written || (during && during->written);
    SIM_CHECK(matches(image, info, before, written) ||
              (during && matches(image, info, during, written)), c->seed,
              "%s, %s: %zu bitmaps are neither old nor new", c->kind->name,
              when, info->nb_bitmaps);
    for (size_t i = 0; i < info->nb_bitmaps; i++)
        c->in_use += info->bitmaps[i].in_use;
    lam_image_info_free(info);
    lam_image_close(image, NULL);
    lam_io_close(disk);
    c->replays++;
}

static void cut_power(struct crash *c)
{
    size_t count = events(c), step = count / 100 + 1;

    for (size_t n = 0; n <= count; n += step)
        for (unsigned i = 0; i < 4; i++)
            crash_at(c, n, i ? sim_random(&c->random) | 1 : 0);
    crash_at(c, count, 0);
}

static struct lam_io *create(struct crash *c)
{
    struct lam_create_options o = sim_create_options(c->kind, SECTORS * SECTOR,
                                                     true);
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io;

    memset(c->name, 'n', c->kind->cluster_size < 4096
                         ? 5 : 5 + sim_below(&c->random, 390));
    o.backing_file = c->name;
    assert_int_equal(lam_io_memory_new(NULL, 0, &io, &err), 0);
    if (format_qcow2.create(io, NULL, &o, &err) < 0)
        fail_msg("create %s: %s", c->kind->name, err.message);
    return io;
}

static void run_seed(uint64_t seed, uint64_t ops)
{
    struct crash c = { .seed = seed, .random = seed };

    c.kind = &sim_kinds[seed % LAM_ARRAY_SIZE(sim_kinds)];
    if (c.kind->version < 3)
        c.kind = &sim_kinds[3];
    c.disk = create(&c);
    c.base = sim_bytes(c.disk, &c.base_length);
    c.ops = calloc(MAX_OPS, sizeof *c.ops);
    assert_non_null(c.ops);
    c.now.sectors = SECTORS;
    assert_int_equal(lam_io_record_new(c.disk, &c.record, NULL), 0);
    open_session(&c);
    for (uint64_t i = 0; i < ops && i < MAX_OPS; i++)
        run_op(&c);
    lam_image_close(c.image, NULL);
    cut_power(&c);
    if (getenv("LAM_SEED"))
        print_message("%s: %zu events, %llu replays, %llu in use\n",
                      c.kind->name, events(&c), (unsigned long long)c.replays,
                      (unsigned long long)c.in_use);
    lam_io_close(c.record);
    lam_io_close(c.disk);
    free(c.base);
    free(c.ops);
}

static void test_crash(void **state)
{
    uint64_t first, end, ops = sim_setting("LAM_OPS", 60);

    (void)state;
    sim_seeds(2 * LAM_ARRAY_SIZE(sim_kinds), &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_seed(seed, ops);
}

/* ------------------------------------------------------- a failing disk */

/* What may fail, in an image that has "quiet", disabled, the first 64 KiB of it
 * dirty, and "a", which records.  The first failure, or 0. */
static int script(struct lam_image *image)
{
    static const uint8_t bytes[65536] = { 1 };
    const int results[] = {
        lam_image_write(image, bytes, sizeof bytes, 4096, 0, NULL),
        lam_image_bitmap_add(image, "b", 0, 0, NULL),
        lam_image_bitmap_merge(image, "b", image, "quiet", NULL),
        lam_image_flush(image, NULL),
        lam_image_truncate(image, GROWN * SECTOR, 0, NULL),
        lam_image_bitmap_disable(image, "a", NULL),
        lam_image_bitmap_clear(image, "a", NULL),
        lam_image_bitmap_remove(image, "b", NULL),
        lam_image_close(image, NULL),
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(results); i++)
        if (results[i] < 0)
            return results[i];
    return 0;
}

static void prepare(struct crash *c)
{
    static const uint8_t bytes[65536] = { 1 };

    open_session(c);
    assert_int_equal(lam_image_bitmap_add(c->image, "quiet", 512, 0, NULL), 0);
    assert_int_equal(lam_image_write(c->image, bytes, sizeof bytes, 0, 0,
                                     NULL), 0);
    assert_int_equal(lam_image_bitmap_disable(c->image, "quiet", NULL), 0);
    assert_int_equal(lam_image_bitmap_add(c->image, "a", 512, 0, NULL), 0);
    assert_int_equal(lam_image_close(c->image, NULL), 0);
}

/* Every bitmap that is not in use can be read, and the quiet one is intact. */
static void check_after_fault(struct crash *c, size_t n)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_check_result r;
    struct lam_image_info *info;
    struct lam_io *io;
    uint64_t start, length;
    bool dirty;
    char when[40];

    snprintf(when, sizeof when, "failure %zu", n);
    int rc = sim_check(c->disk, &r, &dirty, &err);
    SIM_CHECK(rc == 0 && !(r.corruptions | r.check_errors), n,
              "%s: %llu corruptions", when, (unsigned long long)r.corruptions);
    assert_int_equal(lam_io_record_new(c->disk, &io, NULL), 0);
    struct lam_image *image = open_on(c, io, false, when);
    assert_int_equal(lam_image_info(image, &info, NULL), 0);
    for (size_t i = 0; i < info->nb_bitmaps; i++) {
        const struct lam_bitmap_info *b = &info->bitmaps[i];
        if (b->in_use)
            continue;
        rc = lam_image_bitmap_next(image, b->name, 0, &start, &length, &err);
        SIM_CHECK(rc == 0, n, "%s: %s", when, err.message);
        SIM_CHECK(strcmp(b->name, "quiet") || length == 65536, n, "%s: %s has "
                  "%llu bytes", when, b->name, (unsigned long long)length);
    }
    SIM_CHECK(info->nb_bitmaps >= 2, n, "%s: bitmaps are gone", when);
    lam_image_info_free(info);
    lam_image_close(image, NULL);
}

static void test_fault(void **state)
{
    static const int errors[] = { EIO, ENOSPC };
    bool hit = true;

    (void)state;
    for (size_t n = 0; hit; n++) {
        hit = false;
        for (size_t i = 0; i < 2 * LAM_ARRAY_SIZE(errors); i++) {
            struct crash c = { .kind = &sim_kinds[3] };

            c.disk = create(&c);
            assert_int_equal(lam_io_record_new(c.disk, &c.record, NULL), 0);
            prepare(&c);
            open_session(&c);
            lam_io_record_fail(c.record, n, errors[i / 2], i % 2);
            hit |= script(c.image) < 0;
            check_after_fault(&c, n);
            lam_io_close(c.record);
            lam_io_close(c.disk);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_crash),
                                         cmocka_unit_test(test_fault) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
