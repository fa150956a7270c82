/* SPDX-License-Identifier: MIT */
/*
 * option-create.c - the -o options of create and convert.
 *
 * Two halves, since qemu-img prints its "Formatting" line between them: first
 * are all keys known and all numbers numbers, then what the values mean.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "option.h"

#define TEXT   LAM_OPTION_TEXT
#define BOOL   LAM_OPTION_BOOL
#define NUMBER LAM_OPTION_NUMBER
#define SIZE   LAM_OPTION_SIZE
enum { RAW = 1 << 0, QCOW2 = 1 << 1, LUKS = 1 << 2, FILE_LEVEL = 1 << 3 };

/* In the order in which qemu-img prints them; -o help sorts by name.  Those of
 * other formats come from the library. */
static const struct own_option {
    unsigned formats;
    struct lam_option_info info;
} own_options[] = {
    { QCOW2, { "encryption", BOOL, NULL,
      "Encrypt the image with format 'aes'. (Deprecated in favor of "
      "encrypt.format=aes)" } },
    { QCOW2, { "encrypt.format", TEXT, NULL,
      "Encrypt the image, format choices: 'aes', 'luks'" } },
    { QCOW2, { "encrypt.key-secret", TEXT, NULL,
      "ID of secret providing qcow AES key or LUKS passphrase" } },
    { QCOW2, { "encrypt.cipher-alg", TEXT, NULL,
      "Name of encryption cipher algorithm" } },
    { QCOW2, { "encrypt.cipher-mode", TEXT, NULL,
      "Name of encryption cipher mode" } },
    { QCOW2, { "encrypt.ivgen-alg", TEXT, NULL,
      "Name of IV generator algorithm" } },
    { QCOW2, { "encrypt.ivgen-hash-alg", TEXT, NULL,
      "Name of IV generator hash algorithm" } },
    { QCOW2, { "encrypt.hash-alg", TEXT, NULL,
      "Name of encryption hash algorithm" } },
    { QCOW2, { "encrypt.iter-time", NUMBER, NULL,
      "Time to spend in PBKDF in milliseconds" } },
    { QCOW2, { "cluster_size", SIZE, "65536", "qcow2 cluster size" } },
    { QCOW2, { "extended_l2", BOOL, "off", "Extended L2 tables" } },
    { QCOW2, { "preallocation", TEXT, NULL,
      "Preallocation mode (allowed values: off, metadata, falloc, full)" } },
    { QCOW2, { "compression_type", TEXT, "zlib",
      "Compression method used for image cluster compression" } },
    { RAW | QCOW2 | LUKS, { "size", SIZE, NULL, "Virtual disk size" } },
    { LUKS, { "key-secret", TEXT, NULL,
      "ID of the secret that provides the keyslot passphrase" } },
    { LUKS, { "cipher-alg", TEXT, NULL,
      "Name of encryption cipher algorithm" } },
    { LUKS, { "cipher-mode", TEXT, NULL,
      "Name of encryption cipher mode" } },
    { LUKS, { "ivgen-alg", TEXT, NULL,
      "Name of IV generator algorithm" } },
    { LUKS, { "ivgen-hash-alg", TEXT, NULL,
      "Name of IV generator hash algorithm" } },
    { LUKS, { "hash-alg", TEXT, NULL,
      "Name of encryption hash algorithm" } },
    { LUKS, { "iter-time", NUMBER, NULL,
      "Time to spend in PBKDF in milliseconds" } },
    { LUKS, { "detached-header", BOOL, NULL,
      "Create a detached LUKS header" } },
    { QCOW2, { "compat", TEXT, NULL,
      "Compatibility level (v2 [0.10] or v3 [1.1])" } },
    { QCOW2, { "backing_file", TEXT, NULL, "File name of a base image" } },
    { QCOW2, { "backing_fmt", TEXT, NULL, "Image format of the base image" } },
    { QCOW2, { "data_file", TEXT, NULL,
      "File name of an external data file" } },
    { QCOW2, { "data_file_raw", BOOL, NULL,
      "The external data file must stay valid as a raw image" } },
    { QCOW2, { "lazy_refcounts", BOOL, "off", "Postpone refcount updates" } },
    { QCOW2, { "refcount_bits", NUMBER, "16",
      "Width of a reference count entry in bits" } },
    { FILE_LEVEL, { "nocow", BOOL, NULL,
      "Turn off copy-on-write (valid only on btrfs)" } },
    { FILE_LEVEL, { "preallocation", TEXT, NULL,
      "Preallocation mode (allowed values: off, falloc, full)" } },
    { FILE_LEVEL, { "extent_size_hint", SIZE, NULL,
      "Extent size hint for the image file, 0 to disable" } },
};

