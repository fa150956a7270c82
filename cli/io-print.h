/* SPDX-License-Identifier: MIT */
/*
 * io-print.h - numbers in, figures out, as qemu-io reads and prints them.
 */
#ifndef LAMELLA_CLI_IO_PRINT_H
#define LAMELLA_CLI_IO_PRINT_H

#include <time.h>

#include "cli.h"

enum { IO_SIZE_MAX = 64 };

/* "64 KiB", "1.500 MiB", "20 bytes": into @buf. */
const char *io_size(double bytes, char buf[IO_SIZE_MAX]);

/*
 * An offset or length, at most INT64_MAX, with parse_size()'s suffixes.  On
 * failure says so on stdout, where scripts look for it, and returns -EINVAL.
 */
int io_number(const char *text, uint64_t *value);

/* A fill byte, 0 to 255, decimal, octal or hexadecimal; else as above. */
int io_pattern(const char *text, uint8_t *value);

struct timespec io_now(void);

/* One finished request: what the statistics say about it. */
struct io_report {
    const char *verb;           /* "read", "wrote", "discard" */
    uint64_t offset, length;
    struct timespec begin, end;
    bool condensed;             /* -C: one line for machines */
};

void io_report(const struct io_report *report);

/* 16 bytes a line, with their guest offset, for -v. */
void io_dump(const uint8_t *buf, uint64_t offset, uint64_t length);

#endif
