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
#include "image/name.h"

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

/* What a name describes, or the error. */
struct name_case {
    const char *name;
    const char *filename;       /* NULL: refused */
    const char *driver;         /* or what the message must hold */
    uint64_t raw_offset, raw_size;
};

#define FILE_X "\"file\":{\"driver\":\"file\",\"filename\":\"x\"}"

static const struct name_case name_cases[] = {
    { "x", "x", NULL, 0, 0 },
    { "dir/a:b", "dir/a:b", NULL, 0, 0 },
    { "file:x", "x", NULL, 0, 0 },
    { "file:///dir/x", "///dir/x", NULL, 0, 0 },
    { "", NULL, "requires a file name", 0, 0 },
    { "file:", NULL, "requires a file name", 0, 0 },
    { "foo:bar", NULL, "Unknown protocol 'foo'", 0, 0 },
    { "nbd://h/x", NULL, "Unknown protocol 'nbd'", 0, 0 },

    { "json:{\"driver\":\"qcow2\"," FILE_X "}", "x", "qcow2", 0, 0 },
    { "json:{" FILE_X "}", "x", NULL, 0, 0 },
    { "json:{\"file.filename\":\"x\"}", "x", NULL, 0, 0 },
    { "json:{\"driver\":\"qcow2\",\"file\":{\"filename\":\"x\"}}", "x",
      "qcow2", 0, 0 },
    { "json:{\"driver\":\"file\",\"filename\":\"x\"}", "x", "raw", 0, 0 },
    { "json:{\"driver\":\"host_device\",\"filename\":\"x\"}", "x", "raw",
      0, 0 },
    { "json:{\"driver\":\"raw\",\"offset\":512,\"size\":1024," FILE_X "}", "x",
      "raw", 512, 1024 },
    { "json:{\"driver\":\"raw\",\"offset\":\"1k\",\"size\":\"2M\"," FILE_X "}",
      "x", "raw", 1024, 2 << 20 },
    { "json: {\"driver\":\"raw\"," FILE_X "} ", "x", "raw", 0, 0 },
    { "json:{\"driver\":\"raw\",\"node-name\":\"n\",\"file\":{\"driver\":"
      "\"file\",\"filename\":\"x\",\"locking\":\"auto\",\"aio\":\"threads\"}}",
      "x", "raw", 0, 0 },

    { "json:{", NULL, "Could not parse the JSON options", 0, 0 },
    { "json:{bad", NULL, "Could not parse the JSON options", 0, 0 },
    { "json:{} x", NULL, "Could not parse the JSON options", 0, 0 },
    { "json:[]", NULL, "Invalid JSON object", 0, 0 },
    { "json:{}", NULL, "Must specify either driver or file", 0, 0 },
    { "json:{\"filename\":\"x\"}", NULL, "Must specify either driver or file",
      0, 0 },
    { "json:{\"driver\":\"qcow2\"}", NULL,
      "A block device must be specified for \"file\"", 0, 0 },
    { "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\"}}", NULL,
      "The 'file' block driver requires a file name", 0, 0 },
    { "json:{\"driver\":\"raw\",\"file\":\"x\"}", NULL,
      "Cannot find device='x'", 0, 0 },
    { "json:{\"driver\":\"nope\"," FILE_X "}", NULL, "Unknown driver 'nope'",
      0, 0 },
    { "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"nbd\"}}", NULL,
      "Unknown driver 'nbd'", 0, 0 },
    { "json:{\"driver\":\"qcow2\",\"foo\":1," FILE_X "}", NULL,
      "Block format 'qcow2' does not support the option 'foo'", 0, 0 },
    { "json:{\"driver\":\"qcow2\",\"offset\":1," FILE_X "}", NULL,
      "does not support the option 'offset'", 0, 0 },
    { "json:{\"driver\":\"raw\",\"file\":{\"filename\":\"x\",\"foo\":1}}",
      NULL, "'file' does not support the option 'foo'", 0, 0 },
    { "json:{\"driver\":\"raw\",\"read-only\":\"maybe\"," FILE_X "}", NULL,
      "Parameter 'read-only' expects 'on' or 'off'", 0, 0 },
    { "json:{\"driver\":\"raw\",\"size\":-1," FILE_X "}", NULL,
      "Parameter 'size' expects", 0, 0 },
    { "json:{\"driver\":\"raw\",\"file\":{\"filename\":\"a\\u0000b\"}}", NULL,
      "NUL", 0, 0 },
};

static void check_case(const struct name_case *c, int rc, struct node *node,
                       const struct lam_error *err)
{
    if (!c->filename) {
        assert_true(rc < 0);
        assert_non_null(strstr(err->message, c->driver));
        return;
    }
    assert_int_equal(rc, 0);
    assert_string_equal(node->filename, c->filename);
    if (c->driver)
        assert_string_equal(node->driver, c->driver);
    else
        assert_null(node->driver);
    assert_int_equal(node->raw_offset, c->raw_offset);
    assert_int_equal(node->raw_size, c->raw_size);
    node_free(node);
}

