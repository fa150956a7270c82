/* SPDX-License-Identifier: MIT */
/*
 * test-live-crash.c - power fails while a chain is committed, rebased or
 * streamed and its guest writes on.
 *
 * The guest notes when each of its requests began and ended, in events of the
 * recording.  Whatever the moment of the power cut, each sector of the chain
 * that the top's header names holds what a flush had made durable by then, or
 * something that was written later; check finds leaks at worst, and the job can
 * be run once more.  Nothing depends on how the two threads meet.
 */
#include "layers-record.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { SPAN = 3, MAX_REQUESTS = 400 };      /* sectors of a request */

struct request {
    size_t start, end;              /* events */
    bool flush;
    uint64_t sector;
    uint8_t value;                  /* of all bytes */
};

struct live {
    struct layers_job j;
    struct layers_record r;
    struct lam_image *image;
    struct request requests[MAX_REQUESTS];
    atomic_uint count;              /* of them, ended */
    atomic_bool done;
    char failure[1024];
    uint64_t random, replays;
};

/* ------------------------------------------------------- guest beside job */

static atomic_uint *guest_requests;
static _Thread_local bool is_job;
static const struct lam_io_ops *plain_ops;

/* The job lets the guest do something before it goes on, if that can. */
static void give_way(void)
{
    unsigned before = atomic_load(guest_requests);

    for (unsigned i = 0; is_job && i < 50; i++) {
        if (atomic_load(guest_requests) != before)
            return;
        sched_yield();
    }
}

static ssize_t slow_readv(struct lam_io *io, const struct iovec *iov,
                          int iovcnt, uint64_t offset)
{
    give_way();
    return plain_ops->readv(io, iov, iovcnt, offset);
}

static ssize_t slow_writev(struct lam_io *io, const struct iovec *iov,
                           int iovcnt, uint64_t offset)
{
    give_way();
    return plain_ops->writev(io, iov, iovcnt, offset);
}

static void slow_down(struct lam_io *io)
{
    static struct lam_io_ops ops;

    if (!plain_ops) {
        plain_ops = io->ops;
        ops = *io->ops;
        ops.readv = slow_readv;
        ops.writev = slow_writev;
    }
    io->ops = &ops;
}

static int make_request(struct live *t, struct request *r,
                        struct lam_error *err)
{
    uint64_t sectors = layers_top(&t->j.c)->size / LAYER_SECTOR;
    uint8_t buf[SPAN * LAYER_SECTOR];

    r->flush = sim_below(&t->random, 8) == 0;
    if (r->flush)
        return lam_image_flush(t->image, err);
    r->sector = sim_below(&t->random, sectors - SPAN);
    r->value = (uint8_t)sim_random(&t->random);
    if (sim_below(&t->random, 6) == 0) {
        r->value = 0;
        return lam_image_zero(t->image, r->sector * LAYER_SECTOR, sizeof buf,
                              LAM_ZERO_UNMAP, err);
    }
    memset(buf, r->value, sizeof buf);
    return lam_image_write(t->image, buf, sizeof buf, r->sector * LAYER_SECTOR,
                           0, err);
}

static void *run_guest(void *opaque)
{
    struct live *t = opaque;
    struct lam_error err = LAM_ERROR_INIT;

    for (unsigned i = 0; i < MAX_REQUESTS && !atomic_load(&t->done); i++) {
        struct request *r = &t->requests[i];

        r->start = layers_record_events(&t->r);
        if (make_request(t, r, &err) < 0) {
            snprintf(t->failure, sizeof t->failure, "%s", err.message);
            return NULL;
        }
        r->end = layers_record_events(&t->r);
        atomic_store(&t->count, i + 1);
    }
    return NULL;
}

static void record(struct live *t)
{
    struct lam_error err = LAM_ERROR_INIT;
    pthread_t guest;

    guest_requests = &t->count;
    for (unsigned i = 0; i < t->j.objects; i++)
        slow_down(t->j.c.disks[i].io);
    layers_record_begin(&t->j, &t->r);
    t->image = layers_open(&t->j.c, t->j.layers, true, t->r.records);
    assert_int_equal(pthread_create(&guest, NULL, run_guest, t), 0);
    is_job = true;
    int rc = job_run(&t->j, t->image, t->r.records[t->j.layers], &err);
    is_job = false;
    atomic_store(&t->done, true);
    pthread_join(guest, NULL);
    SIM_CHECK(rc == 0, t->j.c.seed, "job %d: %s", (int)t->j.job, err.message);
    SIM_CHECK(!*t->failure, t->j.c.seed, "guest: %s", t->failure);
    layers_close(&t->j.c, t->image);
}

