/* SPDX-License-Identifier: MIT */
/*
 * bare.c - what the disk itself takes for direct writes to a new file.
 *
 *     bench-bare FILE COUNT SIZE THREADS
 *
 * COUNT writes of SIZE bytes one behind the other, with O_DIRECT, from memory
 * in one piece, and nothing else: no program that stores the same can be much
 * faster.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MOST_THREADS = 64, PATTERN = 7, LARGE_PAGE = 2 << 20 };

struct work {
    int fd;
    long count, size;
    atomic_long next;
    char *data;
    atomic_int error;
};

static void *write_some(void *opaque)
{
    struct work *w = opaque;
    long i;

    while ((i = atomic_fetch_add(&w->next, 1)) < w->count) {
        ssize_t n = pwrite(w->fd, w->data, (size_t)w->size, i * w->size);
        if (n != w->size) {
            w->error = n < 0 ? errno : EIO;
            break;
        }
    }
    return NULL;
}

static int write_all(struct work *w, long threads)
{
    pthread_t more[MOST_THREADS];
    long started = 0;

    while (started < threads - 1 &&
           pthread_create(&more[started], NULL, write_some, w) == 0)
        started++;
    write_some(w);
    while (started > 0)
        pthread_join(more[--started], NULL);
    return w->error;
}

int main(int argc, char **argv)
{
    struct work w = { .count = argc == 5 ? atol(argv[2]) : 0 };
    void *data = NULL;

    if (argc == 5)
        w.size = atol(argv[3]);
    if (w.count < 1 || w.size < 4096 || w.size % 4096 ||
        atol(argv[4]) < 1 || atol(argv[4]) > MOST_THREADS) {
        fprintf(stderr, "usage: bench-bare FILE COUNT SIZE THREADS\n");
        return 2;
    }
    w.fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC,
                0644);
    size_t room = ((size_t)w.size + LARGE_PAGE - 1) / LARGE_PAGE * LARGE_PAGE;
    if (w.fd < 0 || posix_memalign(&data, LARGE_PAGE, room)) {
        perror(argv[1]);
        return 1;
    }
    madvise(data, room, MADV_HUGEPAGE);
    w.data = memset(data, PATTERN, (size_t)w.size);
    int error = write_all(&w, atol(argv[4]));
    free(data);
    if (error == 0 && close(w.fd) == 0)
        return 0;
    fprintf(stderr, "%s: %s\n", argv[1], strerror(error ? error : errno));
    return 1;
}
