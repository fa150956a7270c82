/* SPDX-License-Identifier: MIT */
/*
 * io-aio.c - aio_read, aio_write, aio_flush: requests on a few threads of
 * their own, each of which prints what became of its request.
 *
 * Invariants, under the lock:
 * 1. A request is counted in in_flight from its submission until it has been
 *    printed and freed.
 * 2. The session's image is not closed while in_flight is above 0
 *    (io-image.c drains first), so that a thread may use it without the lock.
 */
#include <getopt.h>
#include <pthread.h>
#include <stdlib.h>

#include "io-aio.h"
#include "io-print.h"
#include "io-transfer.h"

enum { NB_THREADS = 4 };

struct job {
    struct io_request request;
    struct job *next;
};

struct io_aio {
    pthread_mutex_t lock;
    pthread_cond_t work;        /* a job is queued, or stop is set */
    pthread_cond_t idle;        /* in_flight became 0 */
    struct job *first, **last;
    unsigned in_flight;
    bool stop;
    unsigned nb_threads;
    pthread_t threads[NB_THREADS];
};

/* ------------------------------------------------------------------ threads */

static struct job *take_job(struct io_aio *aio)
{
    pthread_mutex_lock(&aio->lock);
    while (!aio->first && !aio->stop)
        pthread_cond_wait(&aio->work, &aio->lock);
    struct job *job = aio->first;
    if (job) {
        aio->first = job->next;
        if (!aio->first)
            aio->last = &aio->first;
    }
    pthread_mutex_unlock(&aio->lock);
    return job;
}

static void end_job(struct io_aio *aio, struct job *job)
{
    /* Printed by whoever ran it; it fails no command. */
    (void)io_request_finish(&job->request);
    io_request_deinit(&job->request);
    free(job);

    pthread_mutex_lock(&aio->lock);
    if (--aio->in_flight == 0)
        pthread_cond_broadcast(&aio->idle);
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
    pthread_cond_init(&aio->idle, NULL);
    aio->last = &aio->first;
    return aio;
}

void io_aio_drain(struct io_aio *aio)
{
    if (!aio)
        return;
    pthread_mutex_lock(&aio->lock);
    while (aio->in_flight > 0)
        pthread_cond_wait(&aio->idle, &aio->lock);
    pthread_mutex_unlock(&aio->lock);
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
    pthread_cond_destroy(&aio->idle);
    pthread_cond_destroy(&aio->work);
    pthread_mutex_destroy(&aio->lock);
    free(aio);
}

/* One thread more while there are fewer than requests.  False: there is none
 * at all, so nobody would run a job. */
static bool has_threads(struct io_aio *aio)
{
    if (aio->nb_threads < NB_THREADS && aio->nb_threads <= aio->in_flight &&
        !pthread_create(&aio->threads[aio->nb_threads], NULL, thread_main,
                        aio))
        aio->nb_threads++;
    return aio->nb_threads > 0;
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
    job->next = NULL;
    *aio->last = job;
    aio->last = &job->next;
    aio->in_flight++;
    pthread_cond_signal(&aio->work);
    pthread_mutex_unlock(&aio->lock);
    return 0;
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
    if (request.invalid) {
        printf("injecting invalid write request\n");
        return 0;
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
    (void)command, (void)argc, (void)argv;
    io_aio_drain(session->aio);
    return 0;
}
