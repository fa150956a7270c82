/* SPDX-License-Identifier: MIT */
/*
 * json.c - the JSON of a "json:" name → a list of keys.
 *
 * Nothing is built but the list: keys of nested objects are joined by dots as
 * they are met.  Strings may stand between single quotes, too, as in what
 * people type into a shell.  Names come out of hostile headers: nesting is
 * limited, and what is no JSON is refused with the reason.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/keylist.h"

enum { MAX_NESTING = 64 };

struct reader {
    const char *at;             /* what is left */
    struct keylist *list;
    unsigned nesting;
    struct lam_error *err;
};

static int refuse(const struct reader *r, const char *why)
{
    return lam_fail(r->err, EINVAL, "Could not parse the JSON options: JSON "
                    "parse error, %s", why);
}

static int no_memory(const struct reader *r)
{
    return lam_fail(r->err, ENOMEM, "no memory for the description of an "
                    "image");
}

static char next(struct reader *r)
{
    r->at += strspn(r->at, " \t\r\n");
    return *r->at;
}

/* @length bytes that begin no token. */
static int stray(const struct reader *r, size_t length)
{
    char why[128];

    snprintf(why, sizeof why, "stray '%.*s'", (int)(length < 100 ? length
                                                                 : 100), r->at);
    return refuse(r, why);
}

/* ----------------------------------------------------------------- strings */

static int hex4(const char *text, unsigned *code)
{
    *code = 0;
    for (unsigned i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdef";
        char lower = (char)(text[i] | (text[i] >= 'A' && text[i] <= 'F' ? 0x20
                                                                        : 0));
        const char *digit = lower ? strchr(digits, lower) : NULL;
        if (!digit)
            return -EINVAL;
        *code = 16 * *code + (unsigned)(digit - digits);
    }
    return 0;
}

static char *put_utf8(char *out, unsigned code)
{
    if (code < 0x80) {
        *out++ = (char)code;
        return out;
    }
    unsigned more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const unsigned char lead[] = { 0, 0xc0, 0xe0, 0xf0 };
    *out++ = (char)(lead[more] | code >> (6 * more));
    while (more--)
        *out++ = (char)(0x80 | (code >> (6 * more) & 0x3f));
    return out;
}

