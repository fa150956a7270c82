/* SPDX-License-Identifier: MIT */
/*
 * test-snapshot.c - internal snapshots against a model, and power cuts in the
 * middle of them.
 *
 * The model is arrays of sectors: the disk, and one for each snapshot.  Random
 * writes, zeroes, discards, growth and reopening go between creating, applying
 * and deleting.  Then, for each of these three, power fails at moments spread
 * over it: what the disk may hold is checked without a corruption and is in
 * every part, snapshots and their contents included, what it was before or
 * what it was to become, and the latter if the call had returned.
 */
#include <errno.h>

#include "sim.h"

enum { SECTOR = 512, SECTORS = 1024, GROWN = 1536, MAX_SNAPSHOTS = 5,
       MAX_CHANGES = 64, POINTS = 6 };

struct disk {
    uint32_t sectors;
    uint32_t value[GROWN];          /* each sector repeats its number */
};

/* Everything that the image is to hold. */
struct state {
    struct disk now;
    struct disk snapshot[MAX_SNAPSHOTS];
    uint32_t name[MAX_SNAPSHOTS];   /* in the order of the table */
    uint32_t nb_snapshots;
};

struct change {
    size_t start, end;              /* events before and after it */
    char what[32];
    struct state *before, *after;
};

struct test {
    uint64_t seed, random;
    const struct sim_kind *kind;
    uint8_t *base;
    uint64_t base_length;
    struct lam_io *disk, *record;
    struct lam_image *image;
    struct state state;
    uint32_t next_value, next_name;
    struct change changes[MAX_CHANGES];
    size_t nb_changes;
    uint64_t replays, leaks, refused;
};

/* ---------------------------------------------------------------- opening */

static struct lam_image *open_on(const struct test *t, struct lam_io *io,
                                 bool writable, const char *snapshot,
                                 const char *when)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;
    struct lam_io *wrapped;         /* closed with the image; @io stays */

    assert_int_equal(lam_io_record_new(io, &wrapped, NULL), 0);
    if (writable)
        o.flags = LAM_OPEN_WRITE | LAM_OPEN_UNMAP;
    o.l2_cache_size = o.refcount_cache_size = 1;
    o.snapshot = snapshot;
    int rc = image_open_io(wrapped, "qcow2", &o, NULL, &image, &err);
    SIM_CHECK(rc == 0, t->seed, "kind %s, %s: open: %s", t->kind->name, when,
              err.message);
    return image;
}

static void check_clean(const struct test *t, struct lam_io *io,
                        bool leaks_too, uint64_t *leaks, const char *when)
{
    struct lam_check_result r;
    struct lam_error err = LAM_ERROR_INIT;
    bool dirty = false;

    int rc = sim_check(io, &r, &dirty, &err);
    SIM_CHECK(rc == 0, t->seed, "%s: check: %s", when, err.message);
    if (dirty)
        return;                     /* refcounts are to be rebuilt */
    SIM_CHECK(!r.corruptions && !r.check_errors, t->seed,
              "kind %s, %s: %llu corruptions, %llu errors", t->kind->name,
              when, (unsigned long long)r.corruptions,
              (unsigned long long)r.check_errors);
    SIM_CHECK(!leaks_too || !r.leaks, t->seed, "kind %s, %s: %llu leaks",
              t->kind->name, when, (unsigned long long)r.leaks);
    *leaks += r.leaks;
}

/* ------------------------------------------------------------- comparison */

static void fill_sector(uint8_t *p, uint32_t value)
{
    for (size_t i = 0; i < SECTOR; i += sizeof value)
        memcpy(p + i, &value, sizeof value);
}

static bool disk_equals(const struct disk *d, struct lam_image *image)
{
    static uint8_t bytes[GROWN * SECTOR];
    uint8_t sector[SECTOR];

    if (lam_image_size(image) != (uint64_t)d->sectors * SECTOR ||
        lam_image_read(image, bytes, (uint64_t)d->sectors * SECTOR, 0,
                       NULL) < 0)
        return false;
    for (uint32_t i = 0; i < d->sectors; i++) {
        fill_sector(sector, d->value[i]);
        if (memcmp(bytes + (size_t)i * SECTOR, sector, SECTOR))
            return false;
    }
    return true;
}

