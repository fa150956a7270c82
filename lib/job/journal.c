/* SPDX-License-Identifier: MIT */
/*
 * journal.c - how far a copy into an existing raw target has come, in a file
 * that survives what interrupts it.
 *
 * A text of lines, each ended by a checksum of its own: first those that say
 * what is copied where, which have to be the same for the copy to be resumed;
 * then one "done BYTES" after another.  Chunks are given out in ascending
 * order, so all below the first that is still being worked on is written; a
 * flush of the target later, it is so for certain, and a line says so.  A line
 * that was not written completely says nothing.
 *
 * Invariant: before a line is written, the target was flushed after all that
 * lies below it was written.
 */
#include "job/journal.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "base/arith.h"
#include "base/cleanup.h"
#include "image/graph.h"

#define MAGIC "lamella-journal 1"
/* A journal has some lines, and one each second that the copy lasted. */
#define FILE_MAX_BYTES (UINT64_C(256) << 20)

enum { LINE_MAX_BYTES = 4200, DEFAULT_INTERVAL_MS = 1000 };

struct journal {
    char *path;
    int fd;
    struct lam_image *target;
    struct walk *walk;
    uint64_t interval;          /* nanoseconds */

    pthread_mutex_t lock;       /* all below; taken before the walk's */
    uint64_t *at;               /* a worker's chunk begins here; UINT64_MAX:
                                   it has none */
    unsigned nb_workers;
    uint64_t done;              /* what the last line says */
    uint64_t next;              /* when the next is due, monotonic clock */
    bool busy;                  /* somebody flushes */
};

/* ------------------------------------------------------------ lines */

/* FNV-1a: enough to tell a line from half a line. */
static uint32_t checksum(const char *text, size_t length)
{
    uint32_t sum = UINT32_C(2166136261);

    for (size_t i = 0; i < length; i++)
        sum = (sum ^ (uint8_t)text[i]) * UINT32_C(16777619);
    return sum;
}

/* "text #checksum\n" to the end of the file. */
static int put_line(struct journal *j, const char *text, struct lam_error *err)
{
    char line[LINE_MAX_BYTES + 16];
    int length = snprintf(line, sizeof line, "%.*s #%08x\n", LINE_MAX_BYTES,
                          text, checksum(text, strlen(text)));

    for (int done = 0; done < length; ) {
        ssize_t n = write(j->fd, line + done, (size_t)(length - done));
        if (n < 0 && errno != EINTR)
            return lam_fail_errno(err, errno, "could not write journal '%s'",
                                  j->path);
        done += n < 0 ? 0 : (int)n;
    }
    return 0;
}

static int sync_file(struct journal *j, struct lam_error *err)
{
    return fdatasync(j->fd) < 0
        ? lam_fail_errno(err, errno, "could not sync journal '%s'", j->path)
        : 0;
}

/*
 * The line at *@text, without its checksum and with a NUL; *@text moves on.
 * NULL: no whole line is left.
 */
static char *take_line(char **text)
{
    char *line = *text, *end = strchr(line, '\n');
    unsigned sum;

    if (!end || end - line < 10 || end[-10] != ' ' || end[-9] != '#' ||
        sscanf(end - 8, "%8x", &sum) != 1 ||
        sum != checksum(line, (size_t)(end - 10 - line)))
        return NULL;
    end[-10] = '\0';
    *text = end + 1;
    return line;
}

/* ------------------------------------------------------------ whose it is */

static void identify_io(struct lam_io *io, bool with_time, char *text,
                        size_t size)
{
    struct stat st;

    if (!io || lam_io_stat(io, &st) < 0)
        snprintf(text, size, "bytes=%" PRIu64,
                 io ? (uint64_t)atomic_load(&io->size) : 0);
    else if (S_ISBLK(st.st_mode))
        snprintf(text, size, "device bytes=%" PRIu64,
                 (uint64_t)atomic_load(&io->size));
    else if (with_time)
        snprintf(text, size, "inode=%" PRIu64 " bytes=%" PRIu64
                 " changed=%" PRId64 ".%09ld", (uint64_t)st.st_ino,
                 (uint64_t)st.st_size, (int64_t)st.st_mtim.tv_sec,
                 st.st_mtim.tv_nsec);
    else
        snprintf(text, size, "inode=%" PRIu64 " bytes=%" PRIu64,
                 (uint64_t)st.st_ino, (uint64_t)st.st_size);
}

