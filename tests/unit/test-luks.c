/* SPDX-License-Identifier: MIT */
/*
 * test-luks.c - LUKS headers: decode, judge, encode; volumes in memory.
 */
#include "unit.h"

#include <string.h>

#include "base/bytes.h"
#include "format/luks/volume.h"
#include "image/image.h"

static struct lam_keyring *ring;

static int make_ring(void **state)
{
    static const struct lam_secret all[] = {
        { "one", "first", NULL, false, NULL, NULL, 0 },
        { "two", "second", NULL, false, NULL, NULL, 0 },
        { "bad", "wrong", NULL, false, NULL, NULL, 0 },
    };

    (void)state;
    if (lam_keyring_new(&ring, NULL) < 0)
        return -1;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(all); i++)
        if (lam_keyring_add(ring, &all[i], NULL) < 0)
            return -1;
    return 0;
}

static int free_ring(void **state)
{
    (void)state;
    lam_keyring_free(ring);
    return 0;
}

/* ------------------------------------------------------------------- header */

static void good_header(uint8_t buf[LUKS_HEADER_BYTES])
{
    static const struct luks_params params = {
        .spec = { CIPHER_AES_256, CIPHER_XTS, IVGEN_PLAIN64, false, 0 },
        .hash = HASH_SHA256,
    };
    struct luks_header h;

    assert_int_equal(luks_layout(&params, &h, NULL), 0);
    h.iterations = 1000;
    h.slots[0].state = LUKS_SLOT_ACTIVE;
    h.slots[0].iterations = 2000;
    strcpy(h.uuid, "8f0c1102-bdd8-48a4-aeb8-46c6a46594bc");
    luks_encode(&h, buf);
}

static void test_layout(void **state)
{
    uint8_t buf[LUKS_HEADER_BYTES], again[LUKS_HEADER_BYTES];
    struct lam_error err = LAM_ERROR_INIT;
    struct luks_params params;
    struct luks_header h;

    (void)state;
    good_header(buf);
    assert_works(luks_decode(buf, &h, &err), &err);
    assert_works(luks_validate(&h, UINT64_MAX, false, &params, &err), &err);
    assert_int_equal(h.payload_sector, 4040);
    assert_int_equal(h.slots[1].sector, 512);
    assert_string_equal(h.mode, "xts-plain64");
    assert_int_equal(params.spec.cipher, CIPHER_AES_256);
    luks_encode(&h, again);
    assert_memory_equal(buf, again, sizeof buf);
}

