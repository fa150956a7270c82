/* SPDX-License-Identifier: MIT */
/*
 * host-nbd.c - the nbd node: an export of a server, by the names of URLs
 * (nbd://HOST:PORT/EXPORT, nbd+unix:///EXPORT?socket=PATH), the older
 * nbd:HOST:PORT:exportname=EXPORT and nbd:unix:PATH:exportname=EXPORT, or
 * options.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/host.h"
#include "io/nbd.h"

static const char default_port[] = "10809";

static int no_memory(struct lam_error *err)
{
    return lam_fail(err, ENOMEM, "no memory for the name of an export");
}

static int no_url(struct lam_error *err)
{
    return lam_fail(err, EINVAL, "No valid URL specified");
}

/* -------------------------------------------------------------------- names */

static int hex_digit(char c)
{
    return isdigit((unsigned char)c) ? c - '0'
         : isxdigit((unsigned char)c) ? tolower((unsigned char)c) - 'a' + 10
         : -1;
}

/* @length bytes of a URL with "%41" for "A" as the value of @key. */
static int add_part(struct node *node, const char *key, const char *text,
                    size_t length, struct lam_error *err)
{
    lam_autofree char *value = malloc(length + 1);
    char *end = value;

    if (!value)
        return no_memory(err);
    for (size_t i = 0; i < length; i++) {
        int high = text[i] == '%' && i + 2 < length
            ? hex_digit(text[i + 1]) : -1;
        int low = high >= 0 ? hex_digit(text[i + 2]) : -1;

        if (text[i] == '%' && low < 0)
            return no_url(err);
        *end = text[i];
        if (text[i] == '%') {
            *end = (char)(high << 4 | low);
            i += 2;
        }
        if (!*end++)
            return no_url(err);
    }
    *end = '\0';
    return keylist_add(&node->keys, key, value, KEY_STRING, err);
}

/* "socket=PATH" and nothing else. */
static int parse_query(struct node *node, const char *query,
                       struct lam_error *err)
{
    static const char key[] = "socket=";

    if (strncmp(query, key, sizeof key - 1) || strpbrk(query, "&;"))
        return no_url(err);
    query += sizeof key - 1;
    return *query ? add_part(node, "path", query, strlen(query), err)
                  : no_url(err);
}

static bool is_port(const char *text, size_t length)
{
    unsigned number = 0;

    for (size_t i = 0; i < length; i++) {
        if (!isdigit((unsigned char)text[i]) || length > 5)
            return false;
        number = 10 * number + (unsigned)(text[i] - '0');
    }
    return length && number <= UINT16_MAX;
}

/* "HOST", "HOST:PORT", "[ADDRESS]:PORT": @length bytes. */
static int parse_server(struct node *node, const char *text, size_t length,
                        struct lam_error *err)
{
    const char *end = text + length;
    const char *bracket = *text == '[' ? memchr(text, ']', length) : NULL;
    const char *host = bracket ? text + 1 : text;
    const char *host_end = bracket ? bracket : memchr(text, ':', length);
    const char *port = host_end && bracket ? host_end + 1 : host_end;

    if (!host_end)
        host_end = end;
    if (!port)
        port = end;
    if (host == host_end || (*text == '[' && !bracket) ||
        (port < end && *port != ':'))
        return no_url(err);
    if (port < end && !is_port(port + 1, (size_t)(end - port - 1)))
        return no_url(err);
    int rc = add_part(node, "host", host, (size_t)(host_end - host), err);
    if (rc == 0 && port < end)
        rc = add_part(node, "port", port + 1, (size_t)(end - port - 1), err);
    return rc;
}

/* What follows "nbd://", "nbd+tcp://" or "nbd+unix://" (@local). */
static int parse_url(struct node *node, const char *text, bool local,
                     struct lam_error *err)
{
    size_t server = strcspn(text, "/?");
    const char *path = text + server;
    size_t slash = *path == '/', length = strcspn(path, "?");
    const char *query = path[length] ? path + length + 1 : NULL;

