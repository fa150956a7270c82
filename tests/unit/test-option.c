/* SPDX-License-Identifier: MIT */
/*
 * test-option.c - sizes, key=value lists and create options of the command.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "option.h"

static const struct { const char *text; int rc; uint64_t bytes; } sizes[] = {
    { "0", 0, 0 },
    { "4096", 0, 4096 },
    { "010", 0, 10 },
    { "+5", 0, 5 },
    { " 5", 0, 5 },
    { "0xfff", 0, 4095 },
    { "64k", 0, 65536 },
    { "64K", 0, 65536 },
    { "16777216b", 0, 16777216 },
    { "1.5G", 0, 1610612736 },
    { ".5k", 0, 512 },
    { "1.k", 0, 1024 },
    { "2.00", 0, 2 },
    { "0.0005k", 0, 1 },                /* to the nearest byte */
    { "0.0001k", 0, 0 },
    { "0.99999999999999999999G", 0, 1073741824 },
    { "7E", 0, UINT64_C(7) << 60 },
    { "9223372036854775807", 0, INT64_MAX },
    { "9223372036854775808", -ERANGE, 0 },
    { "8E", -ERANGE, 0 },
    { "17E", -ERANGE, 0 },
    { "99999999999999999999", -ERANGE, 0 },
    { "-5", -ERANGE, 0 },
    { "-0", -ERANGE, 0 },
    { "", -EINVAL, 0 },
    { ".", -EINVAL, 0 },
    { "k", -EINVAL, 0 },
    { "5 ", -EINVAL, 0 },
    { "1 k", -EINVAL, 0 },
    { "1.5", -EINVAL, 0 },              /* a fraction of what? */
    { "1.5b", -EINVAL, 0 },
    { "1KB", -EINVAL, 0 },
    { "1e3", -EINVAL, 0 },
    { "0x", -EINVAL, 0 },
    { "0x1k", -EINVAL, 0 },
    { "1.2.3", -EINVAL, 0 },
    { "nan", -EINVAL, 0 },
    { "+-5", -EINVAL, 0 },
};

static void test_sizes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct lam_error err = LAM_ERROR_INIT;
        uint64_t bytes = 0;
        int rc = parse_size(sizes[i].text, &bytes, &err);

        if (rc != sizes[i].rc || bytes != sizes[i].bytes)
            fail_msg("'%s': %d, %llu", sizes[i].text, rc,
                     (unsigned long long)bytes);
        assert_int_equal(rc == 0, err.message[0] == '\0');
    }
}

static void test_size_names_what_is_wrong(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t bytes;

    (void)state;
    parse_size_named("x", "start offset", &bytes, &err);
    assert_string_equal(err.message, "Invalid start offset specified: 'x'.");
    parse_size_named("8E", "start offset", &bytes, &err);
    assert_string_equal(err.message, "Invalid start offset specified. Must be "
                        "between 0 and 9223372036854775807.");
    assert_int_equal(parse_size("x", &bytes, NULL), -EINVAL);
}

/* What -o lists add up to, written as "key=value;" in order. */
static const struct { const char *list, *again, *result; } lists[] = {
    { "a=1", NULL, "a=1;" },
    { "a=1,b=2", NULL, "a=1;b=2;" },
    { "a=1", "b=2", "a=1;b=2;" },
    { "a", NULL, "a=on;" },
    { "noa", NULL, "a=off;" },
    { "no=1", NULL, "no=1;" },
    { "a=", NULL, "a=;" },
    { "=1", NULL, "=1;" },
    { "a=x=y", NULL, "a=x=y;" },
    { "a=1,,2,b", NULL, "a=1,2;b=on;" },
    { "a=1,,", NULL, "a=1,;" },
    { "a=1,,,,", NULL, "a=1,,;" },
    { "a=1,,,b=2", NULL, "a=1,;b=2;" },
    { "", NULL, NULL },
    { ",", NULL, NULL },
    { ",a=1", NULL, NULL },
    { "a=1,", NULL, NULL },
    { "a=1,,,", NULL, NULL },
};

static void test_lists(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        struct keyvals kv = { 0 };
        char result[100] = "";
        int rc = keyvals_parse(&kv, lists[i].list, NULL);

        if (rc == 0 && lists[i].again)
            rc = keyvals_parse(&kv, lists[i].again, NULL);
        for (size_t k = 0; k < kv.count; k++) {
            strcat(result, kv.items[k].key);
            strcat(result, "=");
            strcat(result, kv.items[k].value);
            strcat(result, ";");
        }
        assert_int_equal(rc, lists[i].result ? 0 : -EINVAL);
        if (lists[i].result)
            assert_string_equal(result, lists[i].result);
        keyvals_deinit(&kv);
    }
}