static void identify_layer(const struct lam_image *layer, char *line)
{
    char image[160], data[160] = "";

    identify_io(layer->io, true, image, sizeof image);
    if (layer->data)
        identify_io(layer->data, true, data, sizeof data);
    snprintf(line, LINE_MAX_BYTES, "source %s %s size=%" PRIu64 " %s%s%s '%s'",
             layer->driver ? layer->driver : layer->ops->name, image,
             lam_image_size(layer), data[0] ? "data " : "", data,
             data[0] ? " " : "", layer->name);
}

/* The @i-th line of what identifies a conversion; false after the last. */
struct identity {
    struct lam_image *const *sources;
    size_t nb_sources;
    struct lam_image *target;
    const struct lam_convert_options *options;
    uint64_t total;
};

/* The line of the @i-th layer of @source, of which there may be fewer: how many
 * there are.  A source may be in use, and its chain change. */
static size_t layer_line(struct lam_image *source, size_t i, char *line)
{
    size_t count = 0;
    IMAGE_INSIDE(source);

    for (const struct lam_image *l = source; l; l = l->backing)
        if (count++ == i)
            identify_layer(l, line);
    return count;
}

static bool source_line(const struct identity *id, size_t i, char *line)
{
    for (size_t s = 0; s < id->nb_sources; s++) {
        size_t count = layer_line(id->sources[s], i, line);
        if (i < count)
            return true;
        i -= count;
    }
    return false;
}

/* What decides where which bytes go. */
static const unsigned IDENTITY_FLAGS = LAM_CONVERT_SALVAGE |
                                       LAM_CONVERT_TARGET_IS_ZERO;

static bool identity_line(const struct identity *id, size_t i, char *line)
{
    char target[160];

    switch (i) {
    case 0:
        snprintf(line, LINE_MAX_BYTES, MAGIC);
        return true;
    case 1:
        snprintf(line, LINE_MAX_BYTES, "copy bytes=%" PRIu64 " from=%" PRIu64
                 " sparse=%" PRIu64 " flags=%u", id->total,
                 id->options->source_offset, id->options->sparse_size,
                 id->options->flags & IDENTITY_FLAGS);
        return true;
    case 2:
        identify_io(id->target->io, false, target, sizeof target);
        snprintf(line, LINE_MAX_BYTES, "target %s '%s'", target,
                 id->target->name);
        return true;
    default:
        break;
    }
    return source_line(id, i - 3, line);
}

/* Names may hold anything; lines may not. */
static void flatten(char *line)
{
    for (; *line; line++)
        if ((unsigned char)*line < ' ')
            *line = '?';
}

/* ------------------------------------------------------------ reading */

static int read_all(struct journal *j, char **out, struct lam_error *err)
{
    struct stat st;

    if (fstat(j->fd, &st) < 0)
        return lam_fail_errno(err, errno, "'%s'", j->path);
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size > FILE_MAX_BYTES)
        return lam_fail(err, EINVAL, "'%s' is not a journal", j->path);
    size_t size = (size_t)st.st_size, done = 0;
    lam_autofree char *text = calloc(1, size + 1);
    if (!text)
        return lam_fail(err, ENOMEM, "no memory for %zu bytes", size);
    while (done < size) {
        ssize_t n = pread(j->fd, text + done, size - done, (off_t)done);
        if (n < 0 && errno != EINTR)
            return lam_fail_errno(err, errno, "could not read journal '%s'",
                                  j->path);
        if (n == 0)
            break;
        done += n < 0 ? 0 : (size_t)n;
    }
    *out = lam_take(&text);
    return 0;
}

