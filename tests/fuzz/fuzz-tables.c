/* SPDX-License-Identifier: MIT */
/*
 * fuzz-tables.c - any bytes as the directory of bitmaps and as the table of
 * snapshots.
 *
 * The first two bytes say how many of each the header counts; the rest is the
 * file from its second cluster on.  A snapshot table that was read is encoded
 * again, and must then hold the same snapshots.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "format/qcow2/bitmap.h"
#include "format/qcow2/snapshot.h"

enum { CLUSTER = 512, MAX_FILE = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The file lies in memory, so all that is counted is there or is refused. */
static int count_area(void *opaque, uint64_t offset, uint64_t length,
                      struct lam_error *err)
{
    (void)offset;
    (void)err;
    *(uint64_t *)opaque += length;
    return 0;
}

static void must_say_why(int rc, const struct lam_error *err)
{
    if (rc < 0 && !err->message[0])
        abort();
}

static void read_bitmaps(struct lam_io *io, const struct qcow2_header *h,
                         uint64_t length)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image_info info = { 0 };
    uint64_t bytes = 0;

    must_say_why(bitmaps_areas(io, h, length, count_area, &bytes, &err), &err);
    err = (struct lam_error)LAM_ERROR_INIT;
    must_say_why(bitmaps_info(io, h, &info, &err), &err);
    for (size_t i = 0; i < info.nb_bitmaps; i++)
        free(info.bitmaps[i].name);
    free(info.bitmaps);
}

static bool same(const struct qcow2_snapshot *a, const struct qcow2_snapshot *b)
{
    return a->l1_offset == b->l1_offset && a->l1_size == b->l1_size &&
           a->disk_size == b->disk_size &&
           a->vm_state_size == b->vm_state_size && !strcmp(a->id, b->id) &&
           !strcmp(a->name, b->name);
}

/* @table stands where the old one stood, with nothing behind it. */
static void load_again(const struct qcow2_header *h,
                       const struct qcow2_snapshots *first,
                       const uint8_t *table, size_t length)
{
    struct qcow2_snapshots again = { 0 };
    struct lam_io *io;
    uint8_t *file = calloc(1, CLUSTER + length);

    if (!file)
        return;
    memcpy(file + CLUSTER, table, length);
    if (lam_io_memory_new(file, CLUSTER + length, &io, NULL) == 0) {
        if (snapshots_load(io, h, &again, NULL) < 0 ||
            again.count != first->count || again.table_length != length)
            abort();
        for (size_t i = 0; i < again.count; i++)
            if (!same(&first->items[i], &again.items[i]))
                abort();
        lam_io_close(io);
    }
    snapshots_deinit(&again);
    free(file);
}

static void read_snapshots(struct lam_io *io, const struct qcow2_header *h,
                           bool salvage)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct qcow2_snapshots list = { 0 };
    uint8_t *table = NULL;
    size_t length = 0;
    int rc = salvage ? snapshots_salvage(io, h, &list, &err)
                     : snapshots_load(io, h, &list, &err);

    must_say_why(rc, &err);
    if (list.count > h->nb_snapshots)
        abort();
    if (rc == 0 && !salvage &&
        snapshots_encode(io, h, &list, SIZE_MAX, NULL, &table, &length,
                         NULL) == 0 && table)
        load_again(h, &list, table, length);
    free(table);
    snapshots_deinit(&list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct lam_io *io;

    if (size < 2 || size > MAX_FILE)
        return 0;
    size_t length = CLUSTER + size - 2;
    uint8_t *file = calloc(1, length);
    if (!file)
        return 0;
    memcpy(file + CLUSTER, data + 2, size - 2);
    struct qcow2_header h = {
        .version = data[0] & 1 ? 2 : 3, .cluster_bits = 9, .size = 1 << 20,
        .refcount_order = 4, .nb_snapshots = data[0],
        .snapshots_offset = CLUSTER, .autoclear = QCOW2_AUTOCLEAR_BITMAPS,
        .has_bitmaps = true, .nb_bitmaps = data[1],
        .bitmap_directory_offset = CLUSTER,
        .bitmap_directory_size = size - 2,
    };
    if (lam_io_memory_new(file, length, &io, NULL) == 0) {
        if (h.nb_bitmaps && h.version == 3)
            read_bitmaps(io, &h, length);
        read_snapshots(io, &h, false);
        read_snapshots(io, &h, true);
        lam_io_close(io);
    }
    free(file);
    return 0;
}
