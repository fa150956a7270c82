/* SPDX-License-Identifier: MIT */
/*
 * test-header.c - the header: bytes to struct and back, and who is refused
 * (format document 2, appendix B).
 */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/qcow2/header.h"

enum { CS = 65536, FILE_LENGTH = 196616 };

/* What the genuine tool writes for 64 MiB: document 1 and A.1. */
static void make_image(uint8_t *buf)
{
    struct qcow2_header h = {
        .version = 3, .cluster_bits = 16, .size = 64 << 20, .l1_size = 1,
        .l1_offset = 3 * CS, .reft_offset = CS, .reft_clusters = 1,
        .refcount_order = 4, .has_feature_names = true,
    };
    struct lam_error err = LAM_ERROR_INIT;

    assert_int_equal(header_encode(&h, buf, CS, &err), 0);
}

/* ---------------------------------------------------------------- examples */

static void overlay_as_in_the_document(void **state)
{
    (void)state;
    static const struct { unsigned at; const char *bytes; size_t length; }
    expected[] = {
        { 0, "QFI\xfb\0\0\0\3\0\0\0\0\0\0\2\x10", 16 },
        { 16, "\0\0\0\x8\0\0\0\x10\0\0\0\0\0\x10\0\0", 16 },
        { 32, "\0\0\0\0\0\0\0\1\0\0\0\0\0\3\0\0", 16 },
        { 48, "\0\0\0\0\0\1\0\0\0\0\0\1\0\0\0\0", 16 },
        { 96, "\0\0\0\4\0\0\0\x70\0\0\0\0\0\0\0\0", 16 },
        { 112, "\xe2\x79\x2a\xca\0\0\0\3raw\0\0\0\0\0", 16 },
        { 128, "\x68\x03\xf8\x57\0\0\1\x80\0\0dirty bit", 19 },
        { 0x208, "\0\0\0\0\0\0\0\0base.raw\0", 17 },
    };
    static uint8_t buf[CS];
    char file[] = "base.raw", format[] = "raw";
    struct qcow2_header h = {
        .version = 3, .cluster_bits = 16, .size = 1 << 20, .l1_size = 1,
        .l1_offset = 3 * CS, .reft_offset = CS, .reft_clusters = 1,
        .refcount_order = 4, .has_feature_names = true, .backing_file = file,
        .backing_format = format,
    };

    assert_int_equal(header_encode(&h, buf, CS, NULL), 0);
    for (size_t i = 0; i < LAM_ARRAY_SIZE(expected); i++)
        assert_memory_equal(buf + expected[i].at, expected[i].bytes,
                            expected[i].length);
}

/* -------------------------------------------------------------- round trip */

enum { WITH_BACKING = 1, WITH_DATA = 2, WITH_CRYPTO = 4, WITH_BITMAPS = 8,
       WITH_UNKNOWN = 16, WITH_FIELDS = 32, WITH_NAMES = 64,
       WITH_OWN_NAMES = 128 };

static const struct { unsigned version, cluster_bits, with; } trips[] = {
    { 2, 9, 0 }, { 2, 16, WITH_BACKING },
    { 2, 12, WITH_BACKING | WITH_UNKNOWN },
    { 3, 9, 0 }, { 3, 21, WITH_NAMES }, { 3, 16, WITH_BACKING | WITH_NAMES },
    { 3, 16, WITH_DATA }, { 3, 16, WITH_CRYPTO | WITH_BITMAPS },
    { 3, 16, WITH_UNKNOWN }, { 3, 16, WITH_FIELDS }, { 3, 12, 127 },
    { 3, 16, WITH_OWN_NAMES | WITH_UNKNOWN | WITH_FIELDS | WITH_BACKING },
};

