/* SPDX-License-Identifier: MIT */
/*
 * info-text.c - what `info` prints for people, line by line as qemu-img does:
 * scripts match these lines.
 */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "info.h"
#include "print.h"

static void print_size(FILE *out, const char *label, uint64_t bytes)
{
    char size[32];

    fprintf(out, "%s: %s (%" PRIu64 " bytes)\n", label, human_size(bytes, size),
            bytes);
}

static const uint64_t *known_size(const struct lam_image_info *info)
{
    return info->actual_size_unknown ? NULL : &info->actual_size;
}

static void print_used(FILE *out, const uint64_t *bytes)
{
    char size[32];

    fprintf(out, "disk size: %s\n", bytes ? human_size(*bytes, size)
                                          : "unavailable");
}

/* A line whose text came out of an image. */
static void print_text(FILE *out, const char *label, const char *text)
{
    fprintf(out, "%s: ", label);
    print_escaped(out, text);
    putc('\n', out);
}

static const char *yes(bool value)
{
    return value ? "true" : "false";
}

static void print_backing(FILE *out, const struct lam_image_info *info)
{
    if (!info->backing_filename)
        return;
    fputs("backing file: ", out);
    print_escaped(out, info->backing_filename);
    if (!info->full_backing_filename) {
        fputs(" (cannot determine actual path)", out);
    } else if (strcmp(info->backing_filename, info->full_backing_filename)) {
        fputs(" (actual path: ", out);
        print_escaped(out, info->full_backing_filename);
        putc(')', out);
    }
    putc('\n', out);
    if (info->backing_format)
        print_text(out, "backing file format", info->backing_format);
}

/* Padded by hand: escaping changes the length. */
static void print_column(FILE *out, const char *text, size_t width)
{
    size_t length = strlen(text);

    print_escaped(out, text);
    fprintf(out, "%*s ", length < width ? (int)(width - length) : 0, "");
}

static void print_snapshot(FILE *out, const struct lam_snapshot_info *snapshot)
{
    char size[32], date[32] = "", icount[32] = "--", clock[64];
    time_t seconds = (time_t)snapshot->date_sec;
    struct tm tm;

    if (localtime_r(&seconds, &tm))
        strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &tm);
    if (snapshot->icount != UINT64_MAX)
        snprintf(icount, sizeof icount, "%" PRIu64, snapshot->icount);
    uint64_t ms = snapshot->vm_clock_nsec / 1000000;
    snprintf(clock, sizeof clock,
             "%04" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ".%03" PRIu64,
             ms / 3600000, ms / 60000 % 60, ms / 1000 % 60, ms % 1000);
    print_column(out, snapshot->id, 7);
    print_column(out, snapshot->name, 16);
    fprintf(out, "%8s %19s %15s %10s\n",
            human_size(snapshot->vm_state_size, size), date, clock, icount);
}

void info_print_snapshots(FILE *out, const struct lam_image_info *info)
{
    if (!info->nb_snapshots)
        return;
    fprintf(out, "Snapshot list:\n%-7s %-16s %8s %19s %15s %10s\n", "ID", "TAG",
            "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT");
    for (size_t i = 0; i < info->nb_snapshots; i++)
        print_snapshot(out, &info->snapshots[i]);
}

static void print_bitmap(FILE *out, size_t i,
                         const struct lam_bitmap_info *bitmap)
{
    unsigned flag = 0;

    fprintf(out, "        [%zu]:\n            flags:\n", i);
    if (bitmap->in_use)
        fprintf(out, "                [%u]: in-use\n", flag++);
    if (bitmap->automatic)
        fprintf(out, "                [%u]: auto\n", flag++);
    print_text(out, "            name", bitmap->name);
    fprintf(out, "            granularity: %" PRIu64 "\n", bitmap->granularity);
}

/* "create-type" is shown as "create type". */
static void print_label(FILE *out, const char *name)
{
    for (; *name; name++)
        putc(*name == '-' ? ' ' : *name, out);
    putc(':', out);
}

enum { MAX_NESTING = 8 };

/* A tree as indented lines; items of a list are numbered. */
static void print_values(FILE *out, const struct lam_image_info *info)
{
    struct { bool is_list; unsigned next; } level[MAX_NESTING] = { { 0 } };
    int depth = 0;

    fputs("Format specific information:\n", out);
    for (size_t i = 0; i < info->nb_values; i++) {
        const struct lam_value *v = &info->values[i];
        if (v->kind == LAM_VALUE_END) {
            depth--;
            continue;
        }
        fprintf(out, "%*s", 4 + 4 * depth, "");
        if (level[depth].is_list)
            fprintf(out, "[%u]:", level[depth].next++);
        else
            print_label(out, v->name);
        if (v->kind == LAM_VALUE_TEXT) {
            putc(' ', out);
            print_escaped(out, v->text);
        } else if (v->kind == LAM_VALUE_NUMBER) {
            fprintf(out, " %" PRIu64, v->number);
        } else if (v->kind == LAM_VALUE_BOOL) {
            fprintf(out, " %s", yes(v->number));
        } else if (depth < MAX_NESTING - 1) {
            level[++depth].is_list = v->kind == LAM_VALUE_LIST;
            level[depth].next = 0;
        }
        putc('\n', out);
    }
}

