/* SPDX-License-Identifier: MIT */
/*
 * io-command.c - the table of the commands of `lamella io`, finding and running
 * one, and the few that need no image.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "io-aio.h"
#include "io-command.h"
#include "io-print.h"

static io_command_fn cmd_abort, cmd_help, cmd_quit, cmd_sigraise, cmd_sleep;

/* Options that several commands share; `help` prints them. */
#define HELP_C " -C  statistics as bytes,ops,time,bytes/s,ops/s on one line\n"
#define HELP_P " -P  fill the buffer with this byte (default 0xcd)\n"
#define HELP_V " -P  fail unless all that is read is this byte\n"
#define HELP_q " -q  no statistics\n"
#define HELP_r " -r  accepted and ignored\n"
#define HELP_f " -f  on disk before the command ends (FUA)\n"
#define HELP_i " -i  count the request as invalid, do nothing\n"
#define HELP_v " -v  print the data as hexadecimal and text\n"

static const struct io_command commands[] = {
    { "abort", NULL, cmd_abort, 0, 0, 0, NULL,
      "simulate a program crash using abort(3)", NULL },
    { "aio_flush", NULL, io_cmd_aio_flush, 0, 0, IO_NEEDS_IMAGE, NULL,
      "completes all outstanding aio requests", NULL },
    { "aio_read", NULL, io_cmd_aio_read, 2, -1, IO_NEEDS_IMAGE,
      "[-Ciqrv] [-P pattern] off len [len..]",
      "asynchronously reads a number of bytes",
      " The command ends when the request is on its way; aio_flush waits for\n"
      " it. What goes wrong later is printed, but fails no command.\n"
      HELP_C HELP_i HELP_V HELP_q HELP_r HELP_v },
    { "aio_write", NULL, io_cmd_aio_write, 2, -1, IO_NEEDS_IMAGE | IO_WRITES,
      "[-Cfiqruz] [-P pattern] off len [len..]",
      "asynchronously writes a number of bytes",
      " The command ends when the request is on its way; aio_flush waits for\n"
      " it. What goes wrong later is printed, but fails no command.\n"
      HELP_C HELP_f HELP_i HELP_P HELP_q HELP_r
      " -u  with -z: what is stored may be freed\n"
      " -z  make the range read as zeroes\n" },
    { "alloc", "a", io_cmd_alloc, 1, 2, IO_NEEDS_IMAGE, "offset [count]",
      "checks if offset is allocated in the file",
      " Counts the bytes of the range that this image stores itself, leaving\n"
      " its backing file aside.\n" },
    { "break", NULL, io_cmd_break, 2, 2, IO_NEEDS_IMAGE, "event tag",
      "sets a breakpoint on event and tags the stopped request as tag",
      " For images opened through blkdebug.  Meant for aio_read, aio_write:\n"
      " nobody could resume a request that the session waits for.\n" },
    { "close", "c", io_cmd_close, 0, 0, IO_NEEDS_IMAGE, NULL,
      "close the current open file", NULL },
    { "discard", "d", io_cmd_discard, 2, -1, IO_NEEDS_IMAGE | IO_WRITES,
      "[-Cq] off len", "discards a number of bytes at a specified offset",
      HELP_C HELP_q },
    { "flush", "f", io_cmd_flush, 0, 0, IO_NEEDS_IMAGE, NULL,
      "flush all in-core file state to disk", NULL },
    { "help", "?", cmd_help, 0, 1, 0, "[command]",
      "help for one or all commands", NULL },
    { "info", "i", io_cmd_info, 0, 0, IO_NEEDS_IMAGE, NULL,
      "prints information about the current file", NULL },
    { "length", "l", io_cmd_length, 0, 0, IO_NEEDS_IMAGE, NULL,
      "gets the length of the current file", NULL },
    { "map", NULL, io_cmd_map, 0, 0, IO_NEEDS_IMAGE, "",
      "prints the allocated areas of a file", NULL },
    { "open", "o", io_cmd_open, 1, -1, 0,
      "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
      "open the file specified by path",
      " -C  copy what is read from the backing file into the image\n"
      " -d  ignore or unmap: whether discards reach the host\n"
      " -i  threads, native or io_uring; checked only\n"
      " -k  -i native\n"
      " -n  -t none\n"
      " -o  key=value,...: driver and the options that --image-opts takes\n"
      " -r  read-only\n"
      " -s  writes go to a temporary overlay\n"
      " -t  cache mode\n"
      " -U  take no lock\n" },
    { "quit", "q", cmd_quit, 0, -1, 0, NULL, "exit the program", NULL },
    { "read", "r", io_cmd_read, 2, -1, IO_NEEDS_IMAGE,
      "[-abCqrv] [-P pattern [-s off] [-l len]] off len",
      "reads a number of bytes at a specified offset",
      " -b  the VM state rather than the disk\n"
      HELP_C
      " -l  with -P: how many bytes to compare\n"
      " -p  accepted and ignored\n"
      HELP_V HELP_q HELP_r
      " -s  with -P: where in the data to begin comparing\n"
      HELP_v },
    { "readv", NULL, io_cmd_readv, 2, -1, IO_NEEDS_IMAGE,
      "[-Cqrv] [-P pattern] off len [len..]",
      "reads a number of bytes at a specified offset",
      HELP_C HELP_V HELP_q HELP_r HELP_v },
    { "remove_break", NULL, io_cmd_remove_break, 1, 1, IO_NEEDS_IMAGE, "tag",
      "remove a breakpoint by tag", NULL },
    { "reopen", NULL, io_cmd_reopen, 0, -1, IO_NEEDS_IMAGE,
      "[(-r|-w)] [-c cache] [-o options]",
      "reopens an image with new options",
      " -c  cache mode\n"
      " -o  key=value,...: options to change; the others stay\n"
      " -r  read-only\n"
      " -w  read-write\n" },
    { "resume", NULL, io_cmd_resume, 1, 1, IO_NEEDS_IMAGE, "tag",
      "resumes the request tagged as tag", NULL },
    { "sigraise", NULL, cmd_sigraise, 1, 1, 0, "signal", "raises a signal",
      NULL },
    { "sleep", NULL, cmd_sleep, 1, 1, 0, NULL,
      "waits for the given value in milliseconds", NULL },
    { "truncate", "t", io_cmd_truncate, 1, 3, IO_NEEDS_IMAGE | IO_WRITES,
      "[-m prealloc_mode] off",
      "truncates the current file at the given offset",
      " -m  off, metadata, falloc or full: what is stored for the new part\n" },
    { "wait_break", NULL, io_cmd_wait_break, 1, 1, IO_NEEDS_IMAGE, "tag",
      "waits for the suspension of a request", NULL },
    { "write", "w", io_cmd_write, 2, -1, IO_NEEDS_IMAGE | IO_WRITES,
      "[-bcCfnqruz] [-P pattern | -s source_file] off len",
      "writes a number of bytes at a specified offset",
      " -b  the VM state rather than the disk\n"
      " -c  compressed: whole clusters\n"
      HELP_C HELP_f
      " -n  with -z: fail rather than write zeroes\n"
      " -p  accepted and ignored\n"
      HELP_P HELP_q HELP_r
      " -s  fill the buffer with this file's bytes, repeated\n"
      " -u  with -z: what is stored may be freed\n"
      " -z  make the range read as zeroes\n" },
    { "writev", NULL, io_cmd_writev, 2, -1, IO_NEEDS_IMAGE | IO_WRITES,
      "[-Cfqr] [-P pattern] off len [len..]",
      "writes a number of bytes at a specified offset",
      HELP_C HELP_f HELP_P HELP_q HELP_r },
    { "zone_append", "zap", io_cmd_zone_append, 3, 4, IO_NEEDS_IMAGE,
      "offset len [len..]", "append write a number of bytes at a specified "
      "offset", NULL },
    { "zone_close", "zc", io_cmd_zone_change, 2, 2, IO_NEEDS_IMAGE,
      "offset len", "close a range of zones in zone block device", NULL },
    { "zone_finish", "zf", io_cmd_zone_change, 2, 2, IO_NEEDS_IMAGE,
      "offset len", "finish a range of zones in zone block device", NULL },
    { "zone_open", "zo", io_cmd_zone_change, 2, 2, IO_NEEDS_IMAGE,
      "offset len", "explicit open a range of zones in zone block device",
      NULL },
    { "zone_report", "zrp", io_cmd_zone_report, 2, 2, IO_NEEDS_IMAGE,
      "offset number", "report zone information", NULL },
    { "zone_reset", "zrs", io_cmd_zone_change, 2, 2, IO_NEEDS_IMAGE,
      "offset len", "reset a zone write pointer in zone block device", NULL },
};