/* Everything that a header can carry, owned as header_deinit() wants it. */
static void fill(struct qcow2_header *h, unsigned version, unsigned bits,
                 unsigned with)
{
    *h = (struct qcow2_header){
        .version = version, .cluster_bits = bits, .size = 0x123456789a00,
        .l1_size = 77, .l1_offset = 0x30000, .reft_offset = 0x10000,
        .reft_clusters = 3, .nb_snapshots = 5, .snapshots_offset = 0x90000,
        .refcount_order = 4,
    };
    if (version == 3) {
        h->incompatible = 0x8;
        h->compatible = 0x8000000000000003;
        h->autoclear = 0x5;
        h->refcount_order = 6;
        h->compression_type = 1;
    }
    if (with & WITH_BACKING) {
        h->backing_file = strdup("directory/base.qcow2");
        h->backing_format = strdup("qcow2");
    }
    if (with & WITH_DATA)
        h->data_file = strdup("data.raw");
    if (with & WITH_CRYPTO) {
        h->crypt_method = QCOW2_CRYPT_LUKS;
        h->has_crypto = true;
        h->crypto_offset = 0x40000;
        h->crypto_length = 0x1f9000;
    }
    if (with & WITH_BITMAPS) {
        h->has_bitmaps = true;
        h->nb_bitmaps = 3;
        h->bitmap_directory_size = 96;
        h->bitmap_directory_offset = 0x140000;
    }
    h->has_feature_names = with & (WITH_NAMES | WITH_OWN_NAMES);
    if (with & WITH_OWN_NAMES) {
        h->feature_names = calloc(1, 96);
        h->feature_names_length = 96;
        h->feature_names[1] = 17;
        memset(h->feature_names + 2, 'n', 46);
    }
    for (unsigned i = 0; i < 2 && (with & WITH_UNKNOWN); i++) {
        h->unknown = realloc(h->unknown, (i + 1) * sizeof *h->unknown);
        h->unknown[i] = (struct qcow2_unknown_extension){
            0x11111111 * (i + 1), 5 + i, calloc(1, 16) };
        memset(h->unknown[i].data, 'u', 5 + i);
        h->nb_unknown = i + 1;
    }
    if (with & WITH_FIELDS) {
        h->unknown_fields_length = 24;
        h->unknown_fields = malloc(24);
        memset(h->unknown_fields, 'f', 24);
    }
}

static void decode_and_encode_are_inverse(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(trips); i++) {
        size_t cs = (size_t)1 << trips[i].cluster_bits;
        uint8_t *first = malloc(cs), *second = malloc(cs);
        struct qcow2_header h, back;
        struct lam_error err = LAM_ERROR_INIT;

        fill(&h, trips[i].version, trips[i].cluster_bits, trips[i].with);
        assert_int_equal(header_encode(&h, first, cs, &err), 0);
        if (header_decode(first, cs, &back, &err) < 0)
            fail_msg("row %zu: %s", i, err.message);
        assert_int_equal(back.size, h.size);
        assert_int_equal(back.nb_unknown, h.nb_unknown);
        assert_int_equal(back.unknown_fields_length, h.unknown_fields_length);
        assert_int_equal(!back.backing_file, !h.backing_file);
        if (h.backing_file)
            assert_string_equal(back.backing_file, h.backing_file);
        assert_int_equal(header_encode(&back, second, cs, &err), 0);
        assert_memory_equal(first, second, cs);
        header_deinit(&h);
        header_deinit(&back);
        free(first);
        free(second);
    }
}

static size_t first_that_suffices(const uint8_t *cluster, size_t length)
{
    size_t n = 0;

    while (!header_is_within(cluster, n)) {
        n++;
        assert_true(n <= length);
    }
    return n;
}

/* As many bytes as are needed, and no more, say what the whole cluster does. */
static void a_part_is_enough(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(trips); i++) {
        size_t cs = (size_t)1 << trips[i].cluster_bits;
        uint8_t *first = malloc(cs), *second = malloc(cs);
        struct qcow2_header h, back;

        fill(&h, trips[i].version, trips[i].cluster_bits, trips[i].with);
        assert_int_equal(header_encode(&h, first, cs, NULL), 0);
        size_t n = first_that_suffices(first, cs);
        uint8_t *part = malloc(n);
        memcpy(part, first, n);
        assert_int_equal(header_decode(part, n, &back, NULL), 0);
        assert_int_equal(header_encode(&back, second, cs, NULL), 0);
        assert_memory_equal(first, second, cs);
        /* What follows is nobody's business. */
        memset(first + n, 0xff, cs - n);
        assert_int_equal(first_that_suffices(first, cs), n);
        header_deinit(&h);
        header_deinit(&back);
        free(first);
        free(second);
        free(part);
    }
}

/* 112 + 16 + 8 + 376 = 512: the longest name in the smallest cluster. */
static void name_fills_the_cluster(void **state)
{
    (void)state;
    static const struct { size_t length; int rc; } cases[] = {
        { 375, 0 }, { 376, 0 }, { 377, -ENOSPC },
    };
    char format[] = "raw", name[512];
    uint8_t buf[512];

    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct qcow2_header h = { .version = 3, .cluster_bits = 9,
                                  .backing_format = format,
                                  .backing_file = name };
        memset(name, 'a', sizeof name);
        name[cases[i].length] = '\0';
        assert_int_equal(header_encode(&h, buf, sizeof buf, NULL),
                         cases[i].rc);
    }
}

