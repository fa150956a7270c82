/* SPDX-License-Identifier: MIT */
/*
 * cmd-io.c - `lamella io`: an image read, written and exercised by commands,
 * as qemu-io does it.
 *
 * Commands come from -c, or else from standard input after a prompt.  All are
 * run whatever fails; the exit status is 1 if one did.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io-aio.h"
#include "io-command.h"
#include "source-option.h"

static const struct command_option option_rows[] = {
    { 'c', "cmd", "COMMAND",
      "run this command; may be given several times.  Without it commands are "
      "read from stdin", 0 },
    OPTION_FORMAT,
    OPTION_IMAGE_OPTS,
    { 'r', "read-only", NULL, "open read-only", 0 },
    { 's', "snapshot", NULL, "write to a temporary overlay", 0 },
    { 'n', "nocache", NULL, "same as -t none", 0 },
    OPTION_CACHE('t'),
    { 'd', "discard", "ignore|unmap",
      "what to do with discards (default: unmap)", 0 },
    { 'C', "copy-on-read", NULL,
      "store what is read from the backing file", 0 },
    { 'i', "aio", "AIO", "threads, native or io_uring: accepted", 0 },
    { 'k', "native-aio", NULL, "same as -i native", 0 },
    { 'm', "misalign", NULL, "buffers at misaligned addresses", 0 },
    { 'U', "force-share", NULL, "take no lock (with -r)", 0 },
    { 'T', "trace", "PATTERN", "there are no events to trace", 0 },
    { 'V', "version", NULL, "the version", 0 },
    OPTION_OBJECT,
    OPTION_HELP,
    { 0 },
};

struct io_arguments {
    struct io_open_spec spec;
    const char *file;
    bool image_opts, misalign;
    const char **commands;      /* point into argv */
    int nb_commands;
};

/* parse_option() and parse_arguments() answer this, or an exit status. */
enum { GO_ON = -1 };

static int set_format(struct io_arguments *args, const char *format)
{
    free(args->spec.format);
    args->spec.format = strdup(format);
    return args->spec.format ? GO_ON : 1;
}

static int checked(int rc)
{
    return rc < 0 ? 1 : GO_ON;
}

static int parse_option(const struct cli *cli, int letter, void *opaque)
{
    struct io_arguments *args = opaque;
    struct io_open_spec *spec = &args->spec;

    switch (letter) {
    case 'c': args->commands[args->nb_commands++] = optarg; return GO_ON;
    case 'f': return set_format(args, optarg);
    case 'r': spec->read_only = true; return GO_ON;
    case 's': spec->temporary = true; return GO_ON;
    case 'C': spec->copy_on_read = true; return GO_ON;
    case 'U': spec->force_share = true; return GO_ON;
    case 'm': args->misalign = true; return GO_ON;
    case 'n': return checked(io_parse_cache(cli, "none", spec));
    case 'k': return checked(io_parse_aio(cli, "native", spec));
    case 't': return checked(io_parse_cache(cli, optarg, spec));
    case 'd': return checked(io_parse_discard(cli, optarg, spec));
    case 'i': return checked(io_parse_aio(cli, optarg, spec));
    case 'T': return cli_trace(cli, optarg);
    case 'V': return cli_version(cli);
    case OPT_OBJECT: return take_object(cli, optarg);
    default:  args->image_opts = true; return GO_ON;
    }
}

static int parse_arguments(const struct cli *cli, int argc, char **argv,
                           struct io_arguments *args)
{
    int status = command_parse(cli, &command_io, argc, argv, parse_option,
                               args);

    if (status != GO_ON)
        return status;
    if (argc - optind > 1) {
        if (!cli->as_qemu)
            return cli_usage(cli, "Unexpected argument: %s", argv[optind + 1]);
        return command_mistake(cli, &command_io);
    }
    args->file = argv[optind];
    if (args->image_opts && args->spec.format) {
        cli_error(cli, "--image-opts and -f are mutually exclusive");
        return 1;
    }
    return GO_ON;
}

/* ------------------------------------------------------------------ session */

static int open_file(struct io_session *session, struct io_arguments *args)
{
    if (!args->file)
        return 0;
    char **where = args->image_opts ? &args->spec.options : &args->spec.name;
    *where = strdup(args->file);
    if (!*where) {
        cli_error(session->cli, "no memory for a file name");
        return -1;
    }
    if (args->image_opts && io_spell_out(session->cli, where) < 0)
        return -1;
    struct io_open_spec spec = args->spec;
    args->spec = (struct io_open_spec)IO_OPEN_SPEC_INIT;
    return io_session_open(session, &spec);
}

static bool run_given(struct io_session *session,
                      const struct io_arguments *args)
{
    bool good = true;

    for (int i = 0; i < args->nb_commands && !session->quit; i++)
        good &= io_run_line(session, args->commands[i]) == 0;
    return good;
}

