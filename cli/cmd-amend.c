/* SPDX-License-Identifier: MIT */
/*
 * cmd-amend.c - `amend`: change an image's version and features in place.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "interrupt.h"
#include "progress.h"
#include "source-option.h"

static const char options_help[] =
    "Amend options for 'qcow2':\n"
    "  backing_file=<str>     - File name of a base image\n"
    "  backing_fmt=<str>      - Image format of the base image\n"
    "  compat=<str>           - Compatibility level (v2 [0.10] or v3 [1.1])\n"
    "  data_file=<str>        - File name of an external data file\n"
    "  data_file_raw=<bool (on/off)> - The external data file must stay valid "
    "as a raw image\n"
    "  encrypt.iter-time=<num> - Time to spend in PBKDF in milliseconds\n"
    "  encrypt.keyslot=<num>  - Select a single keyslot to modify explicitly\n"
    "  encrypt.new-secret=<str> - New secret to set in the matching keyslots. "
    "Empty string to erase\n"
    "  encrypt.old-secret=<str> - Select all keyslots that match this "
    "password\n"
    "  encrypt.state=<str>    - Select new state of affected keyslots "
    "(active/inactive)\n"
    "  lazy_refcounts=<bool (on/off)> - Postpone refcount updates\n"
    "  refcount_bits=<num>    - Width of a reference count entry in bits\n"
    "  size=<size>            - Virtual disk size\n";

static const char luks_options_help[] =
    "Amend options for 'luks':\n"
    "  iter-time=<num>        - Time to spend in PBKDF in milliseconds\n"
    "  keyslot=<num>          - Select a single keyslot to modify explicitly\n"
    "  new-secret=<str>       - New secret to set in the matching keyslots. "
    "Empty string to erase\n"
    "  old-secret=<str>       - Select all keyslots that match this "
    "password\n"
    "  state=<str>            - Select new state of affected keyslots "
    "(active/inactive)\n";

struct amend_args {
    struct source_options source;
    const char *filename;
    struct keyvals options;
    bool has_options, ask_help, progress, quiet, force;
};

/* What the -o list says. */
struct request {
    struct lam_amend_options image;
    struct lam_key_slot_options keys;
    bool has_keys, has_state, has_iter_time;
    bool encrypted;             /* the image is */
};

enum { OPT_FORCE = OPT_OWN };

static const struct command_option option_rows[] = {
    { 'o', "options", "OPTIONS",
      "what is to become of it, \"key=value,...\"; \"help\" lists the "
      "keys", 0 },
    SOURCE_OPTIONS,
    OPTION_CACHE('t'),
    OPTION_PROGRESS,
    OPTION_QUIET,
    { OPT_FORCE, "force", NULL,
      "overwrite a key slot in use, erase the last one", 0 },
    OPTION_HELP,
    { 0 },
};

/* ------------------------------------------------------------- command line */

static int take_options(const struct cli *cli, struct amend_args *args,
                        const char *text)
{
    struct lam_error err = LAM_ERROR_INIT;

    args->has_options = true;
    args->ask_help |= keyvals_ask_help(text);
    if (keyvals_parse(&args->options, text, &err) == 0)
        return -1;
    cli_report(cli, &err);
    return 1;
}

static int take_cache(const struct cli *cli, struct amend_args *args,
                      const char *text)
{
    enum lam_cache_mode mode;

    args->source.cache = text;
    if (lam_cache_mode_parse(text, &mode, NULL) == 0)
        return -1;
    cli_error(cli, "Invalid cache option: %s", text);
    return 1;
}

/* -1: go on; else the exit status. */
static int take_option(const struct cli *cli, int c, void *opaque)
{
    struct amend_args *args = opaque;

    switch (c) {
    case 'o':
        return take_options(cli, args, optarg);
    case 't':
        return take_cache(cli, args, optarg);
    case 'p':
        args->progress = true;
        return -1;
    case 'q':
        args->quiet = true;
        return -1;
    case OPT_FORCE:
        args->force = true;
        return -1;
    default:
        return source_option(cli, c, &args->source);
    }
}

