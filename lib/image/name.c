/* SPDX-License-Identifier: MIT */
/*
 * name.c - what a user or a header calls an image → which file.
 */
#include "image/name.h"

#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/describe.h"

void node_free(struct node *node)
{
    while (node) {
        struct node *below = node->backing;
        node_free(node->data_file);     /* has no nodes of its own */
        free(node->filename);
        free(node->driver);
        free(node);
        node = below;
    }
}

static int no_memory(struct lam_error *err)
{
    return lam_fail(err, ENOMEM, "no memory for the name of an image");
}

int node_from_path(const char *path, struct node **out, struct lam_error *err)
{
    struct node *n = calloc(1, sizeof *n);
    if (n)
        n->filename = strdup(path);
    if (!n || !n->filename) {
        node_free(n);
        return no_memory(err);
    }
    *out = n;
    return 0;
}

bool name_has_protocol(const char *name)
{
    size_t length = strcspn(name, ":/");
    return name[length] == ':';
}

int node_from_name(const char *name, struct node **out, struct lam_error *err)
{
    if (!strncmp(name, "json:", 5)) {
        struct keylist keys lam_cleanup(keylist_deinit) = KEYLIST_INIT;
        int rc = keylist_from_json(&keys, name + 5, err);
        return rc < 0 ? rc : node_from_keys(&keys, out, err);
    }
    /* "file:" and a path, be it relative, absolute or behind two slashes that
     * start a URL: the path's own slashes may be many. */
    if (!strncmp(name, "file:", 5))
        name += 5;
    else if (name_has_protocol(name))
        return lam_fail(err, ENOTSUP, "Unknown protocol '%.*s'",
                        (int)strcspn(name, ":"), name);
    if (!*name)
        return lam_fail(err, EINVAL, "The 'file' block driver requires a file "
                        "name");
    return node_from_path(name, out, err);
}

int node_from_options(const char *text, struct node **out,
                      struct lam_error *err)
{
    struct keylist keys lam_cleanup(keylist_deinit) = KEYLIST_INIT;
    int rc = keylist_from_options(&keys, text, err);
    return rc < 0 ? rc : node_from_keys(&keys, out, err);
}

static struct json_object *show_file(const struct node *node)
{
    struct json_object *file = json_object_new_object();
    json_object_object_add(file, "driver",
        json_object_new_string(node->protocol ? node->protocol : "file"));
    json_object_object_add(file, "filename",
                           json_object_new_string(node->filename));
    return file;
}

static struct json_object *show_raw(uint64_t offset, uint64_t size,
                                    struct json_object *file)
{
    struct json_object *raw = json_object_new_object();
    json_object_object_add(raw, "driver", json_object_new_string("raw"));
    json_object_object_add(raw, "offset", json_object_new_uint64(offset));
    if (size)
        json_object_object_add(raw, "size", json_object_new_uint64(size));
    json_object_object_add(raw, "file", file);
    return raw;
}

char *node_show(const struct node *node, const char *driver)
{
    bool window = node->window_offset || node->window_size;
    bool raw = node->raw_offset || node->raw_size;
    if (!window && !raw)
        return strdup(node->filename);

    struct json_object *object = show_file(node);
    if (window)
        object = show_raw(node->window_offset, node->window_size, object);
    if (raw) {
        object = show_raw(node->raw_offset, node->raw_size, object);
    } else {
        struct json_object *format = json_object_new_object();
        json_object_object_add(format, "driver",
                               json_object_new_string(driver));
        json_object_object_add(format, "file", object);
        object = format;
    }
    char *shown;
    const int style = JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE;
    if (asprintf(&shown, "json:%s",
                 json_object_to_json_string_ext(object, style)) < 0)
        shown = NULL;
    json_object_put(object);
    return shown;
}

char *name_resolve(const char *overlay, const char *backing)
{
    const char *slash = overlay ? strrchr(overlay, '/') : NULL;
    char *joined;

    if (!slash || *backing == '/' || name_has_protocol(backing))
        return strdup(backing);
    int length = (int)(slash + 1 - overlay);
    return asprintf(&joined, "%.*s%s", length, overlay, backing) < 0 ? NULL
                                                                     : joined;
}
