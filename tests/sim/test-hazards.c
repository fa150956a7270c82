/* SPDX-License-Identifier: MIT */
/*
 * test-hazards.c - what a reading of the write engine found, a case each.
 */
#include "files.h"

static const struct sim_kind kind = { "4k", 4096, 3, 16, false, false, false };

enum { CLUSTER = 4096, CLUSTERS = 64, SIZE = CLUSTERS * CLUSTER };

/* Keeps the file beneath for the next opening. */
static struct lam_image *open_file(struct lam_io *file, bool can_grow)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;
    struct lam_io *io;

    assert_int_equal(lam_io_record_new(file, &io, NULL), 0);
    io->limits.can_grow = can_grow;
    o.flags = LAM_OPEN_WRITE | LAM_OPEN_UNMAP;
    if (image_open_io(io, "qcow2", &o, NULL, &image, &err) < 0)
        fail_msg("open: %s", err.message);
    return image;
}

static void write_all(struct lam_image *image, uint8_t byte)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t cluster[CLUSTER];

    memset(cluster, byte, sizeof cluster);
    for (uint64_t i = 0; i < CLUSTERS; i++)
        if (lam_image_write(image, cluster, CLUSTER, i * CLUSTER, 0, &err) < 0)
            fail_msg("cluster %u, %#x: %s", (unsigned)i, byte, err.message);
}

static void close_and_check(struct lam_image *image, struct lam_io *file)
{
    struct lam_check_result r;
    bool dirty;

    assert_int_equal(lam_image_close(image, NULL), 0);
    assert_int_equal(sim_check(file, &r, &dirty, NULL), 0);
    assert_int_equal(r.corruptions + r.leaks + r.check_errors, 0);
}

/*
 * An L2 table without COPIED in L1 becomes a table of our own on the first
 * write.  What has only one reference in it may be written in place from then
 * on, by others: so the first one must not be copying it.
 */
static void test_table_becomes_ours(void **state)
{
    struct lam_io *file = sim_create(&kind, SIZE, false);
    struct lam_image *image = open_file(file, true);
    struct format_allocation first, second;
    struct qcow2_header h = { 0 };
    uint64_t length;
    uint8_t byte = 0;

    (void)state;
    write_all(image, 1);
    close_and_check(image, file);
    uint8_t *bytes = sim_bytes(file, &length);
    assert_int_equal(header_decode(bytes, length, &h, NULL), 0);
    byte = bytes[h.l1_offset] & 0x7f;
    assert_int_equal(lam_io_write(file, &byte, 1, h.l1_offset, NULL), 0);
    header_deinit(&h);
    free(bytes);

    image = open_file(file, true);
    const struct format_ops *ops = image->ops;
    assert_int_equal(ops->write_begin(image->format, 0, 512, &first, NULL), 0);
    assert_int_equal(ops->write_begin(image->format, 2048, 512, &second, NULL),
                     0);
    assert_int_equal(second.host_offset, first.host_offset + 2048);
    assert_int_equal(ops->write_finish(image->format, &first, NULL), 0);
    assert_int_equal(ops->write_finish(image->format, &second, NULL), 0);
    close_and_check(image, file);
    lam_io_close(file);
}

/* A guest that discards and writes again needs no more room than the disk has,
 * though nobody flushes. */
static void test_full_disk_reuses_discarded(void **state)
{
    struct lam_io *file = sim_create(&kind, SIZE, false);
    struct lam_image *image = open_file(file, true);

    (void)state;
    write_all(image, 1);
    close_and_check(image, file);
    image = open_file(file, false);
    for (uint8_t round = 2; round < 6; round++) {
        assert_int_equal(lam_image_discard(image, 0, SIZE, NULL), 0);
        write_all(image, round);
    }
    close_and_check(image, file);
    lam_io_close(file);
}

/* What a discard has dropped loses its reference only when that is on disk, but
 * is no reference any more: COPIED says so after the snapshots have changed. */
static void test_dropped_before_snapshots_change(void **state)
{
    struct lam_io *file = sim_create(&kind, SIZE, false);
    struct lam_image *image = open_file(file, true);

    (void)state;
    write_all(image, 1);
    assert_int_equal(lam_image_snapshot_create(image, "s", NULL), 0);
    assert_int_equal(lam_image_discard(image, 0, 3 * CLUSTER, NULL), 0);
    assert_int_equal(lam_image_snapshot_apply(image, "s", NULL), 0);
    assert_int_equal(lam_image_snapshot_delete(image, "s", NULL), 0);
    close_and_check(image, file);
    lam_io_close(file);
}

/* Nor does it keep a counter from becoming narrower. */
static void test_dropped_before_amend(void **state)
{
    struct lam_amend_options o = LAM_AMEND_OPTIONS_INIT;
    struct lam_io *file = sim_create(&kind, SIZE, false);
    struct lam_image *image = open_file(file, true);
    struct lam_error err = LAM_ERROR_INIT;

    (void)state;
    o.refcount_bits = 1;
    for (uint64_t i = 0; i < 3; i++)    /* several share a host cluster */
        assert_int_equal(lam_image_write(image, (char[CLUSTER]){ 1 }, CLUSTER,
                                         i * CLUSTER, LAM_WRITE_COMPRESSED,
                                         NULL), 0);
    assert_int_equal(lam_image_discard(image, 0, 3 * CLUSTER, NULL), 0);
    if (lam_image_amend(image, &o, &err) < 0)
        fail_msg("amend: %s", err.message);
    close_and_check(image, file);
    lam_io_close(file);
}

/* What the data file still holds of a discarded cluster stays hidden when the
 * cluster, cut by the old end, gets a place again. */
static void test_discarded_before_preallocation(void **state)
{
    static const struct sim_shape shape = {
        { "data", CLUSTER, 3, 16, false, false, false }, SIM_DATA_FILE
    };
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_image *image = NULL;
    struct sim_files files;
    uint8_t bytes[CLUSTER] = { 7 }, zeroes[CLUSTER] = { 0 };

    (void)state;
    o.flags = LAM_OPEN_WRITE | LAM_OPEN_UNMAP;
    sim_files_create(&shape, 1024, NULL, "data", &files);
    assert_int_equal(sim_files_open(&files, &o, NULL, &image, NULL), 0);
    assert_int_equal(lam_image_write(image, bytes, 1024, 0, 0, NULL), 0);
    assert_int_equal(lam_image_discard(image, 0, 1024, NULL), 0);
    assert_int_equal(lam_image_close(image, NULL), 0);
    assert_int_equal(lam_io_write(files.data, bytes, 1024, 0, NULL), 0);

    assert_int_equal(sim_files_open(&files, &o, NULL, &image, NULL), 0);
    assert_int_equal(lam_image_resize(image, CLUSTER, LAM_PREALLOC_METADATA, 0,
                                      NULL), 0);
    assert_int_equal(lam_image_read(image, bytes, CLUSTER, 0, NULL), 0);
    assert_memory_equal(bytes, zeroes, CLUSTER);
    close_and_check(image, files.image);
    sim_files_close(&files);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table_becomes_ours),
        cmocka_unit_test(test_full_disk_reuses_discarded),
        cmocka_unit_test(test_dropped_before_snapshots_change),
        cmocka_unit_test(test_dropped_before_amend),
        cmocka_unit_test(test_discarded_before_preallocation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
