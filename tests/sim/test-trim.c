/* SPDX-License-Identifier: MIT */
/*
 * test-trim.c - what the host is told, and when.
 *
 * Discarded clusters that keep their place (discard-no-unref, external data
 * files): no hole before the entry that shows nothing is on disk, none where
 * something has been written since.  Payloads: whole sectors at each flush.
 */
#include "sim.h"

enum { CLUSTER = 4096, CLUSTERS = 64, SIZE = CLUSTERS * CLUSTER, WRITTEN = 16 };

struct trim_case {
    const char *name;
    bool data_file, no_unref, extended_l2;
};

static const struct trim_case cases[] = {
    { "released", false, false, false },
    { "no-unref", false, true, false },
    { "data file", true, false, false },
    { "data file, no-unref", true, true, false },
    { "subclusters, no-unref", false, true, true },
    { "subclusters, data file", true, false, true },
};

struct trim {
    const struct trim_case *kind;
    uint64_t cluster;
    struct lam_io *file, *data;         /* in memory */
    struct lam_io *record, *data_record;
    uint8_t *base;
    uint64_t base_length;
    void *format;
};

static void create(struct trim *t)
{
    struct lam_create_options o = LAM_CREATE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    t->cluster = t->kind->extended_l2 ? 4 * CLUSTER : CLUSTER;
    o.format = "qcow2";
    o.size = CLUSTERS * t->cluster;
    o.cluster_size = t->cluster;
    o.extended_l2 = t->kind->extended_l2;
    assert_int_equal(lam_io_memory_new(NULL, 0, &t->file, NULL), 0);
    if (t->kind->data_file) {
        o.data_file = "data";
        assert_int_equal(lam_io_memory_new(NULL, 0, &t->data, NULL), 0);
    }
    if (format_qcow2.create(t->file, t->data, &o, &err) < 0)
        fail_msg("create: %s", err.message);
    t->base = sim_bytes(t->file, &t->base_length);
}

static void *open_on(const struct trim *t, struct lam_io *io,
                     struct lam_io *data, bool writable)
{
    struct format_open o = {
        .io = io, .writable = writable, .unmap = true, .pass_request = true,
        .no_unref = t->kind->no_unref,
    };
    struct lam_error err = LAM_ERROR_INIT;
    void *format = NULL;

    if (format_qcow2.open(&o, &format, &err) < 0)
        fail_msg("%s: open: %s", t->kind->name, err.message);
    if (data)
        assert_int_equal(format_qcow2.attach_data(format, data, NULL), 0);
    return format;
}

static void start(struct trim *t, const struct trim_case *kind)
{
    *t = (struct trim){ .kind = kind };
    create(t);
    assert_int_equal(lam_io_record_new(t->file, &t->record, NULL), 0);
    if (t->data)
        assert_int_equal(lam_io_record_join(t->data, t->record,
                                            &t->data_record, NULL), 0);
    t->format = open_on(t, t->record, t->data_record, true);
}

static void finish(struct trim *t)
{
    if (t->data) {
        lam_io_close(t->data_record);
        lam_io_close(t->data);
    }
    lam_io_close(t->record);
    lam_io_close(t->file);
    free(t->base);
}

/* Clusters [first, first + n) are full of @byte. */
static void put(struct trim *t, uint64_t first, uint64_t n, uint8_t byte)
{
    uint64_t offset = first * t->cluster, length = n * t->cluster;
    uint8_t *buf = malloc(length);

    assert_non_null(buf);
    memset(buf, byte, length);
    while (length > 0) {
        struct format_allocation a;

        assert_int_equal(format_qcow2.write_begin(t->format, offset, length,
                                                  &a, NULL), 0);
        assert_int_equal(lam_io_write(a.io, buf, a.length, a.host_offset,
                                      NULL), 0);
        assert_int_equal(format_qcow2.write_finish(t->format, &a, NULL), 0);
        offset += a.length;
        length -= a.length;
    }
    free(buf);
}

static void discard(struct trim *t, uint64_t first, uint64_t n)
{
    assert_int_equal(format_qcow2.discard(t->format, first * t->cluster,
                                          n * t->cluster, NULL), 0);
}

static void flush(struct trim *t)
{
    assert_int_equal(format_qcow2.flush(t->format, NULL), 0);
}

static size_t discards(const struct trim *t, uint64_t *bytes)
{
    size_t n, found = 0;
    const struct record_event *e = lam_io_record_events(t->record, &n);

    *bytes = 0;
    for (size_t i = 0; i < n; i++) {
        found += e[i].kind == RECORD_DISCARD;
        *bytes += e[i].kind == RECORD_DISCARD ? e[i].length : 0;
    }
    return found;
}

/* First byte of guest cluster @i. */
static uint8_t peek(void *format, struct lam_io *io, uint64_t guest)
{
    struct lam_extents extents = LAM_EXTENTS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    uint8_t byte = 0;

    if (format_qcow2.map(format, guest, 512, &extents, &err) < 0)
        fail_msg("map: %s", err.message);
    if (extents.items[0].state == LAM_EXTENT_DATA)
        assert_int_equal(lam_io_read(io, &byte, 1,
                                     extents.items[0].host_offset, NULL), 0);
    lam_extents_deinit(&extents);
    return byte;
}

