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

/* The plain name of the image file below the format: without "file:", and out
 * of "json:{...}".  To be freed; NULL if it cannot be told. */
char *info_file_name(const struct lam_image_info *info);
/* "file" or "host_device", by what @name is. */
const char *info_protocol(const char *name);
/* The length of the image file as qemu-img counts it, in whole sectors. */
uint64_t info_file_length(const struct lam_image_info *info);

/* Bytes that the image file alone has on the host. */
uint64_t info_file_size(const struct lam_image_info *info);

/* A file's length as the genuine tool tells it: whole sectors. */
uint64_t info_sectors(uint64_t length);
/* False when the image is the file itself ("-f file"). */
bool info_has_file_child(const struct lam_image_info *info);

#endif
