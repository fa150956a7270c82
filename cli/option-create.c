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

enum kind { TEXT, BOOL, NUMBER, SIZE };
enum { RAW = 1 << 0, QCOW2 = 1 << 1, LUKS = 1 << 2, FILE_LEVEL = 1 << 3 };

/* In the order in which qemu-img prints them; -o help sorts by name. */
static const struct create_option {
    const char *name;
    enum kind kind;
    unsigned formats;
    const char *standard;       /* printed when it is not given; or NULL */
    const char *help;
} create_options[] = {
    { "encryption", BOOL, QCOW2, NULL,
      "Encrypt the image with format 'aes'. (Deprecated in favor of "
      "encrypt.format=aes)" },
    { "encrypt.format", TEXT, QCOW2, NULL,
      "Encrypt the image, format choices: 'aes', 'luks'" },
    { "encrypt.key-secret", TEXT, QCOW2, NULL,
      "ID of secret providing qcow AES key or LUKS passphrase" },
    { "encrypt.cipher-alg", TEXT, QCOW2, NULL,
      "Name of encryption cipher algorithm" },
    { "encrypt.cipher-mode", TEXT, QCOW2, NULL,
      "Name of encryption cipher mode" },
    { "encrypt.ivgen-alg", TEXT, QCOW2, NULL,
      "Name of IV generator algorithm" },
    { "encrypt.ivgen-hash-alg", TEXT, QCOW2, NULL,
      "Name of IV generator hash algorithm" },
    { "encrypt.hash-alg", TEXT, QCOW2, NULL,
      "Name of encryption hash algorithm" },
    { "encrypt.iter-time", NUMBER, QCOW2, NULL,
      "Time to spend in PBKDF in milliseconds" },
    { "cluster_size", SIZE, QCOW2, "65536", "qcow2 cluster size" },
    { "extended_l2", BOOL, QCOW2, "off", "Extended L2 tables" },
    { "preallocation", TEXT, QCOW2, NULL,
      "Preallocation mode (allowed values: off, metadata, falloc, full)" },
    { "compression_type", TEXT, QCOW2, "zlib",
      "Compression method used for image cluster compression" },
    { "size", SIZE, RAW | QCOW2 | LUKS, NULL, "Virtual disk size" },
    { "key-secret", TEXT, LUKS, NULL,
      "ID of the secret that provides the keyslot passphrase" },
    { "cipher-alg", TEXT, LUKS, NULL,
      "Name of encryption cipher algorithm" },
    { "cipher-mode", TEXT, LUKS, NULL,
      "Name of encryption cipher mode" },
    { "ivgen-alg", TEXT, LUKS, NULL,
      "Name of IV generator algorithm" },
    { "ivgen-hash-alg", TEXT, LUKS, NULL,
      "Name of IV generator hash algorithm" },
    { "hash-alg", TEXT, LUKS, NULL,
      "Name of encryption hash algorithm" },
    { "detached-header", BOOL, LUKS, NULL,
      "Create a detached LUKS header" },
    { "iter-time", NUMBER, LUKS, NULL,
      "Time to spend in PBKDF in milliseconds" },
    { "compat", TEXT, QCOW2, NULL,
      "Compatibility level (v2 [0.10] or v3 [1.1])" },
    { "backing_file", TEXT, QCOW2, NULL, "File name of a base image" },
    { "backing_fmt", TEXT, QCOW2, NULL, "Image format of the base image" },
    { "data_file", TEXT, QCOW2, NULL, "File name of an external data file" },
    { "data_file_raw", BOOL, QCOW2, NULL,
      "The external data file must stay valid as a raw image" },
    { "lazy_refcounts", BOOL, QCOW2, "off", "Postpone refcount updates" },
    { "refcount_bits", NUMBER, QCOW2, "16",
      "Width of a reference count entry in bits" },
    { "nocow", BOOL, FILE_LEVEL, NULL,
      "Turn off copy-on-write (valid only on btrfs)" },
    { "extent_size_hint", SIZE, FILE_LEVEL, NULL,
      "Extent size hint for the image file, 0 to disable" },
    { "preallocation", TEXT, FILE_LEVEL, NULL,
      "Preallocation mode (allowed values: off, falloc, full)" },
};