static int no_amendment(const struct cli *cli, const char *format)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (create_format_check(format, &err) == -EINVAL)
        cli_report(cli, &err);
    else
        cli_error(cli, "Format driver '%s' does not support option amendment",
                  format);
    return 1;
}

static int help_on_options(const struct cli *cli, const char *format)
{
    if (!strcmp(format, "qcow2"))
        fputs(options_help, stdout);
    else if (!strcmp(format, "luks"))
        fputs(luks_options_help, stdout);
    else
        return no_amendment(cli, format);
    return cli_finish(cli, 0);
}

static int parse_args(const struct cli *cli, int argc, char **argv,
                      struct amend_args *args)
{
    int status = command_parse(cli, &command_amend, argc, argv, take_option,
                               args);

    if (status >= 0)
        return status;
    if (!args->has_options)
        return cli_usage(cli, "Must specify options (-o)");
    if (args->ask_help && args->source.format)
        return help_on_options(cli, args->source.format);
    if (optind != argc - 1) {
        cli_error(cli, "Expecting one image file name");
        return 1;
    }
    args->filename = argv[optind];
    return source_options_check(cli, &args->source);
}

/* ------------------------------------------------------- what is to become */

static int take_bool(const struct keyval *item, enum lam_setting *out,
                     struct lam_error *err)
{
    bool on;

    if (parse_bool(item->value, &on) < 0)
        return option_fail(err, EINVAL, "Parameter '%s' expects 'on' or 'off'",
                           item->key);
    *out = on ? LAM_SETTING_ON : LAM_SETTING_OFF;
    return 0;
}

static int take_compat(const struct keyval *item, unsigned *version,
                       struct lam_error *err)
{
    if (!strcmp(item->value, "0.10") || !strcmp(item->value, "v2"))
        *version = 2;
    else if (!strcmp(item->value, "1.1") || !strcmp(item->value, "v3"))
        *version = 3;
    else
        return option_fail(err, EINVAL, "Unknown compatibility level %s",
                           item->value);
    return 0;
}

/* What the library would take for "as it is" is a bad width here. */
static int take_bits(const struct keyval *item, unsigned *bits,
                     struct lam_error *err)
{
    char *end;

    errno = 0;
    unsigned long long value = strtoull(item->value, &end, 0);
    if (end == item->value || *end || errno)
        return option_fail(err, EINVAL, "Parameter '%s' expects a number",
                           item->key);
    *bits = value && value <= 64 ? (unsigned)value : 65;
    return 0;
}

static int take_size(const struct keyval *item, uint64_t *size,
                     struct lam_error *err)
{
    if (parse_u64_size(item->value, size) == 0 && *size <= INT64_MAX)
        return 0;
    return option_fail(err, EINVAL, "Parameter '%s' expects a non-negative "
                       "number below 2^64\nOptional suffix k, M, G, T, P or E "
                       "means kilo-, mega-, giga-, tera-, peta-\nand exabytes, "
                       "respectively.", item->key);
}

static bool has_key(const char *const *keys, const char *key)
{
    while (*keys && strcmp(*keys, key))
        keys++;
    return *keys;
}

/* Told apart from what nobody knows. */
static int refuse_item(const char *key, bool creation, struct lam_error *err)
{
    return option_fail(err, EINVAL, "Invalid parameter '%s'%s", key, !creation ?
                       "" : "\nThis option is only supported for image "
                       "creation");
}

static bool is_luks_creation_option(const char *key)
{
    static const char *const keys[] = {
        "size", "key-secret", "cipher-alg", "cipher-mode", "ivgen-alg",
        "ivgen-hash-alg", "hash-alg", "detached-header", NULL,
    };
    return has_key(keys, key);
}

static bool is_creation_option(const char *key)
{
    static const char *const keys[] = {
        "cluster_size", "extended_l2", "preallocation", "compression_type",
        "nocow", "extent_size_hint", "encryption", "encrypt.format",
        "encrypt.key-secret", "encrypt.cipher-alg", "encrypt.cipher-mode",
        "encrypt.ivgen-alg", "encrypt.ivgen-hash-alg", "encrypt.hash-alg",
        NULL,
    };
    return has_key(keys, key);
}

