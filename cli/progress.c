/* SPDX-License-Identifier: MIT */
/*
 * progress.c - qemu-img's -p records, which programs parse (each ended by a
 * carriage return, never going back), and one line on stderr for SIGUSR1 when
 * -p was not given.
 */
#include <signal.h>
#include <stdlib.h>

#include "progress.h"

/* Records are this far apart at least, in hundredths of a percent. */
#define STEP 100
#define FULL 10000

struct progress {
    bool enabled;
    unsigned shown;             /* hundredths of a percent */
};

static volatile sig_atomic_t asked;

static void on_signal(int signo)
{
    (void)signo;
    asked = 1;
}

/* The default action of these signals would end the process, so they are taken
 * in both cases. */
static void catch_signals(void)
{
    struct sigaction action = { .sa_handler = on_signal,
                                .sa_flags = SA_RESTART };

    sigemptyset(&action.sa_mask);
    sigaction(SIGUSR1, &action, NULL);
#ifdef SIGINFO
    sigaction(SIGINFO, &action, NULL);
#endif
}

static void print_record(FILE *out, unsigned hundredths, char end)
{
    fprintf(out, "    (%u.%02u/100%%)%c", hundredths / 100, hundredths % 100,
            end);
    fflush(out);
}

struct progress *progress_begin(bool enabled)
{
    struct progress *p = calloc(1, sizeof *p);

    if (!p)
        return NULL;            /* the job goes on without */
    p->enabled = enabled;
    catch_signals();
    if (enabled)
        print_record(stdout, 0, '\r');
    return p;
}

static unsigned hundredths_of(uint64_t done, uint64_t total)
{
    if (done >= total)
        return FULL;
    return (unsigned)((long double)done * FULL / (long double)total);
}

void progress_update(void *opaque, uint64_t done, uint64_t total)
{
    struct progress *p = opaque;

    if (!p)
        return;
    unsigned now = hundredths_of(done, total);
    if (asked) {
        asked = 0;
        if (!p->enabled)
            print_record(stderr, now, '\n');
    }
    if (!p->enabled || now < p->shown + STEP || now == FULL)
        return;
    p->shown = now;
    print_record(stdout, now, '\r');
}

void progress_full(struct progress *p)
{
    if (!p || p->shown == FULL)
        return;
    p->shown = FULL;
    if (p->enabled)
        print_record(stdout, FULL, '\r');
}

void progress_end(struct progress *p, bool success)
{
    if (!p)
        return;
    if (success)
        progress_full(p);
    if (p->enabled) {
        fputc('\n', stdout);
        fflush(stdout);
    }
    free(p);
}
