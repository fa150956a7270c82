/* SPDX-License-Identifier: MIT */
/*
 * base64.c - bytes written as letters (RFC 4648, section 4).
 */
#include "crypto/base64.h"

#include <errno.h>
#include <string.h>

static int digit(char c)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *p = c ? strchr(digits, c) : NULL;

    return p ? (int)(p - digits) : -1;
}

int base64_decode_secret(const char *text, size_t length, uint8_t *out,
                         size_t *bytes)
{
    uint32_t bits = 0;
    unsigned have = 0;
    char last = 0, before = 0;      /* the two newest characters */

    *bytes = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] == '\n')
            continue;
        int value = text[i] == '=' ? 0 : digit(text[i]);
        if (value < 0)
            return -EINVAL;
        bits = bits << 6 | (uint32_t)value;
        before = last;
        last = text[i];
        if (++have < 4)
            continue;
        out[(*bytes)++] = (uint8_t)(bits >> 16);
        if (before != '=')
            out[(*bytes)++] = (uint8_t)(bits >> 8);
        if (last != '=')
            out[(*bytes)++] = (uint8_t)bits;
        have = 0;
    }
    return 0;
}

int base64_decode(const char *text, size_t length, uint8_t *out, size_t *bytes)
{
    uint32_t bits = 0;
    unsigned have = 0, padding = 0;     /* characters of this group of four */

    *bytes = 0;
    for (size_t i = 0; i < length; i++) {
        if (text[i] && strchr(" \t\r\n", text[i]))
            continue;
        int value = text[i] == '=' ? 0 : digit(text[i]);
        padding += text[i] == '=';
        if (value < 0 || (padding && text[i] != '=') || padding > 2)
            return -EINVAL;
        bits = bits << 6 | (uint32_t)value;
        if (++have < 4)
            continue;
        out[(*bytes)++] = (uint8_t)(bits >> 16);
        out[(*bytes)++] = (uint8_t)(bits >> 8);
        out[(*bytes)++] = (uint8_t)bits;
        have = 0;
    }
    if (have || padding > *bytes)
        return -EINVAL;
    *bytes -= padding;
    return 0;
}
