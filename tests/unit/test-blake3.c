/* SPDX-License-Identifier: MIT */
/*
 * test-blake3.c - BLAKE3 of texts whose hash is known, in pieces of any size.
 */
#include "unit.h"

#include <stdlib.h>
#include <stdio.h>

#include "base/arith.h"
#include "crypto/blake3.h"

static void expect(struct blake3 *b, const char *hex)
{
    uint8_t hash[BLAKE3_BYTES];
    char text[2 * BLAKE3_BYTES + 1];

    blake3_finish(b, hash);
    for (int i = 0; i < BLAKE3_BYTES; i++)
        snprintf(text + 2 * i, 3, "%02x", hash[i]);
    assert_string_equal(text, hex);
}

/* Texts of bytes that count up to 250, again and again.  Some of the hashes are
 * among the published test vectors, the others are of an implementation by the
 * letter of the paper. */
static const struct { const char *name; size_t length; const char *hex; }
cases[] = {
    { "nothing", 0, "af1349b9f5f9a1a6a0404dea36dcc949"
                    "9bcb25c9adc112b7cc9a93cae41f3262" },
    { "a byte", 1, "2d3adedff11b61f14c886e35afa03673"
                   "6dcd87a74d27b5c1510225d0f592e213" },
    { "a chunk", 1024, "42214739f095a406f3fc83deb889744a"
                       "c00df831c10daa55189b5d121c855af7" },
    { "a chunk and a byte", 1025, "d00278ae47eb27b34faecf67b4fe263f"
                                  "82d5412916c1ffd97c8cb7fb814b8444" },
    { "31 chunks", 31744, "62b6960e1a44bcc1eb1a611a8d6235b6"
                          "b4b78f32e7abc4fb4c6cdcce94895c47" },
    { "a group", 65536, "68d647e619a930e7b1082f74f334b0c6"
                        "5a315725569bdc123f0ee11881717bfe" },
    { "a group and a byte", 65537, "7c99f9840a73dfcb6e5bfe4ff6d1558a"
                                   "cab7e015640790c26411818bdbe17eca" },
    { "100 chunks", 102400, "bc3e3d41a1146b069abffad3c0d44860"
                            "cf664390afce4d9661f7902e7943e085" },
    { "three groups", 196608, "88939057eab3697bc0f667ad559433aa"
                              "d6e7a1bf5172aa28cc5420785b1e368c" },
    { "an odd end", 300001, "ac69f8086484814f8b5062bcaa846bde"
                            "9011e3f931eaa83275c85c4d7f435f10" },
};

/* Groups of chunks are hashed at once only where a piece holds them. */
static const size_t pieces[] = { SIZE_MAX, 1000, 1024, 66560, 131072 };

static void test_known(void **state)
{
    (void)state;
    uint8_t *text = malloc(300001);

    assert_non_null(text);
    for (size_t i = 0; i < 300001; i++)
        text[i] = (uint8_t)(i % 251);
    for (size_t c = 0; c < LAM_ARRAY_SIZE(cases); c++) {
        for (size_t p = 0; p < LAM_ARRAY_SIZE(pieces); p++) {
            struct blake3 b;
            blake3_init(&b);
            for (size_t at = 0; at < cases[c].length; ) {
                size_t left = cases[c].length - at;
                size_t piece = left < pieces[p] ? left : pieces[p];
                blake3_update(&b, text + at, piece);
                at += piece;
            }
            print_message("%s\n", cases[c].name);
            expect(&b, cases[c].hex);
        }
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
