/* SPDX-License-Identifier: MIT */
/*
 * io-aio.c - aio_read, aio_write, aio_flush: requests on a few threads of
 * their own.  What became of them is printed by the session's thread.
 *
 * Invariants, under the lock:
 * 1. A request is counted in in_flight from its submission until it is in the
 *    list of those that have ended.
 * 2. The session's image is not closed while in_flight is above 0
 *    (io-image.c drains first), so that a thread may use it without the lock.
 */
#include <getopt.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "io-aio.h"
#include "io-print.h"
#include "io-transfer.h"

/* A request that waits at a breakpoint keeps its thread, and so do those that
 * wait for it. */
enum { NB_THREADS = 4, NB_THREADS_STOPPED = 64 };

/* How long a request may take to end or to stop before the session goes on. */
enum { SETTLE_MS = 100 };

struct job {
    struct io_request request;
    struct job *next;
};

/* A request that waits at a breakpoint. */
struct stopped {
    struct stopped *next;
    bool printed;
    char tag[IO_TAG_MAX];
};

struct jobs { struct job *first, **last; };

struct io_aio {
    pthread_mutex_t lock;
    pthread_cond_t work;        /* a job is queued, or stop is set */
    pthread_cond_t changed;     /* a job has ended, or waits */
    struct jobs queued, ended;
    unsigned in_flight;
    bool stop;
    bool may_stop;              /* there are breakpoints */
    struct stopped *stopped, **last_stopped;
    uint64_t nb_changes;
    unsigned nb_threads;
    pthread_t threads[NB_THREADS_STOPPED];
};

static void jobs_put(struct jobs *jobs, struct job *job)
{
    job->next = NULL;
    *jobs->last = job;
    jobs->last = &job->next;
}

static struct job *jobs_take(struct jobs *jobs)
{
    struct job *job = jobs->first;

    if (job) {
        jobs->first = job->next;
        if (!jobs->first)
            jobs->last = &jobs->first;
    }
    return job;
}

/* ------------------------------------------------------------------ threads */

static struct job *take_job(struct io_aio *aio)
{
    pthread_mutex_lock(&aio->lock);
    while (!aio->queued.first && !aio->stop)
        pthread_cond_wait(&aio->work, &aio->lock);
    struct job *job = jobs_take(&aio->queued);
    pthread_mutex_unlock(&aio->lock);
    return job;
}

/* Under the lock. */
static void note_change(struct io_aio *aio)
{
    aio->nb_changes++;
    pthread_cond_broadcast(&aio->changed);
}

static void end_job(struct io_aio *aio, struct job *job)
{
    io_request_trim(&job->request);
    pthread_mutex_lock(&aio->lock);
    jobs_put(&aio->ended, job);
    aio->in_flight--;
    note_change(aio);
    pthread_mutex_unlock(&aio->lock);
}

static void *thread_main(void *opaque)
{
    struct io_aio *aio = opaque;
    struct job *job;

    while ((job = take_job(aio))) {
        io_request_perform(&job->request);
        end_job(aio, job);
    }
    return NULL;
}

struct io_aio *io_aio_new(void)
{
    struct io_aio *aio = calloc(1, sizeof *aio);

    if (!aio)
        return NULL;
    pthread_mutex_init(&aio->lock, NULL);
    pthread_cond_init(&aio->work, NULL);
    pthread_cond_init(&aio->changed, NULL);
    aio->queued.last = &aio->queued.first;
    aio->ended.last = &aio->ended.first;
    aio->last_stopped = &aio->stopped;
    return aio;
}

void io_aio_print(struct io_aio *aio)
{
    struct job *job;

    io_aio_print_stopped(aio);
    for (;;) {
        pthread_mutex_lock(&aio->lock);
        job = jobs_take(&aio->ended);
        pthread_mutex_unlock(&aio->lock);
        if (!job)
            return;
        /* It fails no command. */
        (void)io_request_finish(&job->request);
        io_request_deinit(&job->request);
        free(job);
    }
}

