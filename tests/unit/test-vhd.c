/* SPDX-License-Identifier: MIT */
/*
 * test-vhd.c - the pure parts of VHD and VHDX: sums, names, geometries,
 * structures, log entries.
 */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/utf16.h"
#include "format/vhdx/log.h"
#include "format/vpc/footer.h"

/* ------------------------------------------------------------ sums, names */

static void test_crc32c(void **state)
{
    uint8_t bytes[600];

    (void)state;
    /* The check value that every description gives; RFC 3720, B.4. */
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    memset(bytes, 0, 32);
    assert_int_equal(crc32c(0, bytes, 32), 0x8a9136aa);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 37 + i / 256);
    for (size_t n = 0; n < sizeof bytes; n += 7) {
        uint32_t whole = crc32c_portable(0, bytes, n);
        assert_int_equal(crc32c(0, bytes, n), whole);
        assert_int_equal(crc32c(crc32c(0, bytes, n / 3), bytes + n / 3,
                                n - n / 3), whole);
    }
}

static const struct {
    const char *name;
    uint16_t units[6];
    const char *text;           /* NULL: refused */
} name_cases[] = {
    { "nothing", { 0 }, "" },
    { "ASCII", { 'a', '.', '\\' }, "a.\\" },
    { "two bytes", { 0xe4, 0x7ff }, "\xc3\xa4\xdf\xbf" },
    { "three bytes", { 0x800, 0xffff }, "\xe0\xa0\x80\xef\xbf\xbf" },
    { "a pair", { 0xd83d, 0xde00, 'x' }, "\xf0\x9f\x98\x80x" },
    { "up to zero", { 'a', 0, 'b' }, "a" },
    { "half a pair", { 0xd83d, 'x' }, NULL },
    { "the other half", { 0xde00 }, NULL },
    { "newline", { 'a', '\n' }, NULL },
    { "delete", { 0x7f }, NULL },
};

static void test_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(name_cases); i++)
        for (int big = 0; big < 2; big++) {
            uint8_t bytes[12];
            lam_autofree char *text = NULL;
            for (size_t k = 0; k < 6; k++)
                if (big)
                    be16_put(bytes + 2 * k, name_cases[i].units[k]);
                else
                    le16_put(bytes + 2 * k, name_cases[i].units[k]);
            int rc = utf16_to_utf8(bytes, sizeof bytes, big, &text, NULL);
            assert_int_equal(rc, name_cases[i].text ? 0 : -EINVAL);
            if (rc == 0)
                assert_string_equal(text, name_cases[i].text);
        }
}

/* -------------------------------------------------------------------- VHD */

static const struct {
    uint64_t sectors;
    struct vpc_geometry asked;  /* for exactly these; rounds down */
    struct vpc_geometry held;   /* that holds them */
} geometries[] = {
    { 0, { 0, 4, 17 }, { 0, 0, 0 } },
    { 1, { 0, 4, 17 }, { 1, 4, 17 } },
    { 20480, { 301, 4, 17 }, { 302, 4, 17 } },
    { 139264, { 280, 16, 31 }, { 911, 9, 17 } },
    { UINT64_C(2) << 21, { 4161, 16, 63 }, { 4162, 16, 63 } },
    { UINT64_C(65535) * 16 * 63, { 16191, 16, 255 }, { 16191, 16, 255 } },
    { UINT64_C(65535) * 16 * 255, { 65535, 16, 255 }, { 65535, 16, 255 } },
    { UINT64_C(1) << 32, { 65535, 16, 255 }, { 65535, 16, 255 } },
};

static void check_geometry(struct vpc_geometry g, struct vpc_geometry want)
{
    assert_int_equal(g.cylinders, want.cylinders);
    assert_int_equal(g.heads, want.heads);
    assert_int_equal(g.sectors, want.sectors);
}

static void test_geometry(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(geometries); i++) {
        check_geometry(vpc_geometry(geometries[i].sectors),
                       geometries[i].asked);
        check_geometry(vpc_geometry_for(geometries[i].sectors),
                       geometries[i].held);
    }
    assert_true(vpc_geometry_is_largest(vpc_geometry_for(UINT64_C(1) << 33)));
}

static void test_footer(void **state)
{
    struct vpc_footer f = {
        .data_offset = 512,
        .timestamp = 7,
        .creator = { 'q', 'e', 'm', '2' },
        .original_size = 1 << 20,
        .current_size = (1 << 20) + 100,
        .geometry = { 10, 4, 17 },
        .type = VPC_DYNAMIC,
        .uuid = { 1, 2, 3 },
    }, back;
    uint8_t bytes[VPC_FOOTER_BYTES], again[VPC_FOOTER_BYTES];
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    vpc_footer_encode(&f, bytes);
    assert_works(vpc_footer_decode(bytes, &back, &err), &err);
    vpc_footer_encode(&back, again);
    assert_memory_equal(bytes, again, sizeof bytes);
    assert_int_equal(vpc_footer_size(&back), 1 << 20);
    memcpy(back.creator, "vpc ", 4);
    assert_int_equal(vpc_footer_size(&back), 10 * 4 * 17 * 512);
    assert_int_equal(vpc_footer_size_by(&back, true), 10 * 4 * 17 * 512);
    assert_int_equal(vpc_footer_size_by(&back, false), 1 << 20);
    bytes[200] ^= 1;
    assert_int_equal(vpc_footer_decode(bytes, &back, &err), -EUCLEAN);
    bytes[0] ^= 1;
    assert_int_equal(vpc_footer_decode(bytes, &back, &err), -EINVAL);
}

