/* SPDX-License-Identifier: MIT */
/*
 * check.c - are a VHDX's blocks where they can be, and each alone?
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "format/vhdx/vhdx.h"

struct place {
    uint64_t offset, length, index;
};

struct places {
    struct place *items;
    size_t count;
};

static void tell(lam_finding_fn *finding, void *opaque,
                 struct lam_check_result *out, const char *text)
{
    out->corruptions++;
    if (finding)
        finding(opaque, LAM_FINDING_CORRUPTION, text);
}

static int by_offset(const void *a, const void *b)
{
    const struct place *p = a, *q = b;
    return (p->offset > q->offset) - (p->offset < q->offset);
}

static bool has_data(uint64_t entry)
{
    return vhdx_entry_state(entry) == VHDX_FULLY_PRESENT ||
           vhdx_entry_state(entry) == VHDX_PARTIALLY_PRESENT;
}

static int collect(const struct vhdx *v, struct places *p,
                   struct lam_error *err)
{
    size_t count = 0;

    for (uint64_t i = 0; i < v->nb_entries; i++)
        count += has_data(v->table[i]);
    p->items = malloc((count + 1) * sizeof *p->items);
    if (!p->items)
        return lam_fail(err, ENOMEM, "no memory for %zu blocks", count);
    for (uint64_t i = 0; i < v->nb_entries; i++) {
        bool is_bitmap = i % (v->chunk_ratio + 1) == v->chunk_ratio;
        if (has_data(v->table[i]))
            p->items[p->count++] = (struct place){
                .offset = vhdx_entry_offset(v->table[i]),
                .length = is_bitmap ? VHDX_BITMAP_BLOCK : v->m.block_size,
                .index = i,
            };
    }
    qsort(p->items, p->count, sizeof *p->items, by_offset);
    return 0;
}

static void check_overlaps(const struct places *p, lam_finding_fn *finding,
                           void *opaque, struct lam_check_result *out)
{
    char text[VHDX_TEXT];

    for (size_t i = 1; i < p->count; i++) {
        const struct place *a = &p->items[i - 1], *b = &p->items[i];
        if (b->offset - a->offset >= a->length)
            continue;
        snprintf(text, sizeof text, "VHDX BAT entries %" PRIu64 " and %" PRIu64
                 " share host offset %" PRIu64, a->index, b->index, b->offset);
        tell(finding, opaque, out, text);
    }
}

int vhdx_check(void *format, lam_finding_fn *finding, void *opaque,
               struct lam_check_result *out, struct lam_error *err)
{
    struct vhdx *v = format;
    struct places places = { NULL, 0 };
    char text[VHDX_TEXT];
    uint64_t length;

    *out = (struct lam_check_result){ 0 };
    int rc = lam_io_size(v->io, &length, err);
    if (rc == 0)
        rc = collect(v, &places, err);
    lam_autofree struct place *items = places.items;
    if (rc < 0)
        return rc;
    for (uint64_t i = 0; i < v->nb_entries; i++)
        if (has_data(v->table[i]) && !vhdx_entry_is_sound(v, i, length, text))
            tell(finding, opaque, out, text);
    check_overlaps(&places, finding, opaque, out);
    (void)items;
    return 0;
}

/* What can be put right, the log, was when the image was opened. */
int vhdx_repair(void *format, unsigned what, lam_finding_fn *finding,
                void *opaque, struct lam_check_result *out,
                struct lam_error *err)
{
    struct vhdx *v = format;
    int rc = vhdx_check(format, finding, opaque, out, err);

    (void)what;
    if (rc == 0)
        out->corruptions_fixed = v->replayed;
    v->replayed = false;
    return rc;
}
