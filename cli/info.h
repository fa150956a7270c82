/* SPDX-License-Identifier: MIT */
/*
 * info.h - the two shapes of what `info` shows.
 */
#ifndef LAMELLA_CLI_INFO_H
#define LAMELLA_CLI_INFO_H

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"

void info_print_text(FILE *out, const struct lam_image_info *info);
/* "Format specific information:" and its lines, for formats that have any. */
void info_print_specific(FILE *out, const struct lam_image_info *info);
/* "Snapshot list:" and a line for each; nothing if there is none. */
void info_print_snapshots(FILE *out, const struct lam_image_info *info);
struct json_object *info_to_json(const struct lam_image_info *info);

/* How it is encrypted, in both shapes; inside qcow2 the format is named. */
struct json_object *info_encryption_json(const struct lam_encryption_info *e,
                                         bool with_format);
void info_print_encryption(FILE *out, const struct lam_encryption_info *e,
                           int indent, bool with_format);

/* "file" or "host_device", by what @name is. */
const char *info_protocol(const char *name);
/* The length of a file as qemu-img counts it, in whole sectors. */
uint64_t info_sectors(uint64_t length);

#endif
