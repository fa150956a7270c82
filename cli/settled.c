/* SPDX-License-Identifier: MIT */
/*
 * settled.c - overlays that are known to fit what their backing file holds.
 */
#include "settled.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

static const char ATTRIBUTE[] = "user.lamella.settled";

enum { TEXT = 48 };

/* What is kept of @path: when it was written to. */
static bool time_of(const char *path, char text[TEXT])
{
    struct stat st;

    if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    snprintf(text, TEXT, "%jd.%09ld", (intmax_t)st.st_mtim.tv_sec,
             st.st_mtim.tv_nsec);
    return true;
}

static void note(const char *overlay, const char *backing)
{
    char text[TEXT];

    if (time_of(backing, text))
        setxattr(overlay, ATTRIBUTE, text, strlen(text), 0);
}

void settled_note(struct lam_image *overlay)
{
    struct lam_image *backing = lam_image_backing(overlay);
    struct lam_image_info *own, *below;

    if (!backing || lam_image_info(overlay, &own, NULL) < 0)
        return;
    if (lam_image_info(backing, &below, NULL) == 0) {
        note(own->filename, below->filename);
        lam_image_info_free(below);
    }
    lam_image_info_free(own);
}

bool settled_is_noted(const char *overlay, const char *backing)
{
    char noted[TEXT], now[TEXT];
    ssize_t n = getxattr(overlay, ATTRIBUTE, noted, sizeof noted);

    return n > 0 && time_of(backing, now) && (size_t)n == strlen(now) &&
           !memcmp(noted, now, (size_t)n);
}
