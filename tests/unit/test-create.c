/* SPDX-License-Identifier: MIT */
/*
 * test-create.c - new images: what is refused, that the checker finds nothing,
 * and the length that the genuine tool gives them; snapshots and bitmaps that
 * are then put into one.
 */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "format/qcow2/bitmap.h"
#include "format/qcow2/check.h"
#include "format/qcow2/create.h"
#include "format/qcow2/snapshot.h"

static struct lam_io *empty(void)
{
    struct lam_io *io;
    assert_int_equal(lam_io_memory_new(NULL, 0, &io, NULL), 0);
    io->writable = true;
    return io;
}

static uint64_t length_of(struct lam_io *io)
{
    uint64_t length;
    assert_int_equal(lam_io_size(io, &length, NULL), 0);
    return length;
}

static void load_header(struct lam_io *io, struct qcow2_header *h)
{
    uint64_t length = length_of(io);
    uint8_t *buf = malloc(length);
    struct lam_error err = LAM_ERROR_INIT;

    assert_int_equal(lam_io_read(io, buf, length, 0, NULL), 0);
    assert_works(header_decode(buf, length, h, &err), &err);
    assert_works(header_validate(h, length, false, false, &err), &err);
    assert_works(header_validate_writable(h, length, &err), &err);
    free(buf);
}

static struct lam_check_result check_image(struct lam_io *io)
{
    struct qcow2_header h;
    struct lam_check_result result;
    struct lam_error err = LAM_ERROR_INIT;

    load_header(io, &h);
    io->eof_unit = UINT64_C(1) << h.cluster_bits;
    assert_works(qcow2_check_run(io, &h, NULL, NULL, &result, &err), &err);
    header_deinit(&h);
    return result;
}

/* ------------------------------------------------------------------ sound */

/* Lengths as made by the genuine tool. */
static const struct { uint64_t cluster_size, size, length; } lengths[] = {
    { 65536, 64 << 20, 196616 }, { 65536, 0, 196608 }, { 65536, 1, 196616 },
    { 65536, UINT64_C(1) << 40, 212992 }, { 512, 0, 1536 }, { 512, 1000, 1544 },
    { 512, 64 << 20, 17920 }, { 512, UINT64_C(16) << 30, 4212224 },
    { 4096, UINT64_C(1) << 40, 4206592 }, { 2 << 20, 64 << 20, 6291464 },
    { 2 << 20, UINT64_C(1) << 40, 6291472 },
};

static void lengths_are_the_genuine_tools(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(lengths); i++) {
        struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
        struct lam_error err = LAM_ERROR_INIT;
        struct lam_io *io = empty();

        o.size = lengths[i].size;
        o.cluster_size = lengths[i].cluster_size;
        assert_works(qcow2_create(io, NULL, &o, &err), &err);
        assert_int_equal(length_of(io), lengths[i].length);
        lam_io_close(io);
    }
}

static void every_width_is_sound(void **state)
{
    (void)state;
    static const uint64_t sizes[] = { 0, 513, 64 << 20, UINT64_C(10) << 30 };

    for (uint64_t cs = 512; cs <= 2 << 20; cs *= 4) {
        for (unsigned bits = 1; bits <= 64; bits *= 2) {
            for (size_t i = 0; i < LAM_ARRAY_SIZE(sizes); i++) {
                struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
                struct lam_error err = LAM_ERROR_INIT;
                struct lam_io *io = empty();

                o.size = sizes[i];
                o.cluster_size = cs;
                o.refcount_bits = bits;
                o.extended_l2 = cs >= 16384 && bits == 16;
                assert_works(qcow2_create(io, NULL, &o, &err), &err);
                struct lam_check_result r = check_image(io);
                assert_int_equal(r.corruptions + r.leaks + r.check_errors, 0);
                assert_int_equal(r.image_end_offset,
                                 align_up(length_of(io), cs));
                lam_io_close(io);
            }
        }
    }
}

static void a_raw_data_file_is_mapped(void **state)
{
    (void)state;
    static const uint64_t sizes[] = { 512, 70000, 1030 << 20 };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(sizes); i++) {
        struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
        struct lam_error err = LAM_ERROR_INIT;
        struct lam_io *io = empty(), *data = empty();

        o.size = sizes[i];
        o.data_file = "data.raw";
        o.data_file_raw = true;
        assert_works(qcow2_create(io, data, &o, &err), &err);
        assert_int_equal(length_of(data), align_up(sizes[i], 65536));
        struct lam_check_result r = check_image(io);
        assert_int_equal(r.corruptions + r.leaks + r.check_errors, 0);
        assert_int_equal(r.allocated_clusters, r.total_clusters);
        lam_io_close(io);
        lam_io_close(data);
    }
}

