/* SPDX-License-Identifier: MIT */
/*
 * io-open.c - the commands open, close and reopen.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include "io-aio.h"
#include "io-command.h"
#include "option.h"

static int set_string(char **where, const char *text)
{
    free(*where);
    *where = strdup(text);
    return *where ? 0 : -1;
}

/* One option of open, of those that have a letter. */
static int open_option(const struct cli *cli, int letter,
                       struct io_open_spec *spec)
{
    switch (letter) {
    case 'r': spec->read_only = true; return 0;
    case 's': spec->temporary = true; return 0;
    case 'C': spec->copy_on_read = true; return 0;
    case 'U': spec->force_share = true; return 0;
    case 'n': return io_parse_cache(cli, "none", spec);
    case 'k': return io_parse_aio(cli, "native", spec);
    case 't': return io_parse_cache(cli, optarg, spec);
    case 'd': return io_parse_discard(cli, optarg, spec);
    case 'i': return io_parse_aio(cli, optarg, spec);
    default:  return set_string(&spec->options, optarg);
    }
}

/* "driver=X" and nothing else is a format: say it as one, for its messages. */
static int simplify_options(const struct cli *cli, struct io_open_spec *spec)
{
    struct keyvals kv = { 0 };
    struct lam_error err = LAM_ERROR_INIT;
    int rc = keyvals_parse(&kv, spec->options, &err);

    if (rc < 0) {
        cli_report(cli, &err);
        return -1;
    }
    if (spec->name && kv.count == 1 && !strcmp(kv.items[0].key, "driver")) {
        rc = set_string(&spec->format, kv.items[0].value);
        free(spec->options);
        spec->options = NULL;
    }
    keyvals_deinit(&kv);
    return rc;
}

int io_cmd_open(struct io_session *session, const struct io_command *command,
                int argc, char **argv)
{
    struct io_open_spec spec = IO_OPEN_SPEC_INIT;
    int letter, rc = 0;

    spec.discard = true;
    spec.cli = session->cli;
    while (rc == 0 &&
           (letter = getopt(argc, argv, "rsCnkUt:d:i:o:")) != -1)
        rc = letter == '?' ? io_usage(command)
                           : open_option(session->cli, letter, &spec);
    int rest = argc - optind;
    if (rc == 0 && (rest > 1 || (rest == 0 && !spec.options)))
        rc = io_usage(command);
    if (rc == 0 && rest == 1)
        rc = set_string(&spec.name, argv[optind]);
    if (rc == 0 && spec.options)
        rc = simplify_options(session->cli, &spec);
    if (rc < 0) {
        io_open_spec_deinit(&spec);
        return -1;
    }
    return io_session_open(session, &spec);
}

int io_cmd_close(struct io_session *session, const struct io_command *command,
                 int argc, char **argv)
{
    (void)command, (void)argc, (void)argv;
    return io_session_close(session);
}

struct reopen_request {
    bool read_only, read_write;
    const char *cache, *options;
};

static int reopen_parse(struct reopen_request *request, int argc, char **argv)
{
    int letter;

    while ((letter = getopt(argc, argv, "rwc:o:")) != -1) {
        switch (letter) {
        case 'r': request->read_only = true; break;
        case 'w': request->read_write = true; break;
        case 'c': request->cache = optarg; break;
        case 'o': request->options = optarg; break;
        default:  return -1;
        }
    }
    return optind == argc ? 0 : -1;
}

/* -o read-only=VALUE; nothing else can be changed on an open image. */
static int reopen_options(const struct cli *cli,
                          const struct reopen_request *request,
                          struct io_open_spec *spec)
{
    struct keyvals kv = { 0 };
    struct lam_error err = LAM_ERROR_INIT;

    if (keyvals_parse(&kv, request->options, &err) < 0) {
        cli_report(cli, &err);
        return -1;
    }
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < kv.count; i++) {
        rc = -1;
        if (strcmp(kv.items[i].key, "read-only"))
            cli_error(cli, "Cannot change the option '%s'", kv.items[i].key);
        else if (request->read_only || request->read_write)
            cli_error(cli, "Cannot set both -r/-w and 'read-only'");
        else if (parse_bool(kv.items[i].value, &spec->read_only) < 0)
            cli_error(cli, "Parameter 'read-only' expects 'on' or 'off'");
        else
            rc = 0;
    }
    keyvals_deinit(&kv);
    return rc;
}

/* Close and open again; if the new way fails the old one is tried. */
static int reopen_as(struct io_session *session,
                     const struct io_open_spec *wanted)
{
    struct io_open_spec old = session->spec;
    struct lam_error err = LAM_ERROR_INIT;

    io_resume_all(session);
    io_aio_drain(session->aio);
    int rc = lam_image_close(session->image, &err);
    session->image = NULL;
    if (rc < 0)
        cli_report(session->cli, &err);
    if (rc == 0 && io_open_checked(session, wanted) == 0) {
        session->spec = *wanted;    /* the strings are the same */
        return 0;
    }
    if (io_open_checked(session, &old) < 0)
        io_open_spec_deinit(&session->spec);
    return -1;
}

int io_cmd_reopen(struct io_session *session, const struct io_command *command,
                  int argc, char **argv)
{
    struct reopen_request request = { false, false, NULL, NULL };
    struct io_open_spec spec = session->spec;

    if (reopen_parse(&request, argc, argv) < 0)
        return io_usage(command);
    if (request.read_only && request.read_write) {
        cli_error(session->cli, "Only one -r/-w option may be given");
        return -1;
    }
    if (request.read_only || request.read_write)
        spec.read_only = request.read_only;
    if (request.cache && io_parse_cache(session->cli, request.cache, &spec) < 0)
        return -1;
    if (request.options &&
        reopen_options(session->cli, &request, &spec) < 0)
        return -1;
    if (spec.temporary) {
        cli_error(session->cli, "a temporary snapshot cannot be reopened");
        return -1;
    }
    return reopen_as(session, &spec);
}
