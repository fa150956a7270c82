/* SPDX-License-Identifier: MIT */
/*
 * test-crypto.c - ciphers, hashes, splitter, base64, keyring: known answers.
 */
#include "hex.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crypto/afsplit.h"
#include "crypto/base64.h"
#include "crypto/crypt.h"
#include "crypto/keyring.h"

/* SP 800-38A for ECB, CBC and CTR; IEEE 1619 for XTS. */
#define NIST_KEY "2b7e151628aed2a6abf7158809cf4f3c"
#define NIST_TEXT "6bc1bee22e409f96e93d7e117393172a" \
                  "ae2d8a571e03ac9c9eb76fac45af8e51"

static const struct {
    const char *name;
    enum cipher_algorithm algorithm;
    enum cipher_mode mode;
    const char *key, *iv, *plain, *cipher;
} known[] = {
    { "ecb", CIPHER_AES_128, CIPHER_ECB, NIST_KEY,
      "00000000000000000000000000000000", NIST_TEXT,
      "3ad77bb40d7a3660a89ecaf32466ef97f5d3d58503b9699de785895a96fdbaaf" },
    { "cbc", CIPHER_AES_128, CIPHER_CBC, NIST_KEY,
      "000102030405060708090a0b0c0d0e0f", NIST_TEXT,
      "7649abac8119b246cee98e9b12e9197d5086cb9b507219ee95db113a917678b2" },
    { "ctr", CIPHER_AES_128, CIPHER_CTR, NIST_KEY,
      "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff", NIST_TEXT,
      "874d6191b620e3261bef6864990db6ce9806f66b7970fdff8617187bb9fffdff" },
    { "cbc 192", CIPHER_AES_192, CIPHER_CBC,
      "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b",
      "000102030405060708090a0b0c0d0e0f", NIST_TEXT,
      "4f021db243bc633d7178183a9fa071e8b4d9ada9ad7dedf4e5e738763f69145a" },
    { "xts 1", CIPHER_AES_128, CIPHER_XTS,
      "0000000000000000000000000000000000000000000000000000000000000000",
      "00000000000000000000000000000000",
      "0000000000000000000000000000000000000000000000000000000000000000",
      "917cf69ebd68b2ec9b9fe9a3eadda692cd43d2f59598ed858c02c2652fbf922e" },
    { "xts 2", CIPHER_AES_128, CIPHER_XTS,
      "1111111111111111111111111111111122222222222222222222222222222222",
      "33333333330000000000000000000000",
      "4444444444444444444444444444444444444444444444444444444444444444",
      "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0" },
};

static void test_known_answers(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(known); i++) {
        uint8_t key[64], iv[16], again[16], buf[32], expected[32], plain[32];
        struct cipher *c;
        size_t key_bytes = unhex(known[i].key, key);

        unhex(known[i].iv, iv);
        memcpy(again, iv, sizeof iv);
        unhex(known[i].plain, plain);
        unhex(known[i].cipher, expected);
        memcpy(buf, plain, sizeof buf);
        assert_works(cipher_new(known[i].algorithm, known[i].mode, key,
                                key_bytes, &c, &err), &err);
        assert_works(cipher_run(c, CIPHER_ENCRYPT, buf, sizeof buf, sizeof buf,
                                iv, &err), &err);
        if (memcmp(buf, expected, sizeof buf))
            fail_msg("%s: wrong ciphertext", known[i].name);
        assert_works(cipher_run(c, CIPHER_DECRYPT, buf, sizeof buf, sizeof buf,
                                again, &err), &err);
        if (memcmp(buf, plain, sizeof buf))
            fail_msg("%s: does not come back", known[i].name);
        cipher_free(c);
    }
}

enum { SECTORS = 300 };             /* more than any batch */

static void fill(uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(i * 7 + i / 512);
}