/* One field each that no honest writer has made. */
static const struct {
    const char *name;
    size_t offset;
    const char *text;           /* or a number of @width bytes */
    uint32_t value;
    unsigned width;
    int rc;
    const char *message;        /* its beginning */
} hostile[] = {
    { "magic", 0, "LUKT", 0, 0, -EINVAL, "Volume is not in LUKS format" },
    { "version", LH_VERSION, NULL, 2, 2, -ENOTSUP, "LUKS version 2" },
    { "cipher unterminated", LH_CIPHER, "aesaesaesaesaesaesaesaesaesaesae", 0,
      0, -EUCLEAN, "LUKS header cipher name is not NUL terminated" },
    { "mode unterminated", LH_MODE, "xts-plain64-plain64-plain64-plai", 0, 0,
      -EUCLEAN, "LUKS header cipher mode is not NUL" },
    { "hash unterminated", LH_HASH, "sha256sha256sha256sha256sha256sh", 0, 0,
      -EUCLEAN, "LUKS header hash spec is not NUL" },
    { "cipher", LH_CIPHER, "foo", 0, 0, -ENOTSUP, "Algorithm 'foo' with key" },
    { "no dash", LH_MODE, "xts_plain64", 0, 0, -EINVAL,
      "Unexpected cipher mode string format 'xts_plain64'" },
    { "mode", LH_MODE, "lrw-plain64", 0, 0, -ENOTSUP,
      "Cipher mode 'lrw-plain64' is not supported" },
    { "ivgen", LH_MODE, "xts-random0", 0, 0, -ENOTSUP,
      "IV generator 'random0' is not supported" },
    { "essiv alone", LH_MODE, "xts-essiv\0", 0, 0, -EINVAL,
      "Missing IV generator hash" },
    { "ivgen hash", LH_MODE, "xts-essiv:sha0", 0, 0, -ENOTSUP,
      "Hash algorithm 'sha0' is not" },
    { "hash", LH_HASH, "sha257", 0, 0, -ENOTSUP,
      "Hash algorithm 'sha257' is not" },
    { "payload", LH_PAYLOAD, NULL, 7, 4, -EUCLEAN, "LUKS payload at sector 7" },
    { "payload far", LH_PAYLOAD, NULL, UINT32_MAX, 4, -EUCLEAN,
      "LUKS payload at sector 4294967295 is beyond" },
    { "payload in slots", LH_PAYLOAD, NULL, 4000, 4, -EUCLEAN,
      "Keyslot 7 ends at" },
    { "key 0", LH_KEY_BYTES, NULL, 0, 4, -ENOTSUP, "Algorithm 'aes' with key" },
    { "key odd", LH_KEY_BYTES, NULL, 63, 4, -EINVAL, "XTS cipher key length" },
    { "key huge", LH_KEY_BYTES, NULL, 0xfffffffe, 4, -ENOTSUP,
      "Algorithm 'aes' with key" },
    { "no iterations", LH_ITERATIONS, NULL, 0, 4, -EUCLEAN,
      "LUKS key iteration count is zero" },
    { "endless", LH_ITERATIONS, NULL, UINT32_MAX, 4, -EUCLEAN,
      "LUKS key iteration count 4294967295 is too large" },
    { "slot state", LH_SLOTS + 48, NULL, 1, 4, -EUCLEAN, "Keyslot 1 state" },
    { "slot iterations", LH_SLOTS + 4, NULL, 0, 4, -EUCLEAN,
      "Keyslot 0 iteration count is zero" },
    { "slot endless", LH_SLOTS + 4, NULL, UINT32_MAX, 4, -EUCLEAN,
      "Keyslot 0 iteration count 4294967295 is too large" },
    { "slot in header", LH_SLOTS + 40, NULL, 7, 4, -EUCLEAN,
      "Keyslot 0 at sector 7 is overlapping with the LUKS header" },
    { "slots overlap", LH_SLOTS + 48 + 40, NULL, 500, 4, -EUCLEAN,
      "Keyslots 0 and 1 are overlapping" },
    { "slot far", LH_SLOTS + 40, NULL, UINT32_MAX, 4, -EUCLEAN,
      "Keyslot 0 ends at sector 4294967795" },
    { "stripes", LH_SLOTS + 44, NULL, 4001, 4, -EUCLEAN,
      "Keyslot 0 is corrupted (stripes 4001" },
};

static void test_hostile_headers(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(hostile); i++) {
        uint8_t buf[LUKS_HEADER_BYTES];
        struct luks_params params;
        struct luks_header h;

        good_header(buf);
        if (hostile[i].text)
            memcpy(buf + hostile[i].offset, hostile[i].text,
                   strlen(hostile[i].text) +
                   (strlen(hostile[i].text) < LUKS_NAME_BYTES));
        else if (hostile[i].width == 2)
            be16_put(buf + hostile[i].offset, (uint16_t)hostile[i].value);
        else
            be32_put(buf + hostile[i].offset, hostile[i].value);
        int rc = luks_decode(buf, &h, &err);
        if (rc == 0)
            rc = luks_validate(&h, 4040 * 512 + 4096, false, &params, &err);
        if (rc != hostile[i].rc ||
            strncmp(err.message, hostile[i].message,
                    strlen(hostile[i].message)))
            fail_msg("%s: %d, %s", hostile[i].name, rc, err.message);
    }
}

/* The payload of a detached header is elsewhere; material that nobody needs
 * may lie beyond its end. */
