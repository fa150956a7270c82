/* SPDX-License-Identifier: MIT */
/*
 * queue.c - read a whole disk with many requests under way from one thread, and
 * print the sum of its bytes.
 *
 *     queue IMAGE
 */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include <lamella.h>

enum { DEPTH = 16, PIECE = 64 << 10, ALIGNMENT = 4096 };

struct piece {
    void *buf;
    size_t length;
    struct lam_error err;
};

struct reader {
    struct lam_queue *queue;
    uint64_t size, next, sum;
    unsigned under_way;
};

/* The next piece of the disk, if there is one left. */
static void submit(struct reader *r, struct piece *piece)
{
    uint64_t left = r->size - r->next;

    if (!left)
        return;
    piece->length = left < PIECE ? (size_t)left : PIECE;
    struct lam_request request = {
        .kind = LAM_REQUEST_READ, .buf = piece->buf, .length = piece->length,
        .offset = r->next, .cookie = piece, .err = &piece->err,
    };
    /* The queue is as deep as there are pieces, so there is room. */
    r->under_way += (unsigned)lam_queue_submit(r->queue, &request, 1);
    r->next += piece->length;
}

static int take(struct reader *r, const struct lam_result *result)
{
    struct piece *piece = result->cookie;
    const unsigned char *bytes = piece->buf;

    r->under_way--;
    if (result->rc < 0) {
        fprintf(stderr, "queue: %s\n", piece->err.message);
        return result->rc;
    }
    for (size_t i = 0; i < piece->length; i++)
        r->sum += bytes[i];
    submit(r, piece);
    return 0;
}

/* As a program with an event loop does: poll(), then reap without waiting. */
static int read_all(struct reader *r, struct piece *pieces)
{
    struct pollfd fd = { .fd = lam_queue_fd(r->queue), .events = POLLIN };
    struct lam_result results[DEPTH];

    for (int i = 0; i < DEPTH; i++)
        submit(r, &pieces[i]);
    while (r->under_way) {
        if (fd.fd >= 0)
            poll(&fd, 1, -1);
        size_t n = lam_queue_reap(r->queue, results, DEPTH, fd.fd < 0, -1);
        for (size_t i = 0; i < n; i++)
            if (take(r, &results[i]) < 0)
                return -1;
    }
    return 0;
}

static int sum(struct lam_image *image, struct lam_error *err)
{
    static struct piece pieces[DEPTH];
    struct lam_queue_options options = LAM_QUEUE_OPTIONS_INIT;
    struct reader r = { .size = lam_image_size(image) };

    options.depth = DEPTH;
    if (lam_queue_new(image, &options, &r.queue, err) < 0) {
        fprintf(stderr, "queue: %s\n", err->message);
        return -1;
    }
    int rc = 0;
    for (int i = 0; i < DEPTH; i++)
        if (posix_memalign(&pieces[i].buf, ALIGNMENT, PIECE))
            rc = -1;
    if (rc == 0)
        rc = read_all(&r, pieces);
    /* It waits for what is still under way: only then the buffers are ours. */
    lam_queue_free(r.queue);
    for (int i = 0; i < DEPTH; i++)
        free(pieces[i].buf);
    if (rc == 0)
        printf("%" PRIu64 "\n", r.sum);
    return rc;
}

int main(int argc, char **argv)
{
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;

    if (argc != 2) {
        fprintf(stderr, "usage: queue IMAGE\n");
        return 1;
    }
    if (lam_image_open(argv[1], &options, &image, &err) < 0) {
        fprintf(stderr, "queue: %s\n", err.message);
        return 1;
    }
    int rc = sum(image, &err);
    lam_image_close(image, NULL);
    return rc < 0;
}