#define NB_OWN (sizeof own_options / sizeof own_options[0])

/* All options of a format and of the file below, in order. */
struct option_list {
    const struct lam_option_info *items[64];
    size_t count;
};

static unsigned format_bit(const char *format)
{
    if (!strcmp(format, "raw") || !strcmp(format, "file"))
        return RAW;
    return !strcmp(format, "qcow2") ? QCOW2 : !strcmp(format, "luks") ? LUKS
                                                                      : 0;
}

int create_format_check(const char *format, struct lam_error *err)
{
    struct lam_format_info info;

    int rc = lam_format_describe(format, &info, err);
    if (rc == 0 && !info.can_create)
        rc = option_fail(err, ENOTSUP, "Format driver '%s' does not support "
                         "image creation", format);
    return rc;
}

bool format_takes_backing(const char *format)
{
    struct lam_format_info info;

    return lam_format_describe(format, &info, NULL) == 0 &&
           info.can_have_backing;
}

bool format_compresses(const char *format)
{
    struct lam_format_info info;

    return lam_format_describe(format, &info, NULL) == 0 && info.can_compress;
}

static const struct lam_option_info *list_find(const struct option_list *list,
                                               const char *name)
{
    for (size_t i = 0; i < list->count; i++) {
        if (!strcmp(list->items[i]->name, name))
            return list->items[i];
    }
    return NULL;
}

/* The option of the format comes before that of the file. */
static void list_add(struct option_list *list,
                     const struct lam_option_info *info)
{
    if (!list_find(list, info->name) &&
        list->count < sizeof list->items / sizeof list->items[0])
        list->items[list->count++] = info;
}

static void list_own(struct option_list *list, unsigned formats)
{
    for (size_t i = 0; i < NB_OWN && formats; i++) {
        if (own_options[i].formats & formats)
            list_add(list, &own_options[i].info);
    }
}

static struct option_list list_options(const char *format, bool with_file)
{
    struct option_list list = { .count = 0 };
    struct lam_format_info info;

    list_own(&list, format_bit(format));
    if (lam_format_describe(format, &info, NULL) == 0) {
        for (size_t i = 0; i < info.nb_options; i++)
            list_add(&list, &info.options[i]);
    }
    if (with_file)
        list_own(&list, FILE_LEVEL);
    return list;
}

static int check_size(const struct keyval *item, struct lam_error *err)
{
    uint64_t value;
    int rc = parse_u64_size(item->value, &value);

    if (rc == -ERANGE)
        return option_fail(err, EINVAL, "Value '%s' is out of range for "
                           "parameter '%s'", item->value, item->key);
    if (rc < 0)
        return option_fail(err, EINVAL, "Parameter '%s' expects a non-negative "
                           "number below 2^64\nOptional suffix k, M, G, T, P "
                           "or E means kilo-, mega-, giga-, tera-, peta-\n"
                           "and exabytes, respectively.", item->key);
    return 0;
}

static int check_number(const struct keyval *item, struct lam_error *err)
{
    char *end;

    errno = 0;
    unsigned long long value = strtoull(item->value, &end, 0);
    if (errno == ERANGE)
        return option_fail(err, EINVAL, "Value '%s' is too large for parameter "
                           "'%s'", item->value, item->key);
    if (end == item->value || *end || (strchr(item->value, '-') && value))
        return option_fail(err, EINVAL, "Parameter '%s' expects a number",
                           item->key);
    return 0;
}

static int check_item(const struct option_list *list,
                      const struct keyval *item, struct lam_error *err)
{
    const struct lam_option_info *option = list_find(list, item->key);
    bool value;

    if (!option)
        return option_fail(err, EINVAL, "Invalid parameter '%s'", item->key);
    if (option->kind == SIZE)
        return check_size(item, err);
    if (option->kind == NUMBER)
        return check_number(item, err);
    if (option->kind == BOOL && parse_bool(item->value, &value) < 0)
        return option_fail(err, EINVAL, "Parameter '%s' expects 'on' or 'off'",
                           item->key);
    return 0;
}

