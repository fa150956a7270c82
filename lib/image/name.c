/* SPDX-License-Identifier: MIT */
/*
 * name.c - what a user or a header calls an image → which file.
 */
#include "image/name.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "image/debug.h"
#include "image/describe.h"

void node_free(struct node *node)
{
    while (node) {
        struct node *below = node->backing;
        node_free(node->data_file);     /* has no nodes of its own */
        debug_free(node->debug);
        free(node->shown);
        free(node->filename);
        free(node->driver);
        free(node->key_secret);
        free(node->encrypt_format);
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

static int node_from_debug(const char *name, struct node **out,
                           struct lam_error *err)
{
    struct node_debug *debug = NULL;
    struct node *n = NULL;
    const char *file;
    int rc = debug_from_name(name, &debug, &file, err);

    if (rc == 0)
        rc = node_from_name(file, &n, err);
    if (rc == 0 && (n->debug || n->described))
        rc = lam_fail(err, ENOTSUP, "blkdebug: '%s' is not a plain file name",
                      file);
    if (rc == 0) {
        n->debug = lam_take(&debug);
        n->shown = strdup(name);
        rc = n->shown ? 0 : no_memory(err);
    }
    debug_free(debug);
    if (rc < 0)
        node_free(n);
    else
        *out = n;
    return rc;
}

int node_from_name(const char *name, struct node **out, struct lam_error *err)
{
    if (!strncmp(name, "json:", 5)) {
        struct keylist keys lam_cleanup(keylist_deinit) = KEYLIST_INIT;
        int rc = keylist_from_json(&keys, name + 5, err);
        return rc < 0 ? rc : node_from_keys(&keys, out, err);
    }
    if (!strncmp(name, "blkdebug:", 9))
        return node_from_debug(name, out, err);
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

/* @text takes the place of @*shown, which is freed; NULL: no memory. */
static void replace(char **shown, int printed, char *text)
{
    free(*shown);
    *shown = printed < 0 ? NULL : text;
}

static char *show_file(const struct node *node)
{
    struct json_object *name = json_object_new_string(node->filename);
    char *shown = NULL, *text = NULL;
    int n = asprintf(&text, "{\"driver\": \"%s\", \"filename\": %s}",
                     node->protocol ? node->protocol : "file",
                     json_object_to_json_string_ext(
                         name, JSON_C_TO_STRING_NOSLASHESCAPE));
    replace(&shown, n, text);
    json_object_put(name);
    return shown;
}

/* What is @shown, seen through a raw driver. */
static void show_raw(char **shown, uint64_t offset, uint64_t size)
{
    char *text = NULL;
    int n = !*shown ? -1 : size
        ? asprintf(&text, "{\"driver\": \"raw\", \"offset\": %" PRIu64
                   ", \"size\": %" PRIu64 ", \"file\": %s}", offset, size,
                   *shown)
        : asprintf(&text, "{\"driver\": \"raw\", \"offset\": %" PRIu64
                   ", \"file\": %s}", offset, *shown);
    replace(shown, n, text);
}

char *node_show(const struct node *node, const char *driver)
{
    bool window = node->window_offset || node->window_size;
    bool raw = node->raw_offset || node->raw_size;
    if (node->shown)
        return strdup(node->shown);
    if (!window && !raw)
        return strdup(node->filename);

    char *shown = show_file(node), *text = NULL;
    int n = 0;
    if (window)
        show_raw(&shown, node->window_offset, node->window_size);
    if (raw)
        show_raw(&shown, node->raw_offset, node->raw_size);
    if (!shown)
        return NULL;
    n = raw ? asprintf(&text, "json:%s", shown)
            : asprintf(&text, "json:{\"driver\": \"%s\", \"file\": %s}", driver,
                       shown);
    replace(&shown, n, text);
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
