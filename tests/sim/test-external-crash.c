/* SPDX-License-Identifier: MIT */
/*
 * test-external-crash.c - power fails, or an operation of the disk, while an
 * external snapshot of an image in use is taken.
 *
 * Image and overlay are on one recording.  Guest writes come before the
 * snapshot, in the middle of it (whenever the image below is flushed), and
 * after it.  At every event the two files are built as a power cut may leave
 * them: the overlay, if it is whole, shows with the image below it what was
 * flushed last or something later; if it is not, the snapshot has not ended,
 * and the image alone does.  Check finds leaks at worst, and writing goes on.
 */
#include "bad-disk.h"

#include <pthread.h>
#include <unistd.h>

#include "format/qcow2/qcow2.h"
#include "image/external.h"
#include "image/graph.h"

enum { SECTOR = 512, SECTORS = 512, MAX_STATES = 128, MAX_POINTS = 32 };

/* What the disk shows after some write; each sector repeats a number. */
struct state {
    size_t start;               /* events before that write */
    uint32_t value[SECTORS];
};

/* From event @end on, state @state is on disk, or a later one. */
struct point {
    size_t end, state;
};

struct run {
    uint64_t seed, random;
    const struct sim_kind *kinds[2];
    struct lam_io *files[2], *records[2];   /* image, overlay */
    uint8_t *base;
    uint64_t base_length;
    struct trouble *trouble;    /* NULL: the disk is well */
    struct lam_image *image;    /* NULL: closed */
    struct state *states;
    size_t nb_states, nb_points;
    struct point points[MAX_POINTS];
    size_t begun, taken;        /* events; taken SIZE_MAX: not yet */
    bool meddle;                /* a write before each flush of the image */
    uint64_t meddled, replays, whole;
    pthread_t flusher;
    bool flushing;              /* flusher runs */
    atomic_bool flushed;        /* it has ended */
};

#define RUN_CHECK(ok, r, fmt, ...)                                           \
    SIM_CHECK(ok, (r)->seed, "%s under %s, %s: " fmt, (r)->kinds[0]->name,   \
              (r)->kinds[1]->name, when, __VA_ARGS__)

static size_t events(const struct run *r)
{
    size_t n;

    lam_io_record_events(r->records[0], &n);
    return n;
}

/* ---------------------------------------------------------------- the guest */

static uint32_t words_read[SECTORS][SECTOR / sizeof(uint32_t)];

/* After a failed write: any of it may be there, from now on. */
static void look(struct run *r, const struct state *s, const char *when)
{
    struct trouble saved = trouble_spare(r->trouble);
    struct lam_error err = LAM_ERROR_INIT;
    struct state *now = &r->states[r->nb_states++];

    int rc = lam_image_read(r->image, words_read, sizeof words_read, 0, &err);
    RUN_CHECK(rc == 0, r, "read: %s", err.message);
    *now = s[-1];
    now->start = events(r);
    for (uint32_t k = 0; k < SECTORS; k++) {
        uint32_t value = words_read[k][0];

        RUN_CHECK(value == s[-1].value[k] || value == s->value[k], r,
                  "sector %u holds %#x", k, value);
        now->value[k] = value;
    }
    *r->trouble = saved;
}

static void guest_write(struct run *r, const char *when)
{
    uint32_t first = (uint32_t)sim_below(&r->random, SECTORS);
    uint32_t count = 1 + (uint32_t)sim_below(&r->random, 24);
    struct state *s = &r->states[r->nb_states];
    uint32_t value = (uint32_t)r->nb_states + 1;
    uint32_t words[24 * SECTOR / sizeof value];
    struct lam_error err = LAM_ERROR_INIT;

    assert_true(r->nb_states < MAX_STATES);
    count = (uint32_t)min_u64(count, SECTORS - first);
    *s = r->states[r->nb_states - 1];
    s->start = events(r);
    for (size_t i = 0; i < LAM_ARRAY_SIZE(words); i++)
        words[i] = value;
    for (uint32_t i = first; i < first + count; i++)
        s->value[i] = value;
    r->nb_states++;
    int rc = lam_image_write(r->image, words, (uint64_t)count * SECTOR,
                             (uint64_t)first * SECTOR, 0, &err);
    RUN_CHECK(rc == 0 || r->trouble, r, "write: %s", err.message);
    if (rc == 0 || !r->trouble)
        return;
    RUN_CHECK(trouble_has_come(r->trouble) && err.message[0], r,
              "write fails: %s", err.message);
    look(r, s, when);
}