/* ------------------------------------------------------------------- VHDX */

static void test_layout(void **state)
{
    struct vhdx_metadata m = { .block_size = 1 << 20, .size = 5 << 20,
                               .logical_sector = 512, .physical_sector = 4096,
                               .page83 = { { 9 } } }, back;
    struct vhdx_regions r = { { 2 << 20, 1 << 20 }, { 3 << 20, 1 << 20 } },
                        regions;
    lam_autofree uint8_t *bytes = malloc(VHDX_UNIT);
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    vhdx_metadata_encode(&m, bytes);
    assert_works(vhdx_metadata_decode(bytes, VHDX_UNIT, &back, &err), &err);
    assert_int_equal(back.block_size, m.block_size);
    assert_int_equal(back.size, m.size);
    assert_int_equal(back.physical_sector, 4096);
    assert_true(vhdx_guid_equal(&back.page83, &m.page83));
    assert_false(back.has_parent || back.leave_allocated);

    vhdx_regions_encode(&r, bytes);
    assert_works(vhdx_regions_decode(bytes, &regions, &err), &err);
    assert_int_equal(regions.table.offset, r.table.offset);
    assert_int_equal(regions.table.length, r.table.length);
    assert_int_equal(regions.metadata.offset, r.metadata.offset);
    assert_int_equal(regions.metadata.length, r.metadata.length);
    bytes[60000] ^= 1;
    assert_int_equal(vhdx_regions_decode(bytes, &regions, &err), -EUCLEAN);
}

/* 4096 blocks of 1 MiB and 512 bytes a sector come in front of one bitmap. */
static const struct {
    uint32_t block_size, sector;
    uint64_t size, block, entry, bitmap, nb_entries;
} places[] = {
    { 1 << 20, 512, 5 << 20, 4, 4, 4096, 5 },
    { 1 << 20, 512, UINT64_C(4096) << 20, 4095, 4095, 4096, 4096 },
    { 1 << 20, 512, UINT64_C(4097) << 20, 4096, 4097, 8193, 4098 },
    { 1 << 28, 512, UINT64_C(40) << 28, 33, 35, 50, 42 },
    { 1 << 20, 4096, UINT64_C(4097) << 20, 4096, 4096, 32768, 4097 },
};

static void test_places(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(places); i++) {
        struct vhdx_metadata m = { .block_size = places[i].block_size,
                                   .logical_sector = places[i].sector,
                                   .size = places[i].size };
        uint64_t block = places[i].block;
        assert_int_equal(vhdx_entry_of_block(&m, block), places[i].entry);
        assert_int_equal(vhdx_bitmap_entry_of(&m, block), places[i].bitmap);
        assert_int_equal(vhdx_nb_entries(&m), places[i].nb_entries);
    }
}

static void test_log(void **state)
{
    enum { COUNT = 3 };
    const uint64_t offsets[COUNT] = { 4096, 1 << 20, 2 << 20 };
    lam_autofree uint8_t *sectors = malloc(COUNT * VHDX_LOG_SECTOR);
    lam_autofree uint8_t *bytes = malloc(vhdx_log_length(COUNT));
    struct vhdx_log_entry e = { .length = vhdx_log_length(COUNT), .tail = 8192,
                                .sequence = UINT64_C(0x123456789a),
                                .count = COUNT, .guid = { { 5 } } }, back;
    uint32_t nb_data = 0;

    (void)state;
    for (size_t i = 0; i < COUNT * VHDX_LOG_SECTOR; i++)
        sectors[i] = (uint8_t)(i * 7 + i / VHDX_LOG_SECTOR);
    vhdx_log_encode(&e, offsets, sectors, bytes);
    assert_true(vhdx_log_peek(bytes, &back));
    assert_true(vhdx_log_is_whole(&back, bytes));
    assert_int_equal(back.sequence, e.sequence);
    for (uint32_t i = 0; i < COUNT; i++) {
        struct vhdx_log_change c;
        vhdx_log_change(&back, bytes, i, &nb_data, &c);
        assert_int_equal(c.offset, offsets[i]);
        assert_false(c.zero);
        assert_memory_equal(c.bytes, sectors + i * VHDX_LOG_SECTOR,
                            VHDX_LOG_SECTOR);
    }
    assert_int_equal(nb_data, COUNT);
    for (uint32_t at = 0; at < e.length; at += 509) {
        bytes[at] ^= 0x40;
        assert_false(vhdx_log_peek(bytes, &back) &&
                     vhdx_log_is_whole(&back, bytes));
        bytes[at] ^= 0x40;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_geometry),
        cmocka_unit_test(test_footer),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