int create_options_check(const char *format, const struct keyvals *kv,
                         struct lam_error *err)
{
    const struct option_list list = list_options(format, true);
    int rc = 0;

    for (size_t i = 0; i < kv->count && rc == 0; i++)
        rc = check_item(&list, &kv->items[i], err);
    return rc;
}

/* As it has to be written in a list: a comma twice. */
static void print_listed(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == ',')
            putc(',', out);
        putc(*text, out);
    }
}

static void print_option(FILE *out, const struct lam_option_info *option,
                         const char *value)
{
    uint64_t bytes;

    fprintf(out, " %s=", option->name);
    if (option->kind == SIZE && parse_u64_size(value, &bytes) == 0)
        fprintf(out, "%llu", (unsigned long long)bytes);
    else if (option->kind == NUMBER)
        fprintf(out, "%llu", strtoull(value, NULL, 0));
    else
        print_listed(out, value);
}

void create_options_print(FILE *out, const char *name, const char *format,
                          const struct keyvals *kv)
{
    const struct option_list list = list_options(format, true);

    fprintf(out, "Formatting '%s', fmt=%s", name, format);
    for (size_t i = 0; i < list.count; i++) {
        const struct lam_option_info *option = list.items[i];
        const char *value = keyvals_get(kv, option->name);
        if (!value)
            value = option->standard;
        if (value)
            print_option(out, option, value);
    }
    putc('\n', out);
}

static int by_name(const void *a, const void *b)
{
    const struct lam_option_info *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static void print_option_help(FILE *out, const struct lam_option_info *option)
{
    static const char *const kinds[] = {
        [TEXT] = "str", [BOOL] = "bool (on/off)", [NUMBER] = "num",
        [SIZE] = "size",
    };
    char left[64];

    snprintf(left, sizeof left, "%s=<%s>", option->name, kinds[option->kind]);
    fprintf(out, "  %-22s - %s\n", left, option->help);
}

int create_options_help(FILE *out, const char *format, const char *name,
                        struct lam_error *err)
{
    int rc = create_format_check(format, err);
    if (rc == 0 && name)
        rc = lam_image_create_check(name, err);
    if (rc < 0)
        return rc;

    bool all = name || !strcmp(format, "file");
    struct option_list list = list_options(format, all);
    qsort(list.items, list.count, sizeof list.items[0], by_name);
    if (name)
        fputs("Supported options:\n", out);
    else
        fprintf(out, "Supported %s options:\n", format);
    for (size_t i = 0; i < list.count; i++)
        print_option_help(out, list.items[i]);
    if (!name)
        fputs("\nThe protocol level may support further options.\n"
              "Specify the target filename to include those options.\n", out);
    return 0;
}

/* ----------------------------------------------------- what the values mean */

static int refuse_value(const char *parameter, const char *value,
                        struct lam_error *err)
{
    return option_fail(err, EINVAL, "Parameter '%s' does not accept value '%s'",
                       parameter, value);
}

static int apply_version(const char *text, struct lam_create_options *options,
                         struct lam_error *err)
{
    if (!strcmp(text, "0.10") || !strcmp(text, "v2"))
        options->version = 2;
    else if (!strcmp(text, "1.1") || !strcmp(text, "v3"))
        options->version = 3;
    else
        return refuse_value("version", text, err);
    return 0;
}

static int apply_compression(const char *text,
                             struct lam_create_options *options,
                             struct lam_error *err)
{
    if (!strcmp(text, "zlib"))
        options->compression_type = 0;
    else if (!strcmp(text, "zstd"))
        options->compression_type = 1;
    else
        return refuse_value("compression-type", text, err);
    return 0;
}

int preallocation_parse(const char *text, enum lam_preallocation *mode)
{
    static const char *const modes[] = {
        [LAM_PREALLOC_OFF] = "off", [LAM_PREALLOC_METADATA] = "metadata",
        [LAM_PREALLOC_FALLOC] = "falloc", [LAM_PREALLOC_FULL] = "full",
    };

    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        if (strcmp(text, modes[i]))
            continue;
        *mode = (enum lam_preallocation)i;
        return 0;
    }
    return -EINVAL;
}

static int apply_preallocation(const char *format, const char *text,
                               struct lam_create_options *options,
                               struct lam_error *err)
{
    /* The others leave it to the file, as raw does. */
    bool raw = !(format_bit(format) & (QCOW2 | LUKS));

