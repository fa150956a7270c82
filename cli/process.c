/* SPDX-License-Identifier: MIT */
/*
 * process.c - what a caller hands over beside the arguments: descriptors,
 * limits, signals.
 */
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "process.h"

/* A descriptor a layer: a chain of 1,000 needs more than the usual 1,024. */
static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/*
 * An image must not take the place of a standard stream that the caller has
 * closed: what is printed would be written into it.  Under a genuine tool's
 * name nobody misses the output; under ours, writing it fails.
 */
static void fill_standard_streams(const struct cli *cli)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            continue;
        if (open("/dev/null", cli->as_qemu ? O_RDWR : O_RDONLY) != fd)
            return;             /* no /dev/null: nothing to be done */
    }
}

/* What the genuine tools outlive, at any moment. */
static void outlive_signals(void)
{
    static const int signals[] = { SIGPIPE, SIGUSR1, SIGALRM, SIGIO };

    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        signal(signals[i], SIG_IGN);
}

void process_begin(const struct cli *cli)
{
    fill_standard_streams(cli);
    raise_file_limit();
    signal(SIGXFSZ, SIG_IGN);   /* a file too large (ulimit -f) is an error */
    if (cli->as_qemu)
        outlive_signals();
}
