/* SPDX-License-Identifier: MIT */
/*
 * order-verify.c - what the files of a script hold, against what they may.
 */
#include "order.h"

bool order_read_disk(struct lam_image *image, uint32_t *value,
                     uint32_t *sectors)
{
    uint64_t length = lam_image_size(image);
    uint8_t *bytes = malloc(length + 1);
    bool whole = true;

    assert_non_null(bytes);
    assert_true(length <= (uint64_t)ORDER_SECTORS * ORDER_SECTOR);
    *sectors = (uint32_t)(length / ORDER_SECTOR);
    if (lam_image_read(image, bytes, length, 0, NULL) < 0)
        whole = false;
    for (uint32_t i = 0; whole && i < *sectors; i++) {
        const uint8_t *p = bytes + (size_t)i * ORDER_SECTOR;

        memcpy(&value[i], p, sizeof *value);
        whole = !memcmp(p, p + sizeof *value, ORDER_SECTOR - sizeof *value);
    }
    free(bytes);
    return whole;
}

static bool same_disk(const struct order *t, struct sim_files *disk,
                      const char *snapshot, const struct order_disk *d,
                      const char *when)
{
    uint32_t value[ORDER_SECTORS], sectors;
    struct lam_io *io, *data = NULL;

    assert_int_equal(lam_io_record_new(disk->image, &io, NULL), 0);
    if (disk->data)
        assert_int_equal(lam_io_record_new(disk->data, &data, NULL), 0);
    struct lam_image *image = order_open(t, io, data, false, snapshot, when);
    bool same = order_read_disk(image, value, &sectors) &&
                sectors == d->sectors &&
                !memcmp(value, d->value, sectors * sizeof *value);
    lam_image_close(image, NULL);
    return same;
}

/* At least what is sure, at most what may be. */
static bool same_bits(struct lam_image *image, const char *name,
                      const struct order_bitmap *b)
{
    uint64_t at = 0, size = lam_image_size(image);
    bool dirty[ORDER_CELLS] = { false };

    while (at < size) {
        uint64_t start, length;

        if (lam_image_bitmap_next(image, name, at, &start, &length, NULL) < 0)
            return false;
        for (uint64_t k = start; k < start + length; k += ORDER_SECTOR)
            dirty[k / ORDER_CELL] = true;
        at = length ? start + length : size;
    }
    for (unsigned i = 0; i < ORDER_CELLS; i++)
        if (dirty[i] ? !b->maybe[i] : b->sure[i])
            return false;
    return true;
}

/* @written: what records may have been left in use. */
static bool same_bitmap(struct lam_image *image,
                        const struct lam_bitmap_info *info,
                        const struct order_state *s, bool written)
{
    unsigned n = (unsigned)atoi(info->name + 1);
    const struct order_bitmap *b = &s->bitmaps[n];

    if (n >= ORDER_BITMAPS || !b->exists)
        return false;
    if (info->in_use)
        return written;
    return info->automatic == b->recording && same_bits(image, info->name, b);
}

bool order_same_structure(struct lam_image *image,
                          const struct lam_image_info *info,
                          const struct order_state *s, bool written)
{
    size_t snapshots = 0, bitmaps = 0;

    if (info->virtual_size != (uint64_t)s->disk.sectors * ORDER_SECTOR)
        return false;
    for (unsigned i = 0; i < ORDER_BITMAPS; i++)
        bitmaps += s->bitmaps[i].exists;
    for (unsigned i = 0; i < ORDER_SNAPSHOTS; i++)
        snapshots += s->has_snapshot[i];
    if (snapshots != info->nb_snapshots || bitmaps != info->nb_bitmaps)
        return false;
    for (size_t i = 0; i < info->nb_bitmaps; i++)
        if (!same_bitmap(image, &info->bitmaps[i], s, written))
            return false;
    for (size_t i = 0; i < info->nb_snapshots; i++) {
        unsigned n = (unsigned)atoi(info->snapshots[i].name + 1);

        if (n >= ORDER_SNAPSHOTS || !s->has_snapshot[n])
            return false;
    }
    return true;
}

