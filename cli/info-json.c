/* SPDX-License-Identifier: MIT */
/*
 * info-json.c - what `info --output=json` prints: keys, nesting and order as
 * qemu-img 10's.  What an image has not is absent, never null.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "info.h"

static void add_string(struct json_object *object, const char *key,
                       const char *value)
{
    if (value)
        json_object_object_add(object, key, json_object_new_string(value));
}

static void add_number(struct json_object *object, const char *key,
                       uint64_t value)
{
    json_object_object_add(object, key, json_object_new_uint64(value));
}

static void add_bool(struct json_object *object, const char *key, bool value)
{
    json_object_object_add(object, key, json_object_new_boolean(value));
}

uint64_t info_sectors(uint64_t length)
{
    uint64_t rest = length % 512;

    return rest ? length + (512 - rest) : length;
}

const char *info_protocol(const char *name)
{
    struct stat st;

    if (name && stat(name, &st) == 0 &&
        (S_ISBLK(st.st_mode) || S_ISCHR(st.st_mode)))
        return "host_device";
    return "file";
}

/* ------------------------------------------------------------------ members */

static struct json_object *snapshots(const struct lam_image_info *info)
{
    struct json_object *array = json_object_new_array();

    for (size_t i = 0; i < info->nb_snapshots; i++) {
        const struct lam_snapshot_info *s = &info->snapshots[i];
        struct json_object *object = json_object_new_object();
        if (s->icount != UINT64_MAX)
            add_number(object, "icount", s->icount);
        add_number(object, "vm-clock-nsec", s->vm_clock_nsec % 1000000000);
        add_string(object, "name", s->name);
        add_number(object, "date-sec", s->date_sec);
        add_number(object, "date-nsec", s->date_nsec);
        add_number(object, "vm-clock-sec", s->vm_clock_nsec / 1000000000);
        add_string(object, "id", s->id);
        add_number(object, "vm-state-size", s->vm_state_size);
        json_object_array_add(array, object);
    }
    return array;
}

static struct json_object *bitmaps(const struct lam_image_info *info)
{
    struct json_object *array = json_object_new_array();

    for (size_t i = 0; i < info->nb_bitmaps; i++) {
        const struct lam_bitmap_info *bitmap = &info->bitmaps[i];
        struct json_object *object = json_object_new_object();
        struct json_object *flags = json_object_new_array();
        if (bitmap->in_use)
            json_object_array_add(flags, json_object_new_string("in-use"));
        if (bitmap->automatic)
            json_object_array_add(flags, json_object_new_string("auto"));
        json_object_object_add(object, "flags", flags);
        add_string(object, "name", bitmap->name);
        add_number(object, "granularity", bitmap->granularity);
        json_object_array_add(array, object);
    }
    return array;
}

static struct json_object *format_specific(const char *type,
                                           struct json_object *data)
{
    struct json_object *object = json_object_new_object();

    add_string(object, "type", type);
    json_object_object_add(object, "data", data);
    return object;
}

static struct json_object *qcow2_data(const struct lam_image_info *info)
{
    struct json_object *data = json_object_new_object();
    bool v3 = info->version >= 3;

    add_string(data, "compat", v3 ? "1.1" : "0.10");
    add_string(data, "compression-type", info->compression_type);
    if (v3)
        add_bool(data, "lazy-refcounts", info->lazy_refcounts);
    if (info->nb_bitmaps)
        json_object_object_add(data, "bitmaps", bitmaps(info));
    add_number(data, "refcount-bits", info->refcount_bits);
    if (info->data_file)
        add_string(data, "data-file", info->data_file);
    if (info->encryption)
        json_object_object_add(data, "encrypt",
                               info_encryption_json(info->encryption, true));
    if (info->data_file)
        add_bool(data, "data-file-raw", info->data_file_raw);
    if (v3) {
        add_bool(data, "corrupt", info->corrupt);
        add_bool(data, "extended-l2", info->extended_l2);
    }
    return data;
}

enum { MAX_NESTING = 8 };

static struct json_object *leaf(const struct lam_value *v)
{
    switch (v->kind) {
    case LAM_VALUE_TEXT:
        return json_object_new_string(v->text);
    case LAM_VALUE_NUMBER:
        return json_object_new_uint64(v->number);
    case LAM_VALUE_BOOL:
        return json_object_new_boolean(v->number != 0);
    case LAM_VALUE_LIST:
        return json_object_new_array();
    default:
        return json_object_new_object();
    }
}

