/* SPDX-License-Identifier: MIT */
/*
 * io-aio.h - requests of aio_read and aio_write, run beside the session.
 */
#ifndef LAMELLA_CLI_IO_AIO_H
#define LAMELLA_CLI_IO_AIO_H

struct io_aio;

/* NULL: no memory.  Threads start with the first request. */
struct io_aio *io_aio_new(void);

/* Wait until every request has ended and has been printed; NULL is allowed. */
void io_aio_drain(struct io_aio *aio);

/* Drains. */
void io_aio_free(struct io_aio *aio);

#endif
