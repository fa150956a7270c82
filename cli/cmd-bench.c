/* SPDX-License-Identifier: MIT */
/*
 * cmd-bench.c - `bench`: how long many requests of one kind take.
 *
 * What is timed is the requests, not opening and closing.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "bench.h"

enum { OPT_PATTERN = OPT_OWN, OPT_INTERVAL, OPT_NO_DRAIN };

static const struct command_option option_rows[] = {
    { 'c', "count", "COUNT", "number of requests (default: 75000)", 0 },
    { 'd', "depth", "DEPTH",
      "requests under way at once (default: 64); fewer where the page cache "
      "serves them", 0 },
    { 's', "buffer-size", "BUFFER_SIZE", "bytes a request (default: 4096)", 0 },
    { 'o', "offset", "OFFSET", "of the first request (default: 0)", 0 },
    { 'S', "step-size", "STEP_SIZE",
      "from one request to the next (default: BUFFER_SIZE); begins anew at "
      "the end", 0 },
    { 'w', "write", NULL, "write; the default is to read", 0 },
    { OPT_PATTERN, "pattern", "PATTERN", "the byte to write (default: 0)", 0 },
    { OPT_INTERVAL, "flush-interval", "INTERVAL",
      "flush after so many requests", 0 },
    { OPT_NO_DRAIN, "no-drain", NULL, "the others go on during a flush", 0 },
    SOURCE_OPTIONS,
    OPTION_CACHE('t'),
    { 'i', "aio", "AIO",
      "threads, io_uring, or native, which is accepted; the default is what "
      "takes least", 0 },
    { 'n', "native", NULL, "accepted", 0 },
    OPTION_QUIET,
    OPTION_SHARE,
    OPTION_HELP,
    { 0 },
};

/* ------------------------------------------------------------- command line */

/* -1: go on; else the exit status. */
static int check_number(const struct cli *cli, const char *what, bool number,
                        uint64_t value, uint64_t least, uint64_t most)
{
    /* Genuine: a negative number is one, out of range. */
    if (!number && *optarg != '-')
        cli_error(cli, "Invalid %s specified: '%s'.", what, optarg);
    else if (!number || value < least || value > most)
        cli_error(cli, "Invalid %s specified. Must be between %" PRIu64
                  " and %" PRIu64 ".", what, least, most);
    else
        return -1;
    return 1;
}

static int take_number(const struct cli *cli, const char *what, uint64_t least,
                       uint64_t most, uint64_t *out)
{
    char *end;

    errno = 0;
    unsigned long long value = strtoull(optarg, &end, 0);
    bool number = end != optarg && !*end && *optarg != '-';
    if (errno)
        value = UINT64_MAX;
    int status = check_number(cli, what, number, value, least, most);
    if (status < 0)
        *out = value;
    return status;
}

static int take_size(const struct cli *cli, const char *what, uint64_t least,
                     uint64_t most, uint64_t *out)
{
    uint64_t value = 0;
    int rc = parse_size_named(optarg, what, &value, NULL);
    if (rc == -ERANGE)
        value = UINT64_MAX;
    int status = check_number(cli, what, rc == 0 || rc == -ERANGE, value, least,
                              most);

    if (status < 0)
        *out = value;
    return status;
}

static int take_cache(const struct cli *cli, struct bench_args *args)
{
    if (lam_cache_mode_parse(optarg, &args->cache, NULL) == 0)
        return -1;
    cli_error(cli, "Invalid cache mode");
    return 1;
}

static int take_aio(const struct cli *cli, struct bench_args *args)
{
    static const struct { const char *name; enum bench_aio aio; } names[] = {
        { "threads", BENCH_AIO_THREADS },
        { "native", BENCH_AIO_NATIVE },
        { "io_uring", BENCH_AIO_URING },
    };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(optarg, names[i].name)) {
            args->aio = names[i].aio;
            args->native = args->aio == BENCH_AIO_NATIVE;
            return -1;
        }
    cli_error(cli, "Invalid aio option: %s", optarg);
    return 1;
}

/* What takes a number or a name. */
static int take_value(const struct cli *cli, int c, struct bench_args *args)
{
    uint64_t byte;
    int status;

    switch (c) {
    case 'c':
        return take_number(cli, "request count", 1, INT_MAX, &args->count);
    case 'd':
        return take_number(cli, "queue depth", 1, INT_MAX, &args->depth);
    case 's':
        return take_size(cli, "buffer size", 1, INT_MAX, &args->size);
    case 'S':
        return take_size(cli, "step size", 0, INT_MAX, &args->step);
    case 'o':
        return take_size(cli, "offset", 0, INT64_MAX, &args->offset);
    case 't':
        return take_cache(cli, args);
    case 'i':
        return take_aio(cli, args);
    case OPT_PATTERN:
        status = take_number(cli, "pattern byte", 0, 255, &byte);
        args->pattern = status < 0 ? (uint8_t)byte : 0;
        return status;
    case OPT_INTERVAL:
        return take_number(cli, "flush interval", 0, INT_MAX, &args->interval);
    default:
        return source_option(cli, c, &args->source);
    }
}

