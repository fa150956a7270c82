/* SPDX-License-Identifier: MIT */
/*
 * settled.c - overlays that are known to fit what their backing file holds.
 */
#include "settled.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

static const char ATTRIBUTE[] = "user.lamella.settled";

enum { TEXT = 128 };

/* What is kept of @backing, so that it differs in the beginning if the file is
 * another one. */
static bool describe(const char *overlay, const char *backing, char text[TEXT],
                     size_t *identity)
{
    struct stat own, st;

    if (stat(overlay, &own) < 0 || stat(backing, &st) < 0 ||
        !S_ISREG(st.st_mode))
        return false;
    *identity = (size_t)snprintf(text, TEXT, "%ju %ju ", (uintmax_t)own.st_ino,
                                 (uintmax_t)st.st_ino);
    snprintf(text + *identity, TEXT - *identity, "%jd %jd.%09ld",
             (intmax_t)st.st_size, (intmax_t)st.st_mtim.tv_sec,
             st.st_mtim.tv_nsec);
    return true;
}

static void note(const char *overlay, const char *backing)
{
    char text[TEXT];
    size_t identity;

    if (describe(overlay, backing, text, &identity))
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

void settled_note_path(const char *overlay)
{
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;
    struct lam_image_info *info;
    struct lam_image *image;

    options.flags = LAM_OPEN_METADATA | LAM_OPEN_FORCE_SHARE;
    if (lam_image_open(overlay, &options, &image, NULL) < 0)
        return;
    if (lam_image_info(image, &info, NULL) == 0) {
        if (info->full_backing_filename)
            note(info->filename, info->full_backing_filename);
        lam_image_info_free(info);
    }
    lam_image_close(image, NULL);
}

static enum settled noted_state(const char *overlay, const char *backing)
{
    char noted[TEXT] = "", now[TEXT];
    size_t identity;

    if (getxattr(overlay, ATTRIBUTE, noted, sizeof noted - 1) <= 0 ||
        !describe(overlay, backing, now, &identity))
        return SETTLED_UNKNOWN;
    /* The overlay itself may be a copy of the one that was meant. */
    if (strncmp(noted, now, strcspn(now, " ") + 1))
        return SETTLED_UNKNOWN;
    if (strncmp(noted, now, identity))
        return SETTLED_OTHER;
    return strcmp(noted, now) ? SETTLED_WRITTEN : SETTLED_SAME;
}

static bool is_later(struct statx_timestamp a, struct statx_timestamp b)
{
    return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
}

/* By their times alone: an overlay is younger than its backing file, and than
 * what was last written there.  A copy that kept its times says nothing. */
static enum settled compare_times(const char *overlay, const char *backing)
{
    const unsigned mask = STATX_BTIME | STATX_MTIME;
    struct statx own, below;

    if (statx(AT_FDCWD, overlay, 0, mask, &own) < 0 ||
        statx(AT_FDCWD, backing, 0, mask, &below) < 0 ||
        (own.stx_mask & mask) != mask || (below.stx_mask & mask) != mask)
        return SETTLED_UNKNOWN;
    if (is_later(below.stx_mtime, own.stx_btime))
        return SETTLED_WRITTEN;
    if (is_later(below.stx_btime, own.stx_btime) &&
        !is_later(own.stx_btime, own.stx_mtime))
        return SETTLED_OTHER;
    return SETTLED_SAME;
}

enum settled settled_look(const char *overlay, const char *backing)
{
    enum settled state = noted_state(overlay, backing);

    return state == SETTLED_UNKNOWN ? compare_times(overlay, backing) : state;
}
