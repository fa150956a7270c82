/* SPDX-License-Identifier: MIT */
/*
 * view.c - how the nodes of an open image are told about.
 */
#include "image/view.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/utf8.h"
#include "image/image.h"
#include "image/image-io.h"

static int no_memory(struct lam_error *err)
{
    return lam_fail(err, ENOMEM, "no memory for the name of an image");
}

int view_new(const char *child, const char *driver, struct node_view **out,
             struct lam_error *err)
{
    struct node_view *view = calloc(1, sizeof *view);

    if (view) {
        view->child = child;
        view->driver = strdup(driver);
    }
    if (!view || !view->driver) {
        view_free(view);
        return no_memory(err);
    }
    *out = view;
    return 0;
}

int view_set_driver(struct node_view *view, const char *driver,
                    struct lam_error *err)
{
    free(view->driver);
    view->driver = strdup(driver);
    return view->driver ? 0 : no_memory(err);
}

void view_free(struct node_view *view)
{
    while (view) {
        struct node_view *next = view->next;
        view_free(view->below);     /* as deep as the name was nested */
        free(view->driver);
        free(view->backing);
        free(view->json);
        free(view->shown);
        free(view);
        view = next;
    }
}

void view_add(struct node_view *view, struct node_view *below)
{
    below->next = view->below;
    view->below = below;
}

static const struct node_view *find_below(const struct node_view *view,
                                          const char *name)
{
    const struct node_view *v = view->below;

    while (v && strcmp(v->child, name))
        v = v->next;
    return v;
}

/* ------------------------------------------------------------------- names */

static const struct keyitem *find_item(const struct node *node,
                                       const char *key)
{
    const struct keyitem *found = NULL;

    for (size_t i = 0; i < node->keys.count; i++)
        if (!strcmp(node->keys.items[i].key, key))
            found = &node->keys.items[i];
    return found;
}

static void write_unit(FILE *out, uint32_t unit)
{
    char escape[16];

    snprintf(escape, sizeof escape, "\\u%04X", unit);
    fputs(escape, out);
}

/* In ASCII, as the genuine tools have it.  Bytes that are no UTF-8 stay what
 * they are, for the name has to open the same file. */
static void write_string(FILE *out, const char *text)
{
    struct json_object *string = json_object_new_string(text);
    const char *s = json_object_to_json_string_ext(
        string, JSON_C_TO_STRING_NOSLASHESCAPE);

    while (s && *s) {
        uint32_t c = 0;
        size_t n = utf8_decode(s, &c);
        if (c >= 0x10000)
            write_unit(out, 0xd800 | (c - 0x10000) >> 10);
        if (c >= 0x7f)
            write_unit(out, c >= 0x10000 ? 0xdc00 | (c & 0x3ff) : c);
        else
            fputc(*s, out);
        s += n ? n : 1;
    }
    json_object_put(string);
}

static void write_item(FILE *out, const struct keyitem *item)
{
    switch (item->kind) {
    case KEY_STRING:
        write_string(out, item->value);
        break;
    case KEY_NUMBER:
        fputs(item->value, out);
        break;
    case KEY_BOOL:
        fputs(strcmp(item->value, "on") ? "false" : "true", out);
        break;
    case KEY_NULL:
        fputs("null", out);
        break;
    }
}

/* "children": a node's several, which are called "children.0" and so on; the
 * one opened last is the first to be found. */
static void write_children(FILE *out, const struct node_view *last)
{
    if (last->next) {
        write_children(out, last->next);
        fputs(", ", out);
    }
    fputs(last->json, out);
}

/* The value of @key; false if the node has none. */
static bool write_value(FILE *out, const struct node_view *view,
                        const struct node *node, const char *key,
                        const char **separator)
{
    const struct node_view *below = find_below(view, key);
    const struct keyitem *item = find_item(node, key);
    bool driver = !strcmp(key, "driver"), backing = !strcmp(key, "backing");
    bool children = !strcmp(key, "children");

    if (backing ? !view->backing : !driver && !children && !below && !item)
        return false;
    fputs(*separator, out);
    fputc('"', out);
    fputs(key, out);
    fputs("\": ", out);
    *separator = ", ";
    if (driver)
        write_string(out, view->driver);
    else if (children) {
        fputc('[', out);
        write_children(out, view->below);
        fputc(']', out);
    } else if (backing)
        fputs(view->backing, out);
    else if (below)
        fputs(below->json, out);
    else
        write_item(out, item);
    /* Some options are what a plain name is made of. */
    return backing || (!driver && !children && !below && strcmp(key, "filename")
                       && strcmp(key, "config") && strcmp(key, "url"));
}