static void test_detached(void **state)
{
    static const struct {
        uint32_t payload, used_sector, free_sector;
        const char *message;
    } cases[] = {
        { 0, 8, 512, NULL },
        { 1, 8, 512, NULL },
        { UINT32_MAX, 8, 512, NULL },
        { 0, 3532, 512, NULL },
        { 0, 8, 100000, NULL },
        { 0, 3541, 512, "Keyslot 0 ends at sector 4041 and is beyond the end "
          "of the detached header at 4040" },
        { 0, UINT32_MAX, 512, "Keyslot 0 ends at sector 4294967795" },
        { 0, 7, 512, "Keyslot 0 at sector 7 is overlapping with the LUKS" },
        { 0, 8, 508, NULL },
        { 0, 8, 507, "Keyslots 0 and 1 are overlapping" },
    };

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct lam_error err = LAM_ERROR_INIT;
        uint8_t buf[LUKS_HEADER_BYTES];
        struct luks_params params;
        struct luks_header h;

        good_header(buf);
        assert_works(luks_decode(buf, &h, &err), &err);
        h.payload_sector = cases[i].payload;
        h.slots[0].sector = cases[i].used_sector;
        h.slots[1].sector = cases[i].free_sector;
        if (cases[i].used_sector == 3532)
            h.slots[7].sector = 5000;
        int rc = luks_validate(&h, 4040 * 512, true, &params, &err);
        const char *expected = cases[i].message;
        if (rc != (expected ? -EUCLEAN : 0) ||
            (expected && strncmp(err.message, expected, strlen(expected))))
            fail_msg("case %zu: %d, %s", i, rc, err.message);
    }
}

/* ------------------------------------------------------------------- images */

static struct lam_io *make_image(const char *format, uint64_t size)
{
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io;

    o.size = size;
    o.encryption.format = "luks";
    o.encryption.keyring = ring;
    o.encryption.key_secret = "one";
    o.encryption.iter_time = 1;
    assert_works(lam_io_memory_new(NULL, 0, &io, &err), &err);
    assert_works(format_find(format)->create(io, NULL, &o, &err), &err);
    return io;
}

/* The bytes of @io in an image of their own. */
static int open_copy(struct lam_io *io, const char *format, const char *secret,
                     unsigned flags, struct lam_image **out,
                     struct lam_error *err)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    uint64_t length;
    struct lam_io *copy;

    assert_works(lam_io_size(io, &length, err), err);
    uint8_t *bytes = test_malloc(length);
    assert_works(lam_io_read(io, bytes, length, 0, err), err);
    assert_works(lam_io_memory_new(bytes, length, &copy, err), err);
    test_free(bytes);
    o.flags = flags;
    o.keyring = ring;
    o.key_secret = secret;
    return image_open_io(copy, format, &o, NULL, out, err);
}

static void test_open(void **state)
{
    static const struct { const char *secret, *message; } cases[] = {
        { "one", NULL },
        { "bad", "Invalid password, cannot unlock any keyslot" },
        { "none", "No secret with id 'none'" },
        { NULL, "key-secret' is required for cipher" },
    };
    static const char *const formats[] = { "luks", "qcow2" };
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    for (size_t f = 0; f < 2; f++) {
        struct lam_io *io = make_image(formats[f], 100 * LAM_KIB);
        for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
            struct lam_image *image;
            int rc = open_copy(io, formats[f], cases[i].secret, 0, &image,
                               &err);
            if (!cases[i].message) {
                assert_works(rc, &err);
                assert_int_equal(lam_image_size(image), 100 * LAM_KIB);
                lam_image_close(image, NULL);
            } else if (rc == 0 || !strstr(err.message, cases[i].message)) {
                fail_msg("%s: %d, %s", formats[f], rc, err.message);
            }
        }
        lam_io_close(io);
    }
}

/* For check no passphrase is needed: without it there is no master key that
 * another slot could be made of. */
static void test_locked(void **state)
{
    static const char *const formats[] = { "luks", "qcow2" };
    struct lam_key_slot_options o = LAM_KEY_SLOT_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    o.active = true;
    o.keyring = ring;
    o.new_secret = "two";
    o.iter_time = 1;
    for (size_t f = 0; f < LAM_ARRAY_SIZE(formats); f++) {
        struct lam_io *io = make_image(formats[f], 100 * LAM_KIB);
        struct lam_image *image;

        assert_works(open_copy(io, formats[f], NULL, LAM_OPEN_CHECK |
                               LAM_OPEN_WRITE, &image, &err), &err);
        assert_true(lam_image_key_slot(image, &o, &err) < 0);
        assert_int_equal(err.code, f ? EROFS : EINVAL);
        lam_image_close(image, NULL);
        lam_io_close(io);
    }
}

