/* SPDX-License-Identifier: MIT */
/*
 * curl-transfer.c - a connection to an HTTP or FTP server, and what is fetched
 * by it: one blocking request at a time.
 *
 * That a server says to know ranges does not mean that it sends the one that it
 * was asked for, so its answer is looked at before anything is believed.
 */
#include "io/curl-transfer.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/cleanup.h"
#include "io/libcurl-load.h"

struct curl_connection {
    CURL *curl;
    const struct libcurl *lib;
    bool http;                      /* has headers and ranges */
    unsigned timeout;
    char message[CURL_ERROR_SIZE];
    /* What the request under way is for, and has got. */
    uint8_t *to;
    uint64_t offset, length, size, got;
    bool has_ranges;                /* the server says so */
    bool told_range;                /* the answer says which it is */
    bool other_range, other_size;   /* than was asked for */
    bool begun;                     /* bytes have come */
};

/* ------------------------------------------------------------------ answers */

/* The value of header @name in a line of @length bytes; NULL: another one. */
static const char *header_value(const char *line, size_t length,
                                const char *name)
{
    size_t skip = strlen(name);

    if (length < skip || strncasecmp(line, name, skip))
        return NULL;
    while (skip < length && (line[skip] == ' ' || line[skip] == '\t'))
        skip++;
    return line + skip;
}

/* "bytes 512-1023/4096"; the length may be "*". */
static void check_range(struct curl_connection *c, const char *value)
{
    uint64_t first, last, size;
    int n = sscanf(value, "bytes %" SCNu64 "-%" SCNu64 "/%" SCNu64, &first,
                   &last, &size);

    c->told_range = true;
    c->other_range |= n < 2 || first != c->offset;
    c->other_size |= n == 3 && size != c->size;
}

static size_t take_header(char *line, size_t one, size_t length, void *opaque)
{
    struct curl_connection *c = opaque;
    char copy[128];
    const char *value;

    (void)one;
    snprintf(copy, sizeof copy, "%.*s",
             (int)min_u64(length, sizeof copy - 1), line);
    /* That of a redirection says nothing of where it leads. */
    if (!strncasecmp(copy, "HTTP/", 5)) {
        c->has_ranges = c->told_range = false;
        c->other_range = c->other_size = false;
    }
    value = header_value(copy, strlen(copy), "accept-ranges:");
    if (value && !strncasecmp(value, "bytes", 5))
        c->has_ranges = true;
    value = header_value(copy, strlen(copy), "content-range:");
    if (value && c->to)
        check_range(c, value);
    return length;
}

/* The whole file instead of a range will do where it begins with that.  A part
 * that does not say which may be any, or several with headers between. */
static bool is_wanted(struct curl_connection *c)
{
    long status = 0;

    if (!c->http)
        return true;
    c->lib->curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    return status == 206 ? c->told_range && !c->other_range && !c->other_size
                         : status == 200 && c->offset == 0;
}

/* As many bytes as are wanted; fewer than came end the transfer. */
static size_t take_bytes(char *bytes, size_t one, size_t count, void *opaque)
{
    struct curl_connection *c = opaque;
    size_t n = min_u64(count, c->length - c->got);

    (void)one;
    if (!c->to)                         /* of FTP it is told so, too */
        return count;
    if (!c->begun && !is_wanted(c))
        return 0;
    c->begun = true;
    memcpy(c->to + c->got, bytes, n);
    c->got += n;
    return n;
}

/* ----------------------------------------------------------------- requests */

static int failure(CURLcode code)
{
    switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
        return -ETIMEDOUT;
    case CURLE_OUT_OF_MEMORY:
        return -ENOMEM;
    default:
        return -EIO;
    }
}

static int cannot_open(int code, const char *why, struct lam_error *err)
{
    return lam_fail(err, code, "CURL: Error opening file: %s", why);
}

/* The time for an answer is the time for all of it: there is nothing else. */
int curl_fetch_size(struct curl_connection *c, uint64_t *size,
                    struct lam_error *err)
{
    const struct libcurl *lib = c->lib;
    curl_off_t length = -1;

    c->to = NULL;
    c->message[0] = '\0';
    c->has_ranges = false;
    lib->curl_easy_setopt(c->curl, CURLOPT_NOBODY, 1L);
    lib->curl_easy_setopt(c->curl, CURLOPT_TIMEOUT, (long)c->timeout);
    CURLcode code = lib->curl_easy_perform(c->curl);
    if (code != CURLE_OK)
        return cannot_open(-failure(code), *c->message ? c->message
                           : lib->curl_easy_strerror(code), err);
    code = lib->curl_easy_getinfo(c->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T,
                                  &length);
    if (code != CURLE_OK || length < 0)
        return cannot_open(ENOTSUP, "Server didn't report file size.", err);
    if (c->http && !c->has_ranges)
        return cannot_open(ENOTSUP, "Server does not support 'range' (byte "
                           "ranges).", err);
    *size = (uint64_t)length;
    return 0;
}