/* Lengths as made by the genuine tool; every cluster is mapped. */
static void preallocation_maps_everything(void **state)
{
    (void)state;
    static const struct { uint64_t cluster_size, size, length; } cases[] = {
        { 65536, 16 << 20, 17104896 }, { 4096, 16 << 20, 16834560 },
        { 512, 1 << 20, 1071104 }, { 2 << 20, 100000000, 111149056 },
        { 65536, 1080033281, 1080557568 }, { 65536, 0, 196608 },
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
        struct lam_error err = LAM_ERROR_INIT;
        struct lam_io *io = empty();

        o.size = cases[i].size;
        o.cluster_size = cases[i].cluster_size;
        o.preallocation = LAM_PREALLOC_METADATA;
        assert_works(qcow2_create(io, NULL, &o, &err), &err);
        assert_int_equal(length_of(io), cases[i].length);
        struct lam_check_result r = check_image(io);
        assert_int_equal(r.corruptions + r.leaks + r.check_errors, 0);
        assert_int_equal(r.allocated_clusters, r.total_clusters);
        assert_int_equal(r.fragmented_clusters, 0);
        lam_io_close(io);
    }
}

/* ---------------------------------------------------------------- refusals */

static const struct {
    const char *words;
    struct lam_create_options o;
} refusals[] = {
    { "power of two between 512 and 2048k", { .cluster_size = 511 } },
    { "power of two between 512 and 2048k", { .cluster_size = 256 } },
    { "power of two between 512 and 2048k", { .cluster_size = 4 << 20 } },
    { "Refcount width must be", { .refcount_bits = 3 } },
    { "Refcount width must be", { .refcount_bits = 128 } },
    { "Different refcount widths", { .version = 2, .refcount_bits = 8 } },
    { "Lazy refcounts only", { .version = 2, .lazy_refcounts = true } },
    { "Extended L2 entries are only supported with compatibility",
      { .version = 2, .extended_l2 = true } },
    { "cluster sizes of at least 16384",
      { .cluster_size = 8192, .extended_l2 = true } },
    { "Non-zlib compression type", { .version = 2, .compression_type = 1 } },
    { "Unknown compression type 2", { .compression_type = 2 } },
    { "External data files are only", { .version = 2, .data_file = "d" } },
    { "data-file-raw requires", { .data_file_raw = true } },
    { "cannot be used at the same time",
      { .data_file = "d", .data_file_raw = true, .backing_file = "b" } },
    { "extended_l2 is on",
      { .backing_file = "b", .preallocation = LAM_PREALLOC_METADATA } },
    { "image size is too large", { .size = (UINT64_C(2) << 50) + 1 } },
    { "image size is too large",
      { .size = (UINT64_C(128) << 30) + 1, .cluster_size = 512 } },
    { "is too large", { .size = UINT64_MAX - 1 } },
    { "Unsupported qcow2 version 4", { .version = 4 } },
};

static void limits_are_named(void **state)
{
    (void)state;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(refusals); i++) {
        struct lam_create_options o = refusals[i].o;
        struct lam_error err = LAM_ERROR_INIT;
        struct lam_io *io = empty(), *data = empty();

        o.version = o.version ? o.version : 3;
        o.cluster_size = o.cluster_size ? o.cluster_size : 65536;
        o.refcount_bits = o.refcount_bits ? o.refcount_bits : 16;
        assert_true(qcow2_create(io, data, &o, &err) < 0);
        if (!strstr(err.message, refusals[i].words))
            fail_msg("'%s' lacks '%s'", err.message, refusals[i].words);
        assert_int_equal(length_of(io), 0);
        lam_io_close(io);
        lam_io_close(data);
    }
}

/* --------------------------------------------------------------- snapshots */

enum { TABLE = 4 * 65536 };

/* An image with @count snapshots, whose entries have @extra bytes each. */
static struct lam_io *with_snapshots(uint32_t count, uint32_t extra)
{
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
    struct lam_io *io = empty();
    uint8_t entry[4096] = { 0 };
    uint64_t at = TABLE;

    o.size = 1 << 20;
    assert_int_equal(qcow2_create(io, NULL, &o, NULL), 0);
    for (uint32_t i = 0; i < count; i++) {
        be16_put(entry + 12, 1);
        be16_put(entry + 14, 4);
        be32_put(entry + 16, 1700000000 + i);
        be32_put(entry + 32, 55);
        be32_put(entry + 36, extra);
        be64_put(entry + 40, 66);
        be64_put(entry + 48, 512 * (i + 1));
        be64_put(entry + 56, 77);
        memcpy(entry + 40 + extra, "x\nam\0", 5);
        entry[40 + extra] = (uint8_t)('1' + i);
        /* The last entry has no padding. */
        uint64_t n = 40 + extra + 5;
        assert_int_equal(lam_io_write(io, entry, n, at, NULL), 0);
        at += align_up(n, 8);
    }
    be32_put(entry, count);
    be64_put(entry + 4, TABLE);
    assert_int_equal(lam_io_write(io, entry, 12, QH_NB_SNAPSHOTS, NULL), 0);
    return io;
}

