/* SPDX-License-Identifier: MIT */
/*
 * parent.c - the parent locator of a differencing VHDX [2.6.2.6]: keys and
 * values in UTF-16.
 *
 * The relative path is what still means something on another machine; of an
 * absolute one the last part is taken.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/utf16.h"
#include "format/vhdx/vhdx.h"

enum {
    XP_COUNT = 18,              /* u16 */
    XP_ENTRIES = 20,            /* 12 bytes each: */
    XP_ENTRY_BYTES = 12,
    XP_KEY = 0,                 /* u32  offset from the start of the item */
    XP_VALUE = 4,               /* u32 */
    XP_KEY_LENGTH = 8,          /* u16  bytes */
    XP_VALUE_LENGTH = 10,       /* u16 */
};

static int take_text(const uint8_t *bytes, size_t length, uint32_t at,
                     uint16_t n, char **out, struct lam_error *err)
{
    if (at > length || n > length - at)
        return lam_fail(err, EUCLEAN, "parent locator: %u bytes at offset %"
                        PRIu32 " are not in the item of %zu bytes",
                        (unsigned)n, at, length);
    int rc = utf16_to_utf8(bytes + at, n, false, out, err);
    return lam_error_prefix(err, rc, "parent locator");
}

/* The value of @key; *@out is NULL if it has none. */
static int find(const uint8_t *bytes, size_t length, const char *key,
                char **out, struct lam_error *err)
{
    uint16_t count = length >= XP_ENTRIES ? le16_get(bytes + XP_COUNT) : 0;
    int rc = 0;

    *out = NULL;
    if ((size_t)count * XP_ENTRY_BYTES > length - min_u64(length, XP_ENTRIES))
        return lam_fail(err, EUCLEAN, "parent locator: %u entries are not in "
                        "the item of %zu bytes", (unsigned)count, length);
    for (uint16_t i = 0; i < count && rc == 0 && !*out; i++) {
        const uint8_t *e = bytes + XP_ENTRIES + i * XP_ENTRY_BYTES;
        lam_autofree char *name = NULL;
        rc = take_text(bytes, length, le32_get(e + XP_KEY),
                       le16_get(e + XP_KEY_LENGTH), &name, err);
        if (rc == 0 && !strcmp(name, key))
            rc = take_text(bytes, length, le32_get(e + XP_VALUE),
                           le16_get(e + XP_VALUE_LENGTH), out, err);
    }
    return rc;
}

/* Windows' separators become ours. */
static char *as_path(char *text, bool relative)
{
    char *start = text;

    for (char *p = text; *p; p++)
        if (*p == '\\')
            *p = '/';
    if (!relative && strrchr(text, '/'))
        return strrchr(text, '/') + 1;
    while (start[0] == '.' && start[1] == '/')
        start += 2;
    return start;
}

int vhdx_parent_decode(const uint8_t *bytes, size_t length, char **path,
                       struct lam_error *err)
{
    static const char *const keys[] = { "relative_path", "absolute_win32_path",
                                        "volume_path" };
    int rc = 0;

    *path = NULL;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(keys) && rc == 0; i++) {
        lam_autofree char *text = NULL;
        rc = find(bytes, length, keys[i], &text, err);
        if (rc < 0 || !text || !*text)
            continue;
        *path = strdup(as_path(text, i == 0));
        return *path ? 0 : lam_fail(err, ENOMEM, "no memory for the name of "
                                    "the parent");
    }
    return rc;
}
