/* SPDX-License-Identifier: MIT */
/*
 * option.c - sizes, key=value lists, and the options that subcommands share.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "option.h"

int option_fail(struct lam_error *err, int code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(err->message, sizeof err->message, fmt, ap);
        va_end(ap);
        err->code = code;
    }
    return -code;
}

/* -------------------------------------------------------------------- sizes */

static int suffix_shift(char suffix)
{
    static const char suffixes[] = "bkmgtpe";
    int lower = tolower((unsigned char)suffix);
    const char *p = lower ? strchr(suffixes, lower) : NULL;

    return p ? (int)(p - suffixes) * 10 : -1;
}

static int parse_hex(const char *text, uint64_t *value)
{
    char *end;

    if (!isxdigit((unsigned char)text[2]))
        return -EINVAL;
    errno = 0;
    *value = strtoull(text, &end, 16);
    if (*end)
        return -EINVAL;
    return errno ? -ERANGE : 0;
}

/* The digits after the point, as a fraction below 1; moves *@text on. */
static double parse_fraction(const char **text)
{
    double fraction = 0, weight = 1;

    for (; isdigit((unsigned char)**text); ++*text) {
        weight /= 10;
        fraction += weight * (**text - '0');
    }
    return fraction;
}

static int parse_decimal(const char *text, uint64_t *value)
{
    const char *p = text;
    uint64_t whole = 0;
    double fraction = 0;
    bool overflow = false;

    for (; isdigit((unsigned char)*p); p++)
        overflow |= __builtin_mul_overflow(whole, 10u, &whole) ||
                    __builtin_add_overflow(whole, (unsigned)(*p - '0'), &whole);
    bool digits = p > text;
    if (*p == '.') {
        const char *start = ++p;
        fraction = parse_fraction(&p);
        digits |= p > start;
    }
    int shift = *p ? suffix_shift(*p++) : 0;
    if (!digits || shift < 0 || *p || (fraction > 0 && shift == 0))
        return -EINVAL;
    if (overflow || (shift && whole >> (64 - shift)))
        return -ERANGE;

    whole <<= shift;
    uint64_t rest = (uint64_t)(fraction * (double)(UINT64_C(1) << shift) + 0.5);
    return __builtin_add_overflow(whole, rest, value) ? -ERANGE : 0;
}

int parse_u64_size(const char *text, uint64_t *value)
{
    while (isspace((unsigned char)*text))
        text++;
    bool negative = *text == '-';
    if (*text == '+' || *text == '-')
        text++;

    int rc = text[0] == '0' && (text[1] | 0x20) == 'x'
                 ? parse_hex(text, value) : parse_decimal(text, value);
    return rc == 0 && negative ? -ERANGE : rc;
}

int parse_size_named(const char *text, const char *what, uint64_t *bytes,
                     struct lam_error *err)
{
    uint64_t value = 0;
    int rc = parse_u64_size(text, &value);

    if (rc == 0 && value > INT64_MAX)
        rc = -ERANGE;
    if (rc == -ERANGE)
        return option_fail(err, ERANGE, "Invalid %s specified. Must be "
                           "between 0 and %lld.", what, (long long)INT64_MAX);
    if (rc < 0)
        return option_fail(err, EINVAL, "Invalid %s specified: '%s'.", what,
                           text);
    *bytes = value;
    return 0;
}

int parse_size(const char *text, uint64_t *bytes, struct lam_error *err)
{
    return parse_size_named(text, "size", bytes, err);
}

int parse_bool(const char *text, bool *value)
{
    static const char *const yes[] = { "on", "yes", "true", "y" };
    static const char *const no[] = { "off", "no", "false", "n" };

    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        if (!strcmp(text, yes[i]) || !strcmp(text, no[i])) {
            *value = !strcmp(text, yes[i]);
            return 0;
        }
    }
    return -EINVAL;
}

/* ---------------------------------------------------------- key=value lists */

static int add_key(struct keyvals *kv, const char *key, const char *value,
                   struct lam_error *err)
{
    struct keyval *items =
        realloc(kv->items, (kv->count + 1) * sizeof *kv->items);
    struct keyval item = { strdup(key), strdup(value) };

    if (items)
        kv->items = items;
    if (items && item.key && item.value) {
        kv->items[kv->count++] = item;
        return 0;
    }
    free(item.key);
    free(item.value);
    return option_fail(err, ENOMEM, "no memory for an option list");
}

/* Copies up to the comma that ends the item; ",," becomes ",".  Returns what
 * follows the ending comma, or the end. */
static const char *copy_item(const char *text, char *item)
{
    while (*text) {
        if (*text == ',' && *++text != ',')
            break;
        *item++ = *text++;
    }
    *item = '\0';
    return text;
}

/* In place: "k=v" -> k, v; "word" -> word, "on"; "noword" -> word, "off". */
static int add_item(struct keyvals *kv, char *item, struct lam_error *err)
{
    char *equals = strchr(item, '=');

    if (equals) {
        *equals = '\0';
        return add_key(kv, item, equals + 1, err);
    }
    if (!strncmp(item, "no", 2))
        return add_key(kv, item + 2, "off", err);
    return add_key(kv, item, "on", err);
}