/* Many sectors at once are what they are one at a time, and come back. */
static void test_batches(void **state)
{
    static uint8_t many[SECTORS * 512], one[SECTORS * 512], plain[sizeof many];
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t key[64];

    (void)state;
    fill(plain, sizeof plain);
    fill(key, sizeof key);
    for (int mode = 0; mode < CIPHER_MODE_COUNT; mode++) {
        for (int ivgen = 0; ivgen < IVGEN_COUNT; ivgen++) {
            struct crypt_spec spec = {
                .cipher = CIPHER_AES_256, .mode = (enum cipher_mode)mode,
                .ivgen = (enum ivgen_algorithm)ivgen,
                .ivgen_hash = HASH_SHA256,
            };
            struct crypt *c;

            assert_works(crypt_new(&spec, key, cipher_key_bytes(spec.cipher,
                                   spec.mode), CRYPT_HOST, &c, &err), &err);
            memcpy(many, plain, sizeof many);
            memcpy(one, plain, sizeof one);
            assert_works(crypt_run(c, CIPHER_ENCRYPT, many, sizeof many, 0,
                                   512 * 77, &err), &err);
            for (size_t i = 0; i < SECTORS; i++)
                assert_works(crypt_run(c, CIPHER_ENCRYPT, one + i * 512, 512,
                                       0, 512 * (77 + i), &err), &err);
            assert_memory_equal(many, one, sizeof many);
            assert_works(crypt_run(c, CIPHER_DECRYPT, many, sizeof many, 0,
                                   512 * 77, &err), &err);
            assert_memory_equal(many, plain, sizeof many);
            crypt_free(c);
        }
    }
}

/* plain counts to 2^32 and starts again, plain64 goes on. */
static void test_sector_numbers(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct ivgen gen;
    uint8_t iv[16], expected[16] = { 5, 0, 0, 0, 1 };

    (void)state;
    for (int i = IVGEN_PLAIN; i <= IVGEN_PLAIN64; i++) {
        assert_works(ivgen_init(&gen, (enum ivgen_algorithm)i, HASH_SHA256,
                                CIPHER_AES_256, NULL, 0, &err), &err);
        assert_works(ivgen_run(&gen, (UINT64_C(1) << 32) + 5, 1, iv, &err),
                     &err);
        expected[4] = i == IVGEN_PLAIN64;
        assert_memory_equal(iv, expected, sizeof iv);
        ivgen_deinit(&gen);
    }
    assert_int_equal(ivgen_init(&gen, IVGEN_ESSIV, HASH_SHA1, CIPHER_AES_256,
                                expected, 16, &err), -EINVAL);
    assert_string_equal(err.message, "No AES cipher with key size 20 "
                        "available");
}

static void test_pbkdf2(void **state)
{
    static const uint8_t expected[20] = {   /* RFC 6070 */
        0x4b, 0x00, 0x79, 0x01, 0xb7, 0x65, 0x48, 0x9a, 0xbe, 0xad,
        0x49, 0xd9, 0x26, 0xf7, 0x21, 0xd0, 0x65, 0xa4, 0x29, 0xc1,
    };
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t out[20];

    (void)state;
    assert_works(hash_pbkdf2(HASH_SHA1, "password", 8,
                             (const uint8_t *)"salt", 4, 4096, out, 20, &err),
                 &err);
    assert_memory_equal(out, expected, sizeof out);
    assert_int_equal(hash_pbkdf2(HASH_SHA1, "p", 1, out, 4, 0, out, 20, &err),
                     -EINVAL);
}

static void test_splitter(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;
    static uint8_t material[64 * 40];
    uint8_t key[64], back[64];

    (void)state;
    fill(key, sizeof key);
    for (int h = 0; h < HASH_COUNT; h++) {
        enum hash_algorithm hash = (enum hash_algorithm)h;
        if (hash_check(hash, NULL) < 0)
            continue;
        for (size_t n = 16; n <= 64; n += 8) {
            assert_works(afsplit_split(hash, key, n, 40, material, &err),
                         &err);
            assert_works(afsplit_merge(hash, material, n, 40, back, &err),
                         &err);
            assert_memory_equal(key, back, n);
            /* Any byte that is lost loses the key. */
            material[n + 1] ^= 1;
            assert_works(afsplit_merge(hash, material, n, 40, back, &err),
                         &err);
            assert_memory_not_equal(key, back, n);
        }
    }
}

typedef int base64_fn(const char *text, size_t length, uint8_t *out, size_t *n);