/* "key-secret", "encrypt.key-secret": who opens it, not what it is. */
static bool is_secret(const char *key)
{
    size_t length = strlen(key), end = strlen("key-secret");

    return length >= end && !strcmp(key + length - end, "key-secret");
}

/* What was written: options that are no ids of secrets, such ids. */
struct written {
    bool options, secrets;
};

static int write_json(struct node_view *view, const struct node *node,
                      const char *const *keys, struct written *written)
{
    const char *separator = "";
    size_t length;
    FILE *out = open_memstream(&view->json, &length);

    if (!out)
        return -ENOMEM;
    fputc('{', out);
    for (; *keys; keys++) {
        bool option = write_value(out, view, node, *keys, &separator);
        bool secret = strcmp(*keys, "backing") ? is_secret(*keys)
                                               : view->backing_by_keys;
        *(secret ? &written->secrets : &written->options) |= option;
    }
    fputc('}', out);
    return fclose(out) == 0 && view->json ? 0 : -ENOMEM;
}

int view_name(struct node_view *view, const struct node *node,
              const char *const *keys, const char *plain,
              struct lam_error *err)
{
    struct written written = { false };

    free(view->json);
    free(view->shown);
    view->json = view->shown = NULL;
    if (write_json(view, node, keys, &written) < 0)
        return no_memory(err);
    view->plain = plain && !written.options && !written.secrets;
    view->path_and_keys = plain && !written.options && written.secrets;
    int n = asprintf(&view->shown, "%s%s", view->plain ? "" : "json:",
                     view->plain ? plain : view->json);
    if (n < 0) {
        view->shown = NULL;
        return no_memory(err);
    }
    return 0;
}

int view_copy_name(struct node_view *view, const struct node_view *from,
                   struct lam_error *err)
{
    view->plain = from->plain;
    view->json = strdup(from->json);
    view->shown = strdup(from->shown);
    return view->json && view->shown ? 0 : no_memory(err);
}

/* What a node stands on, of those below it. */
static const struct node_view *stands_on(const struct node_view *view)
{
    const struct node_view *file = find_below(view, "file");

    return file ? file : view->below;
}

const char *view_path(const struct node_view *view)
{
    while (view->below && !view->image)
        view = stands_on(view);
    return view->image || !view->protocol || !view->plain
        || strncmp(view->driver, "null", 4) == 0 ? NULL : view->shown;
}

static bool is_filter(const struct node_view *view)
{
    return !view->protocol && !view->image && view->io && view->below
        && strcmp(view->driver, "raw");
}

const char *view_data_name(const struct node_view *view)
{
    /* An image's own view has no object but where it is that object. */
    bool format = !view->io && find_below(view, "file");
    bool raw = !strcmp(view->driver, "raw");

    if (format)
        view = find_below(view, "file");
    /* Only raw's data are where those of the node below it are. */
    while (is_filter(view) && (!format || raw))
        view = stands_on(view);
    return view->shown;
}

struct lam_image *view_compressing(const struct node_view *view)
{
    while (view && (!strcmp(view->driver, "throttle")
                    || !strcmp(view->driver, "copy-on-read")))
        view = view->below;
    return view ? view->image : NULL;
}

/* ----------------------------------------------------------------- telling */

/* Nodes that hand on what they stand on has as clusters. */
static uint64_t cluster_size(const struct node_view *view)
{
    static const char *const names[] = {
        "raw", "preallocate", "compress", "copy-on-read", "throttle",
        "blklogwrites",
    };

    for (; view && !view->image; view = stands_on(view)) {
        size_t i = 0;
        while (i < LAM_ARRAY_SIZE(names) && strcmp(view->driver, names[i]))
            i++;
        if (i == LAM_ARRAY_SIZE(names))
            return 0;
    }
    return view ? lam_image_cluster_size(view->image) : 0;
}