/* How long a range takes depends on its length; not how long nothing comes. */
static void set_range(struct curl_connection *c)
{
    const struct libcurl *lib = c->lib;
    char range[48];

    snprintf(range, sizeof range, "%" PRIu64 "-%" PRIu64, c->offset,
             c->offset + c->length - 1);
    lib->curl_easy_setopt(c->curl, CURLOPT_NOBODY, 0L);
    lib->curl_easy_setopt(c->curl, CURLOPT_HTTPGET, 1L);
    lib->curl_easy_setopt(c->curl, CURLOPT_RANGE, range);
    lib->curl_easy_setopt(c->curl, CURLOPT_TIMEOUT, 0L);
    lib->curl_easy_setopt(c->curl, CURLOPT_CONNECTTIMEOUT, (long)c->timeout);
    lib->curl_easy_setopt(c->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    lib->curl_easy_setopt(c->curl, CURLOPT_LOW_SPEED_TIME, (long)c->timeout);
}

int curl_fetch(struct curl_connection *c, void *to, uint64_t offset,
               uint64_t length, uint64_t size)
{
    c->to = to;
    c->offset = offset;
    c->length = length;
    c->size = size;
    c->got = 0;
    c->begun = c->told_range = c->other_range = c->other_size = false;
    set_range(c);
    CURLcode code = c->lib->curl_easy_perform(c->curl);
    if (c->got == length)
        return 0;
    return c->other_size ? -ESTALE : failure(code);
}

/* -------------------------------------------------------------- connections */

static void set_text(struct curl_connection *c, CURLoption option,
                     const char *text)
{
    if (text)
        c->lib->curl_easy_setopt(c->curl, option, text);
}

static bool set_options(struct curl_connection *c,
                        const struct io_curl_options *o)
{
    const struct libcurl *lib = c->lib;
    bool verify = !o->no_verify;

    set_text(c, CURLOPT_COOKIE, o->cookie);
    set_text(c, CURLOPT_USERNAME, o->username);
    set_text(c, CURLOPT_PASSWORD, o->password);
    set_text(c, CURLOPT_PROXYUSERNAME, o->proxy_username);
    set_text(c, CURLOPT_PROXYPASSWORD, o->proxy_password);
    lib->curl_easy_setopt(c->curl, CURLOPT_SSL_VERIFYPEER, (long)verify);
    lib->curl_easy_setopt(c->curl, CURLOPT_SSL_VERIFYHOST, verify ? 2L : 0L);
    lib->curl_easy_setopt(c->curl, CURLOPT_ERRORBUFFER, c->message);
    lib->curl_easy_setopt(c->curl, CURLOPT_NOSIGNAL, 1L);
    lib->curl_easy_setopt(c->curl, CURLOPT_FAILONERROR, 1L);
    lib->curl_easy_setopt(c->curl, CURLOPT_FOLLOWLOCATION, 1L);
    lib->curl_easy_setopt(c->curl, CURLOPT_MAXREDIRS, 16L);
    lib->curl_easy_setopt(c->curl, CURLOPT_HEADERFUNCTION, take_header);
    lib->curl_easy_setopt(c->curl, CURLOPT_HEADERDATA, c);
    lib->curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, take_bytes);
    lib->curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, c);
    return lib->curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS_STR, o->protocols)
            == CURLE_OK
        && lib->curl_easy_setopt(c->curl, CURLOPT_REDIR_PROTOCOLS_STR,
                                 o->protocols) == CURLE_OK
        && lib->curl_easy_setopt(c->curl, CURLOPT_URL, o->url) == CURLE_OK;
}

void curl_connection_free(struct curl_connection *c)
{
    if (!c)
        return;
    if (c->curl)
        c->lib->curl_easy_cleanup(c->curl);
    free(c);
}

int curl_connection_new(const struct io_curl_options *o,
                        struct curl_connection **out, struct lam_error *err)
{
    const struct libcurl *lib;
    int rc = libcurl_load(&lib, err);

    if (rc < 0)
        return rc;
    struct curl_connection *c = calloc(1, sizeof *c);
    if (!c)
        return lam_fail(err, ENOMEM, "no memory for '%s'", o->url);
    c->lib = lib;
    c->http = !strncmp(o->protocols, "http", 4);
    c->timeout = o->timeout;
    c->curl = lib->curl_easy_init();
    if (!c->curl || !set_options(c, o)) {
        rc = lam_fail(err, c->curl ? ENOTSUP : ENOMEM, "libcurl does not do "
                      "'%s'", o->url);
        curl_connection_free(c);
        return rc;
    }
    *out = c;
    return 0;
}
