/* SPDX-License-Identifier: MIT */
/*
 * relative.c - the way from one image file to another, for a header.
 */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/name.h"

/* The directory of @path without links, a slash behind it; NULL with errno. */
static char *real_directory(const char *path)
{
    const char *slash = strrchr(path, '/');
    lam_autofree char *named = !slash ? strdup(".")
        : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    lam_autofree char *real = named ? realpath(named, NULL) : NULL;
    char *out;

    if (!real)
        return NULL;
    return asprintf(&out, "%s/", real[1] ? real : "") < 0 ? NULL : out;
}

/* Up from @directory as far as is needed, and down to @file. */
static char *relative_path(const char *directory, const char *file)
{
    size_t shared = 0, ups = 0;

    for (size_t i = 0; directory[i] && directory[i] == file[i]; i++)
        if (directory[i] == '/')
            shared = i + 1;
    for (const char *c = directory + shared; *c; c++)
        ups += *c == '/';

    const char *down = file + shared;
    /* What stands before a colon would be taken for a protocol. */
    bool guard = !ups && name_has_protocol(down);
    char *name = malloc(2 + 3 * ups + strlen(down) + 1);
    if (!name)
        return NULL;
    char *end = stpcpy(name, guard ? "./" : "");
    while (ups--)
        end = stpcpy(end, "../");
    memcpy(end, down, strlen(down) + 1);
    return name;
}

int name_relative(const char *from, const char *path, char **out,
                  struct lam_error *err)
{
    lam_autofree char *directory = real_directory(from);
    if (!directory)
        return lam_fail_errno(err, errno, "Could not find the directory of "
                              "'%s'", from);
    lam_autofree char *file = realpath(path, NULL);
    if (!file)
        return lam_fail_errno(err, errno, "Could not find '%s'", path);
    *out = relative_path(directory, file);
    return *out ? 0 : lam_fail(err, ENOMEM, "no memory for a file name");
}
