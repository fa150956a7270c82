/* SPDX-License-Identifier: MIT */
/*
 * interrupt.c - long work that a signal ends in an orderly way.
 */
#include "interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static volatile int seen;

static void on_signal(int signo)
{
    seen = signo;
}

static const char *signal_name(int signo)
{
    return signo == SIGINT ? "SIGINT" : signo == SIGTERM ? "SIGTERM"
                                                         : "SIGHUP";
}

static void catch_with(void (*handler)(int))
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction action = { .sa_handler = handler,
                                .sa_flags = (int)SA_RESETHAND };

    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        struct sigaction old;

        /* What nohup has told us to ignore stays ignored. */
        if (sigaction(signals[i], NULL, &old) == 0 &&
            old.sa_handler == SIG_IGN)
            continue;
        sigaction(signals[i], &action, NULL);
    }
}

const volatile int *interrupt_catch(void)
{
    catch_with(on_signal);
    return &seen;
}

int interrupt_status(int rc)
{
    if (rc == -ECANCELED && seen)
        return 128 + seen;
    return rc < 0;
}

int interrupt_end(const struct cli *cli, int rc, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;

    if (rc != -ECANCELED || !seen)
        return interrupt_status(rc);
    if (cli->as_qemu) {
        signal(seen, SIG_DFL);
        raise(seen);
    }
    va_start(ap, fmt);
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    va_end(ap);
    cli_error(cli, "interrupted by %s: %s",
              signal_name(seen), text ? text : "out of memory");
    free(text);
    return interrupt_status(rc);
}

/* ------------------------------------------------------------ at any moment */

/* Made before: a handler of signals can do little more than write. */
static char explanation[1024];

static void explain_and_end(int signo)
{
    const char *name = signal_name(signo);
    const struct iovec parts[] = {
        { (void *)"lamella: interrupted by ", 24 },
        { (void *)name, strlen(name) },
        { explanation, strlen(explanation) },
    };
    ssize_t ignored = writev(STDERR_FILENO, parts, 3);

    (void)ignored;
    _exit(128 + signo);
}

void interrupt_explain(const struct cli *cli, const char *fmt, ...)
{
    va_list ap;

    if (cli->as_qemu)
        return;
    memcpy(explanation, ": ", 2);
    va_start(ap, fmt);
    int length = vsnprintf(explanation + 2, sizeof explanation - 3, fmt, ap);
    va_end(ap);
    if (length < 0)
        return;
    length = (int)strlen(explanation);      /* as much as went in */
    explanation[length] = '\n';
    explanation[length + 1] = '\0';
    catch_with(explain_and_end);
}
