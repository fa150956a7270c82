/* SPDX-License-Identifier: MIT */
/*
 * test-error.c - messages: formatting, prefixing, what may not pass.
 */
#include "unit.h"

#include <string.h>

static void formats(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    assert_int_equal(lam_fail(&err, EUCLEAN, "entry %d", 3), -EUCLEAN);
    assert_int_equal(err.code, EUCLEAN);
    assert_string_equal(err.message, "entry 3");
    assert_int_equal(lam_fail_errno(&err, ENOENT, "Could not open '%s'", "x"),
                     -ENOENT);
    assert_string_equal(err.message,
                        "Could not open 'x': No such file or directory");
    assert_int_equal(lam_fail(&err, EACCES, "refused"), -EACCES);
    assert_int_equal(lam_error_prefix(&err, -EACCES, "layer %d", 2), -EACCES);
    assert_string_equal(err.message, "layer 2: refused");
    /* The arguments may be the message itself. */
    lam_fail(&err, EIO, "again: %s", err.message);
    assert_string_equal(err.message, "again: layer 2: refused");
}

static void takes_null(void **state)
{
    (void)state;
    assert_int_equal(lam_fail(NULL, EIO, "x"), -EIO);
    assert_int_equal(lam_fail_errno(NULL, EIO, "x"), -EIO);
    assert_int_equal(lam_error_prefix(NULL, -EIO, "x"), -EIO);
}

static void escapes(void **state)
{
    (void)state;
    static const struct { const char *in, *out; } cases[] = {
        { "plain", "plain" },
        { "new\nline", "new\\x0aline" },
        { "\x1b[2J", "\\x1b[2J" },
        { "tab\tdel\x7f", "tab\\x09del\\x7f" },
        { "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\x8e",
          "gr\xc3\xbc\xc3\x9f \xe2\x82\xac \xf0\x9f\x90\x8e" },
        { "latin \xfc", "latin \\xfc" },
        { "c1 \xc2\x9b", "c1 \\xc2\\x9b" },
        { "overlong \xc0\xaf", "overlong \\xc0\\xaf" },
        { "surrogate \xed\xa0\x80", "surrogate \\xed\\xa0\\x80" },
        { "cut \xe2\x82", "cut \\xe2\\x82" },
    };
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct lam_error err = LAM_ERROR_INIT;
        lam_fail(&err, EIO, "%s", cases[i].in);
        assert_string_equal(err.message, cases[i].out);
        /* Prefixing does not escape twice. */
        lam_error_prefix(&err, -EIO, "p");
        assert_string_equal(err.message + 3, cases[i].out);
    }
}

static void cuts_at_a_character(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    char in[3000];
    for (size_t i = 0; i + 3 < sizeof in; i += 3)
        memcpy(in + i, "\xe2\x82\xac", 4);
    lam_fail(&err, EIO, "a%s", in);
    size_t length = strlen(err.message);
    assert_true(length < sizeof err.message && length > 1000);
    lam_error_prefix(&err, -EIO, "%s", in);
    assert_true(strlen(err.message) < sizeof err.message);
}

static void keeps_the_reason(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    const char *reason = "': File name too long";
    char name[3000];

    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    lam_fail_errno(&err, ENAMETOOLONG, "Could not open '%s'", name);
    lam_error_prefix(&err, -ENAMETOOLONG, "Could not open backing file");
    lam_error_prefix(&err, -ENAMETOOLONG, "Could not open '%s'", name);
    size_t length = strlen(err.message);
    assert_true(length > 1000);
    assert_string_equal(err.message + length - (strlen(reason) - 1),
                        reason + 1);
}

static void cache_modes(void **state)
{
    (void)state;
    struct lam_error err = LAM_ERROR_INIT;
    enum lam_cache_mode mode = LAM_CACHE_UNSAFE;
    assert_works(lam_cache_mode_parse("directsync", &mode, &err), &err);
    assert_int_equal(mode, LAM_CACHE_DIRECTSYNC);
    assert_int_equal(lam_cache_mode_parse("Fast", &mode, &err), -EINVAL);
    assert_string_equal(err.message, "Invalid cache option: Fast");
    assert_int_equal(mode, LAM_CACHE_DIRECTSYNC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats),
        cmocka_unit_test(takes_null),
        cmocka_unit_test(escapes),
        cmocka_unit_test(cuts_at_a_character),
        cmocka_unit_test(keeps_the_reason),
        cmocka_unit_test(cache_modes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
