/* SPDX-License-Identifier: MIT */
/*
 * option.h - sizes, key=value lists and the options that subcommands share.
 */
#ifndef LAMELLA_CLI_OPTION_H
#define LAMELLA_CLI_OPTION_H

#include "cli.h"

/* Fills *err (NULL: nobody wants it) and returns -@code. */
int option_fail(struct lam_error *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/*
 * "4096", "1.5G", "64k", "16777216b", "0x1000": suffixes b k M G T P E, powers
 * of 1024, fractions allowed with a suffix.  -EINVAL if it is no size, -ERANGE
 * if it is not in [0, 2^63); *err has qemu-img's words, in which @what ("image
 * size") names the thing.
 */
int parse_size_named(const char *text, const char *what, uint64_t *bytes,
                     struct lam_error *err);
int parse_size(const char *text, uint64_t *bytes, struct lam_error *err);
/* The same syntax for any number below 2^64; -EINVAL or -ERANGE. */
int parse_u64_size(const char *text, uint64_t *value);

/* One -o list after another, "k=v,flag,k2=a,,b": ",," is a literal comma, a
 * bare word means on, and off if it begins with "no"; later ones win, but
 * all are kept, since all have to be right. */
struct keyval { char *key, *value; };
struct keyvals {
    struct keyval *items;
    size_t count;
    struct lam_named_option *named;     /* lent to create_options_apply() */
};

int keyvals_parse(struct keyvals *kv, const char *text, struct lam_error *err);
int keyvals_set(struct keyvals *kv, const char *key, const char *value,
                struct lam_error *err);
/* NULL if it is not there. */
const char *keyvals_get(const struct keyvals *kv, const char *key);
void keyvals_deinit(struct keyvals *kv);

/* True if the list holds the bare word "help" or "?". */
bool keyvals_ask_help(const char *text);

/* "on", "true", "yes", "y" and their opposites; -EINVAL otherwise. */
int parse_bool(const char *text, bool *value);

/*
 * --object: "secret,id=ID,data=TEXT", or as a JSON object, with "qom-type".
 * What can be made has a table in object-kinds.c; it goes to cli->keyring and
 * cli->throttles.  Otherwise -EINVAL and others, with qemu-img's words.
 */
int object_option(const struct cli *cli, const char *text,
                  struct lam_error *err);
/* If @text asks for help ("help", "secret,help"), prints it. */
bool object_help(const char *text);

/* Warns of what is out of date in the name of an image that is opened. */
void warn_name(const struct cli *cli, const char *name, bool image_opts);

/* "json" or "human" for --output; cli_usage()'s message and -EINVAL else. */
int output_option(const struct cli *cli, const char *text, bool *json);

/* ----------------------------------------------------------- create options */

/*
 * qemu-img's -o keys for @format into @options: size, compat (0.10, 1.1, v2,
 * v3), backing_file, backing_fmt, cluster_size, preallocation, refcount_bits,
 * lazy_refcounts, extended_l2, data_file, data_file_raw, compression_type,
 * nocow, encrypt...; those of luks; those that the library has for other
 * formats.  Strings and lists point into @kv.  An unknown key
 * or bad value is -EINVAL with qemu-img's words.
 */
int create_options_apply(const char *format, struct keyvals *kv,
                         struct lam_create_options *options,
                         struct lam_error *err);

/* The part of the above that says how the image is encrypted. */
int encryption_options_apply(const char *format, const struct keyvals *kv,
                             struct lam_encryption_options *options,
                             struct lam_error *err);

/* The first half of the above: all keys are known, and numbers are numbers. */
int create_options_check(const char *format, const struct keyvals *kv,
                         struct lam_error *err);

/* "Formatting 'NAME', fmt=... key=value ...": what will be made.  @kv has
 * passed create_options_check(). */
void create_options_print(FILE *out, const char *name, const char *format,
                          const struct keyvals *kv);

/* -o help.  @name: NULL, or that of the image, so that the options of files are
 * listed as well.  Negative, and nothing printed, if neither can be made. */
int create_options_help(FILE *out, const char *format, const char *name,
                        struct lam_error *err);

/* -EINVAL or -ENOTSUP, in qemu-img's words, unless images of @format can be
 * made. */
int create_format_check(const char *format, struct lam_error *err);
bool format_takes_backing(const char *format);
bool format_compresses(const char *format);

/* True for the formats that a header may name, whether or not lamella reads
 * them. */
bool format_name_known(const char *name);

/* "off", "metadata", "falloc", "full"; -EINVAL otherwise. */
int preallocation_parse(const char *text, enum lam_preallocation *mode);

/* -------------------------------------------------------- opening an image */

/* The options that every subcommand has which opens images. */
struct source_options {
    const char *format;         /* -f */
    const char *cache;          /* -T (or -t) */
    bool image_opts;            /* --image-opts */
    bool force_share;           /* -U */
    bool untrusted;             /* --untrusted */
    const char *snapshot;       /* -l, where it stands for one to read */
    uint64_t l2_cache_size;     /* bytes, unless the image's options say; 0:
                                   default */
};

/* -l: "snapshot.name=NAME", "snapshot.id=ID", or either without a key, into
 * *@snapshot, which may point into @kv.  Prints what is wrong. */
int snapshot_option(const struct cli *cli, const char *text,
                    struct keyvals *kv, const char **snapshot);

/* Prints a complaint, and returns -EINVAL, if -T names no cache mode. */
int source_cache_check(const struct cli *cli,
                       const struct source_options *options);

/*
 * Opens @name read-only with the options and @flags (LAM_OPEN_...).  Prints
 * the error and returns a negative errno value if it cannot be had.
 */
int source_open(const struct cli *cli, const char *name,
                const struct source_options *options, unsigned flags,
                struct lam_image **out);
/* The same without a word: what is wrong goes to @err.  -T has been looked at
 * by source_cache_check(). */
int source_try_open(const struct cli *cli, const char *name,
                    const struct source_options *options, unsigned flags,
                    struct lam_image **out, struct lam_error *err);

/* source_open() of the disk as @options' snapshot has it, if there is one; @kv
 * is what snapshot_option() has made of its name. */
int source_open_snapshot(const struct cli *cli, const char *name,
                         const struct source_options *options,
                         const struct keyvals *kv, struct lam_image **out);

/* The message of an @err from opening @name, for who has named it already: the
 * genuine tools keep "Could not open 'NAME': " only where the system refused
 * the file.  Lives as long as @err. */
const char *open_reason(const char *name, const struct lam_error *err);

/* Whoever writes to an image that was taken to be raw, because nobody said its
 * format, is warned. */
void warn_guessed(struct lam_image *image);

#endif