/* Writes of any alignment against a byte array; nothing is stored in clear. */
static void test_writes(void **state)
{
    enum { SIZE = 300 * 1024 };
    static const struct { uint64_t offset, length; } writes[] = {
        { 0, 512 }, { 1, 1 }, { 511, 2 }, { 700, 3000 }, { 65536, 65536 },
        { 65535, 131074 }, { SIZE - 1, 1 }, { SIZE - 513, 513 }, { 512, 100 },
        { 1000, 24 }, { 200001, 50000 }, { 0, SIZE - 7 },
    };
    static uint8_t expected[SIZE], got[SIZE], data[SIZE];
    static const char *const formats[] = { "luks", "qcow2" };
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    for (size_t f = 0; f < 2; f++) {
        struct lam_io *io = make_image(formats[f], SIZE);
        struct lam_image *image;
        assert_works(open_copy(io, formats[f], "one",
                               LAM_OPEN_WRITE | LAM_OPEN_UNMAP, &image, &err),
                     &err);
        assert_works(lam_image_zero(image, 0, SIZE, 0, &err), &err);
        memset(expected, 0, sizeof expected);
        for (size_t i = 0; i < LAM_ARRAY_SIZE(writes); i++) {
            uint64_t at = writes[i].offset, n = writes[i].length;
            memset(data, 'A' + (int)i, n);
            memcpy(expected + at, data, n);
            assert_works(lam_image_write(image, data, n, at, 0, &err), &err);
            assert_works(lam_image_read(image, got, SIZE, 0, &err), &err);
            if (memcmp(got, expected, SIZE))
                fail_msg("%s: write %zu", formats[f], i);
            memset(expected + at / 2, 0, n / 3);
            assert_works(lam_image_zero(image, at / 2, n / 3, 0, &err), &err);
            assert_works(lam_image_read(image, got + at / 3, n / 2, at / 3,
                                        &err), &err);
            assert_memory_equal(got + at / 3, expected + at / 3, n / 2);
        }
        assert_int_equal(lam_image_write(image, data, 65536, 0,
                                         LAM_WRITE_COMPRESSED, &err),
                         -ENOTSUP);
        uint64_t length;
        assert_works(lam_io_size(image->io, &length, &err), &err);
        uint8_t *host = test_malloc(length);
        assert_works(lam_io_read(image->io, host, length, 0, &err), &err);
        memset(data, 'L', 64);
        assert_null(memmem(host, length, data, 64));
        test_free(host);
        assert_works(lam_image_close(image, &err), &err);
        lam_io_close(io);
    }
}

/* What is made is a hole, and is no zeroes to the guest. */
static void test_map(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_extents map = LAM_EXTENTS_INIT;
    struct lam_io *io = make_image("luks", LAM_MIB);
    struct lam_image *image;

    (void)state;
    assert_works(open_copy(io, "luks", "one", 0, &image, &err), &err);
    assert_works(lam_image_map(image, 0, LAM_MIB, LAM_DEPTH_ALL,
                               LAM_MAP_HOST_HOLES, &map, &err), &err);
    assert_int_equal(map.count, 1);
    assert_int_equal(map.items[0].state, LAM_EXTENT_DATA);
    assert_int_equal(map.items[0].flags, LAM_EXTENT_ENCRYPTED |
                                         LAM_EXTENT_HAS_HOST);
    lam_extents_deinit(&map);
    lam_image_close(image, NULL);
    lam_io_close(io);
}