static int take_state(const struct keyval *item, struct request *r,
                      struct lam_error *err)
{
    r->has_state = true;
    r->keys.active = !strcmp(item->value, "active");
    if (r->keys.active || !strcmp(item->value, "inactive"))
        return 0;
    return option_fail(err, EINVAL, "Parameter 'state' does not accept value "
                       "'%s'", item->value);
}

static int take_number(const struct keyval *item, uint64_t limit,
                       uint64_t *value, struct lam_error *err)
{
    if (parse_u64_size(item->value, value) == 0 && *value <= limit)
        return 0;
    return option_fail(err, EINVAL, "Parameter '%s' expects a number",
                       item->key);
}

/* @key is without the "encrypt." that qcow2 has in front; 1: none of these. */
static int take_key_item(const struct keyval *item, const char *key,
                         struct request *r, struct lam_error *err)
{
    uint64_t slot = 0;
    int rc = 0;

    if (!strcmp(key, "state")) {
        rc = take_state(item, r, err);
    } else if (!strcmp(key, "new-secret")) {
        r->keys.new_secret = *item->value ? item->value : NULL;
    } else if (!strcmp(key, "old-secret")) {
        r->keys.old_secret = item->value;
    } else if (!strcmp(key, "iter-time")) {
        rc = take_number(item, UINT32_MAX, &r->keys.iter_time, err);
        r->has_iter_time = true;
    } else if (!strcmp(key, "keyslot")) {
        rc = take_number(item, INT32_MAX, &slot, err);
        r->keys.slot = (int)slot;
    } else {
        return 1;
    }
    r->has_keys = true;
    return rc;
}

static int take_item(const struct keyval *item, struct lam_amend_options *o,
                     struct lam_error *err)
{
    const char *key = item->key;

    if (!strcmp(key, "compat"))
        return take_compat(item, &o->version, err);
    if (!strcmp(key, "lazy_refcounts"))
        return take_bool(item, &o->lazy_refcounts, err);
    if (!strcmp(key, "refcount_bits"))
        return take_bits(item, &o->refcount_bits, err);
    if (!strcmp(key, "size"))
        return take_size(item, &o->size, err);
    if (!strcmp(key, "data_file_raw"))
        return take_bool(item, &o->data_file_raw, err);
    if (!strcmp(key, "data_file")) {
        o->data_file = item->value;
        return 0;
    }
    if (!strcmp(key, "backing_file") || !strcmp(key, "backing_fmt"))
        return 0;               /* check_backing() */
    return refuse_item(key, is_creation_option(key), err);
}

static int take_items(const struct keyvals *list, bool luks, struct request *r,
                      struct lam_error *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < list->count; i++) {
        const struct keyval *item = &list->items[i];

        rc = 1;
        if (luks)
            rc = take_key_item(item, item->key, r, err);
        else if (!strncmp(item->key, "encrypt.", 8))
            rc = take_key_item(item, item->key + 8, r, err);
        if (rc > 0 && luks)
            rc = refuse_item(item->key, is_luks_creation_option(item->key),
                             err);
        else if (rc > 0)
            rc = take_item(item, &r->image, err);
    }
    if (rc == 0 && r->has_keys && !r->has_state && r->encrypted)
        rc = option_fail(err, EINVAL, "Parameter 'state' is missing");
    if (rc == 0 && r->has_iter_time && !r->keys.active && r->encrypted)
        rc = option_fail(err, EINVAL, "'iter-time' must not be given when "
                         "erasing keyslots");
    return rc;
}

static bool same_text(const char *a, const char *b)
{
    return (!a && !b) || (a && b && !strcmp(a, b));
}

/* Both may be given if they are what the image has. */
static int check_backing(struct lam_image *image, const struct keyvals *list,
                         struct lam_error *err)
{
    const char *file = keyvals_get(list, "backing_file");
    const char *format = keyvals_get(list, "backing_fmt");
    struct lam_image_info *info;

    if (!file && !format)
        return 0;
    int rc = lam_image_info(image, &info, err);
    if (rc < 0)
        return rc;
    if (!same_text(file, info->backing_filename) ||
        !same_text(format, info->backing_format))
        rc = option_fail(err, ENOTSUP, "Cannot amend the backing file\n"
                         "You can use 'qemu-img rebase' instead.");
    lam_image_info_free(info);
    return rc;
}