static void durable(struct run *r, size_t state)
{
    assert_true(r->nb_points < MAX_POINTS);
    r->points[r->nb_points++] = (struct point){ events(r), state };
}

static void guest_flush(struct run *r, const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    int rc = lam_image_flush(r->image, &err);

    RUN_CHECK(rc == 0 || (r->trouble && trouble_has_come(r->trouble)), r,
              "flush: %s", err.message);
    if (rc == 0)
        durable(r, r->nb_states - 1);
}

/* ------------------------------------------------------------------ opening */

static struct lam_io_ops meddling_ops;
static int (*plain_flush)(struct lam_io *io);
static struct run *meddling;

/* Some flushes are made under a lock that a write needs, or takes before the
 * image is covered: a write there would be no other thread's. */
static bool is_free(struct lam_image *image)
{
    for (; image; image = image->backing) {
        struct qcow2 *q = image->format;
        if (pthread_mutex_trylock(&q->alloc_lock))
            return false;
        pthread_mutex_unlock(&q->alloc_lock);
    }
    return true;
}

static void *flush_from_outside(void *opaque)
{
    struct run *r = opaque;

    lam_image_flush(r->image, NULL);
    atomic_store(&r->flushed, true);
    return NULL;
}

/* Called by a flush of the layer that has just been covered: until it ends, a
 * flush of the overlay does not.  What waits is given some time not to. */
static void flush_meanwhile(struct run *r)
{
    const struct lam_image *below = r->image->backing;

    if (!r->meddle || r->trouble || r->flushing || !below ||
        atomic_load(&below->settling) != 1)
        return;
    assert_int_equal(pthread_create(&r->flusher, NULL, flush_from_outside, r),
                     0);
    r->flushing = true;
    for (unsigned n = 0; n < 20 && !atomic_load(&r->flushed); n++)
        usleep(1000);
    SIM_CHECK(!atomic_load(&r->flushed), r->seed, "%s",
              "a flush did not wait for the layer below");
}

/* Requests go on while the snapshot is taken. */
static int meddling_flush(struct lam_io *io)
{
    flush_meanwhile(meddling);
    if (meddling->meddle && meddling->meddled < 6 &&
        is_free(meddling->image)) {
        meddling->meddle = false;
        meddling->meddled++;
        guest_write(meddling, "in the middle");
        meddling->meddle = true;
    }
    return plain_flush(io);
}

static struct lam_io *open_record(struct run *r, unsigned i)
{
    struct lam_io *io;

    assert_int_equal(lam_io_record_new(r->records[i], &io, NULL), 0);
    if (r->trouble)
        io = bad_disk_over(io, r->trouble);
    if (i == 0) {
        plain_flush = io->ops->flush;
        meddling_ops = *io->ops;
        meddling_ops.flush = meddling_flush;
        io->ops = &meddling_ops;
        meddling = r;
    }
    return io;
}

static int open_image(struct lam_io *io, bool writable,
                      struct lam_image *backing, struct lam_image **out,
                      struct lam_error *err)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;

    o.flags = writable ? LAM_OPEN_WRITE | LAM_OPEN_UNMAP : 0;
    o.flags |= backing ? 0 : LAM_OPEN_NO_BACKING;
    return image_open_io(io, "qcow2", &o, backing, out, err);
}

/* ------------------------------------------------------------- the snapshot */

static int make_overlay(struct run *r, struct lam_image **out,
                        struct lam_error *err)
{
    struct lam_create_options o = sim_create_options(r->kinds[1],
                                                     SECTORS * SECTOR, true);
    struct lam_io *io = open_record(r, 1);

    o.backing_format = "qcow2";
    int rc = format_qcow2.create(io, NULL, &o, err);
    if (rc == 0)
        rc = lam_io_flush(io, err);
    if (rc == 0)
        return open_image(io, true, NULL, out, err);
    lam_io_close(io);
    return rc;
}

static int take_snapshot(struct run *r, bool *changed, struct lam_error *err)
{
    struct lam_image *overlay;
    size_t before = r->nb_states - 1;
    LAM_LOCKED(&r->image->resize_lock);

    *changed = false;
    r->begun = events(r);
    int rc = make_overlay(r, &overlay, err);
    if (rc < 0)
        return rc;
    r->meddle = true;
    rc = external_put_above(r->image, overlay, changed, err);
    r->meddle = false;
    if (r->flushing)
        pthread_join(r->flusher, NULL);
    if (rc < 0)
        return rc;
    durable(r, before);
    r->taken = events(r);
    return 0;
}

