/* SPDX-License-Identifier: MIT */
/*
 * error.c - format, prefix and make printable what went wrong.
 */
#include "base/error.h"

#include <stdio.h>
#include <string.h>

#include "base/arith.h"

/* Length of the UTF-8 sequence at @s, 0 if it is not one (overlong forms,
 * surrogates and C1 controls count as not one). */
static size_t utf8_length(const unsigned char *s)
{
    static const struct {
        unsigned char first, last, low, high;   /* of the second byte */
        size_t length;
    } forms[] = {
        { 0xc2, 0xc2, 0xa0, 0xbf, 2 }, { 0xc3, 0xdf, 0x80, 0xbf, 2 },
        { 0xe0, 0xe0, 0xa0, 0xbf, 3 }, { 0xe1, 0xec, 0x80, 0xbf, 3 },
        { 0xed, 0xed, 0x80, 0x9f, 3 }, { 0xee, 0xef, 0x80, 0xbf, 3 },
        { 0xf0, 0xf0, 0x90, 0xbf, 4 }, { 0xf1, 0xf3, 0x80, 0xbf, 4 },
        { 0xf4, 0xf4, 0x80, 0x8f, 4 },
    };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(forms); i++) {
        if (s[0] < forms[i].first || s[0] > forms[i].last)
            continue;
        if (s[1] < forms[i].low || s[1] > forms[i].high)
            return 0;
        for (size_t k = 2; k < forms[i].length; k++)
            if ((s[k] & 0xc0) != 0x80)
                return 0;
        return forms[i].length;
    }
    return 0;
}

/*
 * Copies @src so that it is one line of UTF-8: names come out of images and
 * would otherwise talk to the terminal.  Cut at a character if it is too long.
 */
static void copy_printable(char *dst, size_t size, const char *src)
{
    const unsigned char *s = (const unsigned char *)src;
    size_t used = 0;
    while (*s) {
        bool plain = *s >= 0x20 && *s < 0x7f;
        size_t eat = plain ? 1 : utf8_length(s);
        char escaped[8];
        const char *piece = (const char *)s;
        size_t length = eat;
        if (!eat) {
            length = (size_t)snprintf(escaped, sizeof escaped, "\\x%02x", *s);
            piece = escaped;
            eat = 1;
        }
        if (used + length >= size)
            break;
        memcpy(dst + used, piece, length);
        used += length;
        s += eat;
    }
    dst[used] = '\0';
}

/* Through a local buffer, since the arguments may point into err->message. */
static void set_message(struct lam_error *err, const char *fmt, va_list ap)
{
    char text[sizeof err->message];
    vsnprintf(text, sizeof text, fmt, ap);
    copy_printable(err->message, sizeof err->message, text);
}

int lam_fail(struct lam_error *err, int code, const char *fmt, ...)
{
    assert(code > 0);
    if (!err)
        return -code;
    va_list ap;
    va_start(ap, fmt);
    set_message(err, fmt, ap);
    va_end(ap);
    err->code = code;
    return -code;
}

static const char *system_text(int code, char *buf, size_t size)
{
    return strerror_r(code, buf, size);     /* the GNU one: returns the text */
}

/*
 * Puts @reason behind what err->message says.  If both are too long it is the
 * message that is cut: names of files may have thousands of characters, and the
 * reason is what is said last.
 */
static void join(struct lam_error *err, const char *reason)
{
    size_t size = sizeof err->message, length = strlen(reason);
    size_t used = 0;
    char text[2 * sizeof err->message];

    if (length + 2 < size) {
        copy_printable(text, size - length - 2, err->message);
        used = strlen(text);
        memcpy(text + used, ": ", 2);
        used += 2;
    }
    snprintf(text + used, size, "%s", reason);
    copy_printable(err->message, size, text);
}

int lam_fail_errno(struct lam_error *err, int code, const char *fmt, ...)
{
    assert(code > 0);
    if (!err)
        return -code;
    va_list ap;
    va_start(ap, fmt);
    set_message(err, fmt, ap);
    va_end(ap);
    char buf[128], reason[128];
    snprintf(reason, sizeof reason, "%s", system_text(code, buf, sizeof buf));
    join(err, reason);
    err->code = code;
    return -code;
}

int lam_error_prefix(struct lam_error *err, int rc, const char *fmt, ...)
{
    if (rc >= 0 || !err)
        return rc;
    char rest[sizeof err->message];
    memcpy(rest, err->message, sizeof rest);
    va_list ap;
    va_start(ap, fmt);
    set_message(err, fmt, ap);
    va_end(ap);
    join(err, rest);
    return rc;
}

int lam_check_flags(unsigned flags, unsigned known, struct lam_error *err)
{
    return flags & ~known ? lam_fail(err, EINVAL, "flags %#x are not known "
                                     "here (known: %#x)", flags & ~known,
                                     known) : 0;
}

int lam_check_choice(unsigned value, unsigned last, const char *what,
                     struct lam_error *err)
{
    return value > last ? lam_fail(err, EINVAL, "%s %u (limit: %u)", what,
                                   value, last) : 0;
}
