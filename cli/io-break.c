/* SPDX-License-Identifier: MIT */
/*
 * io-break.c - break, remove_break, resume, wait_break: requests of aio_read
 * and aio_write that wait where the engine is.
 */
#include <errno.h>

#include "io-aio.h"
#include "io-command.h"

/* On the thread of the request. */
static void note_stopped(void *opaque, const char *const *tags,
                         unsigned count)
{
    io_aio_note_stopped(opaque, tags, count);
}

/* "MESSAGE: reason"; -1. */
static int failed(int rc, const char *message, const char *tag)
{
    errno = -rc;
    printf("%s%s: %m\n", message, tag);
    return -1;
}

int io_cmd_break(struct io_session *session, const struct io_command *command,
                 int argc, char **argv)
{
    (void)command, (void)argc;
    int rc = lam_image_break(session->image, argv[1], argv[2], note_stopped,
                             session->aio, NULL);
    if (rc < 0)
        return failed(rc, "Could not set breakpoint", "");
    io_aio_expect_stops(session->aio);
    return 0;
}

/* One request that waits at @tag. */
static int resume(struct io_session *session, const char *tag)
{
    int rc = lam_image_resume(session->image, tag, NULL);
    io_aio_print_stopped(session->aio);
    if (rc == 0) {
        io_aio_forget_stopped(session->aio, tag);
        printf("blkdebug: Resuming request '%s'\n", tag);
    }
    return rc;
}

int io_cmd_remove_break(struct io_session *session,
                        const struct io_command *command, int argc,
                        char **argv)
{
    (void)command, (void)argc;
    int rc = lam_image_remove_break(session->image, argv[1], NULL);

    /* Those who wait there have used theirs up already. */
    while (rc != -ENOTSUP && resume(session, argv[1]) == 0)
        ;
    return rc < 0 ? failed(rc, "Could not remove breakpoint ", argv[1]) : 0;
}

int io_cmd_resume(struct io_session *session, const struct io_command *command,
                  int argc, char **argv)
{
    (void)command, (void)argc;
    int rc = resume(session, argv[1]);

    return rc < 0 ? failed(rc, "Could not resume request", "") : 0;
}

int io_cmd_wait_break(struct io_session *session,
                      const struct io_command *command, int argc, char **argv)
{
    (void)command, (void)argc;
    if (io_aio_wait_stopped(session->aio, argv[1]))
        return 0;
    cli_error(session->cli, "no request is under way that could stop at '%s'",
              argv[1]);
    return -1;
}

void io_resume_all(struct io_session *session)
{
    char tag[IO_TAG_MAX];

    while (io_aio_last_stopped(session->aio, tag) &&
           resume(session, tag) == 0)
        ;
}
