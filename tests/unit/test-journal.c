/* SPDX-License-Identifier: MIT */
/*
 * test-journal.c - a copy that is interrupted, by a failing write or by power
 * that goes, and is resumed: the target becomes what the source is, and what
 * the journal said was on the disk.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "memory-image.h"

#include "image/graph.h"

enum { SIZE = (12 << 20) + 512 };

/* ------------------------------------------------------ a disk that forgets */

static const struct lam_io_ops *memory;     /* the table underneath */
static uint8_t *durable;        /* what is on the disk since the last flush */
static pthread_mutex_t disk_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int writes_left; /* until writing fails */
static bool power_goes;         /* ... and flushing with it */

/* Slow enough for the journal's interval. */
static ssize_t disk_writev(struct lam_io *io, const struct iovec *iov,
                           int iovcnt, uint64_t offset)
{
    const struct timespec pause = { 0, 1000 * 1000 };

    if (atomic_fetch_sub(&writes_left, 1) <= 0)
        return -EIO;
    nanosleep(&pause, NULL);
    return memory->writev(io, iov, iovcnt, offset);
}

static int disk_flush(struct lam_io *io)
{
    struct iovec iov = { durable, SIZE };

    if (power_goes && atomic_load(&writes_left) <= 0)
        return -EIO;
    pthread_mutex_lock(&disk_lock);
    ssize_t n = memory->readv(io, &iov, 1, 0);
    pthread_mutex_unlock(&disk_lock);
    return n == SIZE ? 0 : -EIO;
}

static struct lam_image *open_disk(const void *bytes, unsigned flags)
{
    static struct lam_io_ops ops;
    struct lam_io *io = new_memory(bytes, SIZE, flags);

    if (io->writable) {
        memory = io->ops;
        ops = *memory;
        ops.writev = disk_writev;
        ops.flush = disk_flush;
        io->ops = &ops;
    }
    return open_raw(io, flags);
}

/* ------------------------------------------------------------ the fixture */

struct fixture {
    char path[64];
    uint8_t *bytes;             /* of the source */
    struct lam_image *source;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    if (!f)
        return -1;
    f->bytes = calloc(1, SIZE);
    durable = calloc(1, SIZE);
    if (!f->bytes || !durable)
        return -1;
    for (size_t i = 0; i < SIZE; i++)
        if (i / 300000 % 3)
            f->bytes[i] = (uint8_t)(i / 512 % 251 + 1);
    snprintf(f->path, sizeof f->path, "/tmp/lamella-journal-%d",
             (int)getpid());
    unlink(f->path);
    f->source = open_disk(f->bytes, 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    unlink(f->path);
    lam_image_close(f->source, NULL);
    free(f->bytes);
    free(durable);
    free(f);
    return 0;
}

/* One run onto what is on the disk; the disk is then what was flushed. */
static int run(struct fixture *f, int writes, unsigned workers,
               struct lam_convert_result *result, struct lam_error *err)
{
    struct lam_convert_options options = LAM_CONVERT_OPTIONS_INIT;
    struct lam_image *target = open_disk(durable, LAM_OPEN_WRITE);