static bool names_equal(const struct state *s,
                        const struct lam_image_info *info)
{
    char name[16];

    if (info->nb_snapshots != s->nb_snapshots)
        return false;
    for (uint32_t i = 0; i < s->nb_snapshots; i++) {
        snprintf(name, sizeof name, "s%u", s->name[i]);
        if (strcmp(name, info->snapshots[i].name))
            return false;
    }
    return true;
}

/* Is the image on @io @s, in all that can be read? */
static bool state_equals(const struct test *t, const struct state *s,
                         struct lam_io *io, const char *when)
{
    struct lam_image *image = open_on(t, io, false, NULL, when);
    struct lam_image_info *info = NULL;

    assert_int_equal(lam_image_info(image, &info, NULL), 0);
    bool same = names_equal(s, info) && disk_equals(&s->now, image);
    lam_image_close(image, NULL);
    for (uint32_t i = 0; same && i < s->nb_snapshots; i++) {
        image = open_on(t, io, false, info->snapshots[i].name, when);
        same = disk_equals(&s->snapshot[i], image);
        lam_image_close(image, NULL);
    }
    lam_image_info_free(info);
    return same;
}

/* ------------------------------------------------------------ the workload */

static size_t events(const struct test *t)
{
    size_t n;

    lam_io_record_events(t->record, &n);
    return n;
}

static void done(const struct test *t, int rc, const struct lam_error *err,
                 const char *what)
{
    SIM_CHECK(rc == 0, t->seed, "kind %s: %s: %s", t->kind->name, what,
              err->message);
}

static void set_values(struct disk *d, uint32_t first, uint32_t count,
                       uint32_t value)
{
    for (uint32_t i = first; i < first + count; i++)
        d->value[i] = value;
}

static void pick(struct test *t, uint32_t unit, uint32_t *first,
                 uint32_t *count)
{
    uint32_t units = t->state.now.sectors / unit;
    uint64_t most = 2 * t->kind->cluster_size / SECTOR / unit + 1;

    *first = (uint32_t)sim_below(&t->random, units) * unit;
    *count = (uint32_t)(1 + sim_below(&t->random, most)) * unit;
    if (*count > units * unit - *first)
        *count = units * unit - *first;
}

static void write_op(struct test *t, bool compressed)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint32_t unit = compressed ? (uint32_t)(t->kind->cluster_size / SECTOR) : 1;
    uint32_t first, count, value = ++t->next_value;

    pick(t, unit, &first, &count);
    uint8_t *buf = malloc((size_t)count * SECTOR);
    assert_non_null(buf);
    for (uint32_t i = 0; i < count; i++)
        fill_sector(buf + (size_t)i * SECTOR, value);
    int rc = lam_image_write(t->image, buf, (uint64_t)count * SECTOR,
                             (uint64_t)first * SECTOR,
                             compressed ? LAM_WRITE_COMPRESSED : 0, &err);
    free(buf);
    done(t, rc, &err, "write");
    set_values(&t->state.now, first, count, value);
}

static void zero_op(struct test *t, bool discard)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint32_t first, count;

    pick(t, discard ? (uint32_t)(t->kind->cluster_size / SECTOR) : 1, &first,
         &count);
    uint64_t at = (uint64_t)first * SECTOR, length = (uint64_t)count * SECTOR;
    int rc = discard ? lam_image_discard(t->image, at, length, &err)
                     : lam_image_zero(t->image, at, length, LAM_ZERO_UNMAP,
                                      &err);
    done(t, rc, &err, discard ? "discard" : "zero");
    set_values(&t->state.now, first, count, 0);
}

static void grow_op(struct test *t)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct disk *d = &t->state.now;
    uint32_t old = d->sectors;

    if (t->kind->version < 3 || old == GROWN)
        return;
    d->sectors += 1 + (uint32_t)sim_below(&t->random, GROWN - old);
    done(t, lam_image_truncate(t->image, (uint64_t)d->sectors * SECTOR, 0,
                               &err), &err, "grow");
    set_values(d, old, d->sectors - old, 0);
}