static void short_header_gets_the_new_field(void **state)
{
    (void)state;
    static uint8_t buf[CS], again[CS];
    struct qcow2_header h;

    make_image(buf);
    be32_put(buf + QH_HEADER_LENGTH, 104);
    be64_put(buf + 104, 0);                     /* the end marker */
    assert_int_equal(header_decode(buf, CS, &h, NULL), 0);
    assert_int_equal(h.header_length, 104);
    assert_int_equal(header_encode(&h, again, CS, NULL), 0);
    assert_int_equal(be32_get(again + QH_HEADER_LENGTH), QH_V3_LENGTH);
    header_deinit(&h);
}

/* --------------------------------------------------------------- mutations */

/* Who refuses: decoding and validating for info, for reading and writing, for
 * check. */
enum { D = 1, I = 2, R = 4, W = 8, C = 16, ALL = I | R | W | C };

struct put { uint8_t width; uint16_t at; uint64_t value; };

static const struct mutation {
    const char *name;
    struct put put[5];
    unsigned refused;
    const char *words;          /* in the message of the first who refuses */
} mutations[] = {
    { "none", { { 0, 0, 0 } }, 0, NULL },
    { "magic", { { 4, 0, 0x514649fa } }, D, "not in qcow2 format" },
    { "version 0", { { 4, 4, 0 } }, D, "Unsupported qcow2 version 0" },
    { "version 1", { { 4, 4, 1 } }, D, "Unsupported qcow2 version 1" },
    { "version 4", { { 4, 4, 4 } }, D, "Unsupported qcow2 version 4" },
    { "cluster_bits 8", { { 4, 20, 8 } }, D, "2^8" },
    { "cluster_bits 22", { { 4, 20, 22 } }, D, "2^22" },
    { "cluster_bits 32", { { 4, 20, 32 } }, D, "2^32" },
    { "cluster_bits -1", { { 4, 20, UINT32_MAX } }, D, "2^4294967295" },
    { "header_length 0", { { 4, 100, 0 } }, D, "header too short" },
    { "header_length 72", { { 4, 100, 72 } }, D, "header too short" },
    { "header_length 96", { { 4, 100, 96 } }, D, "header too short" },
    { "header_length 103", { { 4, 100, 103 } }, D, "header too short" },
    { "header_length 105", { { 4, 100, 105 } }, D, "multiple of 8" },
    { "header_length > cs", { { 4, 100, CS + 8 } }, D, "exceeds cluster" },
    { "refcount_order 7", { { 4, 96, 7 } }, ALL, "2^7 bits" },
    { "refcount_order 3", { { 4, 96, 3 } }, 0, NULL },
    { "dirty", { { 8, 72, 1 } }, 0, NULL },
    { "corrupt", { { 8, 72, 2 } }, W, "Image is corrupt" },
    { "data file", { { 8, 72, 4 } }, 0, NULL },  /* the image layer's matter */
    { "compression bit, type 0", { { 8, 72, 8 } }, ALL, "must not be set" },
    { "compression type, no bit", { { 1, 104, 1 } }, ALL, "must be set" },
    { "compression type 2", { { 8, 72, 8 }, { 1, 104, 2 } }, ALL,
      "unknown compression type: 2" },
    { "zstd", { { 8, 72, 8 }, { 1, 104, 1 } }, 0, NULL },
    { "extended L2", { { 8, 72, 16 } }, 0, NULL },
    { "incompatible 5", { { 8, 72, 32 } }, ALL,
      "Unsupported qcow2 feature(s): Unknown incompatible feature: 20" },
    { "incompatible 63", { { 8, 72, UINT64_C(1) << 63 } }, ALL,
      "8000000000000000" },
    { "incompatible, named", { { 8, 72, 32 }, { 2, 120, 5 } }, ALL,
      "Unsupported qcow2 feature(s): dirty bit" },
    { "compatible 1", { { 8, 80, 2 } }, 0, NULL },
    { "compatible 63", { { 8, 80, UINT64_C(1) << 63 } }, 0, NULL },
    { "autoclear 0", { { 8, 88, 1 } }, 0, NULL },
    { "autoclear 1", { { 8, 88, 2 } }, R | W | C, "data-file-raw requires" },
    { "autoclear 2", { { 8, 88, 4 } }, 0, NULL },
    { "autoclear 63", { { 8, 88, UINT64_C(1) << 63 } }, 0, NULL },
    { "LUKS without a header", { { 4, 32, 2 } }, ALL, "Missing CRYPTO" },
    { "crypt_method 3", { { 4, 32, 3 } }, ALL, "encryption method 3" },
    { "l1_size 0", { { 4, 36, 0 } }, ALL, "L1 table is too small" },
    { "l1_size too large", { { 4, 36, 4194305 } }, ALL, "L1 table too large" },
    { "l1_size past the end", { { 4, 36, 8193 } }, R | W, "passes the end" },
    { "l1_size larger", { { 4, 36, 8192 } }, 0, NULL },
    { "L1 unaligned", { { 8, 40, 0x30200 } }, ALL, "L1 table offset invalid" },
    { "L1 at 2^63", { { 8, 40, UINT64_C(1) << 63 } }, ALL, "beyond 2^63" },
    { "L1 at 0", { { 8, 40, 0 } }, R | W, "Active L1 table offset is 0" },
    { "L1 beyond EOF", { { 8, 40, 1 << 30 } }, R | W, "passes the end" },
    { "L1 on the refcount table", { { 8, 40, CS } }, W, "overlaps" },
    { "refcount table unaligned", { { 8, 48, 0x10200 } }, ALL,
      "Reference count table offset invalid" },
    { "refcount table too large", { { 4, 56, 129 } }, ALL,
      "Reference count table too large" },
    { "refcount table of 0", { { 4, 56, 0 } }, I | R | W,
      "does not contain a reference count table" },
    { "refcount table at 0", { { 8, 48, 0 } }, W, "offset is 0" },
    { "refcount table beyond EOF", { { 8, 48, 1 << 30 } }, W,
      "passes the end" },
    { "snapshots 65537", { { 4, 60, 65537 } }, I | R | W,
      "Snapshot table too large" },
    { "snapshots unaligned", { { 8, 64, 512 } }, ALL,
      "Snapshot table offset invalid" },
    { "size 0", { { 8, 24, 0 } }, 0, NULL },
    { "size 1001", { { 8, 24, 1001 } }, 0, NULL },
    { "size -1", { { 8, 24, UINT64_MAX } }, ALL, "too big" },
    { "size 2^63", { { 8, 24, UINT64_C(1) << 63 } }, ALL, "too big" },
    { "size needs two entries", { { 8, 24, (512 << 20) + 1 } }, ALL,
      "L1 table is too small" },
    { "extension too long", { { 4, 112, 0x12345678 }, { 4, 116, CS - 112 } },
      D, "Header extension too large" },
    { "extension to the end", { { 4, 112, 0x12345678 }, { 4, 116, CS - 120 } },
      0, NULL },
    { "end marker with a length", { { 4, 112, 0 }, { 4, 116, UINT32_MAX } }, D,
      "Header extension too large" },
    { "head over the bound", { { 8, 8, 116 }, { 4, 16, 1 } }, D,
      "Header extension too large" },
    { "format of 16", { { 4, 112, 0xe2792aca }, { 4, 116, 16 } }, D,
      "Backing format name too long" },
    { "format of 15", { { 4, 112, 0xe2792aca }, { 4, 116, 15 },
                        { 8, 136, 0 } }, 0, NULL },
    { "name beyond the cluster", { { 8, 8, CS + 1 }, { 4, 16, 1 } }, D,
      "Invalid backing file offset" },
    { "name crosses the end", { { 8, 8, CS - 6 }, { 4, 16, 7 } }, D,
      "Backing file name too long" },
    { "name of 1024", { { 8, 8, 1024 }, { 4, 16, 1024 } }, D,
      "Backing file name too long" },
    { "name of 1023", { { 8, 8, 1024 }, { 4, 16, 1023 } }, 0, NULL },
    { "name of 0", { { 8, 8, 600 }, { 4, 16, 0 } }, 0, NULL },
    { "crypto extension", { { 4, 112, 0x0537be77 }, { 4, 116, 16 } }, D,
      "only expected with LUKS" },
    { "bitmaps of 16 bytes", { { 4, 112, 0x23852875 }, { 4, 116, 16 } }, D,
      "Invalid extension length" },
    { "bitmaps, reserved", { { 4, 112, 0x23852875 }, { 4, 116, 24 },
                             { 4, 124, 1 } }, D, "Reserved field" },
    { "no bitmaps", { { 8, 88, 1 }, { 8, 112, 0x2385287500000018 },
                      { 8, 120, 0 }, { 8, 128, 32 }, { 8, 136, CS } }, ALL,
      "0 bitmaps" },
    { "bitmaps, not valid", { { 8, 112, 0x2385287500000018 },
                              { 8, 120, 0 }, { 8, 144, 0 } }, 0, NULL },
    { "bitmaps, directory too large",
      { { 8, 88, 1 }, { 8, 112, 0x2385287500000018 },
        { 8, 120, UINT64_C(1) << 32 }, { 8, 128, 67107841 },
        { 8, 136, CS } }, ALL, "exceeds the maximum" },
    { "bitmaps, directory unaligned",
      { { 8, 88, 1 }, { 8, 112, 0x2385287500000018 },
        { 8, 120, UINT64_C(1) << 32 }, { 8, 128, 32 },
        { 8, 136, CS + 8 } }, ALL, "offset invalid" },
};

