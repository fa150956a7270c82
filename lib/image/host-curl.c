/* SPDX-License-Identifier: MIT */
/*
 * host-curl.c - the http, https, ftp and ftps nodes: a file on a server, by its
 * URL, for reading.
 */
#include <string.h>

#include "base/cleanup.h"
#include "crypto/keyring.h"
#include "image/host.h"
#include "io/curl.h"

enum {
    DEFAULT_READAHEAD = 256 << 10,
    DEFAULT_TIMEOUT = 5,
    MAX_TIMEOUT = 10000,
};

static int parse_curl(struct node *node, const char *name,
                      struct lam_error *err)
{
    return keylist_add(&node->keys, "url", name, KEY_STRING, err);
}

/* ------------------------------------------------------------------ options */

static int take_values(struct node *node, struct io_curl_options *o,
                       struct lam_error *err)
{
    enum node_switch verify = NODE_UNSET;
    uint64_t seconds = DEFAULT_TIMEOUT;
    int rc = node_take_bytes(node, "readahead", &o->readahead, err);

    if (rc == 0)
        rc = node_take_number(node, "timeout", &seconds, err);
    if (rc == 0)
        rc = node_take_switch(node, "sslverify", &verify, err);
    if (rc == 0 && o->readahead % 512)
        rc = lam_fail(err, EINVAL, "HTTP_READAHEAD_SIZE %llu is not a multiple "
                      "of 512", (unsigned long long)o->readahead);
    if (rc == 0 && seconds > MAX_TIMEOUT)
        rc = lam_fail(err, EINVAL, "timeout parameter is too large or "
                      "negative");
    o->timeout = (unsigned)seconds;
    o->no_verify = verify == NODE_OFF;
    return rc;
}

static int take_secret(struct host_node *n, const char *key, const char **out,
                       struct lam_error *err)
{
    const char *id = node_take_text(n->node, key);

    return id ? keyring_passphrase(n->opening->request->options->keyring, id,
                                   key, out, err) : 0;
}

static int take_url(struct host_node *n, struct io_curl_options *o,
                    struct lam_error *err)
{
    const char *driver = n->driver->name;
    size_t length = strlen(driver);

    o->url = node_take_text(n->node, "url");
    if (!o->url)
        return lam_fail(err, EINVAL, "curl block driver requires an 'url' "
                        "option");
    if (strncmp(o->url, driver, length) || strncmp(o->url + length, "://", 3))
        return lam_fail(err, EINVAL, "%s curl driver cannot handle the URL "
                        "'%s' (does not start with '%s://')", driver, o->url,
                        driver);
    return 0;
}

static int take_options(struct host_node *n, struct io_curl_options *o,
                        struct lam_error *err)
{
    int rc = take_values(n->node, o, err);

    o->cookie = node_take_text(n->node, "cookie");
    if (rc == 0 && o->cookie && node_take_text(n->node, "cookie-secret"))
        rc = lam_fail(err, EINVAL, "curl driver cannot handle both cookie and "
                      "cookie secret");
    if (rc == 0)
        rc = take_secret(n, "cookie-secret", &o->cookie, err);
    if (rc == 0)
        rc = take_url(n, o, err);
    o->username = node_take_text(n->node, "username");
    if (rc == 0)
        rc = take_secret(n, "password-secret", &o->password, err);
    o->proxy_username = node_take_text(n->node, "proxy-username");
    if (rc == 0)
        rc = take_secret(n, "proxy-password-secret", &o->proxy_password, err);
    return rc;
}

/* ------------------------------------------------------------------ opening */

static int check_access(const struct host_node *n, struct lam_error *err)
{
    bool wanted = host_is_writable(n);
    if (n->traits.auto_read_only == NODE_ON)
        return wanted ? lam_fail(err, EROFS, "Block node is read-only") : 0;
    return wanted || n->traits.read_only == NODE_OFF
        ? lam_fail(err, EACCES, "curl driver does not support writes") : 0;
}

static int curl_open(struct host_node *n, struct lam_io **out,
                     struct lam_error *err)
{
    const struct lam_open_options *how = n->opening->request->options;
    struct io_curl_options o = {
        .protocols = *n->driver->name == 'h' ? "http,https" : "ftp,ftps",
        .readahead = DEFAULT_READAHEAD,
        .cache = host_cache(how, &n->traits),
    };

    int rc = check_access(n, err);
    if (rc == 0)
        rc = take_options(n, &o, err);
    if (rc < 0)
        return rc;
    if (how->policy == LAM_POLICY_NONE)
        return lam_fail(err, EPERM, "the policy is to speak to no server");
    n->plain = o.url;
    return io_curl_open(&o, out, err);
}

static const char *const shown[] = {
    "password-secret", "url", "cookie-secret", "proxy-username", "driver",
    "proxy-password-secret", "username", "cookie", "sslverify", NULL
};

#define CURL_DRIVER(scheme)                                                 \
    const struct host_driver host_##scheme = {                              \
        .name = #scheme, .prefix = #scheme ":", .protocol = true,           \
        .shown = shown, .parse_name = parse_curl, .open = curl_open,        \
    }

CURL_DRIVER(http);
CURL_DRIVER(https);
CURL_DRIVER(ftp);
CURL_DRIVER(ftps);
