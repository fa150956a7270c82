/* SPDX-License-Identifier: MIT */
/*
 * print.h - output as qemu-img prints it: human sizes, JSON, escaped names.
 */
#ifndef LAMELLA_CLI_PRINT_H
#define LAMELLA_CLI_PRINT_H

#include <json-c/json.h>
#include <stdio.h>

#include "cli.h"

/* "64 KiB", "1.5 GiB", "0 B": three significant digits, into @buf. */
const char *human_size(uint64_t bytes, char buf[32]);

/* Pretty JSON with four blanks a level, members in insertion order, valid
 * UTF-8 whatever the strings hold; a newline at the end. */
void print_json(FILE *out, struct json_object *value);

/* @text quoted and escaped as in print_json(). */
void print_json_string(FILE *out, const char *text);

/* @text with control characters escaped, so that a name out of an image cannot
 * drive the terminal. */
void print_escaped(FILE *out, const char *text);

#endif
