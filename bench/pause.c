/* SPDX-License-Identifier: MIT */
/*
 * pause.c - how long writers stand still while a snapshot is taken.
 *
 *     bench-pause RESULT FOLDER THREADS SNAPSHOTS
 *
 * THREADS threads write 64 KiB at random places of a new image in FOLDER.
 * Meanwhile SNAPSHOTS external snapshots are taken, one every tenth of a
 * second.  RESULT gets, as JSON and in seconds: "gate", how long requests were
 * kept out; "still", the longest time in which no write at all ended between
 * the beginning of a snapshot and its end; "else", the same for the tenth of a
 * second before it; each by median and greatest.  One more thread flushes
 * twenty times a second, as guests do: while a flush runs the host lets no
 * write end now and then.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "image/graph.h"

enum { CLUSTER = 64 * 1024, SNAPSHOTS_MAX = 200, THREADS_MAX = 64 };

static const uint64_t SIZE = UINT64_C(256) << 20;

static struct lam_image *image;
static atomic_bool over, failed;
static _Atomic uint64_t last_end, longest;

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void note_end(void)
{
    uint64_t end = now(), gap = end - atomic_exchange(&last_end, end);
    uint64_t most = atomic_load(&longest);

    while ((int64_t)gap > (int64_t)most &&
           !atomic_compare_exchange_weak(&longest, &most, gap))
        ;
}

static void *write_on(void *arg)
{
    unsigned seed = (unsigned)(uintptr_t)arg;
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t buf[CLUSTER];

    memset(buf, (int)seed, sizeof buf);
    while (!atomic_load(&over)) {
        uint64_t at = (uint64_t)rand_r(&seed) % (SIZE / CLUSTER) * CLUSTER;
        if (lam_image_write(image, buf, CLUSTER, at, 0, &err) < 0) {
            fprintf(stderr, "bench-pause: %s\n", err.message);
            atomic_store(&failed, true);
            break;
        }
        note_end();
    }
    return NULL;
}

static void *flush_on(void *arg)
{
    struct timespec twentieth = { 0, 50000000 };
    struct lam_error err = LAM_ERROR_INIT;

    (void)arg;
    while (!atomic_load(&over) && !atomic_load(&failed)) {
        if (lam_image_flush(image, &err) < 0) {
            fprintf(stderr, "bench-pause: %s\n", err.message);
            atomic_store(&failed, true);
        }
        nanosleep(&twentieth, NULL);
    }
    return NULL;
}

/* The longest standstill since the last call. */
static uint64_t take_longest(void)
{
    uint64_t since = now() - atomic_load(&last_end);
    uint64_t most = atomic_exchange(&longest, 0);

    return since > most && (int64_t)since > 0 ? since : most;
}

static int open_new(const char *folder, struct lam_error *err)
{
    struct lam_create_options create = LAM_CREATE_OPTIONS_INIT;
    struct lam_open_options open = LAM_OPEN_OPTIONS_INIT;
    char path[4096];

    snprintf(path, sizeof path, "%s/pause.qcow2", folder);
    create.format = open.format = "qcow2";
    create.size = SIZE;
    open.flags = LAM_OPEN_WRITE;
    unlink(path);
    int rc = lam_image_create(path, &create, err);
    return rc < 0 ? rc : lam_image_open(path, &open, &image, err);
}

static int snapshot(const char *folder, unsigned number, struct lam_error *err)
{
    char path[4096];

    snprintf(path, sizeof path, "%s/pause%u.qcow2", folder, number);
    unlink(path);
    return lam_image_snapshot_external(image, path, NULL, err);
}

static void rest(void)
{
    struct timespec tenth = { 0, 100000000 };

    nanosleep(&tenth, NULL);
}

static int ascending(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static void print(FILE *out, const char *name, uint64_t *times, unsigned count,
                  const char *end)
{
    qsort(times, count, sizeof *times, ascending);
    fprintf(out, "\"%s\": {\"median\": %.6f, \"most\": %.6f}%s", name,
            (double)times[count / 2] / 1e9, (double)times[count - 1] / 1e9,
            end);
}

static int measure(const char *folder, unsigned count, FILE *out,
                   struct lam_error *err)
{
    uint64_t gate[SNAPSHOTS_MAX], still[SNAPSHOTS_MAX], other[SNAPSHOTS_MAX];

    rest();
    for (unsigned i = 0; i < count; i++) {
        take_longest();
        rest();
        other[i] = take_longest();
        int rc = snapshot(folder, i + 1, err);
        if (rc < 0)
            return rc;
        still[i] = take_longest();
        gate[i] = image_graph_closed(image);
    }
    fputs("{", out);
    print(out, "gate", gate, count, ", ");
    print(out, "still", still, count, ", ");
    print(out, "else", other, count, "}\n");
    return 0;
}

static int run(const char *folder, unsigned threads, unsigned count, FILE *out,
               struct lam_error *err)
{
    pthread_t ids[THREADS_MAX + 1];
    unsigned n = 0;
    int rc = open_new(folder, err);

    if (rc < 0)
        return rc;
    atomic_store(&last_end, now());
    while (n <= threads &&
           pthread_create(&ids[n], NULL, n ? write_on : flush_on,
                          (void *)(uintptr_t)n) == 0)
        n++;
    if (n > threads)
        rc = measure(folder, count, out, err);
    atomic_store(&over, true);
    for (unsigned i = 0; i < n; i++)
        pthread_join(ids[i], NULL);
    int closed = lam_image_close(image, rc < 0 ? NULL : err);
    return rc < 0 ? rc : n <= threads ? -EAGAIN : closed;
}

int main(int argc, char **argv)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (argc != 5) {
        fputs("usage: bench-pause RESULT FOLDER THREADS SNAPSHOTS\n", stderr);
        return 2;
    }
    unsigned threads = (unsigned)atoi(argv[3]), count = (unsigned)atoi(argv[4]);
    if (threads < 1 || threads > THREADS_MAX || count < 1 ||
        count > SNAPSHOTS_MAX) {
        fprintf(stderr, "bench-pause: 1 to %d threads, 1 to %d snapshots\n",
                THREADS_MAX, SNAPSHOTS_MAX);
        return 2;
    }
    FILE *out = fopen(argv[1], "w");
    if (!out) {
        perror(argv[1]);
        return 1;
    }
    int rc = run(argv[2], threads, count, out, &err);
    if (rc < 0)
        fprintf(stderr, "bench-pause: %s\n",
                err.message[0] ? err.message : strerror(-rc));
    return fclose(out) || rc < 0 || atomic_load(&failed);
}
