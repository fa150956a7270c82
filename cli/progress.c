/* SPDX-License-Identifier: MIT */
/*
 * progress.c - qemu-img's -p records, which programs parse (each ended by a
 * carriage return, never going back), and one line on stderr for SIGUSR1 when
 * -p was not given.
 */
#include <signal.h>
#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "progress.h"

/* Records are this far apart at least, in hundredths of a percent. */
#define STEP 100
#define FULL 10000

struct progress {
    bool enabled;
    unsigned shown;             /* hundredths of a percent */
    FILE *json;                 /* NULL: as qemu-img */
    const char *phase;
    struct timespec start;
    double told;                /* seconds from start to the last record */
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

struct progress *progress_begin_json(FILE *out, const char *phase)
{
    struct progress *p = progress_begin(false);

    if (!p)
        return NULL;
    p->json = out;
    p->phase = phase;
    clock_gettime(CLOCK_MONOTONIC, &p->start);
    return p;
}

static double seconds_since(const struct timespec *start)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)(t.tv_sec - start->tv_sec) +
           (double)(t.tv_nsec - start->tv_nsec) / 1e9;
}

static void update_json(struct progress *p, unsigned now, uint64_t done,
                        uint64_t total)
{
    double seconds = seconds_since(&p->start);

    if (now < p->shown + STEP && seconds < p->told + 1 && done < total)
        return;
    p->shown = now;
    p->told = seconds;
    fprintf(p->json, "{\"event\": \"progress\", \"phase\": \"%s\", "
            "\"done\": %" PRIu64 ", \"total\": %" PRIu64
            ", \"seconds\": %.3f}\n", p->phase, done, total, seconds);
    fflush(p->json);
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
    if (p->json)
        update_json(p, now, done, total);
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
