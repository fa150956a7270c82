/* SPDX-License-Identifier: MIT */
/*
 * option-throttle.c - --object throttle-group,id=ID,x-iops-total=N,...
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "option.h"

static const char *const kinds[] = {
    [LAM_THROTTLE_BPS_TOTAL] = "bps-total",
    [LAM_THROTTLE_BPS_READ] = "bps-read",
    [LAM_THROTTLE_BPS_WRITE] = "bps-write",
    [LAM_THROTTLE_IOPS_TOTAL] = "iops-total",
    [LAM_THROTTLE_IOPS_READ] = "iops-read",
    [LAM_THROTTLE_IOPS_WRITE] = "iops-write",
};

/* Sorted, but for what belongs together. */
void throttle_help(void)
{
    static const enum lam_throttle_kind order[] = {
        LAM_THROTTLE_BPS_READ, LAM_THROTTLE_BPS_TOTAL, LAM_THROTTLE_BPS_WRITE,
        LAM_THROTTLE_IOPS_READ, LAM_THROTTLE_IOPS_TOTAL,
        LAM_THROTTLE_IOPS_WRITE,
    };

    fputs("throttle-group options:\n  limits=<ThrottleLimits>\n", stdout);
    for (size_t i = 0; i < sizeof order / sizeof order[0]; i++) {
        const char *kind = kinds[order[i]];
        if (order[i] == LAM_THROTTLE_IOPS_TOTAL)
            fputs("  x-iops-size=<int>\n", stdout);
        printf("  x-%s-max-length=<int>\n  x-%s-max=<int>\n  x-%s=<int>\n",
               kind, kind, kind);
    }
}

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

static int take_limit(const struct keyval *item, uint64_t *value,
                      struct lam_error *err)
{
    char *end;

    errno = 0;
    long long number = strtoll(item->value, &end, 0);
    if (end == item->value || *end || errno)
        return option_fail(err, EINVAL, "Parameter '%s' expects integer",
                           item->key);
    if (number < 0)
        return option_fail(err, EINVAL, "Property values cannot be negative");
    *value = (uint64_t)number;
    return 0;
}

static int take_member(const struct keyval *item,
                       struct lam_throttle_options *options,
                       struct lam_error *err)
{
    static const char *const prefixes[] = { "x-", "limits." };
    const char *key = item->key;

    if (!strcmp(key, "qom-type"))
        return 0;
    if (!strcmp(key, "id")) {
        options->id = item->value;
        return 0;
    }
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        size_t length = strlen(prefixes[i]);
        uint64_t *value = strncmp(key, prefixes[i], length)
            ? NULL : find_limit(options, key + length);
        if (value)
            return take_limit(item, value, err);
    }
    return option_fail(err, EINVAL, "Parameter '%s' is unexpected", key);
}

int throttle_option(const struct cli *cli, const struct keyvals *kv,
                    struct lam_error *err)
{
    struct lam_throttle_options options = LAM_THROTTLE_OPTIONS_INIT;

    for (size_t i = 0; i < kv->count; i++) {
        int rc = take_member(&kv->items[i], &options, err);
        if (rc < 0)
            return rc;
    }
    if (!options.id)
        return option_fail(err, EINVAL, "Parameter 'id' is missing");
    return lam_throttles_add(cli->throttles, &options, err);
}