static void apply(uint8_t *buf, const struct mutation *m)
{
    for (size_t i = 0; i < LAM_ARRAY_SIZE(m->put); i++) {
        const struct put *p = &m->put[i];

        if (p->width == 1)
            buf[p->at] = (uint8_t)p->value;
        else if (p->width == 2)
            be16_put(buf + p->at, (uint16_t)p->value);
        else if (p->width == 4)
            be32_put(buf + p->at, (uint32_t)p->value);
        else if (p->width == 8)
            be64_put(buf + p->at, p->value);
    }
}

static unsigned who_refuses(const uint8_t *buf, struct lam_error *first)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct qcow2_header h;
    unsigned refused = 0;

    if (header_decode(buf, CS, &h, first) < 0) {
        header_deinit(&h);
        return D;
    }
    if (header_validate(&h, FILE_LENGTH, true, false, &err) < 0)
        refused |= C, *first = err;
    if (header_validate_writable(&h, FILE_LENGTH, &err) < 0)
        refused |= W, *first = err;
    if (header_validate(&h, FILE_LENGTH, false, false, &err) < 0)
        refused |= R | W, *first = err;
    if (header_validate(&h, FILE_LENGTH, false, true, &err) < 0)
        refused |= I, *first = err;
    header_deinit(&h);
    return refused;
}

