/* SPDX-License-Identifier: MIT */
/*
 * utf16.c - UTF-16 to UTF-8.
 */
#include "base/utf16.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "base/cleanup.h"

static char *put(char *p, uint32_t c)
{
    if (c < 0x80) {
        *p++ = (char)c;
        return p;
    }
    if (c < 0x800) {
        *p++ = (char)(0xc0 | c >> 6);
    } else {
        if (c < 0x10000) {
            *p++ = (char)(0xe0 | c >> 12);
        } else {
            *p++ = (char)(0xf0 | c >> 18);
            *p++ = (char)(0x80 | (c >> 12 & 0x3f));
        }
        *p++ = (char)(0x80 | (c >> 6 & 0x3f));
    }
    *p++ = (char)(0x80 | (c & 0x3f));
    return p;
}

int utf16_to_utf8(const uint8_t *bytes, size_t length, bool big_endian,
                  char **out, struct lam_error *err)
{
    /* Two bytes become three at most, four become four. */
    lam_autofree char *text = malloc(length / 2 * 3 + 1);
    char *p = text;

    if (!text)
        return lam_fail(err, ENOMEM, "no memory for a name");
    for (size_t i = 0; i + 2 <= length; i += 2) {
        uint32_t c = big_endian ? be16_get(bytes + i) : le16_get(bytes + i);
        uint32_t low = 0;
        if (!c)
            break;
        if (c >= 0xd800 && c < 0xdc00 && i + 4 <= length) {
            i += 2;
            low = big_endian ? be16_get(bytes + i) : le16_get(bytes + i);
            if (low >= 0xdc00 && low < 0xe000)
                c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        }
        if (c < 0x20 || c == 0x7f || (c >= 0xd800 && c < 0xe000))
            return lam_fail(err, EINVAL, "character %#x at byte %zu has no "
                            "place in a name", (unsigned)c, i);
        p = put(p, c);
    }
    *p = '\0';
    *out = lam_take(&text);
    return 0;
}