    atomic_store(&writes_left, writes);
    options.journal = f->path;
    options.journal_interval = 1;
    options.workers = workers;
    int rc = lam_convert(&f->source, 1, target, &options, result, err);
    /* What closing does comes too late. */
    bool saved = power_goes;
    atomic_store(&writes_left, 0);
    power_goes = true;
    lam_image_close(target, NULL);
    power_goes = saved;
    return rc;
}

/* The number in the last whole line of the journal. */
static uint64_t last_done(const char *path)
{
    FILE *in = fopen(path, "r");
    unsigned long long done = 0;
    char line[4300];

    assert_non_null(in);
    while (fgets(line, sizeof line, in))
        if (strchr(line, '\n'))
            sscanf(line, "done %llu", &done);
    fclose(in);
    return done;
}

/* ------------------------------------------------------------ the tests */

/* All that the journal says is done is on the disk, whatever was lost. */
static void interrupt_and_resume(struct fixture *f)
{
    struct lam_convert_result result;
    struct lam_error err = LAM_ERROR_INIT;

    for (unsigned workers = 1; workers <= 3; workers += 2) {
        memset(durable, 0x55, SIZE);
        int rc, runs = 0;
        while ((rc = run(f, 4 + runs, workers, &result, &err)) < 0) {
            assert_true(runs++ < 100);
            uint64_t done = last_done(f->path);
            assert_true(done <= SIZE);
            assert_memory_equal(durable, f->bytes, done);
        }
        assert_true(runs > 0);
        assert_true(result.bytes_resumed > 0);
        assert_memory_equal(durable, f->bytes, SIZE);
        assert_int_equal(access(f->path, F_OK), -1);
    }
}

static void test_failing_writes(void **state)
{
    power_goes = false;
    interrupt_and_resume(*state);
}

static void test_power_loss(void **state)
{
    power_goes = true;
    interrupt_and_resume(*state);
    power_goes = false;
}

/* A line that was not written completely says nothing. */
static void test_torn_line(void **state)
{
    static const char *const tails[] = {
        "done 99999999999 #00000000\n", "done 12582912", "\n", "done 4096 #1",
        "x", "done 1 #zzzzzzzz\n",
    };
    struct fixture *f = *state;
    struct lam_convert_result result;
    struct lam_error err = LAM_ERROR_INIT;

    for (size_t i = 0; i < LAM_ARRAY_SIZE(tails); i++) {
        memset(durable, 0, SIZE);
        assert_int_equal(run(f, 5, 1, NULL, &err), -EIO);
        uint64_t done = last_done(f->path);
        FILE *out = fopen(f->path, "a");
        fputs(tails[i], out);
        fclose(out);
        assert_works(run(f, 1000, 1, &result, &err), &err);
        assert_int_equal(result.bytes_resumed, done);
        assert_memory_equal(durable, f->bytes, SIZE);
    }
}

/* A journal cut anywhere: the copy goes on or begins anew. */
static void test_cut(void **state)
{
    struct fixture *f = *state;
    struct lam_error err = LAM_ERROR_INIT;
    struct stat st;

    for (off_t keep = 0, size = 1; keep < size; keep += 29) {
        memset(durable, 0, SIZE);
        assert_int_equal(run(f, 6, 1, NULL, &err), -EIO);
        assert_int_equal(stat(f->path, &st), 0);
        size = st.st_size;
        assert_int_equal(truncate(f->path, keep < size ? keep : size), 0);
        assert_works(run(f, 1000, 2, NULL, &err), &err);
        assert_memory_equal(durable, f->bytes, SIZE);
    }
}

static void put(const char *path, const char *text)
{
    FILE *out = fopen(path, "w");

    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

/* What is not this conversion's journal is refused, and stays. */
static void test_other(void **state)
{
    struct fixture *f = *state;
    struct lam_convert_options options = LAM_CONVERT_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    put(f->path, "my thesis\n");
    assert_int_equal(run(f, 1000, 1, NULL, &err), -EINVAL);
    assert_non_null(strstr(err.message, "is not a journal"));
    unlink(f->path);

    memset(durable, 0, SIZE);
    assert_int_equal(run(f, 5, 1, NULL, &err), -EIO);
    struct lam_image *target = open_disk(durable, LAM_OPEN_WRITE);
    options.journal = f->path;
    options.sparse_size = 65536;
    assert_int_equal(lam_convert(&f->source, 1, target, &options, NULL, &err),
                     -EINVAL);
    assert_non_null(strstr(err.message, "of another conversion"));
    assert_non_null(strstr(err.message, "sparse=65536"));
    options.digest = "sha256";
    assert_int_equal(lam_convert(&f->source, 1, target, &options, NULL, &err),
                     -ENOTSUP);
    options.digest = NULL;
    options.flags = LAM_CONVERT_NO_SYNC;
    assert_int_equal(lam_convert(&f->source, 1, target, &options, NULL, &err),
                     -EINVAL);
    lam_image_close(target, NULL);
    assert_works(run(f, 1000, 1, NULL, &err), &err);
    assert_memory_equal(durable, f->bytes, SIZE);
}

/* ------------------------------------------------------- a source in use */

static struct lam_image *changing;
static pthread_t changer;
static atomic_bool begun, changed;
static bool changed_too_early;

static void *change_chain(void *arg)
{
    (void)arg;
    image_graph_lock(changing);
    atomic_store(&begun, true);
    image_graph_begin_change(changing);
    atomic_store(&changed, true);
    image_graph_end_change(changing);
    image_graph_unlock(changing);
    return NULL;
}

/* While this layer is looked at, somebody wants to change the chain. */
static int stat_slowly(struct lam_io *io, struct stat *st)
{
    const struct timespec pause = { 0, 20 * 1000 * 1000 };

    (void)io;
    memset(st, 0, sizeof *st);
    if (atomic_exchange(&begun, true))
        return 0;
    atomic_store(&begun, false);
    assert_int_equal(pthread_create(&changer, NULL, change_chain, NULL), 0);
    while (!atomic_load(&begun))
        sched_yield();
    nanosleep(&pause, NULL);
    changed_too_early = atomic_load(&changed);
    return 0;
}

/* The layers that are written down stay where they are meanwhile. */
static void test_chain_stands_still(void **state)
{
    struct fixture *f = *state;
    struct lam_io_ops ops = *f->source->io->ops;
    const struct lam_io_ops *real = f->source->io->ops;
    struct lam_error err = LAM_ERROR_INIT;

    changing = f->source;
    atomic_store(&begun, false);
    atomic_store(&changed, false);
    ops.stat = stat_slowly;
    f->source->io->ops = &ops;
    memset(durable, 0, SIZE);
    assert_works(run(f, 1000, 1, NULL, &err), &err);
    f->source->io->ops = real;
    assert_int_equal(pthread_join(changer, NULL), 0);
    assert_true(atomic_load(&changed));
    assert_false(changed_too_early);
    assert_memory_equal(durable, f->bytes, SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_failing_writes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_power_loss, setup, teardown),
        cmocka_unit_test_setup_teardown(test_torn_line, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other, setup, teardown),
        cmocka_unit_test_setup_teardown(test_chain_stands_still, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