/* @bytes NULL: it is refused. */
static void check_base64(base64_fn *decode, const char *text,
                         const char *bytes)
{
    uint8_t out[32];
    size_t n;
    int rc = decode(text, strlen(text), out, &n);

    if (rc != (bytes ? 0 : -EINVAL))
        fail_msg("'%s': %d", text, rc);
    if (!bytes)
        return;
    assert_int_equal(n, strlen(bytes));
    assert_memory_equal(out, bytes, n);
}

static void test_base64(void **state)
{
    static const struct { const char *text, *bytes; } cases[] = {
        { "", "" }, { "Zg==", "f" }, { "Zm8=", "fo" }, { "Zm9v", "foo" },
        { "Zm9v\nYmFy\n", "foobar" }, { " Z g = = ", "f" },
        { "Z", NULL }, { "Zg", NULL }, { "Zg=", NULL }, { "Zg===", NULL },
        { "=Zg=", NULL }, { "Zg==Zg==", NULL }, { "====", NULL },
        { "Zm9*", NULL }, { "Zm9v=", NULL },
    };

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++)
        check_base64(base64_decode, cases[i].text, cases[i].bytes);
}

/* Known answers of what QEMU's secrets are read by. */
static void test_base64_secret(void **state)
{
    static const struct { const char *text, *bytes; } cases[] = {
        { "Zm9vYmFy", "foobar" }, { "Zm8=", "fo" },
        { "Zm9v\nYmFy\n", "foobar" },
        { "Zm9vYg", "foo" }, { "Zm9v=", "foo" }, { "Zm9vY", "foo" },
        { "Zg==Zg==", "ff" }, { "", "" }, { "Z", "" },
        { "Zm9v YmFy", NULL }, { "Zm9v\r\n", NULL }, { "Zm9*", NULL },
    };

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++)
        check_base64(base64_decode_secret, cases[i].text, cases[i].bytes);
}

/* ------------------------------------------------------------------ keyring */

#define LONG_KEY "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static const struct {
    const char *name;
    struct lam_secret secret;
    const char *message;        /* NULL: it is "hello" */
} secrets[] = {
    { "plain", { "a", "hello", NULL, false, NULL, NULL, 0 }, NULL },
    { "base64", { "b", "aGVsbG8=", NULL, true, NULL, NULL, 0 }, NULL },
    { "encrypted", { "c", "2zM+5b7crjL4Umyz39hWuA==", NULL, true, "long",
                     "YWFhYWFhYWFhYWFhYWFhYQ==", 0 }, NULL },
    { "no id", { NULL, "x", NULL, false, NULL, NULL, 0 },
      "Parameter 'id' is missing" },
    { "both", { "d", "x", "y", false, NULL, NULL, 0 },
      "'file' and 'data' are mutually exclusive" },
    { "neither", { "d", NULL, NULL, false, NULL, NULL, 0 },
      "Either 'file' or 'data' must be provided" },
    { "no file", { "d", NULL, "/nonexistent/x", false, NULL, NULL, 0 },
      "Unable to read /nonexistent/x: Failed to open file “/nonexistent/x”: "
      "No such file or directory" },
    { "taken", { "long", "x", NULL, false, NULL, NULL, 0 },
      "attempt to add duplicate property 'long' to object (type "
      "'container')" },
    { "bad base64", { "d", "*", NULL, true, NULL, NULL, 0 },
      "Base64 data contains invalid characters" },
    { "no key", { "d", "YQ==", NULL, true, "none", NULL, 0 },
      "No secret with id 'none'" },
    { "short key", { "d", "YQ==", NULL, true, "a", NULL, 0 },
      "Key should be 32 bytes in length" },
    { "no iv", { "d", "YQ==", NULL, true, "long", NULL, 0 },
      "IV is required to decrypt secret" },
    { "short iv", { "d", "YQ==", NULL, true, "long", "YQ==", 0 },
      "IV should be 16 bytes in length not 1" },
    { "half a block", { "d", "YQ==", NULL, true, "long",
                        "YWFhYWFhYWFhYWFhYWFhYQ==", 0 },
      "Length 1 must be a multiple of block size 16" },
};

