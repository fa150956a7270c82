/* SPDX-License-Identifier: MIT */
/*
 * test-verify.c - a byte that differs anywhere after a conversion is found.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory-image.h"

enum { SIZE = (5 << 20) + 512 };

/* Data, zeroes that are stored, and holes. */
static uint8_t *make_bytes(void)
{
    uint8_t *bytes = calloc(1, SIZE);

    assert_non_null(bytes);
    for (size_t i = 0; i < SIZE; i++)
        if (i / 70000 % 3 == 0)
            bytes[i] = (uint8_t)(i % 251);
    return bytes;
}

static const uint64_t places[] = {
    0, 1, 69999, 70000, 100000, 139999, 1 << 20, (1 << 20) - 1, 3 << 20,
    SIZE - 513, SIZE - 512, SIZE - 1,
};

static void test_any_byte(void **state)
{
    uint8_t *bytes = make_bytes();
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *source = open_memory(bytes, SIZE, 0);
    struct lam_image *target = open_memory(NULL, SIZE, LAM_OPEN_WRITE);
    char offset[64];

    (void)state;
    assert_works(lam_convert(&source, 1, target, NULL, NULL, &err), &err);
    assert_works(lam_convert_verify(&source, 1, target, NULL, &err), &err);
    for (size_t i = 0; i < LAM_ARRAY_SIZE(places); i++) {
        uint8_t other = (uint8_t)(bytes[places[i]] ^ 0x10);
        assert_works(lam_image_write(target, &other, 1, places[i], 0, &err),
                     &err);
        assert_int_equal(lam_convert_verify(&source, 1, target, NULL, &err),
                         -EIO);
        snprintf(offset, sizeof offset, "byte %llu of",
                 (unsigned long long)places[i]);
        assert_non_null(strstr(err.message, offset));
        assert_works(lam_image_write(target, &bytes[places[i]], 1, places[i],
                                     0, &err), &err);
    }
    assert_works(lam_convert_verify(&source, 1, target, NULL, &err), &err);
    lam_image_close(target, NULL);
    lam_image_close(source, NULL);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
