/* SPDX-License-Identifier: MIT */
/*
 * io-print.c - numbers in, figures out, as qemu-io reads and prints them.
 *
 * Test suites filter this output with patterns, so that every blank counts:
 * three decimals that are dropped when they are all zero, "00.00 sec" for less
 * than a minute and hours for more.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "io-print.h"
#include "option.h"

/* Cut "@zeroes" off the end of @buf if that is what it ends in. */
static void drop_suffix(char *buf, const char *zeroes)
{
    size_t length = strlen(buf), tail = strlen(zeroes);

    if (length > tail && !strcmp(buf + length - tail, zeroes))
        buf[length - tail] = '\0';
}

const char *io_size(double bytes, char buf[IO_SIZE_MAX])
{
    static const char *const units[] = {
        "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB",
    };
    char number[IO_SIZE_MAX - 8];
    size_t unit = 0;

    while (bytes >= 1024 && unit + 1 < sizeof units / sizeof units[0]) {
        bytes /= 1024;
        unit++;
    }
    snprintf(number, sizeof number, unit ? "%.3f" : "%f", bytes);
    drop_suffix(number, unit ? ".000" : ".000000");
    snprintf(buf, IO_SIZE_MAX, "%s %s", number, units[unit]);
    return buf;
}

int io_number(const char *text, uint64_t *value)
{
    struct lam_error err = LAM_ERROR_INIT;
    int rc = parse_size(text, value, &err);

    if (rc >= 0)
        return 0;
    if (rc == -ERANGE)
        printf("Parsing error: argument too large -- %s\n", text);
    else
        printf("Parsing error: non-numeric argument, or "
               "extraneous/unrecognized suffix -- %s\n", text);
    return -EINVAL;
}

int io_pattern(const char *text, uint8_t *value)
{
    char *end;

    errno = 0;
    long number = strtol(text, &end, 0);
    if (errno || end == text || *end || number < 0 || number > UINT8_MAX) {
        printf("%s is not a valid pattern byte\n", text);
        return -EINVAL;
    }
    *value = (uint8_t)number;
    return 0;
}

struct timespec io_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now;
}

static double seconds_between(const struct timespec *begin,
                              const struct timespec *end)
{
    return (double)(end->tv_sec - begin->tv_sec) +
           (double)(end->tv_nsec - begin->tv_nsec) / 1e9;
}

static void format_time(double seconds, bool fixed, char *buf, size_t size)
{
    uint64_t hundredths = (uint64_t)(seconds * 100);
    uint64_t whole = hundredths / 100;

    hundredths %= 100;
    if (!fixed && whole < 60)
        snprintf(buf, size, "%02" PRIu64 ".%02" PRIu64 " sec", whole,
                 hundredths);
    else
        snprintf(buf, size, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64
                 ".%02" PRIu64, whole / 3600, whole / 60 % 60, whole % 60,
                 hundredths);
}

void io_report(const struct io_report *report)
{
    double seconds = seconds_between(&report->begin, &report->end);
    char total[IO_SIZE_MAX], rate[IO_SIZE_MAX], elapsed[64];

    if (seconds <= 0)
        seconds = 1e-9;         /* a clock too coarse to see it */
    double bytes = (double)report->length;
    format_time(seconds, report->condensed, elapsed, sizeof elapsed);

    if (report->condensed) {
        /* bytes,ops,time,bytes/sec,ops/sec */
        printf("%" PRIu64 ",1,%s,%.3f,%.3f\n", report->length, elapsed,
               bytes / seconds, 1 / seconds);
        return;
    }
    printf("%s %" PRIu64 "/%" PRIu64 " bytes at offset %" PRIu64 "\n",
           report->verb, report->length, report->length, report->offset);
    printf("%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n", io_size(bytes, total),
           elapsed, io_size(bytes / seconds, rate), 1 / seconds);
}

static bool is_ascii_alnum(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') ||
           (c >= 'a' && c <= 'z');
}

void io_dump(const uint8_t *buf, uint64_t offset, uint64_t length)
{
    for (uint64_t line = 0; line < length; line += 16) {
        uint64_t count = length - line < 16 ? length - line : 16;

        printf("%08" PRIx64 ":  ", offset + line);
        for (uint64_t i = 0; i < count; i++)
            printf("%02x ", buf[line + i]);
        putchar(' ');
        for (uint64_t i = 0; i < count; i++)
            putchar(is_ascii_alnum(buf[line + i]) ? buf[line + i] : '.');
        putchar('\n');
    }
}