/* 1: all lines are there and right; 0: the last ones were never written. */
static int read_identity(struct journal *j, const struct identity *id,
                         char **text, struct lam_error *err)
{
    lam_autofree char *expected = malloc(LINE_MAX_BYTES);
    if (!expected)
        return lam_fail(err, ENOMEM, "no memory for a journal");

    for (size_t i = 0; identity_line(id, i, expected); i++) {
        const char *line = take_line(text);
        flatten(expected);
        if (!line)
            return 0;
        if (strcmp(line, expected))
            return lam_fail(err, EINVAL, "journal '%s' is of another "
                            "conversion: it has \"%.300s\", not \"%.300s\"",
                            j->path, line, expected);
    }
    return 1;
}

static bool is_journal(const char *text)
{
    size_t length = strlen(text);

    return !memcmp(text, MAGIC, min_u64(length, strlen(MAGIC)));
}

static void read_done(struct journal *j, char **text, uint64_t total)
{
    const char *line;
    uint64_t done;

    while ((line = take_line(text))) {
        if (sscanf(line, "done %" SCNu64, &done) != 1 || done > total)
            break;
        j->done = max_u64(j->done, done);
    }
}

static int write_identity(struct journal *j, const struct identity *id,
                          struct lam_error *err)
{
    lam_autofree char *line = malloc(LINE_MAX_BYTES);
    int rc = line ? 0 : lam_fail(err, ENOMEM, "no memory for a journal");

    if (rc == 0 && ftruncate(j->fd, 0) < 0)
        rc = lam_fail_errno(err, errno, "could not empty journal '%s'",
                            j->path);
    for (size_t i = 0; rc == 0 && identity_line(id, i, line); i++) {
        flatten(line);
        rc = put_line(j, line, err);
    }
    return rc < 0 ? rc : sync_file(j, err);
}

static int load(struct journal *j, const struct identity *id,
                struct lam_error *err)
{
    lam_autofree char *all = NULL;
    int rc = read_all(j, &all, err);
    char *text = all;

    if (rc < 0)
        return rc;
    if (!is_journal(all))
        return lam_fail(err, EINVAL, "'%s' is not a journal", j->path);
    rc = read_identity(j, id, &text, err);
    if (rc < 0)
        return rc;
    if (rc == 0)
        return write_identity(j, id, err);
    read_done(j, &text, id->total);
    /* What follows is half a line; the next shall begin one. */
    if (ftruncate(j->fd, text - all) < 0)
        return lam_fail_errno(err, errno, "could not cut journal '%s'",
                              j->path);
    return 0;
}

/* ------------------------------------------------------------ opening */

