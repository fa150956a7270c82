/* SPDX-License-Identifier: MIT */
/*
 * measure.c - run a command, tell its wall time, CPU time and peak memory.
 *
 *     bench-measure RESULT COMMAND [ARGUMENT...]
 *
 * Writes one JSON object into the file RESULT.  A small program of its own,
 * because a child's peak memory starts from that of the process that forked
 * it: started from an interpreter, every figure would be at least the
 * interpreter's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double seconds(struct timeval value)
{
    return (double)value.tv_sec + (double)value.tv_usec / 1e6;
}

static double now(void)
{
    struct timespec value;
    clock_gettime(CLOCK_MONOTONIC, &value);
    return (double)value.tv_sec + (double)value.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: bench-measure RESULT COMMAND...\n");
        return 2;
    }
    double started = now();
    pid_t child = fork();
    if (child < 0) {
        perror("fork");
        return 2;
    }
    if (child == 0) {
        execvp(argv[2], argv + 2);
        perror(argv[2]);
        _exit(127);
    }
    int status;
    struct rusage usage;
    if (wait4(child, &status, 0, &usage) < 0) {
        perror("wait4");
        return 2;
    }
    double wall = now() - started;

    FILE *out = fopen(argv[1], "w");
    if (!out) {
        perror(argv[1]);
        return 2;
    }
    fprintf(out, "{\"wall\": %.6f, \"cpu\": %.6f, \"rss\": %ld}\n", wall,
            seconds(usage.ru_utime) + seconds(usage.ru_stime),
            usage.ru_maxrss * 1024);
    if (fclose(out) != 0) {
        perror(argv[1]);
        return 2;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
