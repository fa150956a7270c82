/* SPDX-License-Identifier: MIT */
/*
 * test-vmdk.c - the header and the descriptor of VMDKs, as bytes and text.
 */
#include "unit.h"

#include <string.h>

#include "format/vmdk/descriptor.h"
#include "format/vmdk/header.h"

/* ------------------------------------------------------------------- header */

static const struct vmdk_header good = {
    .version = 3,
    .flags = VMDK_FLAG_NEWLINES | VMDK_FLAG_REDUNDANT | VMDK_FLAG_COMPRESSED,
    .capacity = 0x123456789a,
    .grain_size = 128,
    .descriptor_offset = 1,
    .descriptor_size = 20,
    .gtes = VMDK_GTES,
    .rgd_offset = 21,
    .gd_offset = 0x1122334455,
    .overhead = 0x66778899aa,
    .unclean = true,
    .compression = 1,
};

static void test_header_roundtrip(void **state)
{
    uint8_t buf[VMDK_HEADER_SIZE], again[VMDK_HEADER_SIZE];
    struct vmdk_header h;

    (void)state;
    vmdk_header_encode(&good, buf);
    assert_int_equal(vmdk_header_decode(buf, &h, NULL), 0);
    vmdk_header_encode(&h, again);
    assert_memory_equal(buf, again, sizeof buf);
    assert_int_equal(h.capacity, good.capacity);
    assert_int_equal(h.gd_offset, good.gd_offset);
    assert_true(h.unclean);
    assert_memory_equal(buf, "KDMV\3\0\0\0\3\0\1\0", 12);
    assert_memory_equal(buf + 72, "\1\n \r\n\1\0", 7);
    assert_true(vmdk_is_header(buf, 4));
    assert_false(vmdk_is_header(buf, 3));
}

static void test_tables(void **state)
{
    static const struct {
        uint64_t capacity, grain, tables;
    } cases[] = {
        { 0, 128, 0 }, { 1, 128, 1 }, { 65536, 128, 1 }, { 65537, 128, 2 },
        { 4096, 8, 1 }, { 4097, 8, 2 },
    };

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct vmdk_header h = good;
        h.capacity = cases[i].capacity;
        h.grain_size = cases[i].grain;
        assert_int_equal(vmdk_nb_tables(&h), cases[i].tables);
    }
}

/* --------------------------------------------------------------- descriptor */

#define HEAD "# Disk DescriptorFile\nversion=1\nCID=00c0ffee\n" \
             "createType=\"custom\"\n"

static void test_lines(void **state)
{
    static const struct {
        const char *line;
        int rc;
        struct vmdk_line expected;
    } cases[] = {
        { "RW 10 FLAT \"a b.vmdk\" 7", 0,
          { VMDK_RW, VMDK_FLAT, 10, (char *)"a b.vmdk", 7 } },
        { "\tRDONLY  5 \t SPARSE  \"x\"  \r", 0,
          { VMDK_RDONLY, VMDK_SPARSE, 5, (char *)"x", 0 } },
        { "NOACCESS 1 ZERO", 0, { VMDK_NOACCESS, VMDK_ZERO, 1, NULL, 0 } },
        { "RW 1 VMFS \"y\"", 0, { VMDK_RW, VMDK_VMFS, 1, (char *)"y", 0 } },
        { "RW 1 FLAT \"a\"", -EINVAL, { 0 } },
        { "RW 1 FLAT \"\" 0", -EINVAL, { 0 } },
        { "RW 1 FLAT a 0", -EINVAL, { 0 } },
        { "RW 1 FLAT \"a 0", -EINVAL, { 0 } },
        { "RW 1 SPARSE \"a\" 0", -EINVAL, { 0 } },
        { "RW 0 ZERO", -EINVAL, { 0 } },
        { "RW 1x ZERO", -EINVAL, { 0 } },
        { "RW", -EINVAL, { 0 } },
        { "RW 18446744073709551616 ZERO", -EINVAL, { 0 } },
        { "RW 1 DEVICE \"a\"", -ENOTSUP, { 0 } },
    };

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct vmdk_descriptor d;
        char text[256];
        strcpy(text, HEAD);
        strcat(text, cases[i].line);
        int rc = vmdk_descriptor_parse(text, sizeof text, false, &d, NULL);
        if (rc != cases[i].rc)
            fail_msg("%s: %d", cases[i].line, rc);
        if (rc == 0) {
            const struct vmdk_line *e = &cases[i].expected, *l = d.lines;
            assert_int_equal(d.nb_lines, 1);
            assert_int_equal(l->access, e->access);
            assert_int_equal(l->type, e->type);
            assert_int_equal(l->sectors, e->sectors);
            assert_int_equal(l->offset, e->offset);
            assert_true(e->name ? l->name && !strcmp(l->name, e->name)
                                : !l->name);
        }
        vmdk_descriptor_deinit(&d);
    }
}

static void test_keys(void **state)
{
    static const char text[] =
        HEAD "# parentCID=1\n parentCID = aB12 \nCID=1\n"
        "parentFileNameHint=\"the parent.vmdk\"\nx=y\nno sign\n"
        "RW 1 ZERO\nddb.a = \"b\"\0CID=zzz\n";
    struct vmdk_descriptor d;

    (void)state;
    assert_int_equal(vmdk_descriptor_parse(text, sizeof text, true, &d, NULL),
                     0);
    assert_int_equal(d.cid, 0xc0ffee);
    assert_memory_equal(text + d.cid_at, "00c0ffee", d.cid_digits);
    assert_int_equal(d.parent_cid, 0xab12);
    assert_memory_equal(text + d.parent_cid_at, "aB12",
                        d.parent_cid_digits);
    assert_string_equal(d.create_type, "custom");
    assert_string_equal(d.parent, "the parent.vmdk");
    assert_int_equal(d.nb_lines, 0);        /* it is embedded */
    assert_int_equal(d.length, strlen(text));
    assert_int_equal(d.room, sizeof text);
    vmdk_descriptor_deinit(&d);
}

static void test_recognise(void **state)
{
    static const struct { const char *text; bool yes; } cases[] = {
        { "# Disk DescriptorFile\nversion=1\n", true },
        { "\n\r\n# x\r\nversion=3\r\nCID", true },
        { "version=2", true }, { "version=4\n", false }, { "", false },
        { "version=1x\n", false }, { "# only a comment", false },
        { "CID=1\nversion=1\n", false },
    };

    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++)
        if (vmdk_is_descriptor(cases[i].text, strlen(cases[i].text)) !=
            cases[i].yes)
            fail_msg("%s", cases[i].text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header_roundtrip),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_recognise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
