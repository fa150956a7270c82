/* SPDX-License-Identifier: MIT */
/*
 * bench-queue.c - the requests of `bench` by a queue: one thread keeps as many
 * under way as were asked for.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

enum { BATCH = 64 };

struct slot {
    void *buf;                  /* a reader's */
    struct lam_error err;       /* of its request, if that failed */
    struct slot *next;
};

struct sender {
    struct bench *b;
    struct lam_queue *queue;
    struct slot *slots, *free;
    uint64_t depth;
    struct slot flush;          /* beside the others: no buffer */
};

/* False: this request has to wait for its buffer, or there is no memory. */
static bool take_slot(struct sender *s, struct slot **out)
{
    struct slot *slot = s->free;
    struct bench *b = s->b;

    if (!slot)
        return false;
    if (!b->pattern && !slot->buf) {
        slot->buf = bench_buffer(b->args->size, false);
        if (!slot->buf) {
            struct lam_error err = LAM_ERROR_INIT;
            bench_note(b, option_fail(&err, ENOMEM, "no memory for a buffer"),
                       &err);
            return false;
        }
        memset(slot->buf, 0, b->args->size);
    }
    s->free = slot->next;
    *out = slot;
    return true;
}

/* The next ones in a row, as many as may begin before the next flush. */
static size_t fill(struct sender *s, struct lam_request *requests)
{
    struct bench *b = s->b;
    uint64_t interval = b->args->interval;
    struct slot *slot;
    size_t n = 0;

    while (n < BATCH && b->left && b->rc == 0 &&
           !(interval && b->left % interval == 0 && b->left != b->flushed) &&
           take_slot(s, &slot)) {
        requests[n++] = (struct lam_request){
            .kind = b->args->write ? LAM_REQUEST_WRITE : LAM_REQUEST_READ,
            .buf = b->pattern ? b->pattern : slot->buf,
            .length = b->args->size, .offset = b->offset,
            .cookie = slot, .err = &slot->err,
        };
        b->offset = bench_wrapped(b, b->offset + b->args->step);
        b->left--;
    }
    b->running += n;
    return n;
}

/* A flush is due. */
static size_t fill_flush(struct sender *s, struct lam_request *request)
{
    struct bench *b = s->b;

    *request = (struct lam_request){ .kind = LAM_REQUEST_FLUSH,
                                     .cookie = &s->flush,
                                     .err = &s->flush.err };
    b->flushed = b->left;
    b->flushing = true;
    return 1;
}

static bool flush_is_due(const struct bench *b)
{
    return b->args->interval && b->left && b->rc == 0 && !b->flushing &&
           b->left % b->args->interval == 0 && b->left != b->flushed;
}

static size_t next_requests(struct sender *s, struct lam_request *requests)
{
    struct bench *b = s->b;
    bool drain = !b->args->no_drain;

    if (flush_is_due(b))
        return b->running && drain ? 0 : fill_flush(s, requests);
    return b->flushing && drain ? 0 : fill(s, requests);
}

static void take_result(struct sender *s, const struct lam_result *result)
{
    struct slot *slot = result->cookie;

    bench_note(s->b, result->rc, &slot->err);
    if (slot == &s->flush) {
        s->b->flushing = false;
        return;
    }
    slot->next = s->free;
    s->free = slot;
    s->b->running--;
}

static void send_all(struct sender *s)
{
    struct bench *b = s->b;
    struct lam_request requests[BATCH];
    struct lam_result results[BATCH];
    size_t n;

    do {
        while ((n = next_requests(s, requests)))
            lam_queue_submit(s->queue, requests, n);
        n = lam_queue_reap(s->queue, results, BATCH, 1, -1);
        for (size_t i = 0; i < n; i++)
            take_result(s, &results[i]);
    } while (b->running || b->flushing || (b->left && b->rc == 0));
}

static int make_sender(struct sender *s, struct lam_error *err)
{
    const struct bench_args *args = s->b->args;
    struct lam_queue_options o = LAM_QUEUE_OPTIONS_INIT;

    s->depth = args->depth < args->count ? args->depth : args->count;
    if (s->depth > LAM_QUEUE_DEPTH_MAX - 1)
        s->depth = LAM_QUEUE_DEPTH_MAX - 1;
    s->slots = calloc(s->depth, sizeof *s->slots);
    if (!s->slots)
        return option_fail(err, ENOMEM, "no memory for requests");
    for (uint64_t i = s->depth; i-- > 0; s->free = &s->slots[i])
        s->slots[i].next = s->free;
    o.depth = (unsigned)s->depth + 1;       /* and a flush */
    return lam_queue_new(s->b->image, &o, &s->queue, err);
}

int bench_run_queue(struct bench *b)
{
    struct sender s = { .b = b };
    struct lam_error err = LAM_ERROR_INIT;
    int rc = make_sender(&s, &err);

    if (rc < 0)
        bench_note(b, rc, &err);
    else
        send_all(&s);
    lam_queue_free(s.queue);
    for (uint64_t i = 0; s.slots && i < s.depth; i++)
        free(s.slots[i].buf);
    free(s.slots);
    return b->rc;
}
