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
        rc = io_spell_out(session->cli, &spec.options);
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

/* What the genuine tool can change while an image is open; "X." stands for all
 * that begin so. */
static const char *const changeable[] = {
    "auto-read-only", "cache.direct", "cache.no-flush", "detect-zeroes",
    "discard", "file.cache.direct", "file.cache.no-flush",
    "file.detect-zeroes", "file.discard", "file.drop-cache",
    "file.x-check-cache-dropped", NULL
};
static const char *const changeable_qcow2[] = {
    "cache-clean-interval", "cache-size", "discard-no-unref",
    "l2-cache-entry-size", "l2-cache-size", "lazy-refcounts", "overlap-check",
    "overlap-check.", "pass-discard-other", "pass-discard-request",
    "pass-discard-snapshot", "refcount-cache-size", NULL
};
static const char *const changeable_raw[] = { "offset", "size", NULL };

static bool is_listed(const char *const *list, const char *key)
{
    for (; *list; list++) {
        size_t length = strlen(*list);
        bool all = (*list)[length - 1] == '.';

        if (all ? !strncmp(key, *list, length) : !strcmp(key, *list))
            return true;
    }
    return false;
}

static bool can_change(const char *format, const char *key)
{
    return is_listed(changeable, key) ||
           (!strcmp(format, "qcow2") && is_listed(changeable_qcow2, key)) ||
           (!strcmp(format, "raw") && is_listed(changeable_raw, key));
}

/* A node of the tree names its own options. */
static int refuse_change(const struct cli *cli, const char *key)
{
    if (!strncmp(key, "file.", 5))
        key += 5;
    cli_error(cli, "Cannot change the option '%s'", key);
    return -1;
}

static int take_read_only(const struct cli *cli, const char *value,
                          const struct reopen_request *request)
{
    bool read_only;

    if (request->read_only || request->read_write) {
        cli_error(cli, "Cannot set both -r/-w and 'read-only'");
        return -1;
    }
    if (parse_bool(value, &read_only) < 0) {
        cli_error(cli, "Parameter 'read-only' expects 'on' or 'off'");
        return -1;
    }
    return read_only;
}

/* Nodes have no names here: none of that name can be put below. */
static int refuse_node(const struct cli *cli, const char *name)
{
    cli_error(cli, "Cannot find device='' nor node-name='%s'", name);
    return -1;
}

/* The layer that *@key speaks of, which loses the "backing." in front. */
static struct lam_image *layer_of(struct io_session *session, const char **key)
{
    struct lam_image *layer = session->image;

    while (!strncmp(*key, "backing.", 8) && lam_image_backing(layer)) {
        layer = lam_image_backing(layer);
        *key += 8;
    }
    return layer;
}

/* One of -o; *@more is set if opening has to be told. */
static int reopen_option(struct io_session *session,
                         const struct reopen_request *request,
                         const struct keyval *item, struct io_open_spec *spec,
                         bool *more)
{
    const struct cli *cli = session->cli;
    const char *key = item->key;
    struct lam_image *layer = layer_of(session, &key);
    const char *format = lam_image_format(layer);
    bool below = layer != session->image;

    if (!strcmp(key, "read-only") && !below) {
        int on = take_read_only(cli, item->value, request);

        if (on == 1 && !session->spec.read_only) {
            cli_error(cli, "Read-only block node '%s' cannot support "
                      "read-write users", lam_image_name(session->image));
            return -1;
        }
        spec->read_only = on == 1;
        return on < 0 ? -1 : 0;
    }
    if (!strcmp(key, "backing"))
        return refuse_node(cli, item->value);
    if (request->cache && !strncmp(item->key, "cache.", 6)) {
        cli_error(cli, "Cannot set both -c and the cache options");
        return -1;
    }
    bool same = (!strcmp(key, "driver") && !strcmp(item->value, format))
        || (!strcmp(key, "file.driver") && !strcmp(item->value, "file"));
    *more |= !same;
    if (same || (below && !strcmp(key, "read-only")))
        return 0;
    /* Options of a file below would make a tree of it that lacks the name. */
    bool nameless = below && !strncmp(key, "file.", 5);
    return can_change(format, key) && !nameless ? 0 : refuse_change(cli, key);
}

static char *joined(const char *a, const char *b)
{
    char *all = NULL;

    return asprintf(&all, "%s,%s", a, b) < 0 ? NULL : all;
}

/* What was said at first, then this: the later one counts. */
static int add_options(struct io_session *session, const char *options,
                       struct io_open_spec *spec)
{
    const char *format = lam_image_format(session->image);
    char *said = spec->options ? strdup(spec->options) : NULL;

    if (!said && asprintf(&said, "driver=%s", format) < 0)
        said = NULL;
    spec->options = said ? joined(said, options) : NULL;
    free(said);
    return spec->options ? 0 : -1;
}

/* How long the first of "key=value,key=value" is; ",," is no end. */
static size_t item_length(const char *options)
{
    size_t length = strcspn(options, ",");

    while (options[length] == ',' && options[length + 1] == ',')
        length += 2 + strcspn(options + length + 2, ",");
    return length;
}

/* "a,nob" as "a=on,b=off": each is warned of once, and whatever follows. */
static char *spell_out_each(const struct cli *cli, const char *options)
{
    char *all = strdup("");

    while (all && *options) {
        size_t length = item_length(options);
        char *item = strndup(options, length);
        char *longer = NULL;

        if (item && io_spell_out(cli, &item) == 0)
            longer = *all ? joined(all, item) : strdup(item);
        free(item);
        free(all);
        all = longer;
        options += length + (options[length] == ',');
    }
    return all;
}

static int reopen_spelled_out(struct io_session *session,
                              const struct reopen_request *request,
                              const char *options, struct io_open_spec *spec)
{
    struct keyvals kv = { 0 };
    struct lam_error err = LAM_ERROR_INIT;
    bool more = false;

    if (keyvals_parse(&kv, options, &err) < 0) {
        cli_report(session->cli, &err);
        return -1;
    }
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < kv.count; i++)
        rc = reopen_option(session, request, &kv.items[i], spec, &more);
    keyvals_deinit(&kv);
    return rc < 0 || !more ? rc : add_options(session, options, spec);
}

static int reopen_options(struct io_session *session,
                          const struct reopen_request *request,
                          struct io_open_spec *spec)
{
    char *options = spell_out_each(session->cli, request->options);
    int rc = options ? reopen_spelled_out(session, request, options, spec) : -1;

    free(options);
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
    if (rc == 0) {
        rc = io_open_image(session, wanted, &err);
        if (rc == 0) {
            session->spec = *wanted;    /* the strings are the same ... */
            if (wanted->options != old.options)
                free(old.options);      /* ... but for this one */
            return 0;
        }
        io_report_open(session->cli, wanted, true, &err);
    }
    if (wanted->options != old.options)
        free(wanted->options);
    if (io_open_image(session, &old, &err) < 0) {
        io_report_open(session->cli, &old, true, &err);
        io_open_spec_deinit(&session->spec);
    }
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
        reopen_options(session, &request, &spec) < 0)
        return -1;
    /* An overlay whose file has no name any more stays open. */
    if (spec.temporary && spec.read_only == session->spec.read_only &&
        spec.cache == session->spec.cache) {
        if (spec.options != session->spec.options)
            free(spec.options);
        return 0;
    }
    if (spec.temporary) {
        cli_error(session->cli, "a temporary snapshot cannot be reopened");
        return -1;
    }
    return reopen_as(session, &spec);
}