static void test_later_values_win(void **state)
{
    struct keyvals kv = { 0 };

    (void)state;
    assert_int_equal(keyvals_parse(&kv, "a=1,b=2,a=3", NULL), 0);
    assert_string_equal(keyvals_get(&kv, "a"), "3");
    assert_int_equal(keyvals_set(&kv, "a", "4", NULL), 0);
    assert_string_equal(keyvals_get(&kv, "a"), "4");
    assert_null(keyvals_get(&kv, "c"));
    assert_true(keyvals_ask_help("a=1,help"));
    assert_true(keyvals_ask_help("?,a=1"));
    assert_false(keyvals_ask_help("a=help,helpful"));
    keyvals_deinit(&kv);
}

/* @message: NULL if the options are right. */
static const struct { const char *format, *list, *message; } wrong[] = {
    { "qcow2", "cluster_size=64k,refcount_bits=8,lazy_refcounts", NULL },
    { "raw", "preallocation=full", NULL },
    { "qcow2", "foo=1", "Invalid parameter 'foo'" },
    { "raw", "cluster_size=1", "Invalid parameter 'cluster_size'" },
    { "qcow2", "lazy_refcounts=1",
      "Parameter 'lazy_refcounts' expects 'on' or 'off'" },
    { "qcow2", "refcount_bits=x",
      "Parameter 'refcount_bits' expects a number" },
    { "qcow2", "size=17E",
      "Value '17E' is out of range for parameter 'size'" },
    { "qcow2", "compat=4", "Parameter 'version' does not accept value '4'" },
    { "qcow2", "compression_type=lzo",
      "Parameter 'compression-type' does not accept value 'lzo'" },
    { "qcow2", "preallocation=x",
      "Parameter 'preallocation' does not accept value 'x'" },
    { "raw", "preallocation=metadata",
      "Unsupported preallocation mode: metadata" },
    { "qcow2", "backing_fmt=x",
      "Parameter 'backing-fmt' does not accept value 'x'" },
    { "qcow2", "encrypt.format=luks,encrypt.key-secret=s", NULL },
    { "qcow2", "encrypt.foo=1", "Invalid parameter 'encrypt.foo'" },
    { "qcow2", "size=x,size=1M", "Parameter 'size' expects a non-negative "
      "number below 2^64\nOptional suffix k, M, G, T, P or E means kilo-, "
      "mega-, giga-, tera-, peta-\nand exabytes, respectively." },
};

static void test_wrong_options(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct lam_create_options options = LAM_CREATE_OPTIONS_INIT;
        struct lam_error err = LAM_ERROR_INIT;
        struct keyvals kv = { 0 };

        assert_int_equal(keyvals_parse(&kv, wrong[i].list, NULL), 0);
        int rc = create_options_apply(wrong[i].format, &kv, &options, &err);
        assert_int_equal(rc < 0, wrong[i].message != NULL);
        assert_string_equal(err.message,
                            wrong[i].message ? wrong[i].message : "");
        keyvals_deinit(&kv);
    }
}

static void test_all_options_arrive(void **state)
{
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
    struct keyvals kv = { 0 };

    (void)state;
    assert_int_equal(keyvals_parse(&kv, "size=1G,compat=0.10,backing_file=b,"
        "backing_fmt=raw,cluster_size=4k,preallocation=falloc,refcount_bits=1,"
        "lazy_refcounts=on,extended_l2=on,data_file=d,data_file_raw=on,"
        "compression_type=zstd,nocow=off", NULL), 0);
    assert_int_equal(create_options_apply("qcow2", &kv, &o, NULL), 0);
    assert_int_equal(o.size, 1 << 30);
    assert_int_equal(o.version, 2);
    assert_string_equal(o.backing_file, "b");
    assert_string_equal(o.backing_format, "raw");
    assert_int_equal(o.cluster_size, 4096);
    assert_int_equal(o.preallocation, LAM_PREALLOC_FALLOC);
    assert_int_equal(o.refcount_bits, 1);
    assert_true(o.lazy_refcounts && o.extended_l2 && o.data_file_raw);
    assert_string_equal(o.data_file, "d");
    assert_int_equal(o.compression_type, 1);
    keyvals_deinit(&kv);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_size_names_what_is_wrong),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_later_values_win),
        cmocka_unit_test(test_wrong_options),
        cmocka_unit_test(test_all_options_arrive),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