static const size_t nb_commands = sizeof commands / sizeof commands[0];

/* ------------------------------------------------------------------ running */

static const struct io_command *command_find(const char *name)
{
    for (size_t i = 0; i < nb_commands; i++)
        if (!strcmp(name, commands[i].name) ||
            (commands[i].alias && !strcmp(name, commands[i].alias)))
            return &commands[i];
    return NULL;
}

static int count_mistake(const struct io_command *command, const char *name,
                         int count)
{
    fflush(stdout);
    if (command->most < 0)
        fprintf(stderr, "bad argument count %d to %s, expected at least %d "
                "arguments\n", count, name, command->least);
    else if (command->least == command->most)
        fprintf(stderr, "bad argument count %d to %s, expected %d arguments\n",
                count, name, command->least);
    else
        fprintf(stderr, "bad argument count %d to %s, expected between %d and "
                "%d arguments\n", count, name, command->least, command->most);
    return -1;
}

static int run_words(struct io_session *session, int argc, char **argv)
{
    const struct io_command *command = command_find(argv[0]);

    if (!command) {
        fflush(stdout);
        fprintf(stderr, "command \"%s\" not found\n", argv[0]);
        return -1;
    }
    if ((command->flags & IO_NEEDS_IMAGE) && !session->image) {
        fflush(stdout);
        fprintf(stderr, "no file open, try 'help open'\n");
        return -1;
    }
    int count = argc - 1;
    if (count < command->least || (command->most >= 0 && count > command->most))
        return count_mistake(command, argv[0], count);
    if ((command->flags & IO_WRITES) && session->spec.read_only) {
        cli_error(session->cli, "Block node is read-only");
        return -1;
    }
    optind = 0;                 /* each command parses its own words */
    return command->run(session, command, argc, argv);
}