void io_aio_drain(struct io_aio *aio)
{
    if (!aio)
        return;
    pthread_mutex_lock(&aio->lock);
    while (aio->in_flight > 0)
        pthread_cond_wait(&aio->changed, &aio->lock);
    pthread_mutex_unlock(&aio->lock);
    io_aio_print(aio);
}

void io_aio_free(struct io_aio *aio)
{
    if (!aio)
        return;
    io_aio_drain(aio);
    pthread_mutex_lock(&aio->lock);
    aio->stop = true;
    pthread_cond_broadcast(&aio->work);
    pthread_mutex_unlock(&aio->lock);
    for (unsigned i = 0; i < aio->nb_threads; i++)
        pthread_join(aio->threads[i], NULL);
    pthread_cond_destroy(&aio->changed);
    pthread_cond_destroy(&aio->work);
    pthread_mutex_destroy(&aio->lock);
    free(aio);
}

/* One thread more while there are fewer than requests.  False: there is none
 * at all, so nobody would run a job. */
static bool has_threads(struct io_aio *aio)
{
    unsigned most = aio->may_stop ? NB_THREADS_STOPPED : NB_THREADS;

    if (aio->nb_threads < most && aio->nb_threads <= aio->in_flight &&
        !pthread_create(&aio->threads[aio->nb_threads], NULL, thread_main,
                        aio))
        aio->nb_threads++;
    return aio->nb_threads > 0;
}

/* Where requests may stop, it matters which comes first: the next one is not
 * begun before this has ended or stopped, or waits for one that has.  Under the
 * lock. */
static void settle(struct io_aio *aio)
{
    uint64_t before = aio->nb_changes;
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += SETTLE_MS * 1000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    while (aio->nb_changes == before &&
           !pthread_cond_timedwait(&aio->changed, &aio->lock, &until))
        ;
}

/* Takes over what @request owns. */
static int submit(struct io_aio *aio, struct io_request *request)
{
    struct job *job = malloc(sizeof *job);

    pthread_mutex_lock(&aio->lock);
    if (!job || !has_threads(aio)) {
        pthread_mutex_unlock(&aio->lock);
        cli_error(request->session->cli, "no memory or thread for a request");
        io_request_deinit(request);
        free(job);
        return -1;
    }
    job->request = *request;
    jobs_put(&aio->queued, job);
    aio->in_flight++;
    pthread_cond_signal(&aio->work);
    if (aio->may_stop)
        settle(aio);
    pthread_mutex_unlock(&aio->lock);
    return 0;
}

/* -------------------------------------------------------------- breakpoints */

void io_aio_expect_stops(struct io_aio *aio)
{
    pthread_mutex_lock(&aio->lock);
    aio->may_stop = true;
    pthread_mutex_unlock(&aio->lock);
}

/* Without memory it waits nevertheless, and is resumed by its tag. */
static void add_stopped(struct io_aio *aio, const char *tag)
{
    struct stopped *stopped = calloc(1, sizeof *stopped);

    if (!stopped)
        return;
    snprintf(stopped->tag, sizeof stopped->tag, "%s", tag);
    *aio->last_stopped = stopped;
    aio->last_stopped = &stopped->next;
}

void io_aio_note_stopped(struct io_aio *aio, const char *const *tags,
                         unsigned count)
{
    pthread_mutex_lock(&aio->lock);
    for (unsigned i = 0; i < count; i++)
        add_stopped(aio, tags[i]);
    note_change(aio);
    pthread_mutex_unlock(&aio->lock);
}

void io_aio_print_stopped(struct io_aio *aio)
{
    pthread_mutex_lock(&aio->lock);
    for (struct stopped *s = aio->stopped; s; s = s->next) {
        if (!s->printed)
            printf("blkdebug: Suspended request '%s'\n", s->tag);
        s->printed = true;
    }
    pthread_mutex_unlock(&aio->lock);
}

/* The last one of @tag (NULL: of any).  Under the lock. */
static struct stopped **find_stopped(struct io_aio *aio, const char *tag)
{
    struct stopped **found = NULL;