    if (strchr(text, '#') || (local && (server || !query)) ||
        (!local && (!server || query)))
        return no_url(err);
    int rc = local ? parse_query(node, query, err)
                   : parse_server(node, text, server, err);
    if (rc == 0 && length > slash)
        rc = add_part(node, "export", path + slash, length - slash, err);
    return rc;
}

static int add_plain(struct node *node, const char *key, const char *text,
                     size_t length, struct lam_error *err)
{
    lam_autofree char *value = strndup(text, length);

    return value ? keylist_add(&node->keys, key, value, KEY_STRING, err)
                 : no_memory(err);
}

/* "unix:PATH" or "HOST:PORT", then perhaps ":exportname=EXPORT". */
static int parse_old(struct node *node, const char *text, struct lam_error *err)
{
    static const char export_key[] = ":exportname=";
    const char *export = strstr(text, export_key);
    size_t length = export ? (size_t)(export - text) : strlen(text);
    const char *colon = memchr(text, ':', length);
    int rc;

    if (!length)
        return lam_fail(err, EINVAL, "NBD server address missing");
    if (!strncmp(text, "unix:", 5)) {
        rc = add_plain(node, "path", text + 5, length - 5, err);
    } else if (!colon) {
        return lam_fail(err, EINVAL, "error parsing address '%.*s'",
                        (int)length, text);
    } else {
        rc = add_plain(node, "host", text, (size_t)(colon - text), err);
        if (rc == 0)
            rc = add_plain(node, "port", colon + 1,
                           (size_t)(text + length - colon - 1), err);
    }
    if (rc == 0 && export)
        rc = keylist_add(&node->keys, "export", export + sizeof export_key - 1,
                         KEY_STRING, err);
    return rc;
}

static int parse_nbd(struct node *node, const char *name,
                     struct lam_error *err)
{
    static const struct { const char *scheme; bool local; } urls[] = {
        { "nbd://", false }, { "nbd+tcp://", false }, { "nbd+unix://", true },
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(urls); i++) {
        size_t length = strlen(urls[i].scheme);
        if (!strncmp(name, urls[i].scheme, length))
            return parse_url(node, name + length, urls[i].local, err);
    }
    return strncmp(name, "nbd:", 4) ? no_url(err)
                                    : parse_old(node, name + 4, err);
}

/* ------------------------------------------------------------------ options */

static int missing(const char *key, struct lam_error *err)
{
    return lam_fail(err, EINVAL, "Parameter '%s' is missing", key);
}

/* "server.type" and what belongs to it. */
static int take_server(struct node *node, struct io_nbd_options *o,
                       struct lam_error *err)
{
    const char *type = node_take_text(node, "server.type");

    o->path = node_take_text(node, "server.path");
    o->host = node_take_text(node, "server.host");
    o->port = node_take_text(node, "server.port");
    if (!type)
        return missing("type", err);
    if (!strcmp(type, "unix"))
        return o->path ? 0 : missing("path", err);
    if (strcmp(type, "inet"))
        return lam_fail(err, EINVAL, "Parameter 'type' does not accept value "
                        "'%s'", type);
    o->path = NULL;
    return !o->host ? missing("host", err) : o->port ? 0 : missing("port", err);
}

static int take_address(struct node *node, struct io_nbd_options *o,
                        struct lam_error *err)
{
    o->path = node_take_text(node, "path");
    o->host = node_take_text(node, "host");
    o->port = node_take_text(node, "port");
    if (o->path && o->host)
        return lam_fail(err, EINVAL, "path and host may not be used at the "
                        "same time");
    if (o->port && !o->host)
        return lam_fail(err, EINVAL, "port may not be used without host");
    if (!o->port)
        o->port = default_port;
    if (o->path || o->host)
        return 0;
    return keylist_below(&node->keys, "server")
        ? take_server(node, o, err)
        : lam_fail(err, EINVAL, "NBD server address missing");
}

