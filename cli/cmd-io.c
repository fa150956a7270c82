/* SPDX-License-Identifier: MIT */
/*
 * cmd-io.c - `lamella io`: an image read, written and exercised by commands,
 * as qemu-io does it.
 *
 * Commands come from -c, or else from standard input after a prompt.  All are
 * run whatever fails; the exit status is 1 if one did.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "io-aio.h"
#include "io-command.h"
#include "option.h"

static const char synopsis[] = "[OPTION]... [-c COMMAND]... [FILE]";

static const char help_text[] =
    "Read, write and exercise an image by commands.\n\n"
    "  -c, --cmd COMMAND     run this command; may be given several times.\n"
    "                        Without it commands are read from stdin\n"
    "  -f, --format FMT      format of FILE (default: look at it)\n"
    "      --image-opts      FILE is key=value,...\n"
    "  -r, --read-only       open read-only\n"
    "  -s, --snapshot        write to a temporary overlay\n"
    "  -n, --nocache         same as -t none\n"
    "  -t, --cache MODE      none, writeback, writethrough, directsync or\n"
    "                        unsafe\n"
    "  -d, --discard MODE    ignore, or unmap (default)\n"
    "  -C, --copy-on-read    store what is read from the backing file\n"
    "  -i, --aio MODE        threads, native or io_uring; checked only\n"
    "  -k, --native-aio      same as -i native\n"
    "  -m, --misalign        buffers at misaligned addresses\n"
    "  -U, --force-share     take no lock (with -r)\n"
    "  -T, --trace PATTERN   there are no events to trace\n"
    "  -h, --help            this text\n"
    "  -V, --version         the version\n\n"
    "-c help lists the commands.\n";

enum { OPTION_OBJECT = 256, OPTION_IMAGE_OPTS };

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

static int take_object(const struct cli *cli, const char *text)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (object_option(cli, text, &err) == 0)
        return GO_ON;
    cli_report(cli, &err);
    return 1;
}

/* What getopt_long() has already complained about. */
static int mistaken(const struct cli *cli)
{
    if (!cli->as_qemu)
        return cli_try_help(cli);
    cli_help(cli, synopsis, help_text);
    return 1;
}

static int checked(int rc)
{
    return rc < 0 ? 1 : GO_ON;
}

static int parse_option(const struct cli *cli, int letter,
                        struct io_arguments *args)
{
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
    case 'T': cli_trace(cli, optarg); return GO_ON;
    case 'h': return cli_help(cli, synopsis, help_text);
    case 'V': return cli_version(cli);
    case OPTION_OBJECT: return take_object(cli, optarg);
    case OPTION_IMAGE_OPTS: args->image_opts = true; return GO_ON;
    default:  return mistaken(cli);
    }
}

static int parse_arguments(const struct cli *cli, int argc, char **argv,
                           struct io_arguments *args)
{
    static const struct option options[] = {
        { "aio", required_argument, NULL, 'i' },
        { "cache", required_argument, NULL, 't' },
        { "cmd", required_argument, NULL, 'c' },
        { "copy-on-read", no_argument, NULL, 'C' },
        { "discard", required_argument, NULL, 'd' },
        { "force-share", no_argument, NULL, 'U' },
        { "format", required_argument, NULL, 'f' },
        { "help", no_argument, NULL, 'h' },
        { "image-opts", no_argument, NULL, OPTION_IMAGE_OPTS },
        { "misalign", no_argument, NULL, 'm' },
        { "native-aio", no_argument, NULL, 'k' },
        { "nocache", no_argument, NULL, 'n' },
        { "object", required_argument, NULL, OPTION_OBJECT },
        { "read-only", no_argument, NULL, 'r' },
        { "snapshot", no_argument, NULL, 's' },
        { "trace", required_argument, NULL, 'T' },
        { "version", no_argument, NULL, 'V' },
        { NULL, 0, NULL, 0 },
    };
    int letter;

    while ((letter = getopt_long(argc, argv, "hVc:d:f:rsnCmki:t:T:U", options,
                                 NULL)) != -1) {
        int status = parse_option(cli, letter, args);
        if (status != GO_ON)
            return status;
    }
    if (argc - optind > 1) {
        if (!cli->as_qemu)
            return cli_usage(cli, "Unexpected argument: %s", argv[optind + 1]);
        return mistaken(cli);
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

/* The prompt is printed into pipes too: filters expect it. */
static bool run_typed(struct io_session *session)
{
    char *line = NULL;
    size_t size = 0;
    bool good = true;

    while (!session->quit) {
        printf("qemu-io> ");
        fflush(stdout);
        ssize_t length = getline(&line, &size, stdin);
        if (length < 0)
            break;
        if (length > 0 && line[length - 1] == '\n')
            line[length - 1] = '\0';
        good &= io_run_line(session, line) == 0;
    }
    free(line);
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
        good &= io_session_close(&session) == 0;
    }
    io_aio_free(session.aio);
    return cli_finish(cli, good ? 0 : 1);
}

int cmd_io(const struct cli *cli, int argc, char **argv)
{
    struct io_arguments args = { .spec = IO_OPEN_SPEC_INIT };

    args.spec.discard = true;
    args.spec.keyring = cli->keyring;
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