    for (struct stopped **s = &aio->stopped; *s; s = &(*s)->next)
        if (!tag || !strncmp((*s)->tag, tag, IO_TAG_MAX - 1))
            found = s;
    return found;
}

bool io_aio_wait_stopped(struct io_aio *aio, const char *tag)
{
    pthread_mutex_lock(&aio->lock);
    while (aio->in_flight > 0 && !find_stopped(aio, tag))
        pthread_cond_wait(&aio->changed, &aio->lock);
    bool found = find_stopped(aio, tag);
    pthread_mutex_unlock(&aio->lock);
    io_aio_print_stopped(aio);
    return found;
}

void io_aio_forget_stopped(struct io_aio *aio, const char *tag)
{
    pthread_mutex_lock(&aio->lock);
    struct stopped **found = find_stopped(aio, tag);
    if (found) {
        struct stopped *gone = *found;
        *found = gone->next;
        if (aio->last_stopped == &gone->next)
            aio->last_stopped = found;
        free(gone);
    }
    pthread_mutex_unlock(&aio->lock);
}

bool io_aio_last_stopped(struct io_aio *aio, char tag[IO_TAG_MAX])
{
    pthread_mutex_lock(&aio->lock);
    struct stopped **found = find_stopped(aio, NULL);
    if (found)
        memcpy(tag, (*found)->tag, IO_TAG_MAX);
    pthread_mutex_unlock(&aio->lock);
    return found;
}

/* ----------------------------------------------------------------- commands */

int io_cmd_aio_read(struct io_session *session,
                    const struct io_command *command, int argc, char **argv)
{
    struct io_request request = { .session = session, .failing = "readv",
                                  .kind = IO_READ };

    if (io_request_options(&request, command, "CiP:qrv", argc, argv) < 0)
        return -1;
    if (request.invalid) {
        printf("injecting invalid read request\n");
        return 0;
    }
    if (optind > argc - 2)
        return io_usage(command);
    if (io_request_vector(&request, argc, argv) < 0)
        return -1;
    if (io_request_buffer(&request) < 0) {
        io_request_deinit(&request);
        return -1;
    }
    return submit(session->aio, &request);
}

/* A range of zeroes may be of any size, for it has no buffer. */
static int submit_zero(struct io_request *request, char **argv)
{
    if (io_number(argv[optind], &request->offset) < 0 ||
        io_number(argv[optind + 1], &request->length) < 0)
        return -1;
    return submit(request->session->aio, request);
}

int io_cmd_aio_write(struct io_session *session,
                     const struct io_command *command, int argc, char **argv)
{
    struct io_request request = { .session = session, .failing = "aio_write",
                                  .kind = IO_WRITE };

    if (io_request_options(&request, command, "CfiP:qruz", argc, argv) < 0)
        return -1;
    if (request.invalid) {
        printf("injecting invalid write request\n");
        return 0;
    }
    if (optind > argc - 2)
        return io_usage(command);
    if (request.kind == IO_ZERO && optind != argc - 2) {
        printf("-z supports only a single length parameter\n");
        return -1;
    }
    if ((request.flags & LAM_ZERO_UNMAP) && request.kind != IO_ZERO) {
        printf("-u requires -z to be specified\n");
        return -1;
    }
    if (request.registered && request.kind == IO_ZERO) {
        puts("cannot combine zero write with registered I/O buffer");
        return -1;
    }
    if (request.kind == IO_ZERO)
        return submit_zero(&request, argv);
    if (io_request_vector(&request, argc, argv) < 0)
        return -1;
    if (io_request_buffer(&request) < 0) {
        io_request_deinit(&request);
        return -1;
    }
    return submit(session->aio, &request);
}

int io_cmd_aio_flush(struct io_session *session,
                     const struct io_command *command, int argc, char **argv)
{
    char tag[IO_TAG_MAX];

    (void)command, (void)argc, (void)argv;
    io_aio_print_stopped(session->aio);
    if (io_aio_last_stopped(session->aio, tag)) {
        cli_error(session->cli, "a request waits at '%s', and nobody would "
                  "resume it meanwhile", tag);
        return -1;
    }
    io_aio_drain(session->aio);
    return 0;
}