/* Behind "\u": one character, which may take two of them. */
static int take_unicode(struct reader *r, const char **in, char **out)
{
    unsigned code, low;
    char why[64];

    bool good = hex4(*in, &code) == 0 && (code < 0xdc00 || code > 0xdfff);
    if (good && code >= 0xd800 && code < 0xdc00) {
        good = (*in)[4] == '\\' && (*in)[5] == 'u' && hex4(*in + 6, &low) == 0
            && low >= 0xdc00 && low <= 0xdfff;
        if (good)
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    if (!good) {
        snprintf(why, sizeof why, "\\u%.4s is not a valid Unicode character",
                 *in);
        return refuse(r, why);
    }
    if (!code)
        return lam_fail(r->err, EINVAL, "the JSON options hold a NUL "
                        "character");
    *in += code > 0xffff ? 10 : 4;
    *out = put_utf8(*out, code);
    return 0;
}

static int take_escape(struct reader *r, const char **in, char **out)
{
    static const char from[] = "\"'\\/bfnrt", to[] = "\"'\\/\b\f\n\r\t";
    char c = *(*in)++;

    if (c == 'u')
        return take_unicode(r, in, out);
    const char *known = c ? strchr(from, c) : NULL;
    if (!known)
        return refuse(r, "invalid escape sequence in string");
    *(*out)++ = to[known - from];
    return 0;
}

/* The closing quote of the string at @text, or NULL. */
static const char *find_end(const char *text)
{
    for (const char *c = text + 1; *c; c++) {
        if (*c == *text)
            return c;
        if (*c == '\\' && !*++c)
            break;
    }
    return NULL;
}

static int take_string(struct reader *r, char **out)
{
    const char *end = find_end(r->at);

    if (!end)
        return stray(r, strlen(r->at));
    /* No escape is shorter than what it stands for. */
    lam_autofree char *text = malloc((size_t)(end - r->at));
    if (!text)
        return no_memory(r);
    char *to = text;
    for (const char *from = r->at + 1; from < end;) {
        int rc = 0;
        if (*from == '\\') {
            from++;
            rc = take_escape(r, &from, &to);
        } else {
            *to++ = *from++;
        }
        if (rc < 0)
            return rc;
    }
    *to = '\0';
    r->at = end + 1;
    *out = lam_take(&text);
    return 0;
}

/* ------------------------------------------------------------------ values */

static int take_value(struct reader *r, const char *key);

static size_t digits(const char *text)
{
    return strspn(text, "0123456789");
}

/* The length of the number at @text; 0 if there is none. */
static size_t number_length(const char *text)
{
    const char *c = text + (*text == '-');
    size_t n = digits(c);

    if (!n || (*c == '0' && n > 1))
        return 0;
    c += n;
    if (*c == '.') {
        n = digits(c + 1);
        if (!n)
            return 0;
        c += 1 + n;
    }
    if (*c == 'e' || *c == 'E') {
        c++;
        c += *c == '+' || *c == '-';
        n = digits(c);
        if (!n)
            return 0;
        c += n;
    }
    return (size_t)(c - text);
}

/* Whole numbers as they are; others in the shortest form that says as much. */
static int add_number(struct reader *r, const char *key, const char *text)
{
    char shown[40];

    if (strpbrk(text, ".eE")) {
        double value = strtod(text, NULL);
        snprintf(shown, sizeof shown, "%.17g", value);
        text = shown;
    }
    return keylist_add(r->list, key, text, KEY_NUMBER, r->err);
}

static int take_number(struct reader *r, const char *key)
{
    size_t length = number_length(r->at);

    if (!length)
        return stray(r, *r->at == '0' ? digits(r->at)
                        : strspn(r->at, "-+.0123456789eE}"));
    lam_autofree char *text = strndup(r->at, length);
    if (!text)
        return no_memory(r);
    r->at += length;
    return add_number(r, key, text);
}

static int take_keyword(struct reader *r, const char *key)
{
    size_t length = strspn(r->at, "abcdefghijklmnopqrstuvwxyz");
    char word[32];

    snprintf(word, sizeof word, "%.*s", (int)length, r->at);
    r->at += length;
    if (!strcmp(word, "null"))
        return keylist_add(r->list, key, NULL, KEY_NULL, r->err);
    if (!strcmp(word, "true") || !strcmp(word, "false"))
        return keylist_add(r->list, key, *word == 't' ? "on" : "off", KEY_BOOL,
                           r->err);
    char why[64];
    snprintf(why, sizeof why, "invalid keyword '%s'", word);
    return refuse(r, why);
}

static int add_string(struct reader *r, const char *key)
{
    lam_autofree char *text = NULL;
    int rc = take_string(r, &text);

    return rc < 0 ? rc : keylist_add(r->list, key, text, KEY_STRING, r->err);
}

/* What stands between the values of an object or an array: 1: another one
 * follows; 0: it has ended. */
static int take_separator(struct reader *r, char close, const char *what)
{
    char why[48];
    char c = next(r);

    if (!c)
        return refuse(r, "premature EOI");
    r->at++;
    if (c == close)
        return 0;
    if (c == ',')
        return 1;
    snprintf(why, sizeof why, "expected separator in %s", what);
    return refuse(r, why);
}

static int take_array(struct reader *r, const char *prefix)
{
    int more = next(r) == ']' ? 0 : 1;

    if (!more)
        r->at++;
    for (size_t i = 0; more > 0; i++) {
        lam_autofree char *key = NULL;
        if (asprintf(&key, "%s%s%zu", prefix, *prefix ? "." : "", i) < 0) {
            key = NULL;
            return no_memory(r);
        }
        int rc = take_value(r, key);
        if (rc < 0)
            return rc;
        more = take_separator(r, ']', "list");
    }
    return more;
}

static int take_pair(struct reader *r, const char *prefix)
{
    lam_autofree char *name = NULL, *key = NULL;
    size_t before = r->list->count;
    char c = next(r);

    if (!c)
        return refuse(r, "premature EOI");
    if (c != '"' && c != '\'') {
        /* Whatever it is, it has to be something. */
        struct keylist unused lam_cleanup(keylist_deinit) = KEYLIST_INIT;
        struct reader probe = *r;
        probe.list = &unused;
        int rc = take_value(&probe, "");
        return rc < 0 ? rc : refuse(r, "key is not a string in object");
    }
    int rc = take_string(r, &name);
    if (rc < 0)
        return rc;
    c = next(r);
    if (c != ':')
        return refuse(r, c ? "missing : in object pair" : "premature EOI");
    r->at++;
    if (asprintf(&key, "%s%s%s", prefix, *prefix ? "." : "", name) < 0) {
        key = NULL;
        return no_memory(r);
    }
    for (size_t i = 0; i < before; i++)
        if (!strcmp(r->list->items[i].key, key))
            return refuse(r, "duplicate key");
    return take_value(r, key);
}

static int take_object(struct reader *r, const char *prefix)
{
    int more = next(r) == '}' ? 0 : 1;

    if (!more)
        r->at++;
    while (more > 0) {
        int rc = take_pair(r, prefix);
        if (rc < 0)
            return rc;
        more = take_separator(r, '}', "dict");
    }
    return more;
}

static int take_nested(struct reader *r, const char *key)
{
    if (r->nesting == MAX_NESTING)
        return lam_fail(r->err, EINVAL, "JSON nested deeper than %d",
                        MAX_NESTING);
    r->nesting++;
    int rc = *r->at++ == '{' ? take_object(r, key) : take_array(r, key);
    r->nesting--;
    return rc;
}

static int take_value(struct reader *r, const char *key)
{
    char c = next(r);

    if (!c)
        return refuse(r, "premature EOI");
    if (c == '{' || c == '[')
        return take_nested(r, key);
    if (c == '"' || c == '\'')
        return add_string(r, key);
    if (c == '-' || (c >= '0' && c <= '9'))
        return take_number(r, key);
    if (c >= 'a' && c <= 'z')
        return take_keyword(r, key);
    return strchr("]},:", c) ? refuse(r, "expecting value") : stray(r, 1);
}

int keylist_from_json(struct keylist *list, const char *text,
                      struct lam_error *err)
{
    struct reader r = { text, list, 0, err };
    bool object = next(&r) == '{';

    if (!*r.at)
        return lam_fail(err, EINVAL, "Could not parse the JSON options: "
                        "Expecting a JSON value");
    int rc = take_value(&r, "");
    if (rc < 0)
        return rc;
    if (next(&r))
        return lam_fail(err, EINVAL, "Could not parse the JSON options: "
                        "Expecting at most one JSON value");
    return object ? 0 : lam_fail(err, EINVAL, "Invalid JSON object given");
}