static int open_file(struct journal *j, struct lam_error *err)
{
    j->fd = open(j->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (j->fd < 0)
        return lam_fail_errno(err, errno, "could not open journal '%s'",
                              j->path);
    if (flock(j->fd, LOCK_EX | LOCK_NB) < 0)
        return lam_fail(err, EBUSY, "journal '%s' is in use", j->path);
    return 0;
}

static void journal_free(struct journal *j)
{
    if (j->fd >= 0)
        close(j->fd);
    pthread_mutex_destroy(&j->lock);
    free(j->at);
    free(j->path);
    free(j);
}

static int check_target(const struct lam_image *target,
                        const struct lam_convert_options *options,
                        struct lam_error *err)
{
    if (target->ops != &format_raw)
        return lam_fail(err, ENOTSUP, "only the conversion to a raw image can "
                        "be resumed, not to %s", lam_image_format(target));
    if (options->digest)
        return lam_fail(err, ENOTSUP, "a digest needs all bytes in one go, "
                        "and a conversion that can be resumed may have read "
                        "some before");
    if (target->io->cache == LAM_CACHE_UNSAFE ||
        options->flags & LAM_CONVERT_NO_SYNC)
        return lam_fail(err, EINVAL, "a conversion whose target is never "
                        "flushed cannot be resumed");
    return 0;
}

int journal_open(struct lam_image *const *sources, size_t nb_sources,
                 struct lam_image *target,
                 const struct lam_convert_options *options, uint64_t total,
                 struct journal **out, struct lam_error *err)
{
    const struct identity id = { sources, nb_sources, target, options, total };
    unsigned ms = options->journal_interval ? options->journal_interval
                                            : DEFAULT_INTERVAL_MS;

    int rc = check_target(target, options, err);
    if (rc < 0)
        return rc;
    struct journal *j = calloc(1, sizeof *j);
    if (!j)
        return lam_fail(err, ENOMEM, "no memory for a journal");
    pthread_mutex_init(&j->lock, NULL);
    j->fd = -1;
    j->target = target;
    j->interval = ms * UINT64_C(1000000);
    j->path = strdup(options->journal);
    rc = j->path ? open_file(j, err)
                 : lam_fail(err, ENOMEM, "no memory for a journal");
    if (rc == 0)
        rc = load(j, &id, err);
    if (rc < 0)
        journal_free(j);
    else
        *out = j;
    return rc;
}

/* ------------------------------------------------------------ the copy */

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

uint64_t journal_done(const struct journal *j)
{
    return j->done;
}

int journal_begin(struct journal *j, struct walk *walk, unsigned nb_workers,
                  struct lam_error *err)
{
    j->at = calloc(nb_workers, sizeof *j->at);
    if (!j->at)
        return lam_fail(err, ENOMEM, "no memory for %u workers", nb_workers);
    memset(j->at, 0xff, nb_workers * sizeof *j->at);
    j->nb_workers = nb_workers;
    j->walk = walk;
    j->next = now() + j->interval;
    return 0;
}

/* All below is written; under the lock. */
static uint64_t written_end(const struct journal *j)
{
    uint64_t end = j->walk->offset;

    for (unsigned i = 0; i < j->nb_workers; i++)
        end = min_u64(end, j->at[i]);
    return end;
}

/* What was written below @end is flushed, and then said to be there. */
static int record(struct journal *j, uint64_t end, struct lam_error *err)
{
    char line[64];
    int rc = lam_image_flush(j->target, err);

    snprintf(line, sizeof line, "done %" PRIu64, end);
    if (rc == 0)
        rc = put_line(j, line, err);
    return rc < 0 ? rc : sync_file(j, err);
}

/* @end, if it is time to record it and nobody else does; else 0. */
static uint64_t due(struct journal *j)
{
    uint64_t end = written_end(j);

    if (j->busy || end <= j->done || now() < j->next)
        return 0;
    j->busy = true;
    return end;
}

static int take_chunk(struct journal *j, unsigned worker,
                      struct walk_chunk *chunk, uint64_t *end,
                      struct lam_error *err)
{
    LAM_LOCKED(&j->lock);
    int rc = walk_next(j->walk, chunk, err);
    if (rc >= 0)
        j->at[worker] = rc ? chunk->offset : UINT64_MAX;
    *end = rc >= 0 ? due(j) : 0;
    return rc;
}

int journal_next(struct journal *j, unsigned worker, struct walk_chunk *chunk,
                 struct lam_error *err)
{
    uint64_t end;
    int rc = take_chunk(j, worker, chunk, &end, err);

    if (!end)
        return rc;
    int failed = record(j, end, err);
    LAM_LOCKED(&j->lock);
    j->busy = false;
    j->next = now() + j->interval;
    if (failed < 0)
        return failed;
    j->done = end;
    return rc;
}

int journal_finish(struct journal *j, int rc)
{
    if (!j)
        return rc;
    /* The next run does without what cannot be recorded now. */
    if (rc < 0 && j->at && written_end(j) > j->done)
        record(j, written_end(j), NULL);
    if (rc == 0)
        unlink(j->path);
    journal_free(j);
    return rc;
}