static void reopen_op(struct test *t)
{
    struct lam_error err = LAM_ERROR_INIT;

    done(t, lam_image_close(t->image, &err), &err, "close");
    check_clean(t, t->disk, true, &t->leaks, "after closing");
    SIM_CHECK(state_equals(t, &t->state, t->disk, "after closing"), t->seed,
              "kind %s: the image is not what was made of it", t->kind->name);
    t->image = open_on(t, t->record, true, NULL, "again");
}

/* ----------------------------------------------------------- the snapshots */

static struct state *keep_state(const struct test *t)
{
    struct state *copy = malloc(sizeof *copy);

    assert_non_null(copy);
    memcpy(copy, &t->state, sizeof *copy);
    return copy;
}

static void model_create(struct state *s, uint32_t name)
{
    s->snapshot[s->nb_snapshots] = s->now;
    s->name[s->nb_snapshots++] = name;
}

static void model_delete(struct state *s, uint32_t i)
{
    for (s->nb_snapshots--; i < s->nb_snapshots; i++) {
        s->snapshot[i] = s->snapshot[i + 1];
        s->name[i] = s->name[i + 1];
    }
}

/* Flushed first, so that the state before is one. */
static struct change *begin_change(struct test *t)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct change *c = &t->changes[t->nb_changes++];

    assert_true(t->nb_changes <= MAX_CHANGES);
    done(t, lam_image_flush(t->image, &err), &err, "flush");
    c->start = events(t);
    c->before = keep_state(t);
    return c;
}

static void create_op(struct test *t)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct change *c = begin_change(t);

    snprintf(c->what, sizeof c->what, "create s%u", ++t->next_name);
    int rc = lam_image_snapshot_create(t->image, c->what + 7, &err);
    if (rc == -EINVAL && t->kind->refcount_bits <= 2)
        t->refused++;               /* and nothing has changed */
    else
        done(t, rc, &err, c->what);
    if (rc == 0)
        model_create(&t->state, t->next_name);
    c->after = keep_state(t);
    c->end = events(t);
}

static void apply_op(struct test *t, uint32_t i)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct change *c = begin_change(t);

    snprintf(c->what, sizeof c->what, "apply s%u", t->state.name[i]);
    int rc = lam_image_snapshot_apply(t->image, c->what + 6, &err);
    if (rc == -EINVAL && t->kind->refcount_bits <= 2)
        t->refused++;
    else
        done(t, rc, &err, c->what);
    if (rc == 0)
        t->state.now = t->state.snapshot[i];
    c->after = keep_state(t);
    c->end = events(t);
}

static void delete_op(struct test *t, uint32_t i)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct change *c = begin_change(t);

    snprintf(c->what, sizeof c->what, "delete s%u", t->state.name[i]);
    done(t, lam_image_snapshot_delete(t->image, c->what + 7, &err), &err,
         c->what);
    model_delete(&t->state, i);
    c->after = keep_state(t);
    c->end = events(t);
}

static void snapshot_op(struct test *t)
{
    uint32_t n = t->state.nb_snapshots;
    uint64_t what = sim_below(&t->random, 4);

    if (t->nb_changes == MAX_CHANGES)
        return;
    if (n < MAX_SNAPSHOTS && (!n || what < 2))
        create_op(t);
    else if (what == 2)
        apply_op(t, (uint32_t)sim_below(&t->random, n));
    else
        delete_op(t, (uint32_t)sim_below(&t->random, n));
}

static void run_op(struct test *t)
{
    uint64_t what = sim_below(&t->random, 20);

    if (what < 8)
        write_op(t, false);
    else if (what < 10)
        write_op(t, true);
    else if (what < 13)
        zero_op(t, what < 11);
    else if (what < 14)
        grow_op(t);
    else if (what < 19)
        snapshot_op(t);
    else
        reopen_op(t);
}

/* ------------------------------------------------------------- power cuts */