/* How long to wait for a server that went is the genuine tool's to tune. */
static int take_others(struct node *node, struct lam_error *err)
{
    const char *creds = node_take_text(node, "tls-creds");
    uint64_t seconds;
    int rc = node_take_number(node, "reconnect-delay", &seconds, err);

    if (rc == 0)
        rc = node_take_number(node, "open-timeout", &seconds, err);
    if (rc == 0 && creds)
        rc = lam_fail(err, ENOENT, "No TLS credentials with id '%s'", creds);
    return rc;
}

/* As `info` calls it. */
static char *plain_name(const struct io_nbd_options *o)
{
    char *name = NULL;
    bool named = *o->export;
    int n;

    if (o->path)
        n = asprintf(&name, "nbd+unix://%s%s?socket=%s", named ? "/" : "",
                     o->export, o->path);
    else
        n = asprintf(&name, "nbd://%s:%s%s%s", o->host, o->port,
                     named ? "/" : "", o->export);
    return n < 0 ? NULL : name;
}

static int nbd_open(struct host_node *n, struct lam_io **out,
                    struct lam_error *err)
{
    const struct lam_open_options *how = n->opening->request->options;
    struct io_nbd_options o = {
        .writable = host_is_writable(n),
        .cache = host_cache(how, &n->traits),
    };
    int rc = take_address(n->node, &o, err);

    if (rc == 0)
        rc = take_others(n->node, err);
    if (rc < 0)
        return rc;
    o.export = node_take_text(n->node, "export");
    if (!o.export)
        o.export = "";
    if (how->policy == LAM_POLICY_NONE)
        return lam_fail(err, EPERM, "the policy is to speak to no server");
    n->plain = n->own_plain = plain_name(&o);
    if (!n->plain)
        return no_memory(err);
    rc = io_nbd_open(n->plain, &o, out, err);
    /* It may be read, but whoever wants to write cannot do with that. */
    return rc == -EACCES && o.writable && n->traits.auto_read_only == NODE_ON
        ? lam_fail(err, EROFS, "Block node is read-only") : rc;
}

static void node_deinit(struct node **node)
{
    node_free(*node);
}

/* Exports have a fixed size, and are there or not. */
static int nbd_open_new(const char *name, enum lam_cache_mode cache,
                        struct lam_io **out, struct lam_error *err)
{
    struct node *node lam_cleanup(node_deinit) = calloc(1, sizeof *node);
    struct io_nbd_options o = { .writable = true, .cache = cache };

    if (!node)
        return no_memory(err);
    int rc = parse_nbd(node, name, err);
    if (rc == 0)
        rc = take_address(node, &o, err);
    if (rc < 0)
        return rc;
    o.export = node_take_text(node, "export");
    if (!o.export)
        o.export = "";
    rc = io_nbd_open(name, &o, out, err);
    return lam_error_prefix(err, rc, "Protocol driver 'nbd' does not support "
                            "creating new images, so an existing image must be "
                            "selected as the target; however, opening the "
                            "given target as an existing image failed");
}

static const char *const shown[] = { "driver", NULL };

const struct host_driver host_nbd = {
    .name = "nbd", .prefix = "nbd:", .protocol = true, .uses_files = true,
    .shown = shown, .parse_name = parse_nbd, .open = nbd_open,
    .open_new = nbd_open_new,
};
const struct host_driver host_nbd_tcp = {
    .name = "nbd", .prefix = "nbd+tcp:", .protocol = true, .uses_files = true,
    .shown = shown, .parse_name = parse_nbd, .open = nbd_open,
    .open_new = nbd_open_new,
};
const struct host_driver host_nbd_unix = {
    .name = "nbd", .prefix = "nbd+unix:", .protocol = true, .uses_files = true,
    .shown = shown, .parse_name = parse_nbd, .open = nbd_open,
    .open_new = nbd_open_new,
};
