/* SPDX-License-Identifier: MIT */
/*
 * cli.c - messages, usage, version: what all subcommands say in one voice.
 */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

/* The qemu-img whose command line and output this one follows. */
#define QEMU_COMPATIBLE "10.0.2"

static void message(const struct cli *cli, const char *kind, const char *fmt,
                    va_list ap)
    __attribute__((format(printf, 3, 0)));

/* The library says in one line what qemu-img says in two: who has the lock. */
static void split_hint(char *text)
{
    char *hint = strstr(text, ". Is another process using the image [");

    if (hint) {
        hint[0] = '\n';
        memmove(hint + 1, hint + 2, strlen(hint + 2) + 1);
    }
}

static void message(const struct cli *cli, const char *kind, const char *fmt,
                    va_list ap)
{
    char *text = NULL;

    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    if (text && cli->as_qemu)
        split_hint(text);
    fflush(stdout);
    fprintf(stderr, "%s: %s%s\n", cli->program, kind,
            text ? text : "out of memory");
    free(text);
}

void cli_error(const struct cli *cli, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    message(cli, "", fmt, ap);
    va_end(ap);
}

void cli_warning(const struct cli *cli, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    message(cli, "warning: ", fmt, ap);
    va_end(ap);
}

const char *cli_hint(const char *message)
{
    static const char number[] = "expects a non-negative number below 2^64";
    size_t length = strlen(message), tail = sizeof number - 1;

    return length <= tail || strcmp(message + length - tail, number) ? ""
        : "\nOptional suffix k, M, G, T, P or E means kilo-, mega-, giga-, "
          "tera-, peta-\nand exabytes, respectively.";
}

void cli_report(const struct cli *cli, const struct lam_error *err)
{
    cli_error(cli, "%s%s", err->message, cli_hint(err->message));
}

int cli_try_help(const struct cli *cli)
{
    fprintf(stderr, "Try '%s --help' for more info\n", cli->command);
    return 1;
}

int cli_usage(const struct cli *cli, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    message(cli, "", fmt, ap);
    va_end(ap);
    return cli_try_help(cli);
}

/*
 * Callers of qemu-img read the third word as a version number and compare it
 * with what they need, so it is the version we are compatible with.
 */
int cli_version(const struct cli *cli)
{
    if (cli->as_qemu)
        printf("%s version %s (lamella %s)\n", cli->program, QEMU_COMPATIBLE,
               lam_version());
    else
        printf("lamella %s\n", lam_version());
    return cli_finish(cli, 0);
}

/* Nobody reads any more from the pipe that stdout is. */
static bool reader_left(void)
{
    struct pollfd fd = { .fd = STDOUT_FILENO, .events = POLLOUT };

    return poll(&fd, 1, 0) == 1 && (fd.revents & POLLERR) != 0;
}

int cli_finish(const struct cli *cli, int status)
{
    int code = fflush(stdout) ? errno : 0;

    if ((!code && !ferror(stdout)) || (cli->as_qemu && reader_left()))
        return status;
    /* What failed before, and why, nobody has kept. */
    cli_error(cli, "Could not write to standard output%s%s",
              code ? ": " : "", code ? strerror(code) : "");
    return status ? status : 1;
}

int cli_finish_change(const struct cli *cli, int status)
{
    if (!cli->as_qemu)
        return cli_finish(cli, status);
    fflush(stdout);
    return status;
}

bool cli_same_file(const char *a, const char *b)
{
    struct stat x, y;

    if (stat(a, &x) < 0 || stat(b, &y) < 0)
        return false;
    if (S_ISBLK(x.st_mode) && S_ISBLK(y.st_mode))
        return x.st_rdev == y.st_rdev;
    return x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}