static void test_keyring(void **state)
{
    static const struct lam_secret key = { "long", LONG_KEY, NULL, false, NULL,
                                           NULL, 0 };
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_keyring *ring;
    const char *text;

    (void)state;
    assert_works(lam_keyring_new(&ring, &err), &err);
    assert_works(lam_keyring_add(ring, &key, &err), &err);
    for (size_t i = 0; i < LAM_ARRAY_SIZE(secrets); i++) {
        int rc = lam_keyring_add(ring, &secrets[i].secret, &err);
        if (!secrets[i].message) {
            assert_works(rc, &err);
            assert_works(keyring_passphrase(ring, secrets[i].secret.id, "k",
                                            &text, &err), &err);
            assert_string_equal(text, "hello");
        } else if (rc == 0 || strcmp(err.message, secrets[i].message)) {
            fail_msg("%s: %d, %s", secrets[i].name, rc, err.message);
        } else {
            assert_int_equal(rc, -err.code);
        }
    }
    lam_keyring_free(ring);
    lam_keyring_free(NULL);
}

/* A helper that is not there leaves nothing behind. */
static void test_no_helper(void **state)
{
    static const struct lam_secret secret = { "id", "x", NULL, false, NULL,
                                              NULL, 0 };
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_keyring *ring;

    (void)state;
    assert_works(lam_keyring_new(&ring, &err), &err);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(lam_keyring_add_reservations(
            ring, "id", "/nonexistent/socket", &err), -ENOENT);
        assert_string_equal(err.message, "Failed to connect to '/nonexistent/"
                            "socket': No such file or directory");
    }
    assert_works(lam_keyring_add(ring, &secret, &err), &err);
    lam_keyring_free(ring);
}

static void test_passphrase_is_text(void **state)
{
    static const struct { const char *base64; bool text; } cases[] = {
        { "YWJj", true }, { "w6TDtsO8", true }, { "8J+SgA==", true },
        { "YQBi", false },              /* a NUL inside */
        { "/w==", false }, { "wIA=", false }, { "7aCA", false },
        { "4oA=", false }, { "9JCAgA==", false },
    };
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_keyring *ring;
    const char *text;

    (void)state;
    assert_works(lam_keyring_new(&ring, &err), &err);
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        char id[8];
        snprintf(id, sizeof id, "s%zu", i);
        struct lam_secret s = { id, cases[i].base64, NULL, true, NULL, NULL,
                                0 };
        assert_works(lam_keyring_add(ring, &s, &err), &err);
        int rc = keyring_passphrase(ring, id, "k", &text, &err);
        if (rc != (cases[i].text ? 0 : -EINVAL))
            fail_msg("%s: %d", cases[i].base64, rc);
    }
    assert_int_equal(keyring_passphrase(ring, NULL, "key-secret", &text, &err),
                     -EINVAL);
    assert_string_equal(err.message,
                        "Parameter 'key-secret' is required for cipher");
    assert_int_equal(keyring_passphrase(NULL, "x", "k", &text, &err), -EINVAL);
    lam_keyring_free(ring);
}

static void test_names(void **state)
{
    enum cipher_algorithm a;
    enum hash_algorithm h;

    (void)state;
    assert_int_equal(cipher_of_family("aes", 32, &a), 0);
    assert_int_equal(a, CIPHER_AES_256);
    assert_int_equal(cipher_of_family("aes", 20, &a), -EINVAL);
    assert_int_equal(cipher_of_family("", 8, &a), -EINVAL);
    assert_int_equal(hash_find("sha256", 6, &h), 0);
    assert_int_equal(hash_find("sha2567", 7, &h), -EINVAL);
    assert_int_equal(hash_find("sha25", 5, &h), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_answers),
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_sector_numbers),
        cmocka_unit_test(test_pbkdf2),
        cmocka_unit_test(test_splitter),
        cmocka_unit_test(test_base64),
        cmocka_unit_test(test_base64_secret),
        cmocka_unit_test(test_keyring),
        cmocka_unit_test(test_no_helper),
        cmocka_unit_test(test_passphrase_is_text),
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