/* ---------------------------------------------------------------- verdicts */

static bool covers(const struct request *r, uint64_t sector)
{
    return !r->flush && sector - r->sector < SPAN;
}

static bool is_filled(const uint8_t *sector, uint8_t value)
{
    return sector[0] == value &&
           !memcmp(sector, sector + 1, LAYER_SECTOR - 1);
}

/* Backwards from what had begun at event @n to what was durable. */
static bool may_hold(const struct live *t, size_t n, uint64_t sector,
                     const uint8_t *bytes)
{
    bool durable = false;

    for (unsigned i = atomic_load(&t->count); i-- > 0;) {
        const struct request *r = &t->requests[i];

        durable |= r->flush && r->end <= n;
        if (!covers(r, sector) || r->start > n)
            continue;
        if (is_filled(bytes, r->value))
            return true;
        if (durable)
            return false;
    }
    return !memcmp(bytes, layers_top((struct layer_chain *)&t->j.c)->bytes +
                          sector * LAYER_SECTOR, LAYER_SECTOR);
}

/* What the chain holds, which the caller frees. */
static uint8_t *verify(struct live *t, struct layer_chain *now, size_t n,
                       const char *when)
{
    uint64_t size = layers_top(&t->j.c)->size;
    struct lam_image *image = layers_open(now, now->count, false, NULL);
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t *bytes = malloc(size);

    assert_non_null(bytes);
    int rc = lam_image_read(image, bytes, size, 0, &err);
    SIM_CHECK(rc == 0, t->j.c.seed, "%s: read: %s", when, err.message);
    for (uint64_t s = 0; s < size / LAYER_SECTOR; s++)
        SIM_CHECK(may_hold(t, n, s, bytes + s * LAYER_SECTOR), t->j.c.seed,
                  "%s: sector %llu begins with %#x", when,
                  (unsigned long long)s, bytes[s * LAYER_SECTOR]);
    layers_close(now, image);
    layers_check(now, false, when);
    return bytes;
}

/* The job once more, from there: the contents stay. */
static void run_again(struct live *t, uint8_t *bytes, const char *when)
{
    struct layer_disk *top = layers_top(&t->j.c);
    uint8_t *before = top->bytes;

    top->bytes = bytes;
    job_run_again(&t->j, when);
    top->bytes = before;
}

static void crash_at(struct live *t, size_t n, struct record_pick pick)
{
    struct layer_chain now;
    char when[96];

    layers_record_cut(&t->j, &t->r, n, pick, when);
    job_chain_of(&t->j, &now);
    uint8_t *bytes = verify(t, &now, n, when);
    if (t->replays++ % 4 == 0)
        run_again(t, bytes, when);
    free(bytes);
    layers_record_restore(&t->j, &t->r);
}

static void cut_power(struct live *t)
{
    size_t count = layers_record_events(&t->r);
    size_t step = count / sim_setting("LAM_CUTS", 40) + 1;

    for (size_t n = sim_below(&t->random, step); n <= count; n += step) {
        crash_at(t, n, (struct record_pick){ RECORD_ALL, 0 });
        crash_at(t, n, (struct record_pick){ RECORD_SEEDED,
                                             sim_random(&t->random) | 1 });
        crash_at(t, n, (struct record_pick){ RECORD_ONLY, n ? n - 1 : 0 });
    }
    crash_at(t, count, (struct record_pick){ RECORD_ALL, 0 });
}

static void run_seed(uint64_t seed)
{
    static struct live t;

    t = (struct live){ .j.c = { .seed = seed, .random = seed },
                       .j.guest = true, .random = seed * 31 };
    job_make_chain(&t.j);
    record(&t);
    cut_power(&t);
    if (getenv("LAM_SEED"))
        print_message("job %d: %zu events, %u requests, %llu replays\n",
                      (int)t.j.job, layers_record_events(&t.r),
                      atomic_load(&t.count), (unsigned long long)t.replays);
    layers_record_free(&t.j, &t.r);
}

static void test_live_crash(void **state)
{
    uint64_t first, end;

    (void)state;
    sim_seeds(2 * JOBS, &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_seed(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_live_crash) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
