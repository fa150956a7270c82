/* SPDX-License-Identifier: MIT */
/*
 * fuzz-journal.c - any bytes as the journal of a conversion.
 *
 * It is refused with a reason, and stays as it is, or tells how far the target
 * is complete: never beyond its end, and never without a line that says so.
 * With the first byte's lowest bit the rest follows the lines that a sound
 * journal of just this conversion begins with; with the next one some of these
 * are changed.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "job/journal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { DISK = 1 << 16, MOST = 1 << 17 };
enum { AFTER_HEAD = 1, CHANGED_HEAD = 2 };

static char path[64];
static uint8_t head[8192];
static size_t head_size;
static struct lam_image *source, *target;

static void put(const void *bytes, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size)
        abort();
    close(fd);
}

static size_t get(uint8_t *bytes, size_t size)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, bytes, size);

    if (n < 0)
        abort();
    close(fd);
    return (size_t)n;
}

static int open_journal(struct journal **j, struct lam_error *err)
{
    struct lam_convert_options options = LAM_CONVERT_OPTIONS_INIT;

    options.journal = path;
    return journal_open(&source, 1, target, &options, DISK, j, err);
}

static struct lam_image *open_disk(bool writable)
{
    static const uint8_t disk[DISK];
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;
    struct lam_image *image = NULL;
    struct lam_io *io;

    options.flags = writable ? LAM_OPEN_WRITE : 0;
    if (lam_io_memory_new(disk, DISK, &io, NULL) < 0)
        abort();
    io->writable = writable;
    if (image_open_io(io, "raw", &options, NULL, &image, NULL) < 0)
        abort();
    return image;
}

static void begin(void)
{
    struct journal *j;

    snprintf(path, sizeof path, "fuzz-journal-%d", (int)getpid());
    source = open_disk(false);
    target = open_disk(true);
    unlink(path);
    if (open_journal(&j, NULL) < 0)
        abort();
    head_size = get(head, sizeof head);
    journal_finish(j, 0);
    if (!head_size || head_size == sizeof head)
        abort();
}

static void judge(const uint8_t *bytes, size_t size)
{
    static uint8_t after[MOST];
    struct lam_error err = LAM_ERROR_INIT;
    struct journal *j = NULL;

    put(bytes, size);
    int rc = open_journal(&j, &err);
    if (rc < 0) {
        if (!err.message[0] || get(after, sizeof after) != size ||
            memcmp(after, bytes, size))
            abort();
        unlink(path);
        return;
    }
    uint64_t done = journal_done(j);
    if (done > DISK || (done && !memmem(bytes, size, "done ", 5)))
        abort();
    journal_finish(j, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t all[MOST];
    size_t n = 0;

    if (!source)
        begin();
    if (!size || size > MOST - sizeof head)
        return 0;
    if (data[0] & AFTER_HEAD) {
        memcpy(all, head, head_size);
        n = head_size;
    }
    if (n && data[0] & CHANGED_HEAD && size > 2)
        all[data[1] * 256u % n + data[2] % (n < 256 ? n : 1)] ^= data[2];
    memcpy(all + n, data + 1, size - 1);
    judge(all, n + size - 1);
    return 0;
}