static int take_option(const struct cli *cli, int c, void *opaque)
{
    struct bench_args *args = opaque;

    switch (c) {
    case 'w':
        args->write = true;
        return -1;
    case 'n':
        args->native = true;
        return -1;
    case 'q':
        args->quiet = true;
        return -1;
    case OPT_NO_DRAIN:
        args->no_drain = true;
        return -1;
    default:
        return take_value(cli, c, args);
    }
}

static int check_args(const struct cli *cli, const struct bench_args *args)
{
    const char *wrong = NULL;

    if (!args->write && args->interval)
        wrong = "--flush-interval is only available in write tests";
    else if (args->interval && args->interval < args->depth)
        wrong = "Flush interval can't be smaller than depth";
    if (wrong)
        cli_error(cli, "%s", wrong);
    return wrong ? 1 : -1;
}

static int parse_args(const struct cli *cli, int argc, char **argv,
                      struct bench_args *args)
{
    int status = command_parse(cli, &command_bench, argc, argv, take_option,
                               args);

    if (status >= 0)
        return status;
    status = source_operand(cli, argc, argv, &args->source,
                                &args->filename);
    return status >= 0 ? status : check_args(cli, args);
}

/* ------------------------------------------------------------------ the run */

void bench_note(struct bench *b, int rc, const struct lam_error *err)
{
    if (rc < 0 && b->rc == 0) {
        b->rc = rc;
        b->err = *err;
    }
}

uint64_t bench_wrapped(const struct bench *b, uint64_t offset)
{
    offset %= b->image_size;
    return offset > b->image_size - b->args->size ? 0 : offset;
}

void *bench_buffer(uint64_t size, bool large)
{
    const size_t page = 2 << 20;
    void *buf = NULL;

    if (!large || size < 64 << 10)
        return posix_memalign(&buf, 4096, size) ? NULL : buf;
    size_t bytes = ((size_t)size + page - 1) / page * page;
    if (posix_memalign(&buf, page, bytes))
        return NULL;
    madvise(buf, bytes, MADV_HUGEPAGE);
    return buf;
}

bool bench_is_direct(const struct bench_args *args)
{
    return args->cache == LAM_CACHE_NONE ||
           args->cache == LAM_CACHE_DIRECTSYNC;
}

static int make_pattern(struct bench *b)
{
    const struct bench_args *args = b->args;

    if (!args->write)
        return 0;
    b->pattern = bench_buffer(args->size, true);
    if (!b->pattern)
        return b->rc = option_fail(&b->err, ENOMEM, "no memory for a buffer");
    memset(b->pattern, args->pattern, args->size);
    return 0;
}

/* io_uring was asked for: say so where there is none, as the genuine tool. */
static bool has_ring(struct bench *b)
{
    struct lam_queue_options o = LAM_QUEUE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_queue *queue;

    o.depth = 1;
    o.flags = LAM_QUEUE_RING;
    if (lam_queue_new(b->image, &o, &queue, &err) == 0) {
        lam_queue_free(queue);
        return true;
    }
    cli_error(b->cli, "Unable to use linux io_uring, falling back to thread "
              "pool: %s", err.message);
    return false;
}

/*
 * A queue costs least where all goes to the ring.  Then it is as fast as
 * threads that send requests themselves, but for direct writes to a file, whose
 * end the kernel tells a ring by a thread of its own, and for what the page
 * cache has, which they copy side by side: there it has to be asked for.  What
 * would go to a queue's threads is theirs in any case.
 */
static bool wants_queue(struct bench *b)
{
    const struct bench_args *args = b->args;
    bool direct = bench_is_direct(args);

    if (args->aio == BENCH_AIO_URING && has_ring(b))
        return direct || !args->write;
    return args->aio != BENCH_AIO_THREADS && args->aio != BENCH_AIO_URING &&
           direct && !args->write;
}

static int run_requests(struct bench *b)
{
    if (make_pattern(b) < 0)
        return b->rc;
    int rc = wants_queue(b) ? bench_run_queue(b) : bench_run_threads(b);
    free(b->pattern);
    return rc;
}