static void test_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(name_cases); i++) {
        struct lam_error err = LAM_ERROR_INIT;
        struct node *node = NULL;
        int rc = node_from_name(name_cases[i].name, &node, &err);
        check_case(&name_cases[i], rc, node, &err);
    }
}

static const struct name_case option_cases[] = {
    { "file.filename=x", "x", NULL, 0, 0 },
    { "driver=qcow2,file.filename=x", "x", "qcow2", 0, 0 },
    { "driver=qcow2,file.driver=file,file.filename=a,,b", "a,b", "qcow2",
      0, 0 },
    { "driver=raw,file.filename=x,offset=1k,size=512", "x", "raw", 1024, 512 },
    { "driver=raw,file.filename=y,file.filename=x", "x", "raw", 0, 0 },
    { "driver=raw,file.filename=x,read-only", "x", "raw", 0, 0 },
    { "driver=raw,file.filename=x,cache.direct=on,cache.no-flush=off", "x",
      "raw", 0, 0 },
    { "", NULL, "Must specify either driver or file", 0, 0 },
    { "x", NULL, "Must specify either driver or file", 0, 0 },
    { "=x", NULL, "Invalid parameter", 0, 0 },
    { "driver=raw,,x,file.filename=x", NULL, "Unknown driver 'raw,x'", 0, 0 },
    { "driver=raw,file.filename=x,detect-zeroes=x", NULL, "invalid parameter",
      0, 0 },
};

static void test_options(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(option_cases); i++) {
        struct lam_error err = LAM_ERROR_INIT;
        struct node *node = NULL;
        int rc = node_from_options(option_cases[i].name, &node, &err);
        check_case(&option_cases[i], rc, node, &err);
    }
}

static struct node *parse(const char *name)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct node *node = NULL;
    assert_int_equal(node_from_name(name, &node, &err), 0);
    return node;
}

static void test_edges(void **state)
{
    (void)state;
    struct node *n = parse("json:{\"driver\":\"qcow2\"," FILE_X
                           ",\"backing\":null}");
    assert_true(n->no_backing);
    node_free(n);

    n = parse("json:{\"driver\":\"qcow2\"," FILE_X ",\"backing\":{\"driver\":"
              "\"qcow2\",\"file.filename\":\"m\",\"backing\":{\"driver\":"
              "\"raw\",\"file\":{\"filename\":\"b\"}}},"
              "\"data-file\":{\"driver\":\"file\",\"filename\":\"d\"}}");
    assert_string_equal(n->backing->filename, "m");
    assert_string_equal(n->backing->backing->filename, "b");
    assert_string_equal(n->backing->backing->driver, "raw");
    assert_string_equal(n->data_file->filename, "d");
    node_free(n);
}

/* A disk inside an archive, as migration tools describe it. */
static void test_window(void **state)
{
    (void)state;
    struct node *n = parse("json:{\"driver\":\"qcow2\",\"file\":{\"driver\":"
                           "\"raw\",\"offset\":1536,\"size\":4096,\"file\":"
                           "{\"driver\":\"file\",\"filename\":\"x.ova\"}}}");
    assert_string_equal(n->filename, "x.ova");
    assert_int_equal(n->window_offset, 1536);
    assert_int_equal(n->window_size, 4096);

    /* What we show for it means the same. */
    lam_autofree char *shown = node_show(n, "qcow2");
    node_free(n);
    n = parse(shown);
    assert_string_equal(n->driver, "qcow2");
    assert_string_equal(n->filename, "x.ova");
    assert_int_equal(n->window_offset, 1536);
    assert_int_equal(n->window_size, 4096);
    node_free(n);
}

static void test_switches(void **state)
{
    (void)state;
    struct node *n = parse("json:{\"driver\":\"raw\",\"read-only\":true,"
                           "\"discard\":\"unmap\",\"cache\":{\"direct\":true,"
                           "\"no-flush\":false}," FILE_X "}");
    assert_int_equal(n->read_only, NODE_ON);
    assert_int_equal(n->unmap, NODE_ON);
    assert_int_equal(n->direct, NODE_ON);
    assert_int_equal(n->no_flush, NODE_OFF);
    node_free(n);
}

/* Keys nested as deep as they can be written must not eat the stack. */
static void test_nesting(void **state)
{
    (void)state;
    static char name[64 * 1024];
    char *end = stpcpy(name, "driver=qcow2,file.filename=x,");
    for (size_t i = 0; i < 6000; i++)
        end = stpcpy(end, "backing.");
    stpcpy(end, "driver=raw");
    struct lam_error err = LAM_ERROR_INIT;
    struct node *node = NULL;
    assert_true(node_from_options(name, &node, &err) < 0);

    end = stpcpy(name, "json:");
    for (size_t i = 0; i < 4000; i++)
        end = stpcpy(end, "{\"file\":");
    assert_true(node_from_name(name, &node, &err) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resolve),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_edges),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_switches),
        cmocka_unit_test(test_nesting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
