/* SPDX-License-Identifier: MIT */
/*
 * utf8.c - characters of UTF-8 text.
 */
#include "base/utf8.h"

/* By the number of bytes that follow the first one. */
static const struct {
    unsigned char mask, lead;
    uint32_t least;
} forms[] = {
    { 0x80, 0x00, 0x1 }, { 0xe0, 0xc0, 0x80 },
    { 0xf0, 0xe0, 0x800 }, { 0xf8, 0xf0, 0x10000 },
};

size_t utf8_decode(const char *text, uint32_t *code_point)
{
    const unsigned char *s = (const unsigned char *)text;
    size_t n = 0;

    while (n < 4 && (s[0] & forms[n].mask) != forms[n].lead)
        n++;
    if (n == 4)
        return 0;

    uint32_t c = s[0] & (unsigned char)~forms[n].mask;
    for (size_t i = 1; i <= n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    if (c < forms[n].least || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *code_point = c;
    return n + 1;
}
