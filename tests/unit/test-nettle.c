/* SPDX-License-Identifier: MIT */
/*
 * test-nettle.c - ciphers by nettle: known answers, and blocks of 8 bytes.
 */
#include "hex.h"

#include <stdio.h>
#include <string.h>

#include "crypto/crypt.h"

/* RFC 2144; the Twofish paper; NESSIE's first of each length of Serpent's
 * key. */
static const struct {
    enum cipher_algorithm algorithm;
    const char *key, *plain, *cipher;
} blocks[] = {
    { CIPHER_CAST5_128, "0123456712345678234567893456789a",
      "0123456789abcdef", "238b4fe5847e44b2" },
    { CIPHER_TWOFISH_128, "00000000000000000000000000000000",
      "00000000000000000000000000000000", "9f589f5cf6122c32b6bfec2f2ae8c35a" },
    { CIPHER_TWOFISH_192, "0123456789abcdeffedcba98765432100011223344556677",
      "00000000000000000000000000000000", "cfd1d2e5a9be9cdf501f13b892bd2248" },
    { CIPHER_TWOFISH_256, "0123456789abcdeffedcba9876543210"
                          "00112233445566778899aabbccddeeff",
      "00000000000000000000000000000000", "37527be0052334b89f0cfccae87cfa20" },
    { CIPHER_SERPENT_128, "80000000000000000000000000000000",
      "00000000000000000000000000000000", "264e5481eff42a4606abda06c0bfda3d" },
    { CIPHER_SERPENT_192, "800000000000000000000000000000000000000000000000",
      "00000000000000000000000000000000", "9e274ead9b737bb21efcfca548602689" },
    { CIPHER_SERPENT_256, "80000000000000000000000000000000"
                          "00000000000000000000000000000000",
      "00000000000000000000000000000000", "a223aa1288463c0e2be38ebd825616c0" },
};

static void test_known_answers(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(blocks); i++) {
        uint8_t key[64], buf[16], plain[16], expected[16];
        size_t n = unhex(blocks[i].plain, plain);
        struct block_cipher *b;

        assert_int_equal(unhex(blocks[i].key, key),
                         cipher_key_bytes(blocks[i].algorithm, CIPHER_ECB));
        assert_int_equal(n, cipher_block_bytes(blocks[i].algorithm));
        unhex(blocks[i].cipher, expected);
        memcpy(buf, plain, n);
        assert_works(block_new(blocks[i].algorithm, key, &b, &err), &err);
        assert_works(block_run(b, CIPHER_ENCRYPT, buf, n, &err), &err);
        if (memcmp(buf, expected, n))
            fail_msg("%s: wrong ciphertext",
                     cipher_name(blocks[i].algorithm));
        assert_works(block_run(b, CIPHER_DECRYPT, buf, n, &err), &err);
        assert_memory_equal(buf, plain, n);
        block_free(b);
    }
}

/* RFC 2144's one block in a row: IVs of 8 bytes, and counters that carry. */
static void test_short_blocks(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t key[16], stream[24], buf[24] = { 0 }, ivs[3 * CIPHER_IV_BYTES];
    struct block_cipher *b;
    struct cipher *c;

    (void)state;
    unhex("0123456712345678234567893456789a", key);
    unhex("00000000ffffffff" "0000000100000000" "0000000100000001", stream);
    assert_works(block_new(CIPHER_CAST5_128, key, &b, &err), &err);
    assert_works(block_run(b, CIPHER_ENCRYPT, stream, 24, &err), &err);
    unhex("00000000ffffffff", ivs);
    assert_works(cipher_new(CIPHER_CAST5_128, CIPHER_CTR, key, 16, &c, &err),
                 &err);
    assert_works(cipher_run(c, CIPHER_ENCRYPT, buf, 24, 24, ivs, &err), &err);
    assert_memory_equal(buf, stream, sizeof buf);
    cipher_free(c);
    block_free(b);
    assert_int_equal(cipher_new(CIPHER_CAST5_128, CIPHER_XTS, key, 32, &c,
                                &err), -EINVAL);
    assert_string_equal(err.message, "Unsupported cipher mode xts");
}

static void test_batches(void **state)
{
    enum { SECTORS = 150 };
    static uint8_t many[SECTORS * 512], one[SECTORS * 512];
    struct lam_error err = LAM_ERROR_INIT;
    const uint8_t key[64] = { 1, 2, 3 };

    (void)state;
    for (int mode = 0; mode < CIPHER_MODE_COUNT; mode++) {
        for (int ivgen = 0; ivgen < IVGEN_COUNT; ivgen++) {
            struct crypt_spec spec = {
                .cipher = CIPHER_CAST5_128, .mode = (enum cipher_mode)mode,
                .ivgen = (enum ivgen_algorithm)ivgen, .ivgen_hash = HASH_MD5,
            };
            struct crypt *c;

            if (mode == CIPHER_XTS)
                continue;
            assert_works(crypt_new(&spec, key, 16, CRYPT_HOST, &c, &err),
                         &err);
            memset(many, 7, sizeof many);
            memset(one, 7, sizeof one);
            assert_works(crypt_run(c, CIPHER_ENCRYPT, many, sizeof many, 0,
                                   512 * 9, &err), &err);
            for (size_t i = 0; i < SECTORS; i++)
                assert_works(crypt_run(c, CIPHER_ENCRYPT, one + i * 512, 512,
                                       0, 512 * (9 + i), &err), &err);
            assert_memory_equal(many, one, sizeof many);
            assert_works(crypt_run(c, CIPHER_DECRYPT, many, sizeof many, 0,
                                   512 * 9, &err), &err);
            for (size_t i = 0; i < sizeof many; i++)
                assert_int_equal(many[i], 7);
            crypt_free(c);
        }
    }
}

/* A family has more than one length of key, or the hash has the only one. */
static void test_essiv(void **state)
{
    static const struct {
        enum hash_algorithm hash;
        enum cipher_algorithm cipher, salted;
        const char *message;
    } cases[] = {
        { HASH_SHA256, CIPHER_TWOFISH_128, CIPHER_TWOFISH_256, NULL },
        { HASH_MD5, CIPHER_SERPENT_256, CIPHER_SERPENT_128, NULL },
        { HASH_MD5, CIPHER_CAST5_128, CIPHER_CAST5_128, NULL },
        { HASH_SHA1, CIPHER_TWOFISH_256, 0,
          "No Twofish cipher with key size 20 available" },
        { HASH_SHA512, CIPHER_SERPENT_256, 0,
          "No Serpent cipher with key size 64 available" },
        { HASH_SHA256, CIPHER_CAST5_128, 0,
          "Cipher cast5-128 not supported with essiv" },
    };

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct lam_error err = LAM_ERROR_INIT;
        enum cipher_algorithm salted;
        int rc = ivgen_essiv_cipher(cases[i].hash, cases[i].cipher, &salted,
                                    &err);

        assert_int_equal(rc, cases[i].message ? -EINVAL : 0);
        if (cases[i].message)
            assert_string_equal(err.message, cases[i].message);
        else
            assert_int_equal(salted, cases[i].salted);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_short_blocks),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_essiv),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