/* Life goes on: another snapshot, a write that must not change it. */
static void go_on(struct test *t, struct lam_io *disk, const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = open_on(t, disk, true, NULL, when);
    uint8_t buf[4 * SECTOR] = { 0x77 };
    uint64_t leaks = 0;

    int rc = lam_image_snapshot_create(image, "later", &err);
    SIM_CHECK(rc == 0 || t->kind->refcount_bits <= 2, t->seed,
              "%s: another snapshot: %s", when, err.message);
    rc = lam_image_write(image, buf, sizeof buf, 0, 0, &err);
    SIM_CHECK(rc == 0, t->seed, "%s: write again: %s", when, err.message);
    rc = lam_image_close(image, &err);
    SIM_CHECK(rc == 0, t->seed, "%s: close: %s", when, err.message);
    check_clean(t, disk, false, &leaks, when);
}

static void cut_power_at(struct test *t, const struct change *c, size_t n,
                         uint64_t seed)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *disk;
    char when[96];

    snprintf(when, sizeof when, "%s, event %zu of %zu to %zu, pick %#llx",
             c->what, n, c->start, c->end, (unsigned long long)seed);
    int rc = lam_io_record_replay(t->record, n, seed, t->base, t->base_length,
                                  &disk, &err);
    SIM_CHECK(rc == 0, t->seed, "%s: replay: %s", when, err.message);
    check_clean(t, disk, false, &t->leaks, when);
    bool after = state_equals(t, c->after, disk, when);
    SIM_CHECK(after || (n < c->end && state_equals(t, c->before, disk, when)),
              t->seed, "kind %s, %s: neither the old state nor the new one",
              t->kind->name, when);
    if (!t->kind->lazy && t->replays % 4 == 0)
        go_on(t, disk, when);
    lam_io_close(disk);
    t->replays++;
}

static void cut_power(struct test *t, const struct change *c)
{
    size_t step = (c->end - c->start) / POINTS + 1;

    for (size_t n = c->start; n < c->end; n += step) {
        cut_power_at(t, c, n, 0);
        cut_power_at(t, c, n, sim_random(&t->random) | 1);
    }
    /* The last ones are the barriers and the header. */
    for (size_t n = c->end - c->start > 4 ? c->end - 4 : c->start; n <= c->end;
         n++)
        for (unsigned i = 0; i < 3; i++)
            cut_power_at(t, c, n, sim_random(&t->random) | 1);
}

static void run_seed(uint64_t seed, uint64_t ops)
{
    struct test *t = calloc(1, sizeof *t);

    assert_non_null(t);
    t->seed = t->random = seed;
    t->kind = &sim_kinds[seed % LAM_ARRAY_SIZE(sim_kinds)];
    t->state.now.sectors = SECTORS - (uint32_t)sim_below(&t->random, 100);
    t->disk = sim_create(t->kind, (uint64_t)t->state.now.sectors * SECTOR,
                         false);
    t->base = sim_bytes(t->disk, &t->base_length);
    assert_int_equal(lam_io_record_new(t->disk, &t->record, NULL), 0);

    t->image = open_on(t, t->record, true, NULL, "first");
    for (uint64_t i = 0; i < ops; i++)
        run_op(t);
    reopen_op(t);
    lam_image_close(t->image, NULL);
    for (size_t i = 0; i < t->nb_changes; i++)
        cut_power(t, &t->changes[i]);

    if (getenv("LAM_SEED"))
        print_message("%s: %zu changes, %llu refused, %zu events, %llu "
                      "replays, %llu leaks\n", t->kind->name, t->nb_changes,
                      (unsigned long long)t->refused, events(t),
                      (unsigned long long)t->replays,
                      (unsigned long long)t->leaks);
    for (size_t i = 0; i < t->nb_changes; i++) {
        free(t->changes[i].before);
        free(t->changes[i].after);
    }
    lam_io_close(t->record);
    lam_io_close(t->disk);
    free(t->base);
    free(t);
}

static void test_snapshots(void **state)
{
    uint64_t first, end, ops = sim_setting("LAM_OPS", 40);

    (void)state;
    sim_seeds(LAM_ARRAY_SIZE(sim_kinds), &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_seed(seed, ops);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_snapshots) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
