/* SPDX-License-Identifier: MIT */
/*
 * trace.c - -T, --trace: there are no events to trace.  What asks for some is
 * judged as qemu-img judges it, which knows others but not all.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "option.h"

static const char *const keys[] = { "enable", "events", "file" };

/* A list's first item may do without its key. */
static char *with_key(const char *text)
{
    size_t length = strcspn(text, ",=");
    char *out = malloc(strlen(text) + sizeof "enable=");

    if (out)
        stpcpy(stpcpy(out, text[length] == '=' ? "" : "enable="), text);
    return out;
}

static int judge(const struct cli *cli, const struct keyvals *kv)
{
    const char *events = keyvals_get(kv, "events");

    for (size_t i = 0; i < kv->count; i++) {
        size_t k = 0;
        while (k < sizeof keys / sizeof keys[0] &&
               strcmp(kv->items[i].key, keys[k]))
            k++;
        if (k == sizeof keys / sizeof keys[0]) {
            cli_error(cli, "Invalid parameter '%s'", kv->items[i].key);
            return 1;
        }
    }
    if (events && access(events, R_OK) < 0) {
        cli_error(cli, "%s: %s", events, strerror(errno));
        return 1;
    }
    return -1;
}

static int enable(const struct cli *cli, const char *pattern)
{
    if (!strcmp(pattern, "help") || !strcmp(pattern, "?"))
        return cli_finish(cli, 0);      /* a list of none */
    pattern += *pattern == '-';
    if (!strchr(pattern, '*'))
        cli_warning(cli, "trace event '%s' does not exist", pattern);
    return -1;
}

int cli_trace(const struct cli *cli, const char *text)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct keyvals kv = { 0 };
    int status = 1;

    if (!*text)
        return -1;
    char *list = with_key(text);
    if (!list)
        cli_error(cli, "no memory");
    else if (keyvals_parse(&kv, list, &err) < 0)
        cli_report(cli, &err);
    else
        status = judge(cli, &kv);
    const char *pattern = status < 0 ? keyvals_get(&kv, "enable") : NULL;
    if (pattern)
        status = enable(cli, pattern);
    keyvals_deinit(&kv);
    free(list);
    return status;
}
