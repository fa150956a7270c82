/* SPDX-License-Identifier: MIT */
/*
 * test-name.c - names of images: paths, json:, key lists, backing names.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/arith.h"
#include "base/cleanup.h"
#include "image/describe.h"

static const struct {
    const char *overlay, *backing, *result;
} resolve_cases[] = {
    { "top.qcow2", "base.raw", "base.raw" },
    { "dir/top.qcow2", "base.raw", "dir/base.raw" },
    { "dir/top.qcow2", "../base.raw", "dir/../base.raw" },
    { "/a/b/top.qcow2", "base.raw", "/a/b/base.raw" },
    { "/top.qcow2", "base.raw", "/base.raw" },
    { "dir/top.qcow2", "/abs/base.raw", "/abs/base.raw" },
    { "dir/top.qcow2", "nbd://host/x", "nbd://host/x" },
    { "dir/top.qcow2", "file:base.raw", "file:base.raw" },
    { "dir/top.qcow2", "json:{\"a\":1}", "json:{\"a\":1}" },
    { "dir/top.qcow2", "./foo:bar.raw", "dir/./foo:bar.raw" },
    { "dir/top.qcow2", "a/b:c.raw", "dir/a/b:c.raw" },
    { "dir/top.qcow2", "a b:c.raw", "a b:c.raw" },
    { NULL, "base.raw", "base.raw" },
};

static void test_resolve(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(resolve_cases); i++) {
        lam_autofree char *result = name_resolve(resolve_cases[i].overlay,
                                                 resolve_cases[i].backing);
        assert_string_equal(result, resolve_cases[i].result);
    }
}

/* --------------------------------------------------------------------- keys */

/* The keys that a text stands for, "key=value" one after the other, or what the
 * message must hold. */
struct keys_case {
    const char *text, *keys, *error;
};

static const struct keys_case json_cases[] = {
    { "{}", "", NULL },
    { " {\"a\":1 , \"b\" : \"x\"} ", "a=1;b=x;", NULL },
    { "{\"a\":{\"b\":{\"c\":true}},\"d\":[1,[false]]}",
      "a.b.c=on;d.0=1;d.1.0=off;", NULL },
    { "{\"a.b\":null}", "a.b;", NULL },
    { "{'a':'x\"y'}", "a=x\"y;", NULL },
    { "{\"a\":\"\\\"\\\\\\/\\n\\u00e9\\ud83d\\ude00\"}",
      "a=\"\\/\n\xc3\xa9\xf0\x9f\x98\x80;", NULL },
    { "{\"a\":1e3,\"b\":1024.0,\"c\":-5}", "a=1000;b=1024;c=-5;", NULL },
    { "{\"a\":18446744073709551616}", "a=18446744073709551616;", NULL },

    { "", NULL, "Expecting a JSON value" },
    { "{", NULL, "premature EOI" },
    { "{\"a\"", NULL, "premature EOI" },
    { "{\"a\":1,", NULL, "premature EOI" },
    { "{bad", NULL, "invalid keyword 'bad'" },
    { "{1:2}", NULL, "key is not a string in object" },
    { "{\"a\" 1}", NULL, "missing : in object pair" },
    { "{\"a\":1 \"b\":2}", NULL, "expected separator in dict" },
    { "{\"a\":[1 2]}", NULL, "expected separator in list" },
    { "{\"a\":}", NULL, "expecting value" },
    { "{\"a\":1,\"a\":2}", NULL, "duplicate key" },
    { "{\"a\":\"x", NULL, "stray '\"x'" },
    { "{\"a\":\"x\\", NULL, "stray '\"x\\'" },
    { "{\"a\":\"\\x\"}", NULL, "invalid escape sequence" },
    { "{\"a\":\"\\ud800\"}", NULL, "\\ud800 is not a valid Unicode" },
    { "{\"a\":\"\\u12\"}", NULL, "is not a valid Unicode" },
    { "{\"a\":\"\\u0000\"}", NULL, "NUL" },
    { "{\"a\":01}", NULL, "stray '01" },
    { "{\"a\":@}", NULL, "stray '@'" },
    { "{} x", NULL, "Expecting at most one JSON value" },
    { "[]", NULL, "Invalid JSON object given" },
};

