/* SPDX-License-Identifier: MIT */
/*
 * io-break.c - break, remove_break, resume, wait_break: requests of aio_read
 * and aio_write that wait where the engine is.
 */
#include <errno.h>

#include "io-aio.h"
#include "io-command.h"

/* On the thread of the request. */
static void note_stopped(void *opaque, const char *tag)
{
    io_aio_note_stopped(opaque, tag);
}

static const char *reason(int rc)
{
    errno = -rc;
    return strerrordesc_np(errno);
}

int io_cmd_break(struct io_session *session, const struct io_command *command,
                 int argc, char **argv)
{
    (void)command, (void)argc;
    int rc = lam_image_break(session->image, argv[1], argv[2], note_stopped,
                             session->aio, NULL);
    if (rc < 0) {
        printf("Could not set breakpoint: %s\n", reason(rc));
        return -1;
    }
    io_aio_expect_stops(session->aio);
    return 0;
}

/* One request that waits at @tag. */
static int resume(struct io_session *session, const char *tag)
{
    io_aio_print_stopped(session->aio);
    int rc = lam_image_resume(session->image, tag, NULL);
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
    if (rc == 0)
        return 0;
    printf("Could not remove breakpoint %s: %s\n", argv[1], reason(rc));
    return -1;
}

int io_cmd_resume(struct io_session *session, const struct io_command *command,
                  int argc, char **argv)
{
    (void)command, (void)argc;
    int rc = resume(session, argv[1]);

    if (rc == 0)
        return 0;
    printf("Could not resume request: %s\n", reason(rc));
    return -1;
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
