/* SPDX-License-Identifier: MIT */
/*
 * io-transfer.h - one request that moves guest bytes: parsed, performed,
 * reported.
 *
 * Parsing and preparing happen on the session's thread, performing and
 * finishing on any.
 */
#ifndef LAMELLA_CLI_IO_TRANSFER_H
#define LAMELLA_CLI_IO_TRANSFER_H

#include <time.h>

#include "cli.h"
#include "io-command.h"

/* The most bytes of one request, as the genuine tool has it. */
#define IO_LENGTH_MAX UINT64_C(2147483136)

enum io_kind { IO_READ, IO_WRITE, IO_ZERO, IO_DISCARD };

struct io_request {
    struct io_session *session;
    const char *failing;        /* "read": what "failed:" is said of */
    enum io_kind kind;
    unsigned flags;             /* LAM_WRITE_..., LAM_ZERO_... */
    bool quiet, condensed, dump, vm_state, invalid;
    bool registered;            /* -r: of the buffer; refused where the genuine
                                   tool does, and no more */

    bool has_pattern;           /* -P: to write, or what must be read */
    uint8_t pattern;
    const char *source;         /* -s of a write: file to fill the buffer */
    bool has_verify_offset, has_verify_length;
    uint64_t verify_offset, verify_length;

    uint64_t offset, length;
    void *memory;               /* owned */
    uint8_t *buf;               /* inside @memory */

    int rc;                     /* of performing it */
    struct lam_error err;
    struct timespec begin, end;
};

void io_request_deinit(struct io_request *request);

/* Lets go of a buffer that io_request_finish() does not look at. */
void io_request_trim(struct io_request *request);

/*
 * The options among @argv, of those in @letters; offsets and lengths are at
 * optind afterwards.  0, or -1 after a message.
 */
int io_request_options(struct io_request *request,
                       const struct io_command *command, const char *letters,
                       int argc, char **argv);

/* OFFSET and one or more lengths, added up. */
int io_request_vector(struct io_request *request, int argc, char **argv);

/* The buffer, filled for a write. */
int io_request_buffer(struct io_request *request);

void io_request_perform(struct io_request *request);

/* Print what became of it: 0, or -1 if it failed or read something else. */
int io_request_finish(const struct io_request *request);

#endif