typedef uint8_t content_fn(uint64_t cluster);

/* Power fails behind event @n, and of all that was not synced only that one
 * has made it to the disk. */
static void check_crash(const struct trim *t, size_t n, content_fn *content)
{
    struct record_pick pick = { RECORD_ONLY, n };
    struct lam_io *io, *data = NULL;

    assert_int_equal(lam_io_record_rebuild(t->record, n + 1, pick, t->base,
                                           t->base_length, &io, NULL), 0);
    if (t->data)
        assert_int_equal(lam_io_record_rebuild(t->data_record, n + 1, pick,
                                               NULL, 0, &data, NULL), 0);
    void *format = open_on(t, io, data, false);
    struct lam_io *guest = data ? data : io;

    guest->eof_unit = UINT64_MAX;
    for (uint64_t i = 0; i < CLUSTERS; i++) {
        uint8_t byte = peek(format, guest, i * t->cluster);

        if (byte != content(i))
            fail_msg("%s: crash behind event %zu: cluster %u holds %u",
                     t->kind->name, n, (unsigned)i, byte);
    }
    assert_int_equal(format_qcow2.close(format, NULL), 0);
    if (data)
        lam_io_close(data);
    lam_io_close(io);
}

static uint8_t after_discard(uint64_t cluster)
{
    return cluster < WRITTEN && (cluster < 4 || cluster >= 8) ? 1 : 0;
}

/* Nothing is told before the flush, and what is told then may be all that a
 * power cut leaves of what comes behind it. */
static void test_told_when_durable(void **state)
{
    (void)state;
    for (size_t k = 0; k < LAM_ARRAY_SIZE(cases); k++) {
        struct trim t;
        uint64_t bytes;
        size_t n;

        start(&t, &cases[k]);
        put(&t, 0, WRITTEN, 1);
        flush(&t);
        discard(&t, 4, 4);
        assert_int_equal(discards(&t, &bytes), 0);
        flush(&t);
        assert_true(discards(&t, &bytes) > 0);
        assert_int_equal(bytes, 4 * t.cluster);
        const struct record_event *e = lam_io_record_events(t.record, &n);
        for (size_t i = 0; i < n; i++)
            if (e[i].kind == RECORD_DISCARD)
                check_crash(&t, i, after_discard);
        assert_int_equal(format_qcow2.close(t.format, NULL), 0);
        finish(&t);
    }
}

/* Written again before the flush, or while it waits: it stays. */
static void test_written_again(void **state)
{
    (void)state;
    for (size_t k = 1; k < LAM_ARRAY_SIZE(cases); k++) {
        struct trim t;
        struct format_allocation a;
        uint64_t bytes;

        start(&t, &cases[k]);
        put(&t, 0, WRITTEN, 1);
        flush(&t);
        discard(&t, 0, 4);
        put(&t, 1, 1, 7);
        /* Under way: claimed, and may come to nothing. */
        assert_int_equal(format_qcow2.write_begin(t.format, 2 * t.cluster,
                                                  t.cluster, &a, NULL), 0);
        flush(&t);
        assert_true(discards(&t, &bytes) > 0);
        assert_int_equal(bytes, 2 * t.cluster);
        format_qcow2.write_cancel(t.format, &a);
        assert_int_equal(peek(t.format, t.data ? t.data : t.file, t.cluster),
                         7);
        assert_int_equal(format_qcow2.close(t.format, NULL), 0);
        discards(&t, &bytes);
        assert_int_equal(bytes, 3 * t.cluster);
        finish(&t);
    }
}

/* The genuine reader wants them whole, and power may fail at any time. */
static void test_whole_sectors(void **state)
{
    static const struct sim_kind kind = { "4k", CLUSTER, 3, 16, false, false,
                                          false };
    struct lam_io *file = sim_create(&kind, SIZE, false);
    struct format_open o = { .io = file, .writable = true };
    uint8_t cluster[CLUSTER];
    uint64_t length, random = 5;
    void *format;

    (void)state;
    assert_int_equal(format_qcow2.open(&o, &format, NULL), 0);
    for (unsigned i = 0; i < 20; i++) {
        memset(cluster, (int)i, sizeof cluster);
        for (size_t j = 0; j < 32 * i; j++)
            cluster[j] = (uint8_t)sim_random(&random);
        assert_int_equal(format_qcow2.write_compressed(format, i * CLUSTER,
                                                       cluster, CLUSTER,
                                                       NULL), 0);
        assert_int_equal(format_qcow2.flush(format, NULL), 0);
        assert_int_equal(lam_io_size(file, &length, NULL), 0);
        assert_int_equal(length % 512, 0);
    }
    assert_int_equal(format_qcow2.close(format, NULL), 0);
    lam_io_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_told_when_durable),
        cmocka_unit_test(test_written_again),
        cmocka_unit_test(test_whole_sectors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