static void announce(const struct bench_args *args)
{
    printf("Sending %" PRIu64 " %s requests, %" PRIu64 " bytes each, %" PRIu64
           " in parallel (starting at offset %" PRIu64 ", step size %" PRIu64
           ")\n", args->count, args->write ? "write" : "read", args->size,
           args->depth, args->offset, args->step);
    if (args->interval)
        printf("Sending flush every %" PRIu64 " requests\n", args->interval);
    fflush(stdout);
}

static int bench(const struct cli *cli, const struct bench_args *args,
                 struct lam_image *image)
{
    uint64_t size = lam_image_size(image);
    struct bench b = {
        .args = args, .cli = cli, .image = image, .left = args->count,
        .flushed = args->count, .offset = args->offset,
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER,
        .err = LAM_ERROR_INIT,
    };
    struct timespec from, to;

    b.image_size = size;
    if (!args->quiet)
        announce(args);
    /* Later ones go back to the beginning. */
    if (args->size > size || args->offset > size - args->size) {
        cli_error(cli, "Failed request: %s", strerror(EIO));
        return 1;
    }
    clock_gettime(CLOCK_MONOTONIC, &from);
    if (run_requests(&b) < 0) {
        cli_report(cli, &b.err);
        return 1;
    }
    clock_gettime(CLOCK_MONOTONIC, &to);
    if (!args->quiet)
        printf("Run completed in %3.3f seconds.\n",
               (double)(to.tv_sec - from.tv_sec) +
               (double)(to.tv_nsec - from.tv_nsec) / 1e9);
    return 0;
}

static int open_image(const struct cli *cli, const struct bench_args *args,
                      struct lam_image **image)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    if (args->write && args->source.force_share) {
        cli_error(cli, "Could not open '%s': force-share=on can only be used "
                  "with read-only images", args->filename);
        return -EINVAL;
    }
    o.format = args->source.format;
    o.cache = args->cache;
    o.keyring = cli->keyring;
    o.throttles = cli->throttles;
    o.policy = args->source.untrusted ? LAM_POLICY_NONE : LAM_POLICY_TRUST;
    o.flags = (args->write ? LAM_OPEN_WRITE | LAM_OPEN_UNMAP : 0) |
              (args->source.force_share ? LAM_OPEN_FORCE_SHARE : 0) |
              (args->source.image_opts ? LAM_OPEN_IMAGE_OPTS : 0) |
              (cli->as_qemu ? 0 : LAM_OPEN_NAME_LAYERS);
    int rc = lam_image_open(args->filename, &o, image, &err);
    if (rc == 0 && args->native && !bench_is_direct(args)) {
        lam_image_close(*image, NULL);
        rc = option_fail(&err, EINVAL, "Could not open '%s': aio=native was "
                         "specified, but it requires cache.direct=on, which "
                         "was not specified.", args->filename);
    }
    if (rc < 0)
        cli_report(cli, &err);
    else if (args->write)
        warn_guessed(*image);
    return rc;
}

static int run_bench(const struct cli *cli, int argc, char **argv)
{
    struct bench_args args = { .count = 75000, .depth = 64, .size = 4096,
                               .cache = LAM_CACHE_WRITEBACK };
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;
    int status = parse_args(cli, argc, argv, &args);

    if (status >= 0)
        return status;
    if (!args.step)
        args.step = args.size;
    if (open_image(cli, &args, &image) < 0)
        return 1;
    status = bench(cli, &args, image);
    if (lam_image_close(image, &err) < 0) {
        cli_report(cli, &err);
        status = 1;
    }
    return cli_finish(cli, status);
}

const struct command command_bench = {
    .name = "bench",
    .run = run_bench,
    .summary = "Time many requests of one kind",
    .synopsis =
        "[-f FMT | --image-opts] [-t CACHE] [-c COUNT] [-d DEPTH] [-o "
        "OFFSET] [-s BUFFER_SIZE] [-S STEP_SIZE] [-i AIO] [-n] [-q] [-U] [-w "
        "[--pattern PATTERN] [--flush-interval INTERVAL [--no-drain]]] "
        "FILENAME",
    .about =
        "Send requests at regular offsets and tell how long they took.",
    .options = option_rows,
    .genuine =
        "help format image-opts cache count depth offset buffer-size "
        "step-size aio native write pattern flush-interval no-drain "
        "force-share",
    .examples =
        "-f qcow2 -d 8 -s 64k disk.qcow2\n"
        "-w -c 10000 -d 1 -S 64k --pattern 165 -f qcow2 disk.qcow2\n",
};