/* The tree that the list of values describes. */
static struct json_object *values(const struct lam_image_info *info)
{
    struct json_object *open[MAX_NESTING] = { json_object_new_object() };
    int depth = 0;

    for (size_t i = 0; i < info->nb_values; i++) {
        const struct lam_value *v = &info->values[i];
        if (v->kind == LAM_VALUE_END) {
            depth--;
            continue;
        }
        struct json_object *object = leaf(v);
        if (json_object_is_type(open[depth], json_type_array))
            json_object_array_add(open[depth], object);
        else
            json_object_object_add(open[depth], v->name, object);
        if ((v->kind == LAM_VALUE_LIST || v->kind == LAM_VALUE_OBJECT) &&
            depth < MAX_NESTING - 1)
            open[++depth] = object;
    }
    return open[0];
}

/* The node of a file, one of the "children" of the format's node. */
static struct json_object *file_node(const char *name, const char *protocol,
                                     uint64_t length,
                                     const uint64_t *actual_size)
{
    struct json_object *node = json_object_new_object();

    json_object_object_add(node, "children", json_object_new_array());
    add_number(node, "virtual-size", length);
    add_string(node, "filename", name);
    add_string(node, "format", protocol);
    if (actual_size)
        add_number(node, "actual-size", *actual_size);
    if (!strcmp(protocol, "file") || !strcmp(protocol, "host_device"))
        json_object_object_add(node, "format-specific",
                               format_specific("file",
                                               json_object_new_object()));
    if (actual_size && strncmp(protocol, "null-", 5))
        add_bool(node, "dirty-flag", false);
    return node;
}

static void add_child(struct json_object *array, const char *name,
                      struct json_object *node)
{
    struct json_object *child = json_object_new_object();

    add_string(child, "name", name);
    json_object_object_add(child, "info", node);
    json_object_array_add(array, child);
}

static struct json_object *child_node(const struct lam_image_info *info)
{
    return info->protocol
        ? file_node(info->filename, info->format, info->virtual_size,
                    info->actual_size_unknown ? NULL : &info->actual_size)
        : info_to_json(info);
}

static struct json_object *children(const struct lam_image_info *info)
{
    struct json_object *array = json_object_new_array();

    for (size_t i = info->nb_files; i-- > 0; ) {
        const struct lam_file_info *f = &info->files[i];
        char name[32];
        snprintf(name, sizeof name, "extents.%zu", i);
        add_child(array, name, file_node(f->filename,
                                         info_protocol(f->filename),
                                         info_sectors(f->length),
                                         &f->actual_size));
    }
    for (size_t i = 0; i < info->nb_children; i++)
        add_child(array, info->children[i].name,
                  child_node(info->children[i].info));
    return array;
}

struct json_object *info_to_json(const struct lam_image_info *info)
{
    struct json_object *object = json_object_new_object();

    json_object_object_add(object, "children", children(info));
    add_string(object, "backing-filename-format", info->backing_format);
    if (info->nb_snapshots)
        json_object_object_add(object, "snapshots", snapshots(info));
    add_number(object, "virtual-size", info->virtual_size);
    add_string(object, "filename", info->filename);
    if (info->cluster_size)
        add_number(object, "cluster-size", info->cluster_size);
    add_string(object, "format", info->format);
    if (!info->actual_size_unknown)
        add_number(object, "actual-size", info->actual_size);
    if (info->is_qcow2)
        json_object_object_add(object, "format-specific",
                               format_specific("qcow2", qcow2_data(info)));
    else if (info->encryption)
        json_object_object_add(object, "format-specific",
                               format_specific("luks",
                                   info_encryption_json(info->encryption,
                                                        false)));
    else if (info->nb_values)
        json_object_object_add(object, "format-specific",
                               format_specific(info->format, values(info)));
    add_string(object, "full-backing-filename", info->full_backing_filename);
    if (info->encrypted)
        add_bool(object, "encrypted", true);
    add_string(object, "backing-filename", info->backing_filename);
    if (!info->dirty_unknown)
        add_bool(object, "dirty-flag", info->dirty);
    return object;
}
