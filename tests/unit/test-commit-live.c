/* SPDX-License-Identifier: MIT */
/*
 * test-commit-live.c - jobs on the layers of a chain and what goes on beside
 * them: guests that write, other jobs, somebody who has had enough.
 *
 * What happens beside a job happens in its progress callback, on a thread that
 * is waited for there: so it comes at the same moment in each run.
 */
#include "unit.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CLUSTER = 64 * 1024, SIZE = 4 * 1024 * 1024, PATIENCE = 60 };

static char directory[] = "test-commit-live-XXXXXX";
static const char *const names[] = { "base", "middle", "top" };

static struct lam_error err = LAM_ERROR_INIT;
static uint8_t memory[SIZE];    /* what the top reads as */

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(directory) && chdir(directory) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(names); i++)
        unlink(names[i]);
    return chdir("..") || rmdir(directory);
}

static struct lam_image *open_image(const char *name)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_image *image;

    o.flags = LAM_OPEN_WRITE;
    o.format = "qcow2";
    o.cache = LAM_CACHE_UNSAFE;
    assert_works(lam_image_open(name, &o, &image, &err), &err);
    return image;
}

static void write_at(struct lam_image *image, uint64_t offset, uint64_t length,
                     int byte)
{
    memset(memory + offset, byte, length);
    assert_works(lam_image_write(image, memory + offset, length, offset, 0,
                                 &err), &err);
}

/* base <- middle <- top; those below the top have data here and there. */
static struct lam_image *make_chain(void)
{
    memset(memory, 0, sizeof memory);
    for (size_t i = 0; i < LAM_ARRAY_SIZE(names); i++) {
        struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;

        o.format = "qcow2";
        o.size = SIZE;
        o.backing_file = i ? names[i - 1] : NULL;
        o.backing_format = i ? "qcow2" : NULL;
        unlink(names[i]);
        assert_works(lam_image_create(names[i], &o, &err), &err);
        if (i == 2)
            break;
        struct lam_image *image = open_image(names[i]);
        for (uint64_t at = i; at < SIZE / CLUSTER; at += 4 + i)
            write_at(image, at * CLUSTER, CLUSTER, (int)(at + 1));
        assert_works(lam_image_close(image, &err), &err);
    }
    return open_image("top");
}

static void check_content(struct lam_image *image)
{
    static uint8_t found[SIZE];

    assert_works(lam_image_read(image, found, SIZE, 0, &err), &err);
    assert_memory_equal(found, memory, SIZE);
}

/* ---------------------------------------------------------------- the rest */

struct guest {
    struct lam_image *image;
    bool written;
};

static void *write_a_mebibyte(void *opaque)
{
    struct guest *guest = opaque;

    write_at(guest->image, 1024 * 1024, 1024 * 1024, 0xee);
    return NULL;
}