static void snapshots_are_loaded(void **state)
{
    (void)state;
    static const struct {
        uint32_t extra;
        uint64_t vm_state, disk_size, icount;
    } cases[] = {
        { 0, 55, 1 << 20, UINT64_MAX }, { 8, 66, 1 << 20, UINT64_MAX },
        { 16, 66, 1024, UINT64_MAX }, { 24, 66, 1024, 77 },
        { 1024, 66, 1024, 77 },
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct lam_io *io = with_snapshots(3, cases[i].extra);
        struct lam_image_info info = { 0 };
        struct lam_error err = LAM_ERROR_INIT;
        struct qcow2_snapshots list;
        struct qcow2_header h;

        load_header(io, &h);
        assert_works(snapshots_load(io, &h, &list, &err), &err);
        assert_int_equal(list.count, 3);
        assert_string_equal(list.items[1].id, "2");
        assert_string_equal(list.items[1].name, "\nam");
        assert_int_equal(list.items[1].vm_state_size, cases[i].vm_state);
        assert_int_equal(list.items[1].disk_size, cases[i].disk_size);
        assert_int_equal(list.items[1].icount, cases[i].icount);
        assert_ptr_equal(snapshots_find(&list, "3"), &list.items[2]);
        assert_ptr_equal(snapshots_find(&list, "\nam"), &list.items[0]);
        assert_null(snapshots_find(&list, "4"));
        assert_works(snapshots_info(&list, &info, &err), &err);
        assert_int_equal(info.nb_snapshots, 3);
        for (size_t j = 0; j < 3; j++) {
            free(info.snapshots[j].id);
            free(info.snapshots[j].name);
        }
        free(info.snapshots);
        snapshots_deinit(&list);
        header_deinit(&h);
        lam_io_close(io);
    }
}

static void bad_snapshot_tables_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint32_t extra, count;
        const char *words;
    } cases[] = {
        { 1025, 1, "Too much extra metadata" },
        { 24, 4, "passes the end of the file" },    /* one is not there */
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(cases); i++) {
        struct lam_io *io = with_snapshots(i ? 3 : 1, cases[i].extra);
        struct lam_error err = LAM_ERROR_INIT;
        struct qcow2_snapshots list;
        struct qcow2_header h;

        load_header(io, &h);
        h.nb_snapshots = cases[i].count;
        assert_int_equal(snapshots_load(io, &h, &list, &err), -EUCLEAN);
        assert_non_null(strstr(err.message, cases[i].words));
        snapshots_deinit(&list);
        header_deinit(&h);
        lam_io_close(io);
    }
}

/* ----------------------------------------------------------------- bitmaps */

/* A.7 of the format document. */
static const uint8_t directory[96] =
    "\0\0\0\0\0\x10\0\0\0\0\0\1\0\0\0\2\1\x10\0\2\0\0\0\0b0\0\0\0\0\0\0"
    "\0\0\0\0\0\x12\0\0\0\0\0\1\0\0\0\3\1\x0c\0\4\0\0\0\0fine\0\0\0\0"
    "\0\0\0\0\0\x13\0\0\0\0\0\1\0\0\0\0\1\x10\0\3\0\0\0\0dis\0\0\0\0";

static void bitmaps_are_listed(void **state)
{
    (void)state;
    struct lam_io *io = empty();
    struct lam_image_info info = { 0 };
    struct lam_error err = LAM_ERROR_INIT;
    struct qcow2_header h = {
        .version = 3, .cluster_bits = 16, .has_bitmaps = true, .nb_bitmaps = 3,
        .autoclear = QCOW2_AUTOCLEAR_BITMAPS, .bitmap_directory_size = 96,
        .bitmap_directory_offset = 0x140000,
    };

    assert_int_equal(lam_io_write(io, directory, 96, 0x140000, NULL), 0);
    assert_works(bitmaps_info(io, &h, &info, &err), &err);
    assert_int_equal(info.nb_bitmaps, 3);
    assert_string_equal(info.bitmaps[1].name, "fine");
    assert_int_equal(info.bitmaps[1].granularity, 4096);
    assert_true(info.bitmaps[1].in_use && info.bitmaps[1].automatic);
    assert_false(info.bitmaps[2].in_use || info.bitmaps[2].automatic);
    for (size_t i = 0; i < 3; i++)
        free(info.bitmaps[i].name);
    free(info.bitmaps);

    memset(&info, 0, sizeof info);
    h.nb_bitmaps = 4;
    assert_int_equal(bitmaps_info(io, &h, &info, &err), -EUCLEAN);
    assert_non_null(strstr(err.message, "Less bitmaps found"));
    for (size_t i = 0; i < info.nb_bitmaps; i++)
        free(info.bitmaps[i].name);
    free(info.bitmaps);
    lam_io_close(io);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_are_the_genuine_tools),
        cmocka_unit_test(every_width_is_sound),
        cmocka_unit_test(a_raw_data_file_is_mapped),
        cmocka_unit_test(preallocation_maps_everything),
        cmocka_unit_test(limits_are_named),
        cmocka_unit_test(snapshots_are_loaded),
        cmocka_unit_test(bad_snapshot_tables_are_refused),
        cmocka_unit_test(bitmaps_are_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
