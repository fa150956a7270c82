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
#include <sys/socket.h>

#include "base/cleanup.h"
#include "crypto/keyring.h"
#include "crypto/tls.h"
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

    if (!length || (export && !export[sizeof export_key - 1]))
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

static int unexpected(const char *key, struct lam_error *err)
{
    return lam_fail(err, EINVAL, "Parameter '%s' is unexpected", key);
}

static int take_switch(struct node *node, const char *key, bool *on,
                       struct lam_error *err)
{
    enum node_switch value = NODE_UNSET;
    int rc = node_take_switch(node, key, &value, err);

    *on = value == NODE_ON;
    return rc;
}

/* A server on a network: one family of addresses may be ruled out. */
static int take_inet(struct node *node, struct io_address *a,
                     struct lam_error *err)
{
    enum node_switch ipv4 = NODE_UNSET, ipv6 = NODE_UNSET;
    bool numeric, mptcp;
    uint64_t unused;
    int rc = node_take_switch(node, "server.ipv4", &ipv4, err);

    a->host = node_take_text(node, "server.host");
    a->port = node_take_text(node, "server.port");
    if (rc == 0)
        rc = node_take_switch(node, "server.ipv6", &ipv6, err);
    if (rc == 0)
        rc = take_switch(node, "server.numeric", &numeric, err);
    if (rc == 0)
        rc = take_switch(node, "server.keep-alive", &a->keep_alive, err);
    if (rc == 0)
        rc = take_switch(node, "server.mptcp", &mptcp, err);
    if (rc == 0)
        rc = node_take_number(node, "server.to", &unused, err);
    if (rc < 0)
        return rc;
    if (!a->host || !a->port)
        return missing(a->host ? "port" : "host", err);
    if (ipv4 == NODE_OFF && ipv6 == NODE_OFF)
        return lam_fail(err, EINVAL,
                        "Cannot disable IPv4 and IPv6 at same time");
    a->family = ipv4 == ipv6 ? AF_UNSPEC
              : ipv4 == NODE_ON || ipv6 == NODE_OFF ? AF_INET : AF_INET6;
    return 0;
}

static int take_local(struct node *node, struct io_address *a,
                      struct lam_error *err)
{
    enum node_switch tight = NODE_UNSET;
    int rc = take_switch(node, "server.abstract", &a->abstract, err);

    a->path = node_take_text(node, "server.path");
    if (rc == 0)
        rc = node_take_switch(node, "server.tight", &tight, err);
    a->loose = tight == NODE_OFF;
    return rc < 0 ? rc : a->path ? 0 : missing("path", err);
}

static int take_machine(struct node *node, struct io_address *a,
                        struct lam_error *err)
{
    a->cid = node_take_text(node, "server.cid");
    a->port = node_take_text(node, "server.port");
    return !a->cid ? missing("cid", err) : a->port ? 0 : missing("port", err);
}

static int take_descriptor(struct node *node, struct io_address *a,
                           struct lam_error *err)
{
    a->descriptor = node_take_text(node, "server.str");
    return a->descriptor ? 0 : missing("str", err);
}

/* "server.type" and what belongs to it. */
static int take_server(struct node *node, struct io_address *a,
                       struct lam_error *err)
{
    const char *type = node_take_text(node, "server.type");

    if (!type)
        return missing("type", err);
    int rc = !strcmp(type, "unix") ? take_local(node, a, err)
           : !strcmp(type, "inet") ? take_inet(node, a, err)
           : !strcmp(type, "vsock") ? take_machine(node, a, err)
           : !strcmp(type, "fd") ? take_descriptor(node, a, err)
           : lam_fail(err, EINVAL, "Parameter 'type' does not accept value "
                      "'%s'", type);
    if (rc < 0)
        return rc;
    const char *other = keylist_unused_below(&node->keys, "server");
    return other ? unexpected(other, err) : 0;
}