/* Each slot may take long, but not one after the other without end. */
static void test_unlock_is_bounded(void **state)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_io *io = make_image("luks", 64 * LAM_KIB);
    struct lam_image *image;
    uint8_t slot[8];

    (void)state;
    be32_put(slot, LUKS_SLOT_ACTIVE);
    be32_put(slot + 4, LUKS_MAX_ITERATIONS);
    assert_works(lam_io_write(io, slot, sizeof slot, LH_SLOTS + LS_BYTES,
                              &err), &err);
    assert_works(open_copy(io, "luks", "one", 0, &image, &err), &err);
    lam_image_close(image, NULL);
    assert_int_equal(open_copy(io, "luks", "bad", 0, &image, &err), -EUCLEAN);
    assert_ptr_equal(strstr(err.message, "Keyslots 0 to 1 take "),
                     err.message);

    struct lam_key_slot_options o = LAM_KEY_SLOT_OPTIONS_INIT;
    o.keyring = ring;
    o.old_secret = "two";
    assert_works(open_copy(io, "luks", "one", LAM_OPEN_WRITE, &image, &err),
                 &err);
    assert_int_equal(lam_image_key_slot(image, &o, &err), -EUCLEAN);
    assert_ptr_equal(strstr(err.message, "Keyslots 0 to 1 take "),
                     err.message);
    lam_image_close(image, NULL);
    lam_io_close(io);
}

/* --------------------------------------------------------------- key slots */

#define ADD(secret, at) { true, NULL, secret, NULL, at, 1, false }
#define ERASE(secret, at) { false, NULL, NULL, secret, at, 0, false }

static const struct {
    struct lam_key_slot_options o;
    const char *message;            /* NULL: it works */
    bool one, two;                  /* opens it afterwards */
} changes[] = {
    { ADD(NULL, -1), "'new-secret' is required", true, false },
    { { true, NULL, "two", "one", -1, 1, false }, "'old-secret' must not",
      true, false },
    { { false, NULL, "two", NULL, 0, 0, false }, "'new-secret' must not",
      true, false },
    { ADD("two", 8), "Invalid keyslot 8", true, false },
    { ADD("two", 0), "Refusing to overwrite active keyslot 0", true, false },
    { ERASE(NULL, -1), "To erase keyslot(s)", true, false },
    { ERASE("one", -1), "All the active keyslots match", true, false },
    { ERASE("two", -1), "No keyslots match", true, false },
    { ERASE(NULL, 5), "Given keyslot 5 is already erased", true, false },
    { ADD("two", 6), NULL, true, true },
    { ADD("two", -1), NULL, true, true },
    { ERASE("two", 6), NULL, true, true },
    { ERASE(NULL, 0), NULL, false, true },
    { ADD("one", -1), NULL, true, true },
    { ERASE("two", -1), NULL, true, false },
};

static bool opens(struct lam_io *io, const char *format, const char *secret)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;

    if (open_copy(io, format, secret, 0, &image, &err) < 0) {
        assert_string_equal(err.message, "Invalid password, cannot unlock any "
                            "keyslot");
        return false;
    }
    lam_image_close(image, NULL);
    return true;
}

static void test_key_slots(void **state)
{
    static const char *const formats[] = { "luks", "qcow2" };
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    for (size_t f = 0; f < 2; f++) {
        struct lam_io *io = make_image(formats[f], 64 * LAM_KIB);
        struct lam_image *image;
        assert_works(open_copy(io, formats[f], "one", LAM_OPEN_WRITE, &image,
                               &err), &err);
        for (size_t i = 0; i < LAM_ARRAY_SIZE(changes); i++) {
            struct lam_key_slot_options o = changes[i].o;
            o.keyring = ring;
            int rc = lam_image_key_slot(image, &o, &err);
            if ((rc == 0) != !changes[i].message ||
                (rc < 0 && !strstr(err.message, changes[i].message)))
                fail_msg("change %zu: %d, %s", i, rc, err.message);
            if (opens(image->io, formats[f], "one") != changes[i].one ||
                opens(image->io, formats[f], "two") != changes[i].two)
                fail_msg("change %zu: who opens it", i);
        }
        lam_image_close(image, NULL);
        lam_io_close(io);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_hostile_headers),
        cmocka_unit_test(test_detached),
        cmocka_unit_test(test_unlock_is_bounded),
        cmocka_unit_test(test_open),
        cmocka_unit_test(test_locked),
        cmocka_unit_test(test_writes),
        cmocka_unit_test(test_map),
        cmocka_unit_test(test_key_slots),
    };
    return cmocka_run_group_tests(tests, make_ring, free_ring);
}