static void workload(struct run *r, const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    bool changed;

    for (unsigned i = 0; i < 4; i++)
        guest_write(r, when);
    guest_flush(r, when);
    for (unsigned i = 0; i < 4; i++)
        guest_write(r, when);
    int rc = take_snapshot(r, &changed, &err);
    RUN_CHECK(rc == 0 || (r->trouble && trouble_has_come(r->trouble) &&
                          err.message[0]), r, "snapshot: %s", err.message);
    RUN_CHECK(changed == (lam_image_backing(r->image) != NULL), r, "%s",
              "it says that it has changed, or has");
    for (unsigned i = 0; i < 3; i++)
        guest_write(r, when);
    guest_flush(r, when);
    for (unsigned i = 0; i < 3; i++)
        guest_write(r, when);
    rc = lam_image_close(r->image, &err);
    r->image = NULL;
    RUN_CHECK(rc == 0 || r->trouble, r, "close: %s", err.message);
    if (rc == 0)
        durable(r, r->nb_states - 1);
}

/* ------------------------------------------------------------ what is there */

static void verify(struct run *r, struct lam_image *image, size_t n,
                   const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    size_t first = 0, last = 0;

    for (size_t i = 0; i < r->nb_points; i++)
        if (r->points[i].end <= n)
            first = max_u64(first, r->points[i].state);
    for (size_t i = 0; i < r->nb_states; i++)
        if (r->states[i].start < n)
            last = i;
    int rc = lam_image_read(image, words_read, sizeof words_read, 0, &err);
    RUN_CHECK(rc == 0, r, "read: %s", err.message);
    for (uint32_t k = 0; k < SECTORS; k++) {
        bool allowed = false;

        for (size_t i = first; i <= max_u64(first, last) && !allowed; i++)
            allowed = r->states[i].value[k] == words_read[k][0];
        RUN_CHECK(allowed && !memcmp(&words_read[k][0], &words_read[k][1],
                                     SECTOR - sizeof(uint32_t)), r,
                  "sector %u holds %#x, not that of states %zu to %zu", k,
                  words_read[k][0], first, last);
    }
}

static void check_file(struct run *r, struct lam_io *file, const char *when)
{
    struct lam_check_result c;
    struct lam_error err = LAM_ERROR_INIT;
    bool dirty = false;

    int rc = sim_check(file, &c, &dirty, &err);
    RUN_CHECK(rc == 0, r, "check: %s", err.message);
    RUN_CHECK(dirty || !(c.corruptions | c.check_errors), r,
              "%llu corruptions", (unsigned long long)c.corruptions);
}

static struct lam_image *open_file(struct run *r, struct lam_io *file,
                                   bool writable, struct lam_image *backing,
                                   const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;
    struct lam_io *io;

    assert_int_equal(lam_io_record_new(file, &io, NULL), 0);
    int rc = open_image(io, writable, backing, &image, &err);
    RUN_CHECK(rc == 0, r, "open: %s", err.message);
    return image;
}

static bool is_whole(struct lam_io *file)
{
    struct lam_image *image = NULL;
    struct lam_io *io;

    assert_int_equal(lam_io_record_new(file, &io, NULL), 0);
    int rc = open_image(io, false, NULL, &image, NULL);
    lam_image_close(image, NULL);
    return rc == 0;
}

/* Whoever finds the two files opens the overlay, if it is one. */
static void verify_files(struct run *r, struct lam_io *const files[2],
                         size_t n, const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    bool whole = is_whole(files[1]);

    RUN_CHECK(whole || r->taken == SIZE_MAX || n < r->taken, r, "%s",
              "the overlay is not whole");
    r->whole += whole;
    check_file(r, files[0], when);
    struct lam_image *image = open_file(r, files[0], !whole, NULL, when);
    if (whole) {
        check_file(r, files[1], when);
        image = open_file(r, files[1], true, image, when);
    }
    verify(r, image, n, when);
    int rc = lam_image_write(image, "again", 5, 777, 0, &err);
    if (rc == 0)
        rc = lam_image_close(image, &err);
    RUN_CHECK(rc == 0, r, "write again: %s", err.message);
    check_file(r, files[whole], when);
}

/* --------------------------------------------------------------------- runs */

