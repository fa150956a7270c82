/* SPDX-License-Identifier: MIT */
/*
 * option.h - sizes, key=value lists and the options that subcommands share.
 */
#ifndef LAMELLA_CLI_OPTION_H
#define LAMELLA_CLI_OPTION_H

#include "cli.h"

/*
 * "4096", "1.5G", "64k", "16777216b": suffixes b k M G T P E, powers of 1024,
 * fractions allowed with a suffix.  -EINVAL with qemu-img's words in *err.
 */
int parse_size(const char *text, uint64_t *bytes, struct lam_error *err);

/* One -o list after another, "k=v,flag,k2=a,,b": ",," is a literal comma, a
 * bare word means on; later ones win. */
struct keyval { char *key, *value; };
struct keyvals { struct keyval *items; size_t count; };

int keyvals_parse(struct keyvals *kv, const char *text, struct lam_error *err);
void keyvals_deinit(struct keyvals *kv);

/*
 * qemu-img's -o keys for @format into @options: size, compat (0.10, 1.1, v2,
 * v3), backing_file, backing_fmt, cluster_size, preallocation, refcount_bits,
 * lazy_refcounts, extended_l2, data_file, data_file_raw, compression_type,
 * nocow.  Strings point into @kv.  An unknown key or bad value is -EINVAL with
 * qemu-img's words.
 */
int create_options_apply(const char *format, const struct keyvals *kv,
                         struct lam_create_options *options,
                         struct lam_error *err);

#endif