void info_print_specific(FILE *out, const struct lam_image_info *info)
{
    bool v3 = info->version >= 3;

    if (info->nb_values)
        print_values(out, info);
    if (!info->is_qcow2 && info->encryption) {
        fputs("Format specific information:\n", out);
        info_print_encryption(out, info->encryption, 4, false);
    }
    if (!info->is_qcow2)
        return;
    fprintf(out, "Format specific information:\n    compat: %s\n"
            "    compression type: %s\n", v3 ? "1.1" : "0.10",
            info->compression_type);
    if (v3)
        fprintf(out, "    lazy refcounts: %s\n", yes(info->lazy_refcounts));
    if (info->nb_bitmaps)
        fputs("    bitmaps:\n", out);
    for (size_t i = 0; i < info->nb_bitmaps; i++)
        print_bitmap(out, i, &info->bitmaps[i]);
    fprintf(out, "    refcount bits: %u\n", info->refcount_bits);
    if (info->data_file)
        print_text(out, "    data file", info->data_file);
    if (info->encryption) {
        fputs("    encrypt:\n", out);
        info_print_encryption(out, info->encryption, 8, true);
    }
    if (info->data_file)
        fprintf(out, "    data file raw: %s\n", yes(info->data_file_raw));
    if (v3)
        fprintf(out, "    corrupt: %s\n    extended l2: %s\n",
                yes(info->corrupt), yes(info->extended_l2));
}

/* @actual_size: NULL if nobody knows it. */
static void print_file(FILE *out, const char *name, const char *protocol,
                       uint64_t length, const uint64_t *actual_size)
{
    print_text(out, "filename", name);
    fprintf(out, "protocol type: %s\n", protocol);
    print_size(out, "file length", length);
    print_used(out, actual_size);
}

static void print_image(FILE *out, const struct lam_image_info *info,
                        const char *path);

static void print_extent(FILE *out, const struct lam_file_info *f)
{
    print_file(out, f->filename, info_protocol(f->filename),
               info_sectors(f->length), &f->actual_size);
}

/* Each line of @text a step to the right. */
static void print_indented(FILE *out, const char *text)
{
    while (text && *text) {
        size_t length = strcspn(text, "\n");
        fprintf(out, "    %.*s\n", (int)length, text);
        text += length + (text[length] == '\n');
    }
}

/* "Child node '/file/image':" and what there is to say of it.  @file is an
 * extent if there is no @info. */
static void print_child(FILE *out, const char *path, const char *name,
                        const struct lam_image_info *info,
                        const struct lam_file_info *file)
{
    char *own_path = NULL, *text = NULL;
    size_t length;
    FILE *buffer = open_memstream(&text, &length);

    if (!buffer || asprintf(&own_path, "%s/%s", path, name) < 0)
        own_path = NULL;
    if (own_path) {
        fprintf(out, "Child node '%s':\n", own_path);
        if (!info)
            print_extent(buffer, file);
        else if (info->protocol)
            print_file(buffer, info->filename, info->format,
                       info->virtual_size, known_size(info));
        else
            print_image(buffer, info, own_path);
    }
    if (buffer)
        fclose(buffer);
    print_indented(out, text);
    free(text);
    free(own_path);
}

/* The youngest child comes first, as in the genuine tool. */
static void print_children(FILE *out, const struct lam_image_info *info,
                           const char *path)
{
    for (size_t i = info->nb_files; i-- > 0; ) {
        char name[32];
        snprintf(name, sizeof name, "extents.%zu", i);
        print_child(out, path, name, NULL, &info->files[i]);
    }
    for (size_t i = 0; i < info->nb_children; i++)
        print_child(out, path, info->children[i].name, info->children[i].info,
                    NULL);
}

static void print_image(FILE *out, const struct lam_image_info *info,
                        const char *path)
{
    print_text(out, "image", info->filename);
    fprintf(out, "file format: %s\n", info->format);
    print_size(out, "virtual size", info->virtual_size);
    print_used(out, known_size(info));
    if (info->encrypted)
        fputs("encrypted: yes\n", out);
    if (info->cluster_size)
        fprintf(out, "cluster_size: %" PRIu64 "\n", info->cluster_size);
    if (info->dirty)
        fputs("cleanly shut down: no\n", out);
    print_backing(out, info);
    info_print_snapshots(out, info);
    info_print_specific(out, info);
    print_children(out, info, path);
}

void info_print_text(FILE *out, const struct lam_image_info *info)
{
    print_image(out, info, "");
}