/* What has been read of standard input, and not run yet: [start, end). */
struct typed {
    char *buf;
    size_t size, start, end;
    bool eager;                 /* output goes out before each command */
};

/* Messages and output keep their order where both go to the same place. */
static bool shares_output(void)
{
    struct stat out, messages;

    return fstat(STDOUT_FILENO, &out) == 0 &&
           fstat(STDERR_FILENO, &messages) == 0 &&
           out.st_dev == messages.st_dev && out.st_ino == messages.st_ino;
}

/* More input behind what there is; false at its end or without memory. */
static bool read_more(struct typed *in)
{
    if (in->start) {
        memmove(in->buf, in->buf + in->start, in->end - in->start);
        in->end -= in->start;
        in->start = 0;
    }
    if (in->size - in->end < 2) {
        size_t size = in->size ? 2 * in->size : 64 * 1024;
        char *buf = realloc(in->buf, size);
        if (!buf)
            return false;
        in->buf = buf;
        in->size = size;
    }
    ssize_t n;
    do
        n = read(STDIN_FILENO, in->buf + in->end, in->size - in->end - 1);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        in->end += (size_t)n;
    return n > 0;
}

/*
 * The next line without its end, or NULL.  Nobody waits for an answer while
 * there is more to do: output goes out before input is waited for, and not
 * after each command of a script.
 */
static const char *next_line(struct typed *in)
{
    char *end = NULL;

    if (in->eager)
        fflush(stdout);
    while (in->start == in->end ||
           !(end = memchr(in->buf + in->start, '\n', in->end - in->start))) {
        fflush(stdout);
        if (read_more(in))
            continue;
        if (in->start == in->end)
            return NULL;
        end = in->buf + in->end++;      /* the last line has no end */
        break;
    }
    char *line = in->buf + in->start;
    *end = '\0';
    in->start = (size_t)(end - in->buf) + 1;
    return line;
}

/* The prompt is printed into pipes too: filters expect it. */
static bool run_typed(struct io_session *session)
{
    struct typed in = { .eager = shares_output() };
    bool is_terminal = isatty(STDIN_FILENO);
    bool good = true;

    while (!session->quit) {
        if (is_terminal)
            io_aio_print(session->aio);
        printf("qemu-io> ");
        const char *line = next_line(&in);
        if (!line)
            break;
        good &= io_run_line(session, line) == 0;
    }
    free(in.buf);
    return good;
}

static int run_session(const struct cli *cli, struct io_arguments *args)
{
    struct io_session session = {
        .cli = cli,
        .spec = IO_OPEN_SPEC_INIT,
        .aio = io_aio_new(),
        .serial = PTHREAD_MUTEX_INITIALIZER,
        .misalign = args->misalign,
    };

    if (!session.aio) {
        cli_error(cli, "no memory for a session");
        return 1;
    }
    bool good = open_file(&session, args) == 0;
    if (good) {
        good = args->nb_commands ? run_given(&session, args)
                                 : run_typed(&session);
        session.failed = !good;
        good &= io_session_close(&session) == 0;
    }
    io_aio_free(session.aio);
    return cli_finish(cli, good ? 0 : 1);
}

static int run_io(const struct cli *cli, int argc, char **argv)
{
    struct io_arguments args = { .spec = IO_OPEN_SPEC_INIT };

    args.spec.discard = true;
    args.spec.cli = cli;
    args.commands = calloc((size_t)argc, sizeof *args.commands);
    if (!args.commands) {
        cli_error(cli, "no memory for the commands");
        return 1;
    }
    int status = parse_arguments(cli, argc, argv, &args);
    if (status == GO_ON)
        status = run_session(cli, &args);
    io_open_spec_deinit(&args.spec);
    free(args.commands);
    return status;
}

const struct command command_io = {
    .name = "io",
    .run = run_io,
    .summary = "Read, write and exercise an image (as qemu-io does)",
    .synopsis =
        "[-f FMT | --image-opts] [-rsnmCkU] [-t CACHE] [-d MODE] [-i AIO] "
        " [-c COMMAND]... [FILE]",
    .about =
        "Read, write and exercise an image by commands, which come from -c or, "
        "without it, from standard input, after a prompt.  All are run "
        "whatever fails.",
    .options = option_rows,
    .genuine =
        "help version cmd format read-only snapshot nocache copy-on-read "
        "misalign native-aio aio discard cache trace object image-opts "
        "force-share",
    .notes =
        "-c help lists the commands.",
    .status =
        "0 all commands were successful, 1 one failed, or the image could "
        "not be opened.",
    .examples =
        "-c 'write -P 0xab 0 64k' -c 'read -v 0 512' disk.qcow2\n"
        "-r -f qcow2 -c map disk.qcow2\n",
    .help_on_mistakes = true,
};