static const struct keys_case option_cases[] = {
    { "", "", NULL },
    { "a=1,b=x", "a=1;b=x;", NULL },
    { "a=x,,y,b=", "a=x,y;b=;", NULL },
    { "a=1,ro,nodirect", "a=1;ro=on;direct=off;", NULL },
    { "name", "file=name;", NULL },
    { "=x", "=x;", NULL },
    { "a=1,", "a=1;", NULL },
};

static void check_keys(const struct keys_case *c, int rc,
                       const struct keylist *list, const struct lam_error *err)
{
    char text[256] = "", *end = text;

    if (c->error) {
        assert_true(rc < 0);
        if (!strstr(err->message, c->error))
            fail_msg("%s: %s", c->text, err->message);
        return;
    }
    assert_int_equal(rc, 0);
    for (size_t i = 0; i < list->count; i++) {
        const struct keyitem *item = &list->items[i];
        end = stpcpy(end, item->key);
        if (item->value)
            end = stpcpy(stpcpy(end, "="), item->value);
        end = stpcpy(end, ";");
    }
    assert_string_equal(text, c->keys);
}

static void test_keys(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(json_cases); i++) {
        struct lam_error err = LAM_ERROR_INIT;
        struct keylist list lam_cleanup(keylist_deinit) = KEYLIST_INIT;
        int rc = keylist_from_json(&list, json_cases[i].text, &err);
        check_keys(&json_cases[i], rc, &list, &err);
    }
    for (size_t i = 0; i < LAM_ARRAY_SIZE(option_cases); i++) {
        struct lam_error err = LAM_ERROR_INIT;
        struct keylist list lam_cleanup(keylist_deinit) = KEYLIST_INIT;
        int rc = keylist_from_options(&list, option_cases[i].text, &err);
        check_keys(&option_cases[i], rc, &list, &err);
    }
}

/* -------------------------------------------------------------------- nodes */

static struct node *parse(const char *name)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct node *node = NULL;
    assert_int_equal(node_from_name(name, &node, &err), 0);
    return node;
}

static struct node *child(struct node *node, const char *name)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct node *below = NULL;
    assert_int_equal(node_take_child(node, name, &below, &err), 0);
    return below;
}

static void test_plain(void **state)
{
    static const char *const names[] = { "x", "dir/a:b", "file:x", "nbd:x",
                                         "" };
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(names); i++) {
        struct node *n = parse(names[i]);
        assert_string_equal(n->plain, names[i]);
        assert_null(n->driver);
        node_free(n);
    }
    /* A path is never taken for anything else. */
    struct node *n = NULL;
    assert_int_equal(node_from_path("json:{}", &n, NULL), 0);
    assert_string_equal(n->plain, "file:json:{}");
    node_free(n);
}

static void test_tree(void **state)
{
    (void)state;
    struct node *n = parse("json:{\"driver\":\"qcow2\",\"backing\":{\"driver\":"
                           "\"raw\",\"file\":{\"filename\":\"b\"}},"
                           "\"file.filename\":\"x\"}");
    assert_null(n->plain);
    assert_string_equal(n->driver, "qcow2");
    assert_true(node_has_child(n, "backing"));
    assert_false(node_has_child(n, "data-file"));
    struct node *backing = child(n, "backing");
    assert_false(node_has_child(n, "backing"));
    assert_string_equal(backing->driver, "raw");
    struct node *file = child(backing, "file");
    assert_null(file->driver);
    assert_string_equal(node_take_text(file, "filename"), "b");
    assert_null(keylist_unused(&file->keys));
    assert_string_equal(keylist_unused(&n->keys), "file.filename");
    assert_null(child(n, "data-file"));
    node_free(file);
    node_free(backing);
    node_free(n);
}

/* A node is described, or it has a name that nobody gave. */
static void test_references(void **state)
{
    static const struct { const char *name; bool fails; } cases[] = {
        { "json:{\"file\":null}", false },
        { "json:{\"file\":1}", false },
        { "json:{\"file\":\"x\"}", true },
        { "json:{\"file\":\"x\",\"file.filename\":\"y\"}", true },
    };
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct lam_error err = LAM_ERROR_INIT;
        struct node *n = parse(cases[i].name), *below = NULL;
        int rc = node_take_child(n, "file", &below, &err);
        assert_int_equal(rc < 0, cases[i].fails);
        assert_null(below);
        node_free(n);
    }
}