#define NB_OPTIONS (sizeof create_options / sizeof create_options[0])

static unsigned format_bit(const char *format)
{
    return !strcmp(format, "raw") ? RAW : !strcmp(format, "qcow2") ? QCOW2
         : !strcmp(format, "luks") ? LUKS : 0;
}

bool create_format_known(const char *format)
{
    return format_bit(format) != 0;
}

/* The option of the format itself, else the one of the file below. */
static const struct create_option *find_option(const char *format,
                                               const char *name)
{
    static const unsigned file_level = FILE_LEVEL;
    const unsigned levels[] = { format_bit(format), file_level };

    for (size_t level = 0; level < 2; level++) {
        for (size_t i = 0; i < NB_OPTIONS; i++) {
            if ((create_options[i].formats & levels[level]) &&
                !strcmp(create_options[i].name, name))
                return &create_options[i];
        }
    }
    return NULL;
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

static int check_item(const char *format, const struct keyval *item,
                      struct lam_error *err)
{
    const struct create_option *option = find_option(format, item->key);
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
    int rc = 0;

    for (size_t i = 0; i < kv->count && rc == 0; i++)
        rc = check_item(format, &kv->items[i], err);
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

static void print_option(FILE *out, const struct create_option *option,
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
    fprintf(out, "Formatting '%s', fmt=%s", name, format);
    for (size_t i = 0; i < NB_OPTIONS; i++) {
        const struct create_option *option = &create_options[i];
        const char *value = keyvals_get(kv, option->name);
        if (find_option(format, option->name) != option)
            continue;
        if (!value)
            value = option->standard;
        if (value)
            print_option(out, option, value);
    }
    putc('\n', out);
}

static int by_name(const void *a, const void *b)
{
    const struct create_option *const *x = a, *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

static void print_option_help(FILE *out, const struct create_option *option)
{
    static const char *const kinds[] = {
        [TEXT] = "str", [BOOL] = "bool (on/off)", [NUMBER] = "num",
        [SIZE] = "size",
    };
    char left[64];

    snprintf(left, sizeof left, "%s=<%s>", option->name, kinds[option->kind]);
    fprintf(out, "  %-22s - %s\n", left, option->help);
}

void create_options_help(FILE *out, const char *format, bool with_file)
{
    const struct create_option *list[NB_OPTIONS];
    unsigned wanted = format_bit(format) | (with_file ? FILE_LEVEL : 0);
    size_t count = 0;

    for (size_t i = 0; i < NB_OPTIONS; i++) {
        const struct create_option *option = &create_options[i];
        if ((option->formats & wanted) &&
            find_option(format, option->name) == option)
            list[count++] = option;
    }
    qsort(list, count, sizeof list[0], by_name);

    if (with_file)
        fputs("Supported options:\n", out);
    else
        fprintf(out, "Supported %s options:\n", format);
    for (size_t i = 0; i < count; i++)
        print_option_help(out, list[i]);
    if (!with_file)
        fputs("\nThe protocol level may support further options.\n"
              "Specify the target filename to include those options.\n", out);
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
    bool raw = format_bit(format) == RAW;

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
        "parallels", "qcow", "qcow2", "qed", "raw", "rbd", "vdi", "vhdx",
        "vmdk", "vpc", "vvfat",
    };

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!strcmp(name, names[i]))
            return true;
    }
    return false;
}

int create_options_apply(const char *format, const struct keyvals *kv,
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
    if (rc == 0 && format_bit(format) != RAW)
        rc = encryption_options_apply(format, kv, &options->encryption, err);
    return rc;
}
