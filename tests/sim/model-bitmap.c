/* SPDX-License-Identifier: MIT */
/*
 * model-bitmap.c - the model's bitmaps: what has been written is dirty, and
 * nothing else, but for what a change of the size has widened.
 */
#include "model.h"

static uint64_t sectors_of(const struct model *m)
{
    return model_size(m) / MODEL_SECTOR;
}

/* Whole granules get @bit where they have less. */
static void mark_one(const struct model *m, struct model_bitmap *b,
                     uint64_t offset, uint64_t length, enum model_bit bit)
{
    struct range r = range_widen(range_make(offset, length), b->granularity);

    if (!length)
        return;
    r = range_intersect(r, range_make(0, model_size(m)));
    for (uint64_t s = r.offset / MODEL_SECTOR;
         s < range_end(r) / MODEL_SECTOR; s++)
        if (b->bits[s] < bit)
            b->bits[s] = (uint8_t)bit;
}

void model_mark(struct model *m, uint64_t offset, uint64_t length,
                enum model_bit bit)
{
    for (unsigned i = 0; i < m->nb_bitmaps; i++)
        if (m->bitmaps[i].recording)
            mark_one(m, &m->bitmaps[i], offset, length, bit);
}

/* A bit that lies across the end stays.  What is zeroed on the way counts as
 * written: the rest of a cluster that the old or the new end cuts, and when
 * growing the last sector, and what a longer backing file would show. */
void model_resize_bitmaps(struct model *m, uint64_t old, uint64_t size)
{
    uint64_t cs = model_shape(m)->kind.cluster_size;
    uint64_t from = size > old ? old - min_u64(old, MODEL_SECTOR)
                               : align_down(size, MODEL_SECTOR);
    uint64_t to = size > old && m->top > 0 ? size : align_up(from + 1, cs);

    for (unsigned i = 0; i < m->nb_bitmaps; i++) {
        struct model_bitmap *b = &m->bitmaps[i];
        uint64_t end = min_u64(align_up(old, b->granularity), size);
        uint8_t last = old ? b->bits[old / MODEL_SECTOR - 1] : BIT_CLEAN;

        for (uint64_t s = min_u64(old, size) / MODEL_SECTOR;
             s < m->capacity / MODEL_SECTOR; s++)
            b->bits[s] = s * MODEL_SECTOR < end ? last : BIT_CLEAN;
    }
    for (unsigned i = 0; i < m->nb_bitmaps; i++)
        if (size != old && m->bitmaps[i].recording)
            mark_one(m, &m->bitmaps[i], from, to - from, BIT_MAYBE);
}

/* --------------------------------------------------------------- operations */

static void add_op(struct model *m)
{
    struct model_bitmap *b = &m->bitmaps[m->nb_bitmaps];
    struct lam_error err = LAM_ERROR_INIT;

    snprintf(b->name, sizeof b->name, "b%u", m->next_name++);
    b->recording = model_below(m, 4);
    b->granularity = UINT64_C(512) << model_below(m, 9);
    int rc = lam_image_bitmap_add(m->image, b->name, b->granularity,
                                  b->recording ? 0 : LAM_BITMAP_DISABLED,
                                  &err);
    if (!model_settle(m, rc, model_shape(m)->kind.version < 3, &err))
        return;
    b->bits = calloc(1, m->capacity / MODEL_SECTOR);
    assert_non_null(b->bits);
    m->nb_bitmaps++;
}

static void remove_one(struct model *m, unsigned i)
{
    struct lam_error err = LAM_ERROR_INIT;

    m->op = MODEL_BITMAP_REMOVE;
    int rc = lam_image_bitmap_remove(m->image, m->bitmaps[i].name, &err);
    model_settle(m, rc, false, &err);
    free(m->bitmaps[i].bits);
    m->nb_bitmaps--;
    memmove(&m->bitmaps[i], &m->bitmaps[i + 1],
            (m->nb_bitmaps - i) * sizeof m->bitmaps[i]);
}

void model_remove_bitmaps(struct model *m)
{
    while (m->nb_bitmaps)
        remove_one(m, m->nb_bitmaps - 1);
}

