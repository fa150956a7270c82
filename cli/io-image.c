/* SPDX-License-Identifier: MIT */
/*
 * io-image.c - the session's image: how it is opened, and closed again.
 */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io-aio.h"
#include "io-command.h"
#include "option.h"

/* What a header names may be anything, as with qemu-io. */
static struct lam_open_options
default_options(const struct io_open_spec *spec)
{
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;

    options.keyring = spec->cli->keyring;
    options.throttles = spec->cli->throttles;
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

/* Do the options have @key=on? */
static bool option_is_on(const struct io_open_spec *spec, const char *key)
{
    struct keyvals kv = { 0 };
    bool on = false;

    if (!spec->options || keyvals_parse(&kv, spec->options, NULL) < 0)
        return false;
    const char *value = keyvals_get(&kv, key);
    bool is_on = value && parse_bool(value, &on) >= 0 && on;
    keyvals_deinit(&kv);
    return is_on;
}

/* What the genuine tool finds out when it has opened the file. */
static const char *late_mistake(const struct io_open_spec *spec)
{
    if (spec->native_aio && !cache_is_direct(spec->cache) &&
        !option_is_on(spec, "cache.direct"))
        return "aio=native was specified, but it requires cache.direct=on, "
               "which was not specified.";
    if (spec->copy_on_read && spec->read_only)
        return "Can't use copy-on-read on read-only device";
    if (!spec->read_only && option_is_on(spec, "read-only"))
        return "Block node is read-only";
    return NULL;
}

/* What contradicts itself, in the genuine tool's words; NULL if nothing. */
static const char *spec_mistake(const struct io_open_spec *spec)
{
    if (spec->force_share && !spec->read_only && !spec->temporary)
        return "force-share=on can only be used with read-only images";
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

/* A json: name with the options on top; NULL: no memory, or no JSON. */
static char *join_json(const char *options, const char *name)
{
    struct keyvals kv = { 0 };
    struct json_object *root = json_tokener_parse(name + strlen("json:"));
    char *joined = NULL;

    if (json_object_is_type(root, json_type_object) &&
        keyvals_parse(&kv, options, NULL) == 0) {
        for (size_t i = 0; i < kv.count; i++)
            json_object_object_add(root, kv.items[i].key,
                                   json_object_new_string(kv.items[i].value));
        if (asprintf(&joined, "json:%s", json_object_to_json_string(root)) < 0)
            joined = NULL;
    }
    keyvals_deinit(&kv);
    json_object_put(root);
    return joined;
}

static bool is_json(const char *name)
{
    return name && !strncmp(name, "json:", 5);
}

/* With both, under one name. */
static char *full_name(const struct io_open_spec *spec)
{
    return is_json(spec->name) ? join_json(spec->options, spec->name)
                               : join_options(spec->options, spec->name);
}

int io_spell_out(const struct cli *cli, char **options)
{
    const char *text = *options;
    size_t first = strcspn(text, "=,");
    bool off = !strncmp(text, "no", 2);
    char *full = NULL;

    if (text[first] == '=' || !first)
        return 0;
    cli_warning(cli, "short-form boolean option '%.*s' deprecated\n"
                "Please use %.*s=%s instead", (int)first, text,
                (int)first - 2 * off, text + 2 * off, off ? "off" : "on");
    if (asprintf(&full, "%.*s=%s%s", (int)first - 2 * off, text + 2 * off,
                 off ? "off" : "on", text + first) < 0) {
        cli_error(cli, "no memory for the options");
        return -1;
    }
    free(*options);
    *options = full;
    return 0;
}

static int open_spec(const struct io_open_spec *spec, struct lam_image **out,
                     struct lam_error *err)
{
    struct lam_open_options options = default_options(spec);

    options.format = spec->format;
    options.cache = spec->cache;
    options.flags = (spec->read_only ? 0 : LAM_OPEN_WRITE) |
                    (spec->force_share ? LAM_OPEN_FORCE_SHARE : 0) |
                    (spec->discard ? LAM_OPEN_UNMAP : 0) |
                    (spec->cli->as_qemu ? 0 : LAM_OPEN_NAME_LAYERS);
    if (!spec->options) {
        warn_name(spec->cli, spec->name, false);
        return lam_image_open(spec->name, &options, out, err);
    }

    char *joined = full_name(spec);
    bool json = is_json(joined);
    if (!joined)
        return option_fail(err, ENOMEM, "no memory for the options");
    options.flags |= json ? 0 : LAM_OPEN_IMAGE_OPTS;
    warn_name(spec->cli, joined, !json);
    int rc = lam_image_open(joined, &options, out, err);
    free(joined);
    return rc;
}

static int open_reader(const struct io_open_spec *spec, struct lam_image **out,
                       struct lam_error *err)
{
    struct io_open_spec reader = *spec;

    reader.read_only = true;
    return open_spec(&reader, out, err);
}

/* Opens only to have the messages in the genuine order. */
static int refuse_late(const struct io_open_spec *spec, const char *mistake,
                       struct lam_error *err)
{
    struct lam_image *image;
    int rc = open_reader(spec, &image, err);
    if (rc < 0)
        return rc;
    lam_image_close(image, NULL);
    return option_fail(err, EINVAL, "%s", mistake);
}

/* Ask the file for the format that a temporary overlay has to name. */
static int probe_format(const struct io_open_spec *spec, char **format,
                        struct lam_error *err)
{
    struct lam_image *image;
    int rc = open_reader(spec, &image, err);
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

/* The options as a name; NULL: no memory. */
static char *json_name(const char *options, const char *format)
{
    struct keyvals kv = { 0 };
    char *name = NULL;

    if (keyvals_parse(&kv, options, NULL) < 0)
        return NULL;
    struct json_object *object = json_object_new_object();
    json_object_object_add(object, "driver", json_object_new_string(format));
    for (size_t i = 0; i < kv.count; i++)
        json_object_object_add(object, kv.items[i].key,
                               json_object_new_string(kv.items[i].value));
    if (asprintf(&name, "json:%s", json_object_to_json_string(object)) < 0)
        name = NULL;
    json_object_put(object);
    keyvals_deinit(&kv);
    return name;
}

/* What the overlay lies over: absolute, or said by options alone. */
static char *overlay_base(const struct io_open_spec *spec, const char *format)
{
    if (spec->options) {
        char *joined = full_name(spec);
        if (!joined || is_json(joined))
            return joined;
        char *name = json_name(joined, format);
        free(joined);
        return name;
    }
    char *real = realpath(spec->name, NULL);
    return real ? real : strdup(spec->name);
}

/* The file lives as long as its descriptor: the name goes at once. */
static int open_overlay(const struct io_open_spec *spec, const char *path,
                        struct lam_image **out, struct lam_error *err)
{
    char *format = NULL;
    int rc = probe_format(spec, &format, err);

    if (rc == 0) {
        char *base = overlay_base(spec, format);
        rc = base ? make_overlay(path, base, format, err)
                  : option_fail(err, ENOMEM, "no memory for a name");
        free(base);
    }
    if (rc == 0) {
        struct lam_open_options options = default_options(spec);
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

void io_report_open(const struct cli *cli, const struct io_open_spec *spec,
                    bool again, const struct lam_error *err)
{
    char *joined = spec->options ? full_name(spec) : NULL;
    const char *name = joined ? joined : spec->name;
    const char *reason = name ? open_reason(name, err) : err->message;

    struct lam_error told = *err;

    if (again) {
        snprintf(told.message, sizeof told.message, "%s", reason);
        cli_report(cli, &told);
    } else if (spec->name) {
        cli_error(cli, "can't open device %s: %s%s", spec->name, reason,
                  cli_hint(reason));
    } else {
        cli_error(cli, "can't open: %s%s", reason, cli_hint(reason));
    }
    free(joined);
}

int io_open_image(struct io_session *session, const struct io_open_spec *spec,
                  struct lam_error *err)
{
    const char *mistake = spec_mistake(spec), *late = late_mistake(spec);
    int rc;

    if (mistake)
        rc = option_fail(err, EINVAL, "%s", mistake);
    else if (late)
        rc = refuse_late(spec, late, err);
    else if (spec->temporary)
        rc = open_temporary(spec, &session->image, err);
    else
        rc = open_spec(spec, &session->image, err);
    if (rc < 0)
        session->image = NULL;
    return rc;
}

int io_open_checked(struct io_session *session,
                    const struct io_open_spec *spec)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (io_open_image(session, spec, &err) < 0) {
        io_report_open(session->cli, spec, false, &err);
        return -1;
    }
    if (!spec->temporary && !spec->read_only)
        warn_guessed(session->image);
    return 0;
}

int io_session_open(struct io_session *session, struct io_open_spec *spec)
{
    if (session->image) {
        cli_error(session->cli, "file open already, try 'help close'");
        io_open_spec_deinit(spec);
        return -1;
    }
    if (io_open_checked(session, spec) < 0) {
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
    io_resume_all(session);
    io_aio_drain(session->aio);
    int rc = lam_image_close(session->image, &err);
    session->image = NULL;
    io_open_spec_deinit(&session->spec);
    /* Of what has failed before, the genuine tool says no more. */
    if (rc < 0 && !(session->cli->as_qemu && session->failed))
        cli_report(session->cli, &err);
    return rc < 0 ? -1 : 0;
}
