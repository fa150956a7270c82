/* SPDX-License-Identifier: MIT */
/*
 * fuzz-names.c - any text as the name of an image: JSON and lists of options,
 * taken apart as opening does, down to what each node's options mean.  Names
 * come out of hostile headers.  Nothing is opened.
 *
 * The first byte says how the text is given.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "image/describe.h"
#include "io/io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { JSON, OPTIONS, NAME, WAYS, MAX_NODES = 64 };

static void must_say_why(int rc, const struct lam_error *err)
{
    if (rc < 0 && (!err->message[0] || strpbrk(err->message, "\n")))
        abort();
}

/* What is taken out once is not there any more. */
static void split(struct node *node, const char *name)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct node *child = NULL;
    bool has = node_has_child(node, name);
    int rc = node_take_child(node, name, &child, &err);

    must_say_why(rc, &err);
    if (rc == 0 && child && !has)
        abort();
    if (rc == 0 && child && keylist_below(&node->keys, name))
        abort();
    node_free(child);
}

static void describe(struct node *node)
{
    static const char *const children[] = {
        "file", "backing", "data-file", "extents", "children.0", "image",
    };
    const char *drivers[] = { "raw", "qcow2", "luks", "vmdk" };
    struct lam_error err = LAM_ERROR_INIT;
    struct traits traits = { 0 };
    struct format_open o = { 0 };
    uint64_t number = 0;

    for (size_t i = 0; i < sizeof children / sizeof *children; i++)
        split(node, children[i]);
    must_say_why(describe_traits(node, &traits, &err), &err);
    err = (struct lam_error)LAM_ERROR_INIT;
    must_say_why(node_take_bytes(node, "size", &number, &err), &err);
    err = (struct lam_error)LAM_ERROR_INIT;
    must_say_why(node_take_number(node, "offset", &number, &err), &err);
    for (size_t i = 0; i < sizeof drivers / sizeof *drivers; i++) {
        const struct format_ops *ops = format_find(drivers[i]);
        err = (struct lam_error)LAM_ERROR_INIT;
        if (ops)
            must_say_why(describe_format(node, ops, &o, &err), &err);
    }
    err = (struct lam_error)LAM_ERROR_INIT;
    must_say_why(describe_rest(node, "qcow2", false, &err), &err);
}

/* "file" of "file" of "file": as deep as it goes. */
static void descend(struct node *node)
{
    for (int depth = 0; node; depth++) {
        struct node *below = NULL;

        if (depth < MAX_NODES &&
            node_take_child(node, "file", &below, NULL) < 0)
            below = NULL;
        describe(node);
        node_free(node);
        node = below;
    }
}

static void resolve(const char *name)
{
    char *joined = name_resolve("some/folder/top.qcow2", name);

    if (joined && *name != '/' && !name_has_protocol(name) &&
        strncmp(joined, "some/folder/", 12))
        abort();
    free(joined);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct node *node = NULL;

    if (!size || memchr(data + 1, 0, size - 1))
        return 0;
    int way = data[0] % WAYS;
    const char *prefix = way == JSON ? "json:" : "";
    size_t skip = strlen(prefix);
    char *text = malloc(skip + size);
    if (!text)
        return 0;
    memcpy(text, prefix, skip);
    memcpy(text + skip, data + 1, size - 1);
    text[skip + size - 1] = '\0';
    int rc = way == OPTIONS ? node_from_options(text, &node, &err)
                            : node_from_name(text, &node, &err);
    must_say_why(rc, &err);
    if (rc == 0)
        descend(node);
    resolve(text);
    free(text);
    return 0;
}