int keyvals_parse(struct keyvals *kv, const char *text, struct lam_error *err)
{
    size_t length = strlen(text), commas = 0;

    /* A list that begins or ends with a comma would glue to its neighbours;
     * an even number at the end is literal. */
    while (commas < length && text[length - 1 - commas] == ',')
        commas++;
    if (!length || text[0] == ',' || commas % 2)
        return option_fail(err, EINVAL, "Invalid option list: %s", text);

    char *item = malloc(length + 1);
    if (!item)
        return option_fail(err, ENOMEM, "no memory for an option list");
    int rc = 0;
    while (*text && rc == 0) {
        text = copy_item(text, item);
        rc = add_item(kv, item, err);
    }
    free(item);
    return rc;
}

/* The last one: later ones win. */
static struct keyval *find_key(const struct keyvals *kv, const char *key)
{
    for (size_t i = kv->count; i-- > 0;) {
        if (!strcmp(kv->items[i].key, key))
            return &kv->items[i];
    }
    return NULL;
}

int keyvals_set(struct keyvals *kv, const char *key, const char *value,
                struct lam_error *err)
{
    struct keyval *old = find_key(kv, key);
    char *copy = old ? strdup(value) : NULL;

    if (!old)
        return add_key(kv, key, value, err);
    if (!copy)
        return option_fail(err, ENOMEM, "no memory for an option list");
    free(old->value);
    old->value = copy;
    return 0;
}

const char *keyvals_get(const struct keyvals *kv, const char *key)
{
    const struct keyval *item = find_key(kv, key);

    return item ? item->value : NULL;
}

void keyvals_deinit(struct keyvals *kv)
{
    for (size_t i = 0; i < kv->count; i++) {
        free(kv->items[i].key);
        free(kv->items[i].value);
    }
    free(kv->items);
    free(kv->named);
    *kv = (struct keyvals){ 0 };
}

bool keyvals_ask_help(const char *text)
{
    char *item = malloc(strlen(text) + 1);
    bool found = false;

    while (item && *text && !found) {
        text = copy_item(text, item);
        found = !strcmp(item, "help") || !strcmp(item, "?");
    }
    free(item);
    return found;
}

/* ------------------------------------------------------------------- others */

int output_option(const struct cli *cli, const char *text, bool *json)
{
    *json = !strcmp(text, "json");
    if (*json || !strcmp(text, "human"))
        return 0;
    cli_usage(cli, "--output expects 'human' or 'json' not '%s'", text);
    return -EINVAL;
}

int source_cache_check(const struct cli *cli,
                       const struct source_options *options)
{
    enum lam_cache_mode mode;

    if (!options->cache ||
        lam_cache_mode_parse(options->cache, &mode, NULL) == 0)
        return 0;
    cli_error(cli, "Invalid source cache option: %s", options->cache);
    return -EINVAL;
}

int source_try_open(const struct cli *cli, const char *name,
                    const struct source_options *options, unsigned flags,
                    struct lam_image **out, struct lam_error *err)
{
    struct lam_open_options open_options = LAM_OPEN_OPTIONS_INIT;

    open_options.format = options->format;
    open_options.keyring = cli->keyring;
    open_options.throttles = cli->throttles;
    open_options.policy = options->untrusted ? LAM_POLICY_NONE
                                             : LAM_POLICY_TRUST;
    open_options.flags = flags;
    open_options.snapshot = options->snapshot;
    open_options.l2_cache_size = options->l2_cache_size;
    if (options->image_opts)
        open_options.flags |= LAM_OPEN_IMAGE_OPTS;
    if (options->force_share)
        open_options.flags |= LAM_OPEN_FORCE_SHARE;
    if (!cli->as_qemu)
        open_options.flags |= LAM_OPEN_NAME_LAYERS;
    if (options->cache)
        lam_cache_mode_parse(options->cache, &open_options.cache, NULL);
    warn_name(cli, name, options->image_opts);
    return lam_image_open(name, &open_options, out, err);
}

int source_open(const struct cli *cli, const char *name,
                const struct source_options *options, unsigned flags,
                struct lam_image **out)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (source_cache_check(cli, options) < 0)
        return -EINVAL;
    int rc = source_try_open(cli, name, options, flags, out, &err);
    if (rc < 0)
        cli_report(cli, &err);
    return rc;
}

const char *open_reason(const char *name, const struct lam_error *err)
{
    char prefix[sizeof err->message], system[128];
    int length = snprintf(prefix, sizeof prefix, "Could not open '%s': ", name);

    if (length < 0 || (size_t)length >= sizeof prefix ||
        strncmp(err->message, prefix, (size_t)length))
        return err->message;
    const char *rest = err->message + length;
    errno = err->code;
    snprintf(system, sizeof system, "%m");
    return strcmp(rest, system) ? rest : err->message;
}

/* The name of the file, as the innermost node has it. */
static const char *file_name(const struct lam_image_info *info)
{
    return info->nb_children ? info->children[0].info->filename
                             : info->filename;
}

void warn_guessed(struct lam_image *image)
{
    struct lam_image_info *info;

    if (strcmp(lam_image_format(image), "raw") ||
        lam_image_info(image, &info, NULL) < 0)
        return;
    if (info->format_guessed) {
        fflush(stdout);
        fprintf(stderr,
                "WARNING: Image format was not specified for '%s' and probing "
                "guessed raw.\n"
                "         Automatically detecting the format is dangerous for "
                "raw images, write operations on block 0 will be restricted.\n"
                "         Specify the 'raw' format explicitly to remove the "
                "restrictions.\n", file_name(info));
    }
    lam_image_info_free(info);
}
