/* SPDX-License-Identifier: MIT */
/*
 * fuzz-l2.c - any bytes as a run of L2 entries, in every geometry.
 *
 * Byte 0 chooses cluster size and entry width, byte 1 version and data file,
 * bytes 2..5 where the asked range begins and ends; the rest are entries.
 * The answer must cover what was asked without gaps.
 */
#include <stdint.h>
#include <stdlib.h>

#include "format/qcow2/l2.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_cover(const struct lam_extents *list, uint64_t offset,
                        uint64_t length)
{
    uint64_t at = offset;
    for (size_t i = 0; i < list->count; i++) {
        const struct lam_extent *e = &list->items[i];
        if (e->offset != at || e->length == 0)
            abort();
        at += e->length;
    }
    if (at != offset + length)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 6 + 16)
        return 0;
    bool extended = data[0] & 0x80;
    unsigned lowest = extended ? QCOW2_MIN_CLUSTER_BITS_EXTENDED
                               : QCOW2_MIN_CLUSTER_BITS;
    unsigned bits = lowest +
                    (data[0] & 0x7fu) % (QCOW2_MAX_CLUSTER_BITS - lowest + 1);
    struct qcow2_geometry g = qcow2_geometry_make(bits, 4, extended);
    struct l2_context ctx = {
        .geometry = &g,
        .version = data[1] & 1 ? 3 : 2,
        .data_file = data[1] & 2,
    };
    if (extended || ctx.data_file)
        ctx.version = 3;

    uint64_t entries = (size - 6) / g.l2_entry_size;
    if (entries > g.l2_entries)
        entries = g.l2_entries;
    /* The table is copied, so that a read beyond it is seen. */
    size_t bytes = (size_t)(entries * g.l2_entry_size);
    uint8_t *table = malloc(bytes);
    if (!table || bytes == 0) {
        free(table);
        return 0;
    }
    for (size_t i = 0; i < bytes; i++)
        table[i] = data[6 + i];

    uint64_t span = entries << bits;
    uint64_t from = (data[2] | (uint64_t)data[3] << 8) % g.cluster_size;
    uint64_t cut = (data[4] | (uint64_t)data[5] << 8) % g.cluster_size;
    if (from + cut < span) {
        struct lam_extents out = LAM_EXTENTS_INIT;
        uint64_t offset = 3 * g.l2_cover + from;
        uint64_t length = span - from - cut;
        if (l2_extents(&ctx, table, offset, length, &out, NULL) == 0)
            check_cover(&out, offset, length);
        lam_extents_deinit(&out);
    }
    free(table);
    return 0;
}
