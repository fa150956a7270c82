/* SPDX-License-Identifier: MIT */
/*
 * io-transfer.c - one request that moves guest bytes: options, buffer, I/O,
 * outcome.  The commands that use it are in io-rw.c and io-aio.c.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "io-print.h"
#include "io-transfer.h"
#include "option.h"

/* Written where no -P says otherwise. */
#define DEFAULT_PATTERN 0xcd

void io_request_deinit(struct io_request *request)
{
    free(request->memory);
    request->memory = NULL;
    request->buf = NULL;
}

void io_request_trim(struct io_request *request)
{
    if (request->kind != IO_READ || !(request->has_pattern || request->dump))
        io_request_deinit(request);
}

/* ------------------------------------------------------------------ parsing */

static int verify_number(const char *text, uint64_t *value, bool *has)
{
    *has = true;
    return io_number(text, value);
}

/* -s and -l mean different things to read and write. */
static int option_with_value(struct io_request *request, int letter)
{
    switch (letter) {
    case 'P':
        request->has_pattern = true;
        return io_pattern(optarg, &request->pattern);
    case 'l':
        return verify_number(optarg, &request->verify_length,
                             &request->has_verify_length);
    default:
        if (request->kind == IO_READ)
            return verify_number(optarg, &request->verify_offset,
                                 &request->has_verify_offset);
        request->source = optarg;
        return 0;
    }
}

int io_request_options(struct io_request *request,
                       const struct io_command *command, const char *letters,
                       int argc, char **argv)
{
    int letter;

    while ((letter = getopt(argc, argv, letters)) != -1) {
        switch (letter) {
        case 'p': break;                /* nothing to do for us */
        case 'r': request->registered = true; break;
        case 'b': request->vm_state = true; break;
        case 'c': request->flags |= LAM_WRITE_COMPRESSED; break;
        case 'C': request->condensed = true; break;
        case 'f': request->flags |= LAM_WRITE_FUA; break;
        case 'i':               /* nothing behind it is looked at */
            request->invalid = true;
            return 0;
        case 'n': request->flags |= LAM_ZERO_NO_FALLBACK; break;
        case 'q': request->quiet = true; break;
        case 'u': request->flags |= LAM_ZERO_UNMAP; break;
        case 'v': request->dump = true; break;
        case 'z': request->kind = IO_ZERO; break;
        case '?': return io_usage(command);
        default:
            if (option_with_value(request, letter) < 0)
                return -1;
        }
    }
    return 0;
}

int io_request_vector(struct io_request *request, int argc, char **argv)
{
    if (io_number(argv[optind++], &request->offset) < 0)
        return -1;
    request->length = 0;
    for (; optind < argc; optind++) {
        uint64_t length;

        if (io_number(argv[optind], &length) < 0)
            return -1;
        if (length > IO_LENGTH_MAX) {
            printf("Argument '%s' exceeds maximum size %" PRIu64 "\n",
                   argv[optind], IO_LENGTH_MAX);
            return -1;
        }
        if (request->length > IO_LENGTH_MAX - length) {
            printf("The total number of bytes exceed the maximum size %" PRIu64
                   "\n", IO_LENGTH_MAX);
            return -1;
        }
        request->length += length;
    }
    return 0;
}

/* ------------------------------------------------------------------- buffer */

/* Once what the file has, then copies of it, twice as many each time. */
static int fill_from_file(struct io_request *request)
{
    size_t length = (size_t)request->length;

    fflush(stdout);
    FILE *file = fopen(request->source, "re");
    if (!file) {
        fprintf(stderr, "%s: %m\n", request->source);
        return -1;
    }
    size_t have = fread(request->buf, 1, length, file);
    bool failed = ferror(file);
    if (failed)
        fprintf(stderr, "%s: %m\n", request->source);
    else if (have == 0)
        fprintf(stderr, "%s: file is empty\n", request->source);
    fclose(file);
    if (failed || have == 0)
        return -1;
    while (have < length) {
        size_t more = have < length - have ? have : length - have;
        memcpy(request->buf + have, request->buf, more);
        have += more;
    }
    return 0;
}

int io_request_buffer(struct io_request *request)
{
    size_t skew = request->session->misalign ? 16 : 0;
    size_t size = (size_t)request->length + skew + 1;

    if (posix_memalign(&request->memory, 4096, size)) {
        request->memory = NULL;
        cli_error(request->session->cli, "no memory for %" PRIu64 " bytes",
                  request->length);
        return -1;
    }
    request->buf = (uint8_t *)request->memory + skew;
    if (request->kind != IO_WRITE)
        return 0;
    if (request->source)
        return fill_from_file(request);
    memset(request->buf,
           request->has_pattern ? request->pattern : DEFAULT_PATTERN,
           (size_t)request->length);
    return 0;
}

/* --------------------------------------------------------------- performing */