static bool is_encrypted(struct lam_image *image)
{
    struct lam_image_info *info;

    if (lam_image_info(image, &info, NULL) < 0)
        return false;
    bool encrypted = info->encrypted;
    lam_image_info_free(info);
    return encrypted;
}

static int prepare(const struct cli *cli, struct lam_image *image,
                   const struct amend_args *args, struct request *r,
                   struct lam_error *err)
{
    bool luks = !strcmp(lam_image_format(image), "luks");
    bool qcow2 = !strcmp(lam_image_format(image), "qcow2");

    *r = (struct request){ LAM_AMEND_OPTIONS_INIT, LAM_KEY_SLOT_OPTIONS_INIT,
                           false, false, false, is_encrypted(image) };
    if (!luks && !qcow2)
        return option_fail(err, ENOTSUP, "Format driver '%s' does not support "
                           "option amendment", lam_image_format(image));
    r->keys.keyring = cli->keyring;
    r->keys.force = args->force;
    int rc = take_items(&args->options, luks, r, err);
    return rc < 0 ? rc : check_backing(image, &args->options, err);
}

static int amend(struct lam_image *image, struct request *r,
                 struct progress *progress, struct lam_error *err)
{
    bool qcow2 = !strcmp(lam_image_format(image), "qcow2");
    int rc = 0;

    r->image.progress = progress_update;
    r->image.progress_opaque = progress;
    if (r->has_keys)
        rc = lam_image_key_slot(image, &r->keys, err);
    return rc == 0 && qcow2 ? lam_image_amend(image, &r->image, err) : rc;
}

/* What ends a line of progress is printed by qemu-img, begun or not. */
static int not_begun(bool shown)
{
    if (shown)
        putchar('\n');
    return 1;
}

static int run(const struct cli *cli, const struct amend_args *args)
{
    struct lam_error err = LAM_ERROR_INIT;
    bool shown = args->progress && !args->quiet;
    struct lam_image *image;
    struct request request;

    if (source_open(cli, args->filename, &args->source,
                    LAM_OPEN_WRITE | LAM_OPEN_UNMAP, &image) < 0)
        return not_begun(shown);
    warn_guessed(image);
    if (args->ask_help) {
        int status = help_on_options(cli, lam_image_format(image));
        lam_image_close(image, NULL);
        return status;
    }
    int rc = prepare(cli, image, args, &request, &err);
    if (rc < 0) {
        lam_image_close(image, NULL);
        cli_report(cli, &err);
        return not_begun(shown);
    }
    interrupt_explain(cli, "'%s' is sound, and may be amended in part; ask for "
                      "it again", args->filename);
    struct progress *progress = progress_begin(shown);
    rc = amend(image, &request, progress, &err);
    if (rc == 0)
        rc = lam_image_close(image, &err);
    else
        lam_image_close(image, NULL);
    progress_end(progress, rc == 0);
    if (rc < 0)
        cli_report(cli, &err);
    return cli_finish_change(cli, rc < 0);
}

static int run_amend(const struct cli *cli, int argc, char **argv)
{
    struct amend_args args = { .filename = NULL };
    int status = parse_args(cli, argc, argv, &args);

    if (status < 0)
        status = run(cli, &args);
    keyvals_deinit(&args.options);
    return status;
}

const struct command command_amend = {
    .name = "amend",
    .run = run_amend,
    .summary = "Change an image's version and features in place",
    .synopsis =
        "[-f FMT | --image-opts] [-t CACHE] [--force] [-p] [-q] [--object "
        "OBJECT] -o OPTIONS FILENAME",
    .options = option_rows,
    .genuine =
        "help quiet progress object format cache options image-opts force",
    .notes =
        "Each step is made by one write of the image's header: whenever it "
        "is killed, the image is whole, and its disk the same.",
    .status =
        "0 done and on disk, 1 failed.",
    .examples =
        "-f qcow2 -o compat=1.1,lazy_refcounts=on disk.qcow2\n"
        "-f qcow2 -o compat=0.10,refcount_bits=16 disk.qcow2\n",
};