static int take_address(struct node *node, struct io_address *a,
                        struct lam_error *err)
{
    bool server = keylist_below(&node->keys, "server");

    a->path = node_take_text(node, "path");
    a->host = node_take_text(node, "host");
    a->port = node_take_text(node, "port");
    if (a->path && a->host)
        return lam_fail(err, EINVAL, "path and host may not be used at the "
                        "same time");
    if (a->port && !a->host)
        return lam_fail(err, EINVAL, "port may not be used without host");
    if (server && (a->path || a->host))
        return lam_fail(err, EINVAL, "Cannot use 'server' and path/host/port "
                        "at the same time");
    if (!a->port)
        a->port = default_port;
    if (a->path || a->host)
        return 0;
    return server ? take_server(node, a, err)
                  : lam_fail(err, EINVAL, "NBD server address missing");
}

/* @o->tls has to be put, whatever is returned. */
static int take_others(struct host_node *n, struct io_nbd_options *o,
                       struct lam_error *err)
{
    enum { MAX_NAME = 4096 };
    const struct lam_open_options *how = n->opening->request->options;
    const char *creds = node_take_text(n->node, "tls-creds");
    int rc = node_take_number(n->node, "reconnect-delay", &o->reconnect_delay,
                              err);

    o->tls_host = node_take_text(n->node, "tls-hostname");
    o->context = node_take_text(n->node, "x-dirty-bitmap");
    o->export = node_take_text(n->node, "export");
    if (!o->export)
        o->export = "";
    if (rc == 0)
        rc = node_take_number(n->node, "open-timeout", &o->open_timeout, err);
    if (rc == 0 && strlen(o->export) > MAX_NAME)
        rc = lam_fail(err, EINVAL, "export name too long to send to server");
    if (rc == 0 && o->context && strlen(o->context) > MAX_NAME)
        rc = lam_fail(err, EINVAL, "x-dirty-bitmap query too long to send to "
                      "server");
    return rc == 0 && creds ? keyring_tls(how->keyring, creds, &o->tls, err)
                            : rc;
}

/* As `info` calls it, what has a name. */
static char *plain_name(const struct io_nbd_options *o)
{
    const struct io_address *a = &o->address;
    bool named = *o->export;
    char *name = NULL;
    int n;

    if (a->path)
        n = asprintf(&name, "nbd+unix://%s%s?socket=%s", named ? "/" : "",
                     o->export, a->path);
    else
        n = asprintf(&name, "nbd://%s:%s%s%s", a->host, a->port,
                     named ? "/" : "", o->export);
    return n < 0 ? NULL : name;
}

static int connect_to(struct host_node *n, struct io_nbd_options *o,
                      struct lam_io **out, struct lam_error *err)
{
    const char *name = "nbd";

    if (o->address.path || o->address.host) {
        name = n->plain = n->own_plain = plain_name(o);
        if (!name)
            return no_memory(err);
    }
    int rc = io_nbd_open(name, o, out, err);
    if (rc == -EACCES && o->writable && n->traits.auto_read_only == NODE_ON) {
        o->writable = false;
        rc = io_nbd_open(name, o, out, err);
    }
    return rc;
}

static int nbd_open(struct host_node *n, struct lam_io **out,
                    struct lam_error *err)
{
    const struct lam_open_options *how = n->opening->request->options;
    struct io_nbd_options o = {
        .writable = host_is_writable(n),
        .cache = host_cache(how, &n->traits),
    };
    int rc = take_address(n->node, &o.address, err);

    if (rc == 0)
        rc = take_others(n, &o, err);
    if (rc == 0 && how->policy == LAM_POLICY_NONE)
        rc = lam_fail(err, EPERM, "the policy is to speak to no server");
    if (rc == 0)
        rc = connect_to(n, &o, out, err);
    tls_credentials_put(o.tls);
    return rc;
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
        rc = take_address(node, &o.address, err);
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
