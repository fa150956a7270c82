/* SPDX-License-Identifier: MIT */
/*
 * parent.c - where a differencing VHD says that its parent is.
 *
 * Windows writes several locators.  The path relative to the image is the one
 * that still means something elsewhere; of an absolute one the last part is
 * taken, and as the last resort the name in the header, which is such a part.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/utf16.h"
#include "format/vpc/vpc.h"

enum {
    PLATFORM_RELATIVE = 0x57327275,     /* "W2ru", UTF-16LE */
    PLATFORM_ABSOLUTE = 0x57326b75,     /* "W2ku" */
    LOCATOR_MAX = 64 * 1024,            /* bytes: a path has 32,767 letters */
};

/* In place, from Windows' separators to ours. */
static void to_slashes(char *path)
{
    for (char *p = path; *p; p++)
        if (*p == '\\')
            *p = '/';
}

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* ".\parent.vhd" → "parent.vhd" */
static const char *without_dot(const char *path)
{
    while (path[0] == '.' && path[1] == '/')
        path += 2;
    return path;
}

static int keep(const char *text, char **path, struct lam_error *err)
{
    if (!*text)
        return 0;
    *path = strdup(text);
    return *path ? 0 : lam_fail(err, ENOMEM, "no memory for the name of the "
                                "parent");
}

static int load_locator(struct lam_io *io, uint64_t file_length,
                        const struct vpc_locator *l, char **path,
                        struct lam_error *err)
{
    if (l->length > LOCATOR_MAX || l->offset > file_length ||
        l->length > file_length - l->offset)
        return lam_fail(err, EUCLEAN, "parent locator: %" PRIu32 " bytes at "
                        "offset %" PRIu64 " are not in the file of %" PRIu64
                        " bytes, or more than %d", l->length, l->offset,
                        file_length, LOCATOR_MAX);
    lam_autofree uint8_t *raw = malloc(l->length + 1);
    if (!raw)
        return lam_fail(err, ENOMEM, "no memory for a parent locator");
    int rc = lam_io_read(io, raw, l->length, l->offset, err);
    lam_autofree char *text = NULL;
    if (rc == 0)
        rc = utf16_to_utf8(raw, l->length, false, &text, err);
    if (rc < 0)
        return lam_error_prefix(err, rc, "parent locator");
    to_slashes(text);
    return keep(l->platform == PLATFORM_RELATIVE ? without_dot(text)
                                                 : last_part(text), path, err);
}

static const struct vpc_locator *find(const struct vpc_header *header,
                                      uint32_t platform)
{
    for (int i = 0; i < VPC_LOCATORS; i++)
        if (header->locators[i].platform == platform &&
            header->locators[i].length)
            return &header->locators[i];
    return NULL;
}

int vpc_parent_load(struct lam_io *io, uint64_t length,
                    const struct vpc_header *header, char **path,
                    struct lam_error *err)
{
    const struct vpc_locator *l = find(header, PLATFORM_RELATIVE);
    lam_autofree char *name = NULL;

    *path = NULL;
    if (!l)
        l = find(header, PLATFORM_ABSOLUTE);
    int rc = l ? load_locator(io, length, l, path, err) : 0;
    if (rc < 0 || *path)
        return rc;
    rc = utf16_to_utf8(header->parent_name, VPC_NAME_BYTES, true, &name, err);
    if (rc < 0)
        return lam_error_prefix(err, rc, "parent name");
    to_slashes(name);
    return keep(last_part(name), path, err);
}
