/* SPDX-License-Identifier: MIT */
/*
 * io-rw.c - read, readv, write, writev, discard: requests that the session
 * waits for.
 *
 * What is wrong with a command line is found in the order in which qemu-io
 * finds it, because of two mistakes only the first is told.
 */
#include <getopt.h>
#include <inttypes.h>

#include "io-aio.h"
#include "io-print.h"
#include "io-transfer.h"

static int run(struct io_request *request)
{
    bool needs_buffer = request->kind == IO_READ || request->kind == IO_WRITE;

    if (needs_buffer && io_request_buffer(request) < 0) {
        io_request_deinit(request);
        return -1;
    }
    io_request_perform(request);
    io_aio_print_stopped(request->session->aio);
    int rc = io_request_finish(request);
    io_request_deinit(request);
    return rc;
}

/* readv and writev: an offset and the lengths of several buffers. */
static int run_vector(struct io_request *request,
                      const struct io_command *command, const char *letters,
                      int argc, char **argv)
{
    if (io_request_options(request, command, letters, argc, argv) < 0)
        return -1;
    if (optind > argc - 2)
        return io_usage(command);
    return io_request_vector(request, argc, argv) < 0 ? -1 : run(request);
}

/* OFFSET LENGTH and nothing else.  @unless completes the message. */
static int parse_range(struct io_request *request,
                       const struct io_command *command, const char *unless,
                       bool unlimited, int argc, char **argv)
{
    if (optind != argc - 2)
        return io_usage(command);
    if (io_number(argv[optind], &request->offset) < 0 ||
        io_number(argv[optind + 1], &request->length) < 0)
        return -1;
    if (request->length > IO_LENGTH_MAX && !unlimited) {
        printf("length cannot exceed %" PRIu64 "%s, given %s\n", IO_LENGTH_MAX,
               unless, argv[optind + 1]);
        return -1;
    }
    return 0;
}

static int check_sectors(const struct io_request *request)
{
    if (request->offset % 512)
        printf("%" PRIu64 " is not a sector-aligned value for 'offset'\n",
               request->offset);
    else if (request->length % 512)
        printf("%" PRIu64 " is not a sector-aligned value for 'count'\n",
               request->length);
    else
        return 0;
    return -1;
}

/* --------------------------------------------------------------------- read */

static int check_verify_range(const struct io_request *request)
{
    uint64_t from = request->verify_offset;
    uint64_t length = request->has_verify_length ? request->verify_length : 0;

    if (from <= request->length && length <= request->length - from)
        return 0;
    printf("pattern verification range exceeds end of read data\n");
    return -1;
}

int io_cmd_read(struct io_session *session, const struct io_command *command,
                int argc, char **argv)
{
    struct io_request request = { .session = session, .failing = "read",
                                  .kind = IO_READ };

    if (io_request_options(&request, command, "bCl:pP:qrs:v", argc, argv) < 0)
        return -1;
    if (parse_range(&request, command, "", false, argc, argv) < 0)
        return -1;
    if (!request.has_pattern &&
        (request.has_verify_offset || request.has_verify_length))
        return io_usage(command);
    if (check_verify_range(&request) < 0 ||
        (request.vm_state && check_sectors(&request) < 0))
        return -1;
    if (request.registered && request.vm_state) {
        puts("I/O buffer registration is not supported when reading from "
             "vmstate");
        return -1;
    }
    return run(&request);
}

int io_cmd_readv(struct io_session *session, const struct io_command *command,
                 int argc, char **argv)
{
    struct io_request request = { .session = session, .failing = "readv",
                                  .kind = IO_READ };

    return run_vector(&request, command, "CP:qrv", argc, argv);
}

/* -------------------------------------------------------------------- write */

/* What contradicts itself among the options; NULL if nothing. */
static const char *write_mistake(const struct io_request *request)
{
    bool zero = request->kind == IO_ZERO;
    bool compressed = request->flags & LAM_WRITE_COMPRESSED;

    if (request->vm_state && zero)
        return "-b and -z cannot be specified at the same time";
    if ((request->flags & LAM_WRITE_FUA) && (request->vm_state || compressed))
        return "-f and -b or -c cannot be specified at the same time";
    if ((request->flags & LAM_ZERO_NO_FALLBACK) && !zero)
        return "-n requires -z to be specified";
    if ((request->flags & LAM_ZERO_UNMAP) && !zero)
        return "-u requires -z to be specified";
    if (zero + request->has_pattern + (request->source != NULL) > 1)
        return "Only one of -z, -P, and -s can be specified at the same time";
    return NULL;
}

int io_cmd_write(struct io_session *session, const struct io_command *command,
                 int argc, char **argv)
{
    struct io_request request = { .session = session, .failing = "write",
                                  .kind = IO_WRITE };

    if (io_request_options(&request, command, "bcCfnpP:qrs:uz", argc, argv) < 0)
        return -1;
    if (optind != argc - 2)
        return io_usage(command);
    const char *mistake = write_mistake(&request);
    if (mistake) {
        printf("%s\n", mistake);
        return -1;
    }
    bool sectors = request.vm_state || (request.flags & LAM_WRITE_COMPRESSED);
    if (parse_range(&request, command, " without -n",
                    request.flags & LAM_ZERO_NO_FALLBACK, argc, argv) < 0 ||
        (sectors && check_sectors(&request) < 0))
        return -1;
    if (request.registered && request.kind == IO_ZERO) {
        puts("cannot combine zero write with registered I/O buffer");
        return -1;
    }
    return run(&request);
}

int io_cmd_writev(struct io_session *session, const struct io_command *command,
                  int argc, char **argv)
{
    struct io_request request = { .session = session, .failing = "writev",
                                  .kind = IO_WRITE };

    return run_vector(&request, command, "CfP:qr", argc, argv);
}

int io_cmd_discard(struct io_session *session, const struct io_command *command,
                   int argc, char **argv)
{
    struct io_request request = { .session = session, .failing = "discard",
                                  .kind = IO_DISCARD };

    if (io_request_options(&request, command, "Cq", argc, argv) < 0 ||
        parse_range(&request, command, "", false, argc, argv) < 0)
        return -1;
    return run(&request);
}