static void merge(struct model *m, struct model_bitmap *to,
                  const struct model_bitmap *from)
{
    struct lam_error err = LAM_ERROR_INIT;
    int rc = lam_image_bitmap_merge(m->image, to->name, m->image, from->name,
                                    &err);

    model_settle(m, rc, false, &err);
    for (uint64_t s = 0; s < sectors_of(m); s++)
        if (from->bits[s])
            mark_one(m, to, s * MODEL_SECTOR, MODEL_SECTOR, from->bits[s]);
}

static void change_one(struct model *m, struct model_bitmap *b)
{
    struct lam_error err = LAM_ERROR_INIT;
    int rc;

    if (m->op == MODEL_BITMAP_CLEAR) {
        rc = lam_image_bitmap_clear(m->image, b->name, &err);
        memset(b->bits, BIT_CLEAN, m->capacity / MODEL_SECTOR);
    } else {
        b->recording = !b->recording;
        rc = b->recording ? lam_image_bitmap_enable(m->image, b->name, &err)
                          : lam_image_bitmap_disable(m->image, b->name, &err);
    }
    model_settle(m, rc, false, &err);
}

void model_bitmap_op(struct model *m)
{
    m->op = MODEL_BITMAP_ADD + (enum model_op)model_below(m, 5);
    if (m->op == MODEL_BITMAP_ADD || !m->nb_bitmaps) {
        m->op = MODEL_BITMAP_ADD;
        if (m->nb_bitmaps < MODEL_BITMAPS)
            add_op(m);
        return;
    }
    unsigned i = (unsigned)model_below(m, m->nb_bitmaps);
    unsigned k = (unsigned)model_below(m, m->nb_bitmaps);
    if (m->op == MODEL_BITMAP_REMOVE)
        remove_one(m, i);
    else if (m->op == MODEL_BITMAP_MERGE)
        merge(m, &m->bitmaps[i], &m->bitmaps[k]);
    else
        change_one(m, &m->bitmaps[i]);
    model_verify_bitmaps(m, "afterwards");
}

/* ------------------------------------------------------------- verification */

static void verify_one(struct model *m, struct lam_image *image,
                       const struct model_bitmap *b, const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t at = 0, size = model_size(m);

    while (at < size) {
        uint64_t start, length;
        int rc = lam_image_bitmap_next(image, b->name, at, &start, &length,
                                       &err);

        MODEL_CHECK(rc == 0, m, "%s: %s: %s", when, b->name, err.message);
        for (uint64_t k = at; k < start; k += MODEL_SECTOR)
            MODEL_CHECK(b->bits[k / MODEL_SECTOR] != BIT_DIRTY, m,
                        "%s: %s: %#llx is clean", when, b->name,
                        (unsigned long long)k);
        for (uint64_t k = start; k < start + length; k += MODEL_SECTOR)
            MODEL_CHECK(b->bits[k / MODEL_SECTOR] != BIT_CLEAN, m,
                        "%s: %s: %#llx is dirty", when, b->name,
                        (unsigned long long)k);
        at = length ? start + length : size;
    }
}

static const struct lam_bitmap_info *find(const struct lam_image_info *info,
                                          const char *name)
{
    for (size_t i = 0; i < info->nb_bitmaps; i++)
        if (!strcmp(info->bitmaps[i].name, name))
            return &info->bitmaps[i];
    return NULL;
}

void model_verify_bitmaps(struct model *m, const char *when)
{
    struct lam_image *image = m->image ? m->image : model_open_chain(m, 0,
                                                                     NULL);
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image_info *info;

    MODEL_CHECK(lam_image_info(image, &info, &err) == 0, m, "info: %s",
                err.message);
    MODEL_CHECK(info->nb_bitmaps == m->nb_bitmaps, m, "%s: %zu bitmaps", when,
                info->nb_bitmaps);
    for (unsigned i = 0; i < m->nb_bitmaps; i++) {
        const struct model_bitmap *b = &m->bitmaps[i];
        const struct lam_bitmap_info *has = find(info, b->name);

        MODEL_CHECK(has && has->granularity == b->granularity &&
                    has->automatic == b->recording &&
                    (m->image || !has->in_use), m, "%s: %s is another", when,
                    b->name);
        verify_one(m, image, b, when);
    }
    lam_image_info_free(info);
    if (!m->image)
        lam_image_close(image, NULL);
}