/* Whole clusters around @extent go up from below into the image. */
static int copy_up(struct lam_image *image, const struct lam_extent *extent,
                   struct lam_error *err)
{
    uint64_t cluster = lam_image_cluster_size(image);
    uint64_t end = extent->offset + extent->length;
    uint64_t size = lam_image_size(image);

    if (cluster == 0)
        return 0;
    void *buf = malloc(cluster);
    if (!buf)
        return option_fail(err, ENOMEM, "no memory for a cluster");
    int rc = 0;
    for (uint64_t at = extent->offset / cluster * cluster;
         rc == 0 && at < end; at += cluster) {
        uint64_t length = size - at < cluster ? size - at : cluster;

        rc = lam_image_read(image, buf, length, at, err);
        if (rc == 0)
            rc = lam_image_write(image, buf, length, at, 0, err);
    }
    free(buf);
    return rc;
}

static int copy_on_read(struct io_request *request)
{
    struct lam_image *image = request->session->image;
    struct lam_extents extents = LAM_EXTENTS_INIT;
    int rc = lam_image_map(image, request->offset, request->length, 1, 0,
                           &extents, &request->err);

    for (size_t i = 0; rc == 0 && i < extents.count; i++)
        if (extents.items[i].state == LAM_EXTENT_UNALLOCATED)
            rc = copy_up(image, &extents.items[i], &request->err);
    lam_extents_deinit(&extents);
    return rc;
}

static int transfer_vm_state(struct io_request *request)
{
    struct lam_image *image = request->session->image;

    return request->kind == IO_READ
        ? lam_image_read_vmstate(image, request->buf, request->length,
                                 request->offset, &request->err)
        : lam_image_write_vmstate(image, request->buf, request->length,
                                  request->offset, &request->err);
}

static int transfer(struct io_request *request)
{
    struct lam_image *image = request->session->image;
    struct lam_error *err = &request->err;
    uint64_t size = lam_image_size(image);

    if (request->vm_state)
        return transfer_vm_state(request);
    if (request->offset > size || request->length > size - request->offset)
        return option_fail(err, EIO, "offset %" PRIu64 ", length %" PRIu64
                           ": ends beyond the image's %" PRIu64 " bytes",
                           request->offset, request->length, size);
    if (request->length == 0)
        return 0;
    switch (request->kind) {
    case IO_READ:
        if (request->session->spec.copy_on_read) {
            int rc = copy_on_read(request);
            if (rc < 0)
                return rc;
        }
        return lam_image_read(image, request->buf, request->length,
                              request->offset, err);
    case IO_WRITE:
        return lam_image_write(image, request->buf, request->length,
                               request->offset, request->flags, err);
    case IO_ZERO:
        return lam_image_zero(image, request->offset, request->length,
                              request->flags & ~(unsigned)LAM_WRITE_COMPRESSED,
                              err);
    default:
        return lam_image_discard(image, request->offset, request->length, err);
    }
}

void io_request_perform(struct io_request *request)
{
    struct io_session *session = request->session;
    bool serial = session->spec.copy_on_read;

    /* Copying up reads and writes what another request may write meanwhile. */
    if (serial)
        pthread_mutex_lock(&session->serial);
    request->begin = io_now();
    request->rc = transfer(request);
    request->end = io_now();
    if (serial)
        pthread_mutex_unlock(&session->serial);
}

/* ------------------------------------------------------------------ outcome */

static bool all_bytes_are(const uint8_t *buf, uint64_t length, uint8_t byte)
{
    return length == 0 ||
           (buf[0] == byte && !memcmp(buf, buf + 1, (size_t)length - 1));
}

static int verify(const struct io_request *request)
{
    if (request->kind != IO_READ || !request->has_pattern)
        return 0;

    uint64_t from = request->verify_offset;
    uint64_t length = request->has_verify_length ? request->verify_length
                                                 : request->length - from;
    if (all_bytes_are(request->buf + from, length, request->pattern))
        return 0;
    printf("Pattern verification failed at offset %" PRIu64 ", %" PRIu64
           " bytes\n", request->offset + from, length);
    return -1;
}

static int print_outcome(const struct io_request *request)
{
    static const char *const verbs[] = { "read", "wrote", "wrote", "discard" };

    if (request->rc < 0)
        return io_failed(request->session, request->failing, request->rc,
                         &request->err);
    int rc = verify(request);
    if (request->quiet)
        return rc;
    if (request->dump)
        io_dump(request->buf, request->offset, request->length);
    io_report(&(struct io_report){
        .verb = verbs[request->kind], .offset = request->offset,
        .length = request->length, .begin = request->begin,
        .end = request->end, .condensed = request->condensed,
    });
    return rc;
}

/* The lines of two requests must not mix. */
int io_request_finish(const struct io_request *request)
{
    flockfile(stdout);
    int rc = print_outcome(request);
    funlockfile(stdout);
    return rc;
}
