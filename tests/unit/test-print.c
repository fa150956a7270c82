/* SPDX-License-Identifier: MIT */
/*
 * test-print.c - human sizes, JSON and escaped names of the command.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "print.h"

static const struct { uint64_t bytes; const char *text; } sizes[] = {
    { 0, "0 B" },
    { 512, "512 B" },
    { 999, "999 B" },
    { 1000, "0.977 KiB" },              /* the unit changes at 1000 */
    { 1024, "1 KiB" },
    { 1536, "1.5 KiB" },
    { 197120, "192 KiB" },
    { 1023488, "1e+03 KiB" },           /* so does qemu-img */
    { 1024000, "0.977 MiB" },
    { 1234568192, "1.15 GiB" },
    { UINT64_MAX, "16 EiB" },
};

static void test_human_sizes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        char buf[32];

        assert_string_equal(human_size(sizes[i].bytes, buf), sizes[i].text);
    }
}

static const struct { const char *text, *json, *escaped; } strings[] = {
    { "", "\"\"", "" },
    { "plain", "\"plain\"", "plain" },
    { "a\"b\\c", "\"a\\\"b\\\\c\"", "a\"b\\c" },
    { "\b\f\n\r\t", "\"\\b\\f\\n\\r\\t\"", "\\x08\\x0c\\x0a\\x0d\\x09" },
    { "\x01\x1b\x7f", "\"\\u0001\\u001B\\u007F\"", "\\x01\\x1b\\x7f" },
    { "\xc3\xa9", "\"\\u00E9\"", "\xc3\xa9" },
    { "\xe2\x82\xac", "\"\\u20AC\"", "\xe2\x82\xac" },
    { "\xf0\x9f\x98\x80", "\"\\uD83D\\uDE00\"", "\xf0\x9f\x98\x80" },
    /* What is no UTF-8 must not get into the document. */
    { "\xff", "\"\\uFFFD\"", "\xff" },
    { "\xc3", "\"\\uFFFD\"", "\xc3" },
    { "\xe2\x82", "\"\\uFFFD\"", "\xe2\x82" },
    { "\xe2\x82" "A", "\"\\uFFFDA\"", "\xe2\x82" "A" },
    { "\x80\x80", "\"\\uFFFD\\uFFFD\"", "\x80\x80" },
    { "\xed\xa0\x80", "\"\\uFFFD\"", "\xed\xa0\x80" },      /* surrogate */
    { "\xf4\x90\x80\x80", "\"\\uFFFD\"", "\xf4\x90\x80\x80" },
    { "\xef\xbf\xbf", "\"\\uFFFD\"", "\xef\xbf\xbf" },      /* U+FFFF */
    { "\xf0\x80\x80\x80", "\"\\uFFFD\"", "\xf0\x80\x80\x80" }, /* overlong */
};

static void test_strings(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++) {
        char *text = NULL;
        size_t size;
        FILE *out = open_memstream(&text, &size);

        print_json_string(out, strings[i].text);
        fflush(out);
        assert_string_equal(text, strings[i].json);
        rewind(out);
        print_escaped(out, strings[i].text);
        fclose(out);
        assert_string_equal(text, strings[i].escaped);
        free(text);
    }
}

static void test_json_layout(void **state)
{
    static const char expected[] =
        "{\n    \"list\": [\n        true,\n        {\n        }\n    ],\n"
        "    \"empty\": [\n    ],\n    \"max\": 18446744073709551615\n}\n";
    struct json_object *object = json_object_new_object();
    struct json_object *list = json_object_new_array();
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    (void)state;
    json_object_array_add(list, json_object_new_boolean(1));
    json_object_array_add(list, json_object_new_object());
    json_object_object_add(object, "list", list);
    json_object_object_add(object, "empty", json_object_new_array());
    json_object_object_add(object, "max", json_object_new_uint64(UINT64_MAX));
    print_json(out, object);
    fclose(out);
    assert_string_equal(text, expected);
    free(text);
    json_object_put(object);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_human_sizes),
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_json_layout),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
