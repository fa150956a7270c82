/* SPDX-License-Identifier: MIT */
/*
 * io-zone.c - zone_report and the commands that change zones, for zoned block
 * devices.
 *
 * No image that we open is one: what is wrong with a command is told first,
 * in qemu-io's order, and then that the operation is not supported.
 */
#include <errno.h>
#include <getopt.h>

#include "io-command.h"
#include "io-print.h"

static int refuse(struct io_session *session, const char *what)
{
    return io_failed(session, what, -ENOTSUP, NULL);
}

static int parse_range(char **argv, uint64_t *first, uint64_t *second)
{
    return io_number(argv[1], first) < 0 ||
           io_number(argv[2], second) < 0 ? -1 : 0;
}

int io_cmd_zone_report(struct io_session *session,
                       const struct io_command *command, int argc, char **argv)
{
    uint64_t offset, count;

    (void)command, (void)argc;
    if (parse_range(argv, &offset, &count) < 0)
        return -1;
    if (count > UINT32_MAX) {
        printf("Number of zones must be less than 2^32\n");
        return -1;
    }
    return refuse(session, "zone report");
}

/* "zone_open" is told as "zone open", and so on. */
int io_cmd_zone_change(struct io_session *session,
                       const struct io_command *command, int argc, char **argv)
{
    char what[32];
    uint64_t offset, length, size = lam_image_size(session->image);

    (void)argc;
    if (parse_range(argv, &offset, &length) < 0)
        return -1;
    snprintf(what, sizeof what, "zone %s", command->name + sizeof "zone_" - 1);
    if (offset > size || length > size - offset)
        return io_failed(session, what, -EIO, NULL);
    return refuse(session, what);
}

int io_cmd_zone_append(struct io_session *session,
                       const struct io_command *command, int argc, char **argv)
{
    uint64_t number;

    (void)command;
    while (getopt(argc, argv, "") != -1)
        ;
    for (int i = optind; i < argc; i++)
        if (io_number(argv[i], &number) < 0)
            return -1;
    return refuse(session, "zone append");
}