static void mutations_have_their_verdict(void **state)
{
    (void)state;
    static uint8_t buf[CS];

    for (size_t i = 0; i < LAM_ARRAY_SIZE(mutations); i++) {
        const struct mutation *m = &mutations[i];
        struct lam_error err = LAM_ERROR_INIT;

        make_image(buf);
        apply(buf, m);
        unsigned refused = who_refuses(buf, &err);
        if (refused != m->refused)
            fail_msg("%s: refused by %#x, expected %#x: %s", m->name, refused,
                     m->refused, err.message);
        if (m->words && !strstr(err.message, m->words))
            fail_msg("%s: '%s' lacks '%s'", m->name, err.message, m->words);
    }
}

/* A file that ends inside its first cluster: the rest reads as zero. */
static void short_files(void **state)
{
    (void)state;
    static const struct { size_t length; int rc; } cases[] = {
        { 0, -EINVAL }, { 4, -EINVAL }, { 23, -EINVAL }, { 71, -EUCLEAN },
        { 72, -EUCLEAN }, { 103, -EUCLEAN }, { 104, 0 }, { 112, 0 },
        { 200, 0 }, { 65535, 0 },
    };
    static uint8_t buf[CS];

    make_image(buf);
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        uint8_t *exact = malloc(cases[i].length + !cases[i].length);
        struct qcow2_header h;

        memcpy(exact, buf, cases[i].length);
        assert_int_equal(header_decode(exact, cases[i].length, &h, NULL),
                         cases[i].rc);
        header_deinit(&h);
        free(exact);
    }
}

static void small_subclusters_are_refused(void **state)
{
    (void)state;
    for (unsigned bits = 9; bits <= 21; bits++) {
        struct qcow2_header h = {
            .version = 3, .cluster_bits = bits, .refcount_order = 4,
            .reft_offset = UINT64_C(1) << bits, .reft_clusters = 1,
            .incompatible = QCOW2_INCOMPAT_EXTENDED_L2,
        };
        assert_int_equal(header_validate(&h, 1 << 30, false, false, NULL),
                         bits < 14 ? -EUCLEAN : 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(overlay_as_in_the_document),
        cmocka_unit_test(decode_and_encode_are_inverse),
        cmocka_unit_test(a_part_is_enough),
        cmocka_unit_test(name_fills_the_cluster),
        cmocka_unit_test(short_header_gets_the_new_field),
        cmocka_unit_test(mutations_have_their_verdict),
        cmocka_unit_test(short_files),
        cmocka_unit_test(small_subclusters_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