static void test_values(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
        const char *error;
    } cases[] = {
        { "0", 0, NULL },
        { "512", 512, NULL },
        { "1k", 1024, NULL },
        { "2M", 2 << 20, NULL },
        { "0x200", 512, NULL },
        { "+5", 5, NULL },
        { "1.5k", 1536, NULL },
        { "15.5E", UINT64_C(31) << 59, NULL },
        { "16E", 0, "Value '16E' is out of range for parameter 'o'" },
        { "18446744073709551616", 0, "is out of range for parameter 'o'" },
        { "0x10000000000000000", 0, "is out of range for parameter 'o'" },
        { "1.5", 0, "non-negative number below 2^64" },
        { ".", 0, "non-negative number below 2^64" },
        { "1.k", 0, "non-negative number below 2^64" },
        { "0x2k", 0, "Parameter 'o' expects" },
        { "-x", 0, "Parameter 'o' expects" },
        { "1x", 0, "Parameter 'o' expects" },
        { "1kb", 0, "Parameter 'o' expects" },
        { "", 0, "Parameter 'o' expects" },
        { "-1", 0, "Value '-1' is out of range for parameter 'o'" },
    };
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct lam_error err = LAM_ERROR_INIT;
        struct node n = { .plain = NULL };
        uint64_t bytes = 7;
        assert_int_equal(node_take_bytes(&n, "o", &bytes, &err), 0);
        assert_int_equal(bytes, 7);
        keylist_add(&n.keys, "o", cases[i].text, KEY_STRING, NULL);
        int rc = node_take_bytes(&n, "o", &bytes, &err);
        assert_int_equal(rc < 0, cases[i].error != NULL);
        if (rc < 0)
            assert_non_null(strstr(err.message, cases[i].error));
        else
            assert_int_equal(bytes, cases[i].bytes);
        keylist_deinit(&n.keys);
    }
}

static void test_traits(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    struct traits t = { 0 };
    struct node *n = parse("json:{\"read-only\":true,\"discard\":\"unmap\","
                           "\"cache\":{\"direct\":\"on\",\"no-flush\":false},"
                           "\"detect-zeroes\":\"unmap\"}");
    assert_int_equal(describe_traits(n, &t, &err), 0);
    assert_int_equal(t.read_only, NODE_ON);
    assert_int_equal(t.unmap, NODE_ON);
    assert_int_equal(t.direct, NODE_ON);
    assert_int_equal(t.no_flush, NODE_OFF);
    assert_int_equal(t.detect_zeroes, LAM_DETECT_ZEROES_UNMAP);
    assert_null(keylist_unused(&n->keys));
    node_free(n);

    /* What is below takes it over, and may say otherwise. */
    struct traits below = traits_below(&t);
    assert_int_equal(below.direct, NODE_ON);
    assert_false(below.has_detect_zeroes);
    n = parse("json:{\"cache.direct\":\"off\"}");
    assert_int_equal(describe_traits(n, &below, &err), 0);
    assert_int_equal(below.direct, NODE_OFF);
    assert_int_equal(below.read_only, NODE_ON);
    node_free(n);
}

/* Nodes nested as deep as they can be written must not eat the stack. */
static void test_nesting(void **state)
{
    static const char *const chains[] = { "backing.", "file." };
    static char name[64 * 1024];
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;
    struct lam_image *image = NULL;

    (void)state;
    options.flags = LAM_OPEN_IMAGE_OPTS;
    for (size_t k = 0; k < LAM_ARRAY_SIZE(chains); k++) {
        char *end = stpcpy(name, "driver=raw,");
        for (size_t i = 0; i < 6000; i++)
            end = stpcpy(end, chains[k]);
        stpcpy(end, "driver=raw");
        assert_true(lam_image_open(name, &options, &image, &err) < 0);
    }
    char *end = name;
    for (size_t i = 0; i < 100; i++) {
        for (size_t k = 0; k < i; k++)
            end = stpcpy(end, "file.");
        end = stpcpy(end, "driver=preallocate,");
    }
    assert_true(lam_image_open(name, &options, &image, &err) < 0);

    struct node *node = NULL;
    end = stpcpy(name, "json:");
    for (size_t i = 0; i < 4000; i++)
        end = stpcpy(end, "{\"file\":");
    assert_true(node_from_name(name, &node, &err) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resolve),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_tree),
        cmocka_unit_test(test_references),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_traits),
        cmocka_unit_test(test_nesting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