/* All but the disk's contents. */
static bool same_state(const struct order *t, struct sim_files *disk,
                       struct lam_image *image,
                       const struct lam_image_info *info,
                       const struct order_state *s, bool written,
                       const char *when)
{
    if (!order_same_structure(image, info, s, written))
        return false;
    for (size_t i = 0; i < info->nb_snapshots; i++) {
        const char *name = info->snapshots[i].name;

        if (!same_disk(t, disk, name, &s->snapshots[atoi(name + 1)], when))
            return false;
    }
    return true;
}

/* Each sector is as at some moment since the last flush. */
static void verify_sectors(struct order *t, const uint32_t *value,
                           uint32_t sectors, size_t first, size_t last,
                           const char *when)
{
    while (!t->states[first].flushes)
        first--;
    for (uint32_t k = 0; k < sectors; k++) {
        bool allowed = false;

        for (size_t i = first; i <= last && !allowed; i++)
            allowed = t->states[i].disk.value[k] == value[k];
        ORDER_CHECK(allowed, t, "%s: sector %u holds %#x, not %#x to %#x",
                    when, k, value[k], t->states[first].disk.value[k],
                    t->states[last].disk.value[k]);
    }
}

void order_verify(struct order *t, struct sim_files *disk, size_t first,
                  size_t last, const char *when)
{
    uint32_t value[ORDER_SECTORS], sectors;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;
    struct lam_image_info *info;
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    bool found = false, written = false;

    int rc = sim_files_open(disk, &o, NULL, &image, &err);
    ORDER_CHECK(rc == 0, t, "%s: open: %s", when, err.message);
    assert_int_equal(lam_image_info(image, &info, NULL), 0);
    for (size_t i = first; i <= last; i++)
        written |= t->states[i].written;
    for (size_t i = first; i <= last && !found; i++)
        found = same_state(t, disk, image, info, &t->states[i], written, when);
    ORDER_CHECK(found, t, "%s: size %llu, %zu snapshots, %zu bitmaps: that "
                "never was", when, (unsigned long long)info->virtual_size,
                info->nb_snapshots, info->nb_bitmaps);
    lam_image_info_free(info);
    ORDER_CHECK(order_read_disk(image, value, &sectors), t, "%s: a sector is a "
                "mixture", when);
    verify_sectors(t, value, sectors, first, last, when);
    lam_image_close(image, NULL);
}

/* Only lazy refcounts may be wrong. */
void order_check_file(struct order *t, struct sim_files *disk,
                      const char *when)
{
    struct lam_check_result r;
    struct lam_error err = LAM_ERROR_INIT;
    bool dirty = false;

    int rc = sim_check(disk->image, &r, &dirty, &err);
    ORDER_CHECK(rc == 0, t, "%s: check: %s", when, err.message);
    ORDER_CHECK(dirty || !(r.corruptions | r.check_errors), t,
                "%s: %llu corruptions, %llu errors", when,
                (unsigned long long)r.corruptions,
                (unsigned long long)r.check_errors);
    t->leaks += r.leaks != 0;
}

void order_go_on(struct order *t, struct sim_files *disk, const char *when)
{
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = NULL;
    uint8_t buf[4 * ORDER_SECTOR];

    o.flags = LAM_OPEN_WRITE | LAM_OPEN_UNMAP;
    memset(buf, 0x77, sizeof buf);
    int rc = sim_files_open(disk, &o, NULL, &image, &err);
    ORDER_CHECK(rc == 0, t, "%s: open for writing: %s", when, err.message);
    for (uint64_t at = 512; at + sizeof buf <= lam_image_size(image) && !rc;
         at += lam_image_size(image) / 4)
        rc = lam_image_write(image, buf, sizeof buf,
                             align_down(at, ORDER_SECTOR), 0, &err);
    ORDER_CHECK(rc == 0, t, "%s: write again: %s", when, err.message);
    rc = lam_image_close(image, &err);
    ORDER_CHECK(rc == 0, t, "%s: close: %s", when, err.message);
    order_check_file(t, disk, when);
}
