/* SPDX-License-Identifier: MIT */
/*
 * io-image.c - the session's image: open, close, reopen.
 */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io-aio.h"
#include "io-command.h"
#include "option.h"

/* What a header names may be anything, as with qemu-io. */
static struct lam_open_options default_options(void)
{
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;

    options.policy = LAM_POLICY_TRUST;
    return options;
}

void io_open_spec_deinit(struct io_open_spec *spec)
{
    free(spec->name);
    free(spec->format);
    free(spec->options);
    *spec = (struct io_open_spec)IO_OPEN_SPEC_INIT;
}

/* ------------------------------------------------------------ option values */

int io_parse_cache(const struct cli *cli, const char *text,
                   struct io_open_spec *spec)
{
    if (lam_cache_mode_parse(text, &spec->cache, NULL) >= 0)
        return 0;
    cli_error(cli, "Invalid cache option: %s", text);
    return -1;
}

int io_parse_discard(const struct cli *cli, const char *text,
                     struct io_open_spec *spec)
{
    if (!strcmp(text, "unmap") || !strcmp(text, "on")) {
        spec->discard = true;
        return 0;
    }
    if (!strcmp(text, "ignore") || !strcmp(text, "off")) {
        spec->discard = false;
        return 0;
    }
    cli_error(cli, "Invalid discard option: %s", text);
    return -1;
}

int io_parse_aio(const struct cli *cli, const char *text,
                 struct io_open_spec *spec)
{
    spec->native_aio = !strcmp(text, "native");
    if (spec->native_aio || !strcmp(text, "threads") ||
        !strcmp(text, "io_uring"))
        return 0;
    cli_error(cli, "Invalid aio option: %s", text);
    return -1;
}

/* ------------------------------------------------------------------ opening */

static bool cache_is_direct(enum lam_cache_mode mode)
{
    return mode == LAM_CACHE_NONE || mode == LAM_CACHE_DIRECTSYNC;
}

/* What contradicts itself, in the genuine tool's words; NULL if nothing. */
static const char *spec_mistake(const struct io_open_spec *spec)
{
    if (spec->native_aio && !cache_is_direct(spec->cache))
        return "aio=native was specified, but it requires cache.direct=on, "
               "which was not specified.";
    if (spec->copy_on_read && spec->read_only)
        return "Can't use copy-on-read on read-only device";
    if (spec->force_share && !spec->read_only)
        return "force-share=on can only be used with read-only images";
    if (spec->temporary && spec->options && !spec->name)
        return "a temporary snapshot needs the file's name, not its options";
    return NULL;
}

/* "OPTIONS,file.filename=NAME" with the name's commas doubled; NULL: no
 * memory. */
static char *join_options(const char *options, const char *name)
{
    static const char key[] = ",file.filename=";
    char *joined = malloc(strlen(options) + sizeof key +
                          (name ? 2 * strlen(name) : 0));

    if (!joined)
        return NULL;
    char *end = stpcpy(joined, options);
    if (!name)
        return joined;
    for (end = stpcpy(end, key); *name; name++) {
        if (*name == ',')
            *end++ = ',';
        *end++ = *name;
    }
    *end = '\0';
    return joined;
}

static int open_spec(const struct io_open_spec *spec, struct lam_image **out,
                     struct lam_error *err)
{
    struct lam_open_options options = default_options();

    options.format = spec->format;
    options.cache = spec->cache;
    options.flags = (spec->read_only ? 0 : LAM_OPEN_WRITE) |
                    (spec->force_share ? LAM_OPEN_FORCE_SHARE : 0) |
                    (spec->discard ? LAM_OPEN_UNMAP : 0);
    if (!spec->options)
        return lam_image_open(spec->name, &options, out, err);

    char *joined = join_options(spec->options, spec->name);
    if (!joined)
        return option_fail(err, ENOMEM, "no memory for the options");
    options.flags |= LAM_OPEN_IMAGE_OPTS;
    int rc = lam_image_open(joined, &options, out, err);
    free(joined);
    return rc;
}

/* Ask the file for the format that a temporary overlay has to name. */
static int probe_format(const struct io_open_spec *spec, char **format,
                        struct lam_error *err)
{
    struct io_open_spec reader = *spec;
    struct lam_image *image;

    reader.read_only = true;
    int rc = open_spec(&reader, &image, err);
    if (rc < 0)
        return rc;
    *format = strdup(lam_image_format(image));
    rc = lam_image_close(image, err);
    if (rc == 0 && !*format)
        rc = option_fail(err, ENOMEM, "no memory for the format's name");
    return rc;
}

static int make_overlay(const char *path, const char *backing,
                        const char *format, struct lam_error *err)
{
    struct lam_create_options create = LAM_CREATE_OPTIONS_INIT;

    create.format = "qcow2";
    create.size = LAM_SIZE_FROM_BACKING;
    create.backing_file = backing;
    create.backing_format = format;
    return lam_image_create(path, &create, err);
}

