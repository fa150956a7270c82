/* SPDX-License-Identifier: MIT */
/*
 * io-aio.h - requests of aio_read and aio_write, run beside the session.
 *
 * What becomes of them is printed by the session's thread, when it asks for
 * that: scripts that expect the output of one program in a fixed order get it.
 */
#ifndef LAMELLA_CLI_IO_AIO_H
#define LAMELLA_CLI_IO_AIO_H

#include <stdbool.h>

struct io_aio;

enum { IO_TAG_MAX = 256 };      /* bytes of a breakpoint's tag that count */

/* NULL: no memory.  Threads start with the first request. */
struct io_aio *io_aio_new(void);

/* Wait until every request has ended, and print them; NULL is allowed. */
void io_aio_drain(struct io_aio *aio);

/* Print what has ended by now, and who waits at a breakpoint since. */
void io_aio_print(struct io_aio *aio);

/* Drains. */
void io_aio_free(struct io_aio *aio);

/* ------------------------------------------------------------- breakpoints */

/* From now on requests may wait: each has a thread, and begins in its turn. */
void io_aio_expect_stops(struct io_aio *aio);

/* A request waits at all of @tags; from any thread. */
void io_aio_note_stopped(struct io_aio *aio, const char *const *tags,
                         unsigned count);

/* Print who waits, unless that was done. */
void io_aio_print_stopped(struct io_aio *aio);

/* Wait until a request waits at @tag, and print it.  False: none is left that
 * could. */
bool io_aio_wait_stopped(struct io_aio *aio, const char *tag);

/* One of those who wait at @tag goes on. */
void io_aio_forget_stopped(struct io_aio *aio, const char *tag);

/* The tag of the last who waits, into @tag; false: nobody does. */
bool io_aio_last_stopped(struct io_aio *aio, char tag[IO_TAG_MAX]);

#endif