static int describe_io(const struct node_view *view,
                       struct lam_image_info *info, struct lam_error *err)
{
    int rc = lam_io_allocated_size(view->io, &info->actual_size, err);

    if (rc == 0)
        rc = lam_io_size(view->io, &info->file_length, err);
    info->virtual_size = align_up(info->file_length, 512);
    info->protocol = !view->below;
    info->cluster_size = cluster_size(view);
    info->filename = strdup(view->shown);
    info->format = strdup(view->driver);
    if (rc == 0 && (!info->filename || !info->format))
        rc = no_memory(err);
    return rc < 0 ? rc : view_describe(view, info, err);
}

static int add_child(struct lam_image_info *info, const char *name,
                     struct lam_image_info *child, struct lam_error *err)
{
    struct lam_image_child *items =
        reallocarray(info->children, info->nb_children + 1, sizeof *items);

    if (!items) {
        lam_image_info_free(child);
        return no_memory(err);
    }
    info->children = items;
    info->children[info->nb_children++] =
        (struct lam_image_child){ name, child };
    return 0;
}

/* The layers below an image that is itself only a node of another. */
static int add_backing(struct lam_image *image, struct lam_image_info *info,
                       struct lam_error *err)
{
    struct lam_image *below = image->backing;
    struct lam_image_info *told;

    if (!below)
        return 0;
    int rc = lam_image_info(below, &told, err);
    if (rc == 0)
        rc = add_backing(below, told, err);
    if (rc < 0) {
        lam_image_info_free(told);
        return rc;
    }
    rc = add_child(info, "backing", told, err);
    /* It is told of first. */
    for (size_t i = info->nb_children - 1; i > 0 && rc == 0; i--) {
        struct lam_image_child swap = info->children[i];
        info->children[i] = info->children[i - 1];
        info->children[i - 1] = swap;
    }
    return rc;
}

static int describe(const struct node_view *view, struct lam_image_info **out,
                    struct lam_error *err)
{
    struct lam_image_info *info = NULL;
    int rc;

    if (view->image) {
        rc = lam_image_info(view->image, &info, err);
        if (rc == 0)
            rc = add_backing(view->image, info, err);
    } else {
        info = calloc(1, sizeof *info);
        rc = info ? describe_io(view, info, err) : no_memory(err);
    }
    if (rc < 0)
        lam_image_info_free(info);
    else
        *out = info;
    return rc;
}

/* A server tells neither what its file takes nor how it is used. */
static bool is_remote(const char *driver)
{
    static const char *const names[] = {
        "nbd", "http", "https", "ftp", "ftps",
    };
    size_t i = 0;

    while (i < LAM_ARRAY_SIZE(names) && strcmp(driver, names[i]))
        i++;
    return i < LAM_ARRAY_SIZE(names);
}

int view_describe(const struct node_view *view, struct lam_image_info *info,
                  struct lam_error *err)
{
    for (const struct node_view *v = view->below; v; v = v->next) {
        struct lam_image_info *told;
        int rc = describe(v, &told, err);

        if (rc == 0 && !strcmp(v->child, "file"))
            info->actual_size_unknown = told->actual_size_unknown;
        /* Raw is as dirty as what it is of. */
        if (rc == 0 && !strcmp(info->format, "raw"))
            info->dirty_unknown |= told->dirty_unknown;
        if (rc == 0)
            rc = add_child(info, v->child, told, err);
        if (rc < 0)
            return rc;
    }
    /* Faults on purpose: it is not asked what lies below. */
    info->actual_size_unknown |= !strcmp(info->format, "blkdebug")
        || !strcmp(info->format, "blkverify");
    bool remote = is_remote(info->format);
    info->actual_size_unknown |= remote;
    info->dirty_unknown |= remote || !strcmp(info->format, "quorum")
        || !strcmp(info->format, "snapshot-access")
        || !strncmp(info->format, "null-", 5);
    return 0;
}