/* The file lives as long as its descriptor: the name goes at once. */
static int open_overlay(const struct io_open_spec *spec, const char *path,
                        struct lam_image **out, struct lam_error *err)
{
    char *format = NULL;
    int rc = probe_format(spec, &format, err);

    if (rc == 0) {
        char *real = realpath(spec->name, NULL);
        rc = make_overlay(path, real ? real : spec->name, format, err);
        free(real);
    }
    if (rc == 0) {
        struct lam_open_options options = default_options();
        options.format = "qcow2";
        options.cache = LAM_CACHE_UNSAFE;
        options.flags = (spec->read_only ? 0 : LAM_OPEN_WRITE) |
                        (spec->discard ? LAM_OPEN_UNMAP : 0);
        rc = lam_image_open(path, &options, out, err);
    }
    free(format);
    return rc;
}

static int open_temporary(const struct io_open_spec *spec,
                          struct lam_image **out, struct lam_error *err)
{
    const char *folder = getenv("TMPDIR");
    char *path = NULL;

    if (asprintf(&path, "%s/lamella-io.XXXXXX",
                 folder && *folder ? folder : "/var/tmp") < 0)
        return option_fail(err, ENOMEM, "no memory for a temporary name");
    int fd = mkstemp(path);
    if (fd < 0) {
        int rc = option_fail(err, errno, "Could not create '%s': %m", path);
        free(path);
        return rc;
    }
    int rc = open_overlay(spec, path, out, err);
    unlink(path);
    close(fd);
    free(path);
    return rc;
}

static void warn_if_guessed(const struct io_open_spec *spec,
                            const struct lam_image *image)
{
    if (spec->format || spec->options || spec->read_only ||
        !strncmp(spec->name, "json:", 5) ||
        strcmp(lam_image_format(image), "raw"))
        return;
    fflush(stdout);
    fprintf(stderr,
            "WARNING: Image format was not specified for '%s' and probing "
            "guessed raw.\n"
            "         Automatically detecting the format is dangerous for raw "
            "images, write operations on block 0 will be restricted.\n"
            "         Specify the 'raw' format explicitly to remove the "
            "restrictions.\n", spec->name);
}

/*
 * The name stands before the reason already; the library's "Could not open
 * 'NAME': " stays only where the system refused the file, as qemu-io has it.
 */
static const char *open_reason(const struct io_open_spec *spec,
                               const struct lam_error *err)
{
    char prefix[sizeof err->message], system[128];
    int length = snprintf(prefix, sizeof prefix, "Could not open '%s': ",
                          spec->name);

    if (length < 0 || (size_t)length >= sizeof prefix ||
        strncmp(err->message, prefix, (size_t)length))
        return err->message;
    const char *reason = err->message + length;
    errno = err->code;
    snprintf(system, sizeof system, "%m");
    return strcmp(reason, system) ? reason : err->message;
}

static int open_checked(struct io_session *session,
                        const struct io_open_spec *spec)
{
    const char *mistake = spec_mistake(spec);
    struct lam_error err = LAM_ERROR_INIT;
    int rc;

    if (mistake)
        rc = option_fail(&err, EINVAL, "%s", mistake);
    else if (spec->temporary)
        rc = open_temporary(spec, &session->image, &err);
    else
        rc = open_spec(spec, &session->image, &err);
    if (rc >= 0) {
        if (!spec->temporary)
            warn_if_guessed(spec, session->image);
        return 0;
    }
    session->image = NULL;
    if (spec->name)
        cli_error(session->cli, "can't open device %s: %s", spec->name,
                  open_reason(spec, &err));
    else
        cli_error(session->cli, "can't open: %s", err.message);
    return -1;
}

int io_session_open(struct io_session *session, struct io_open_spec *spec)
{
    if (session->image) {
        cli_error(session->cli, "file open already, try 'help close'");
        io_open_spec_deinit(spec);
        return -1;
    }
    if (open_checked(session, spec) < 0) {
        io_open_spec_deinit(spec);
        return -1;
    }
    session->spec = *spec;
    return 0;
}

int io_session_close(struct io_session *session)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (!session->image)
        return 0;
    io_aio_drain(session->aio);
    int rc = lam_image_close(session->image, &err);
    session->image = NULL;
    io_open_spec_deinit(&session->spec);
    if (rc < 0)
        cli_report(session->cli, &err);
    return rc < 0 ? -1 : 0;
}

/* ----------------------------------------------------------------- commands */

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
    struct keyvals kv = { NULL, 0 };
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
    struct keyvals kv = { NULL, 0 };
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

    io_aio_drain(session->aio);
    int rc = lam_image_close(session->image, &err);
    session->image = NULL;
    if (rc < 0)
        cli_report(session->cli, &err);
    if (rc == 0 && open_checked(session, wanted) == 0) {
        session->spec = *wanted;    /* the strings are the same */
        return 0;
    }
    if (open_checked(session, &old) < 0)
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
