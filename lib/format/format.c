/* SPDX-License-Identifier: MIT */
/*
 * format.c - the formats we know, by name and by their first bytes.
 */
#include "format/format.h"

#include <string.h>

#include "format/with.h"

#define FORMAT(name) extern const struct format_ops format_##name;
#include "format/built.h"
#undef FORMAT

/* In front those that are guessed whoever made the file. */
enum { NB_OWN = 3 };
static const struct format_ops *const formats[] = {
    &format_qcow2,
    &format_luks,
    &format_raw,
#define FORMAT(name) &format_##name,
#include "format/built.h"
#undef FORMAT
};

const struct format_ops *format_find(const char *name)
{
    for (size_t i = 0; i < LAM_ARRAY_SIZE(formats); i++)
        if (!strcmp(formats[i]->name, name))
            return formats[i];
    return NULL;
}

static bool ends_in(const char *name, const char *suffix)
{
    size_t length = strlen(name), tail = strlen(suffix);

    return length > tail && !strcmp(name + length - tail, suffix);
}

static int score_of(const struct format_ops *ops, const uint8_t *head,
                    size_t length, const char *name)
{
    int score = ops->probe ? ops->probe(head, length) : 0;

    return !score && name && ops->suffix && ends_in(name, ops->suffix)
        ? FORMAT_SCORE_SUFFIX : score;
}

const struct format_ops *format_probe(const uint8_t *head, size_t length,
                                      const char *name, bool own_only)
{
    size_t count = own_only ? NB_OWN : LAM_ARRAY_SIZE(formats);
    const struct format_ops *best = &format_raw;
    int best_score = 0;

    for (size_t i = 0; i < count; i++) {
        int score = score_of(formats[i], head, length, name);
        if (score > best_score) {
            best = formats[i];
            best_score = score;
        }
    }
    return best;
}

const struct format_ops *format_find_new(const char *name)
{
    return format_find(strcmp(name, "file") ? name : "raw");
}

/* Nodes of the image layer that are no formats, and known all the same. */
static bool is_node(const char *name)
{
    static const char *const nodes[] = {
        "blkdebug", "blklogwrites", "blkverify", "compress",
        "copy-before-write", "copy-on-read", "host_cdrom", "host_device",
        "null-aio", "null-co", "preallocate", "quorum", "snapshot-access",
        "throttle",
#if LAM_WITH_CURL
        "ftp", "ftps", "http", "https",
#endif
#if LAM_WITH_NBD
        "nbd",
#endif
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(nodes); i++)
        if (!strcmp(name, nodes[i]))
            return true;
    return false;
}

int lam_format_describe(const char *name, struct lam_format_info *out,
                        struct lam_error *err)
{
    const struct format_ops *ops = format_find_new(name);

    *out = (struct lam_format_info){ .name = name };
    if (!ops && is_node(name))
        return 0;
    if (!ops)
        return lam_fail(err, EINVAL, "Unknown file format '%s'", name);
    *out = (struct lam_format_info){
        .name = strcmp(name, "file") ? ops->name : "file",
        .can_create = ops->create || ops->create_set,
        .can_compress = ops->can_compress,
        .can_have_backing = ops->can_have_backing,
        .options = ops->options,
        .nb_options = ops->nb_options,
    };
    return 0;
}