static void run_init(struct run *r, uint64_t seed, struct trouble *trouble)
{
    *r = (struct run){ .seed = seed, .random = seed, .trouble = trouble,
                       .taken = SIZE_MAX };
    r->kinds[0] = &sim_kinds[seed % LAM_ARRAY_SIZE(sim_kinds)];
    r->kinds[1] = &sim_kinds[(seed * 7 + 3) % LAM_ARRAY_SIZE(sim_kinds)];
    r->files[0] = sim_create(r->kinds[0], SECTORS * SECTOR, false);
    assert_int_equal(lam_io_memory_new(NULL, 0, &r->files[1], NULL), 0);
    r->base = sim_bytes(r->files[0], &r->base_length);
    assert_int_equal(lam_io_record_new(r->files[0], &r->records[0], NULL), 0);
    assert_int_equal(lam_io_record_join(r->files[1], r->records[0],
                                        &r->records[1], NULL), 0);
    r->states = calloc(MAX_STATES, sizeof *r->states);
    assert_non_null(r->states);
    r->nb_states = 1;
    r->points[r->nb_points++] = (struct point){ 0, 0 };
}

static void run_deinit(struct run *r)
{
    for (unsigned i = 2; i-- > 0;) {
        lam_io_close(r->records[i]);
        lam_io_close(r->files[i]);
    }
    free(r->states);
    free(r->base);
}

static void crash_at(struct run *r, size_t n, struct record_pick pick)
{
    struct lam_io *disks[2];
    char when[96];

    snprintf(when, sizeof when, "event %zu (snapshot %zu to %zu), pick %d "
             "%llu", n, r->begun, r->taken, (int)pick.how,
             (unsigned long long)pick.value);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(lam_io_record_rebuild(r->records[i], n, pick,
                                               i ? NULL : r->base,
                                               i ? 0 : r->base_length,
                                               &disks[i], NULL), 0);
    verify_files(r, disks, n, when);
    lam_io_close(disks[0]);
    lam_io_close(disks[1]);
    r->replays++;
}

/* Every event of the snapshot, and some of the others. */
static void cut_power(struct run *r)
{
    size_t count = events(r);

    for (size_t n = 0; n <= count; n++) {
        if ((n < r->begun || n > r->taken + 8) && n % 7 && n < count)
            continue;
        crash_at(r, n, (struct record_pick){ RECORD_ALL, 0 });
        crash_at(r, n, (struct record_pick){ RECORD_SEEDED, n + 1 });
        for (size_t k = n > 6 ? n - 6 : 0; k < n; k += 2)
            crash_at(r, n, (struct record_pick){ RECORD_ALL_BUT, k });
        if (n)
            crash_at(r, n, (struct record_pick){ RECORD_ONLY, n - 1 });
    }
}

static void test_crash(void **state)
{
    uint64_t first, end;

    (void)state;
    sim_seeds(LAM_ARRAY_SIZE(sim_kinds), &first, &end);
    for (uint64_t seed = first; seed < end; seed++) {
        struct lam_error err = LAM_ERROR_INIT;
        struct run r;
        const char *when = "workload";

        run_init(&r, seed, NULL);
        int rc = open_image(open_record(&r, 0), true, NULL, &r.image, &err);
        RUN_CHECK(rc == 0, &r, "open: %s", err.message);
        workload(&r, when);
        assert_true(r.meddled >= 2);
        assert_true(r.flushing && atomic_load(&r.flushed));
        if (!sim_setting("LAM_THREADS", 0)) {   /* replays have none */
            cut_power(&r);
            assert_true(r.whole > 0 && r.whole < r.replays);
        }
        if (getenv("LAM_SEED"))
            print_message("%zu events, %llu replays, %llu whole\n", events(&r),
                          (unsigned long long)r.replays,
                          (unsigned long long)r.whole);
        run_deinit(&r);
    }
}

/* How many operations there were. */
static uint64_t run_fault(uint64_t seed, const struct bad_mode *mode,
                          uint64_t n)
{
    struct trouble trouble = { .mode = mode, .fail_at = UINT64_MAX };
    char when[80];
    struct run r;

    snprintf(when, sizeof when, "%s at operation %llu", mode->name,
             (unsigned long long)n);
    run_init(&r, seed, &trouble);
    assert_int_equal(open_image(open_record(&r, 0), true, NULL, &r.image,
                                NULL), 0);
    trouble.count = 0;
    trouble.fail_at = n;
    workload(&r, when);
    verify_files(&r, r.files, SIZE_MAX, when);
    run_deinit(&r);
    return trouble.count;
}

static void test_fault(void **state)
{
    uint64_t first, end, step = sim_setting("LAM_STEP", 7);

    (void)state;
    sim_seeds(LAM_ARRAY_SIZE(sim_kinds), &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        for (size_t m = 0; m < BAD_MODES; m++) {
            uint64_t n = (seed + m) % step;

            while (run_fault(seed, &bad_modes[m], n) > n)
                n += step;
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crash),
        cmocka_unit_test(test_fault),
    };

    sim_threads_only("test_crash");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
