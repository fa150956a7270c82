/* SPDX-License-Identifier: MIT */
/*
 * workers.c - run one function in several threads until nothing is left.
 */
#include "base/workers.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/thread.h"

struct crew {
    worker_step_fn *step;
    void *job;
    atomic_bool stop;
    pthread_mutex_t lock;       /* guards the two below */
    int rc;                     /* the first failure */
    struct lam_error error;
};

struct worker {
    struct crew *crew;
    unsigned index;
    pthread_t thread;
};

static void crew_failed(struct crew *crew, int rc, const struct lam_error *err)
{
    LAM_LOCKED(&crew->lock);
    atomic_store(&crew->stop, true);
    if (!crew->rc) {
        crew->rc = rc;
        crew->error = *err;
    }
}

static void *worker_main(void *opaque)
{
    struct worker *worker = opaque;
    struct crew *crew = worker->crew;
    struct lam_error error = LAM_ERROR_INIT;
    while (!atomic_load(&crew->stop)) {
        int rc = crew->step(crew->job, worker->index, &error);
        if (rc < 0)
            crew_failed(crew, rc, &error);
        if (rc <= 0)
            break;
    }
    return NULL;
}

static unsigned start_workers(struct worker *workers, unsigned nb_workers)
{
    unsigned started = 1;       /* the caller itself is number 0 */

    while (started < nb_workers &&
           !thread_start(&workers[started].thread, worker_main,
                         &workers[started]))
        started++;
    return started;
}

int workers_run(unsigned nb_workers, worker_step_fn *step, void *job,
                struct lam_error *err)
{
    if (!nb_workers)
        nb_workers = 1;
    lam_autofree struct worker *workers = calloc(nb_workers, sizeof *workers);
    if (!workers)
        return lam_fail(err, ENOMEM, "no memory for %u workers", nb_workers);

    struct crew crew = { .step = step, .job = job };
    pthread_mutex_init(&crew.lock, NULL);
    for (unsigned i = 0; i < nb_workers; i++)
        workers[i] = (struct worker){ .crew = &crew, .index = i };

    /* Fewer threads than asked for do the same work. */
    unsigned started = start_workers(workers, nb_workers);
    worker_main(&workers[0]);
    for (unsigned i = 1; i < started; i++)
        pthread_join(workers[i].thread, NULL);
    pthread_mutex_destroy(&crew.lock);

    if (crew.rc < 0 && err)
        *err = crew.error;
    return crew.rc;
}

unsigned workers_default(void)
{
    /* The fixed set holds 1,024 processors; larger machines need a larger. */
    for (int max = CPU_SETSIZE; max <= 1 << 16; max *= 4) {
        cpu_set_t *set = CPU_ALLOC((size_t)max);
        if (!set)
            break;
        size_t bytes = CPU_ALLOC_SIZE((size_t)max);
        int rc = sched_getaffinity(0, bytes, set);
        int count = rc ? 0 : CPU_COUNT_S(bytes, set);
        CPU_FREE(set);
        if (count > 0)
            return (unsigned)count;
        if (errno != EINVAL)
            break;
    }
    return 1;
}
