/* SPDX-License-Identifier: MIT */
/*
 * interrupt.c - long work that a signal ends in an orderly way.
 */
#include "interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>

static volatile int seen;

static void on_signal(int signo)
{
    seen = signo;
}

const volatile int *interrupt_catch(void)
{
    static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction action = { .sa_handler = on_signal,
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
              seen == SIGINT ? "SIGINT" : seen == SIGTERM ? "SIGTERM"
                                                          : "SIGHUP",
              text ? text : "out of memory");
    free(text);
    return interrupt_status(rc);
}