    if (preallocation_parse(text, &options->preallocation) == 0) {
        if (raw && options->preallocation == LAM_PREALLOC_METADATA)
            return option_fail(err, ENOTSUP,
                               "Unsupported preallocation mode: %s", text);
        return 0;
    }
    if (raw)
        return option_fail(err, EINVAL, "invalid parameter value: %s", text);
    return refuse_value("preallocation", text, err);
}

/* The numbers and switches, which create_options_check() has seen. */
static void apply_numbers(const struct keyvals *kv,
                          struct lam_create_options *options)
{
    const struct { const char *name; uint64_t *to; } sizes[] = {
        { "size", &options->size },
        { "cluster_size", &options->cluster_size },
        { "extent_size_hint", &options->extent_size_hint },
    };
    const struct { const char *name; bool *to; } switches[] = {
        { "lazy_refcounts", &options->lazy_refcounts },
        { "extended_l2", &options->extended_l2 },
        { "data_file_raw", &options->data_file_raw },
        { "nocow", &options->nocow },
    };
    const char *value;

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        if ((value = keyvals_get(kv, sizes[i].name)))
            parse_u64_size(value, sizes[i].to);
    }
    for (size_t i = 0; i < sizeof switches / sizeof switches[0]; i++) {
        if ((value = keyvals_get(kv, switches[i].name)))
            parse_bool(value, switches[i].to);
    }
    if ((value = keyvals_get(kv, "refcount_bits"))) {
        unsigned long long bits = strtoull(value, NULL, 0);
        options->refcount_bits = bits > UINT_MAX ? UINT_MAX : (unsigned)bits;
    }
}

static void apply_names(const struct keyvals *kv,
                        struct lam_create_options *options)
{
    const struct { const char *name; const char **to; } names[] = {
        { "backing_file", &options->backing_file },
        { "backing_fmt", &options->backing_format },
        { "data_file", &options->data_file },
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = keyvals_get(kv, names[i].name);
        if (value)
            *names[i].to = value;
    }
}

bool format_name_known(const char *name)
{
    static const char *const names[] = {
        "bochs", "cloop", "dmg", "file", "host_device", "luks", "nbd",
        "parallels", "qcow", "qcow2", "qed", "quorum", "raw", "rbd", "vdi",
        "vhdx", "vmdk", "vpc", "vvfat",
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!strcmp(name, names[i]))
            return true;
    }
    return false;
}

static bool has_member(const char *name)
{
    static const char *const names[] = {
        "size", "backing_file", "backing_fmt", "nocow", "extent_size_hint",
        "preallocation",
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!strcmp(name, names[i]))
            return true;
    }
    return false;
}

/* What only the format understands is handed on by name. */
static int apply_named(struct keyvals *kv, struct lam_create_options *options,
                       struct lam_error *err)
{
    struct lam_named_option *named = calloc(kv->count + 1, sizeof *named);
    size_t count = 0;

    if (!named)
        return option_fail(err, ENOMEM, "no memory for an option list");
    for (size_t i = 0; i < kv->count; i++) {
        if (!has_member(kv->items[i].key))
            named[count++] = (struct lam_named_option){ kv->items[i].key,
                                                        kv->items[i].value };
    }
    free(kv->named);
    options->named = kv->named = named;
    options->nb_named = count;
    return 0;
}

int create_options_apply(const char *format, struct keyvals *kv,
                         struct lam_create_options *options,
                         struct lam_error *err)
{
    int rc = create_options_check(format, kv, err);
    const char *value;

    if (rc < 0)
        return rc;
    apply_numbers(kv, options);
    apply_names(kv, options);
    value = options->backing_format;
    if (value && !format_name_known(value))
        return refuse_value("backing-fmt", value, err);
    if ((value = keyvals_get(kv, "compat")))
        rc = apply_version(value, options, err);
    if (rc == 0 && (value = keyvals_get(kv, "compression_type")))
        rc = apply_compression(value, options, err);
    if (rc == 0 && (value = keyvals_get(kv, "preallocation")))
        rc = apply_preallocation(format, value, options, err);
    if (rc == 0 && !format_bit(format)) {
        /* For whoever opens the new image. */
        options->encryption.key_secret = keyvals_get(kv, "encrypt.key-secret");
        return apply_named(kv, options, err);
    }
    if (rc == 0 && format_bit(format) != RAW)
        rc = encryption_options_apply(format, kv, &options->encryption, err);
    return rc;
}