/* Not with the first call, before anything has been looked at. */
static void guest_writes(void *opaque, uint64_t done, uint64_t total)
{
    struct guest *guest = opaque;
    pthread_t thread;

    (void)total;
    if (guest->written || !done)
        return;
    guest->written = true;
    assert_int_equal(pthread_create(&thread, NULL, write_a_mebibyte, guest), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

struct watch {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool over;
    volatile int cancel;
};

/* Ends what would take weeks. */
static void *watch(void *opaque)
{
    struct watch *w = opaque;
    struct timespec end;
    int rc = 0;

    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += PATIENCE;
    pthread_mutex_lock(&w->lock);
    while (!w->over && rc == 0)
        rc = pthread_cond_timedwait(&w->changed, &w->lock, &end);
    __atomic_store_n(&w->cancel, !w->over, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* The guest waits while the last of what it wrote is copied: no rate is kept
 * then.  The top is empty at first, so nothing else is copied. */
static void last_rest_ignores_the_rate(void **state)
{
    struct watch w = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER,
                       false, 0 };
    struct guest guest = { make_chain(), false };
    struct lam_commit_options o = LAM_COMMIT_OPTIONS_INIT;
    pthread_t watcher;

    (void)state;
    o.job.rate = 1;
    o.job.workers = 1;
    o.job.progress = guest_writes;
    o.job.progress_opaque = &guest;
    o.job.cancel = &w.cancel;
    assert_int_equal(pthread_create(&watcher, NULL, watch, &w), 0);
    assert_works(lam_image_commit(guest.image, &o, &err), &err);
    pthread_mutex_lock(&w.lock);
    w.over = true;
    pthread_cond_signal(&w.changed);
    pthread_mutex_unlock(&w.lock);
    pthread_join(watcher, NULL);
    assert_true(guest.written);
    check_content(guest.image);
    assert_works(lam_image_close(guest.image, &err), &err);
}

/* ------------------------------------------------------------- cancelling */

struct impatience {
    uint64_t last;
    unsigned calls, limit;
    volatile int cancel;
};

static void count(void *opaque, uint64_t done, uint64_t total)
{
    struct impatience *p = opaque;

    assert_true(done >= p->last && done <= total);
    p->last = done;
    __atomic_store_n(&p->cancel, ++p->calls >= p->limit, __ATOMIC_RELAXED);
}

static int commit_down(struct lam_image *image,
                       const struct lam_job_options *job)
{
    struct lam_commit_options o = LAM_COMMIT_OPTIONS_INIT;

    o.job = *job;
    return lam_image_commit(image, &o, &err);
}

static int stream_all(struct lam_image *image,
                      const struct lam_job_options *job)
{
    struct lam_stream_options o = LAM_STREAM_OPTIONS_INIT;

    o.job = *job;
    return lam_image_stream(image, &o, &err);
}

static int rebase_down(struct lam_image *image,
                       const struct lam_job_options *job)
{
    struct lam_rebase_options o = LAM_REBASE_OPTIONS_INIT;

    o.job = *job;
    o.backing_file = "base";
    o.backing_format = "qcow2";
    return lam_image_rebase(image, &o, &err);
}

typedef int run_fn(struct lam_image *image, const struct lam_job_options *job);

/* Stopped after each telling but the last: the disk is the same, and the same
 * job gets done in the end.  Progress never goes back. */
static void stopped_anywhere(run_fn *run)
{
    struct lam_image *image = make_chain();
    struct lam_job_options o = LAM_JOB_OPTIONS_INIT;
    unsigned cancelled = 0;
    int rc = -ECANCELED;

    for (uint64_t at = 1; at < SIZE / CLUSTER; at += 3)
        write_at(image, at * CLUSTER, CLUSTER / 2, (int)(at + 100));
    for (unsigned limit = 1; rc == -ECANCELED; limit++) {
        struct impatience p = { .limit = limit };

        o.workers = 2;
        o.rate = UINT64_C(1) << 40; /* small pieces */
        o.progress = count;
        o.progress_opaque = &p;
        o.cancel = &p.cancel;
        rc = run(image, &o);
        cancelled += rc == -ECANCELED;
        check_content(image);
        assert_true(limit < 1000);
    }
    assert_works(rc, &err);
    assert_true(cancelled > 0);
    assert_works(lam_image_close(image, &err), &err);
    image = open_image("top");
    check_content(image);
    assert_works(lam_image_close(image, &err), &err);
}

static void commit_is_stopped(void **state)
{
    (void)state;
    stopped_anywhere(commit_down);
}

static void stream_is_stopped(void **state)
{
    (void)state;
    stopped_anywhere(stream_all);
}

static void rebase_is_stopped(void **state)
{
    (void)state;
    stopped_anywhere(rebase_down);
}

/* ---------------------------------------------------------- two at a time */

struct second {
    struct lam_image *image;
    pthread_t thread;
    bool begun;
    int rc;
};

static void *stream_second(void *opaque)
{
    struct lam_job_options job = LAM_JOB_OPTIONS_INIT;
    struct second *s = opaque;

    s->rc = stream_all(s->image, &job);
    return NULL;
}

/* The last that the first one tells: it has not let go of the image yet. */
static void begin_second(void *opaque, uint64_t done, uint64_t total)
{
    struct second *s = opaque;

    if (done < total || s->begun)
        return;
    s->begun = true;
    assert_int_equal(pthread_create(&s->thread, NULL, stream_second, s), 0);
}

/* Jobs on one image wait for each other. */
static void second_job_waits(void **state)
{
    struct second s = { .image = make_chain() };
    struct lam_job_options job = LAM_JOB_OPTIONS_INIT;

    (void)state;
    write_at(s.image, 5 * CLUSTER, CLUSTER, 0x55);
    job.progress = begin_second;
    job.progress_opaque = &s;
    assert_works(commit_down(s.image, &job), &err);
    assert_true(s.begun);
    pthread_join(s.thread, NULL);
    assert_works(s.rc, &err);
    assert_null(lam_image_backing(s.image));
    check_content(s.image);
    assert_works(lam_image_close(s.image, &err), &err);
}

/* ----------------------------------------------------------------- misuse */

/* What does not fit is an error, and changes nothing. */
static void misuse_is_refused(void **state)
{
    struct lam_image *top = make_chain();
    struct lam_image *middle = lam_image_backing(top);
    struct lam_commit_options c = LAM_COMMIT_OPTIONS_INIT;
    struct lam_stream_options s = LAM_STREAM_OPTIONS_INIT;
    struct lam_rebase_options r = LAM_REBASE_OPTIONS_INIT;
    struct lam_job_options job = LAM_JOB_OPTIONS_INIT;

    (void)state;
    assert_int_equal(commit_down(middle, &job), -EINVAL);
    assert_int_equal(stream_all(middle, &job), -EINVAL);
    assert_int_equal(rebase_down(middle, &job), -EINVAL);
    c.depth = 3;
    assert_int_equal(lam_image_commit(top, &c, &err), -EINVAL);
    c.depth = 0;
    assert_int_equal(lam_image_commit(top, &c, &err), -EINVAL);
    c.depth = c.from = 1;
    assert_int_equal(lam_image_commit(top, &c, &err), -EINVAL);
    for (s.depth = 0; s.depth < 8; s.depth++)
        if (s.depth != 2)
            assert_int_equal(lam_image_stream(top, &s, &err),
                             s.depth == 3 ? 0 : -EINVAL);
    r.backing_file = "top";
    r.backing_format = "qcow2";
    assert_int_equal(lam_image_rebase(top, &r, &err), -ELOOP);
    r.backing_format = NULL;
    r.backing_file = "base";
    assert_int_equal(lam_image_rebase(top, &r, &err), -EINVAL);
    check_content(top);
    assert_works(lam_image_close(top, &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(last_rest_ignores_the_rate),
        cmocka_unit_test(commit_is_stopped),
        cmocka_unit_test(stream_is_stopped),
        cmocka_unit_test(rebase_is_stopped),
        cmocka_unit_test(second_job_waits),
        cmocka_unit_test(misuse_is_refused),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