int io_run_line(struct io_session *session, const char *line)
{
    char *copy = strdup(line);
    char **words = copy ? calloc(strlen(line) / 2 + 2, sizeof *words) : NULL;
    int count = 0, rc = 0;
    char *rest;

    if (!words) {
        free(copy);
        cli_error(session->cli, "no memory for a command line");
        return -1;
    }
    for (char *word = strtok_r(copy, " ", &rest); word;
         word = strtok_r(NULL, " ", &rest))
        words[count++] = word;
    if (count > 0)
        rc = run_words(session, count, words);
    free(words);
    free(copy);
    return rc;
}

/* ----------------------------------------------------------------- messages */

static void print_summary(const struct io_command *command, const char *name)
{
    printf("%s ", name);
    if (command->args)
        printf("%s ", command->args);
    printf("-- %s\n", command->summary);
}

int io_usage(const struct io_command *command)
{
    print_summary(command, command->name);
    return -1;
}

int io_failed(const struct io_session *session, const char *what, int rc,
              const struct lam_error *err)
{
    /* The genuine tool knows corruption as an I/O error. */
    errno = rc == -EUCLEAN ? EIO : -rc;
    printf("%s failed: %m\n", what);
    if (!session->cli->as_qemu && err && err->message[0])
        cli_report(session->cli, err);
    return -1;
}

/* --------------------------------------------------- commands without image */

/* What a crash leaves on disk is what tests ask for: nothing of the image is
 * flushed. */
static int cmd_abort(struct io_session *session,
                     const struct io_command *command, int argc, char **argv)
{
    (void)session, (void)command, (void)argc, (void)argv;
    fflush(stdout);
    abort();
}

static int cmd_help(struct io_session *session,
                    const struct io_command *command, int argc, char **argv)
{
    (void)session, (void)command;
    if (argc == 1) {
        for (size_t i = 0; i < nb_commands; i++)
            print_summary(&commands[i], commands[i].name);
        printf("\nUse 'help commandname' for extended help.\n");
        return 0;
    }
    const struct io_command *found = command_find(argv[1]);
    if (!found) {
        printf("command %s not found\n", argv[1]);
        return -1;
    }
    print_summary(found, argv[1]);
    if (found->help)
        printf("\n%s\n", found->help);
    return 0;
}

static int cmd_quit(struct io_session *session,
                    const struct io_command *command, int argc, char **argv)
{
    (void)command, (void)argc, (void)argv;
    session->quit = true;
    return 0;
}

static int cmd_sigraise(struct io_session *session,
                        const struct io_command *command, int argc, char **argv)
{
    uint64_t number;

    (void)session, (void)command, (void)argc;
    if (io_number(argv[1], &number) < 0)
        return -1;
    /* As qemu-io, which lets one through that is none. */
    if (number > NSIG) {
        printf("signal argument '%s' is too large to be a valid signal\n",
               argv[1]);
        return -1;
    }
    /* A program that is killed should not take its output with it. */
    fflush(stdout);
    (void)raise((int)number);
    return 0;
}

static int cmd_sleep(struct io_session *session,
                     const struct io_command *command, int argc, char **argv)
{
    char *end;

    (void)command, (void)argc;
    errno = 0;
    long ms = strtol(argv[1], &end, 0);
    if (errno || end == argv[1] || *end || ms < 0) {
        printf("%s is not a valid number\n", argv[1]);
        return -1;
    }
    fflush(stdout);
    struct timespec left = { ms / 1000, ms % 1000 * 1000000 };
    while (nanosleep(&left, &left) < 0 && errno == EINTR)
        ;
    io_aio_print(session->aio);
    return 0;
}
