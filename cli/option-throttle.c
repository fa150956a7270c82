/* SPDX-License-Identifier: MIT */
/*
 * option-throttle.c - --object throttle-group,id=ID,x-iops-total=N,...
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "object.h"

static const char *const kinds[] = {
    [LAM_THROTTLE_BPS_TOTAL] = "bps-total",
    [LAM_THROTTLE_BPS_READ] = "bps-read",
    [LAM_THROTTLE_BPS_WRITE] = "bps-write",
    [LAM_THROTTLE_IOPS_TOTAL] = "iops-total",
    [LAM_THROTTLE_IOPS_READ] = "iops-read",
    [LAM_THROTTLE_IOPS_WRITE] = "iops-write",
};

#define NUMBER(key) { .name = key, .kind = MEMBER_INT }

static const struct member limits[] = {
    NUMBER("bps-total"), NUMBER("bps-total-max"),
    NUMBER("bps-total-max-length"),
    NUMBER("bps-read"), NUMBER("bps-read-max"),
    NUMBER("bps-read-max-length"),
    NUMBER("bps-write"), NUMBER("bps-write-max"),
    NUMBER("bps-write-max-length"),
    NUMBER("iops-total"), NUMBER("iops-total-max"),
    NUMBER("iops-total-max-length"),
    NUMBER("iops-read"), NUMBER("iops-read-max"),
    NUMBER("iops-read-max-length"),
    NUMBER("iops-write"), NUMBER("iops-write-max"),
    NUMBER("iops-write-max-length"),
    NUMBER("iops-size"),
    { .kind = MEMBER_END }
};

const struct member throttle_members[] = {
    { .name = "qom-type", .kind = MEMBER_STRING, .required = true },
    { .name = "id", .kind = MEMBER_STRING, .required = true },
    { .name = "limits", .kind = MEMBER_PART, .type = "ThrottleLimits",
      .inner = limits },
    NUMBER("x-bps-total"), NUMBER("x-bps-total-max"),
    NUMBER("x-bps-total-max-length"),
    NUMBER("x-bps-read"), NUMBER("x-bps-read-max"),
    NUMBER("x-bps-read-max-length"),
    NUMBER("x-bps-write"), NUMBER("x-bps-write-max"),
    NUMBER("x-bps-write-max-length"),
    NUMBER("x-iops-total"), NUMBER("x-iops-total-max"),
    NUMBER("x-iops-total-max-length"),
    NUMBER("x-iops-read"), NUMBER("x-iops-read-max"),
    NUMBER("x-iops-read-max-length"),
    NUMBER("x-iops-write"), NUMBER("x-iops-write-max"),
    NUMBER("x-iops-write-max-length"),
    NUMBER("x-iops-size"),
    { .kind = MEMBER_END }
};

/* "iops-total", "bps-read-max", "iops-write-max-length" of @options. */
static uint64_t *find_limit(struct lam_throttle_options *options,
                            const char *key)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct lam_throttle_limit *limit = &options->limits[i];
        size_t length = strlen(kinds[i]);
        if (strncmp(key, kinds[i], length))
            continue;
        if (!key[length])
            return &limit->average;
        if (!strcmp(key + length, "-max"))
            return &limit->burst;
        if (!strcmp(key + length, "-max-length"))
            return &limit->burst_seconds;
    }
    return !strcmp(key, "iops-size") ? &options->iops_size : NULL;
}

/* The limits of @tree whose names begin with @prefix. */
static int take_limits(struct json_object *tree, const char *prefix,
                       struct lam_throttle_options *options,
                       struct lam_error *err)
{
    size_t length = strlen(prefix);

    json_object_object_foreach(tree, key, value) {
        uint64_t *limit = strncmp(key, prefix, length)
            ? NULL : find_limit(options, key + length);
        int64_t number = json_object_get_int64(value);
        if (!limit)
            continue;
        if (number < 0 && *prefix)
            return option_fail(err, EINVAL,
                               "Property values cannot be negative");
        if (number > UINT32_MAX && *prefix && strstr(key, "-max-length"))
            return option_fail(err, EINVAL, "%s value must be in therange [0, "
                               "%u]", key, UINT32_MAX);
        *limit = (uint64_t)number;
    }
    return 0;
}

int object_make_throttle(const struct cli *cli, struct json_object *tree,
                         struct lam_error *err)
{
    struct lam_throttle_options options = LAM_THROTTLE_OPTIONS_INIT;
    struct json_object *part = NULL;

    options.id = object_text(tree, "id");
    json_object_object_get_ex(tree, "limits", &part);
    int rc = part ? take_limits(part, "", &options, err) : 0;
    if (rc == 0)
        rc = take_limits(tree, "x-", &options, err);
    if (rc == 0)
        rc = object_make_name(cli, tree, err);
    return rc < 0 ? rc : lam_throttles_add(cli->throttles, &options, err);
}
