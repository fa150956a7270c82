/* SPDX-License-Identifier: MIT */
/*
 * model-change.c - the model's size, snapshots, version and passphrases.
 */
#include "model.h"

/* ---------------------------------------------------------------- resizing */

static uint64_t pick_size(struct model *m)
{
    uint64_t from = m->op == MODEL_GROW ? model_size(m) : 0;
    uint64_t to = m->op == MODEL_GROW ? m->capacity : model_size(m);
    uint64_t size = from + model_below(m, to - from + 1);

    if (model_below(m, 2))
        size = align_up(size, model_shape(m)->kind.cluster_size);
    return min_u64(align_up(size, MODEL_SECTOR), m->capacity);
}

static void resize_op(struct model *m)
{
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t old = model_size(m), size = pick_size(m);
    enum lam_preallocation mode = LAM_PREALLOC_OFF;
    bool is_old = model_shape(m)->kind.version < 3;

    if (size > old && !model_below(m, 2))
        mode = (enum lam_preallocation)model_below(m, 4);
    bool may_refuse = is_old && (m->nb_snapshots ||
                                 (mode != LAM_PREALLOC_OFF &&
                                  model_shape(m)->store == SIM_LUKS));
    int rc = lam_image_resize(m->image, size, mode, LAM_TRUNCATE_SHRINK, &err);
    if (!model_settle(m, rc, may_refuse, &err))
        return;
    if (size > old)
        memset(m->expect + old, 0, size - old);
    m->sizes[m->top] = size;
    model_resize_bitmaps(m, old, size);
    MODEL_CHECK(lam_image_size(m->image) == size, m, "the disk has %llu bytes",
                (unsigned long long)lam_image_size(m->image));
    model_verify(m, "afterwards");
}

/* --------------------------------------------------------------- snapshots */

/* A counter may be as high as it goes. */
static bool is_narrow(const struct model *m)
{
    return model_shape(m)->kind.refcount_bits <= 8;
}

static void create_op(struct model *m)
{
    struct model_snapshot *s = &m->snapshots[m->nb_snapshots];
    struct lam_error err = LAM_ERROR_INIT;

    if (m->nb_snapshots == MODEL_SNAPSHOTS)
        return;
    snprintf(s->name, sizeof s->name, "s%u", m->next_name++);
    int rc = lam_image_snapshot_create(m->image, s->name, &err);
    if (!model_settle(m, rc, is_narrow(m) || sim_has_data_file(model_shape(m)),
                      &err))
        return;
    s->size = model_size(m);
    s->bytes = malloc(s->size + 1);
    assert_non_null(s->bytes);
    memcpy(s->bytes, m->expect, s->size);
    m->nb_snapshots++;
}

static void apply_op(struct model *m)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (!m->nb_snapshots)
        return;
    if (m->nb_bitmaps && model_below(m, 2))
        model_remove_bitmaps(m);
    m->op = MODEL_APPLY;
    const struct model_snapshot *s =
        &m->snapshots[model_below(m, m->nb_snapshots)];
    int rc = lam_image_snapshot_apply(m->image, s->name, &err);
    MODEL_CHECK(rc < 0 || !m->nb_bitmaps, m, "%u bitmaps are there",
                m->nb_bitmaps);
    if (!model_settle(m, rc, is_narrow(m) || m->nb_bitmaps, &err))
        return;
    m->sizes[m->top] = s->size;
    memcpy(m->expect, s->bytes, s->size);
    model_verify(m, "afterwards");
}

static void delete_op(struct model *m)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (!m->nb_snapshots)
        return;
    unsigned i = (unsigned)model_below(m, m->nb_snapshots);
    int rc = lam_image_snapshot_delete(m->image, m->snapshots[i].name, &err);
    model_settle(m, rc, false, &err);
    free(m->snapshots[i].bytes);
    m->nb_snapshots--;
    memmove(&m->snapshots[i], &m->snapshots[i + 1],
            (m->nb_snapshots - i) * sizeof m->snapshots[i]);
}

/* Through an image of its own, while none writes. */
void model_verify_snapshots(struct model *m, const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (m->image)
        return;
    for (unsigned i = 0; i < m->nb_snapshots; i++) {
        const struct model_snapshot *s = &m->snapshots[i];
        struct lam_image *image = model_open_chain(m, 0, s->name);

        MODEL_CHECK(lam_image_size(image) == s->size, m, "%s: %s has %llu "
                    "bytes", when, s->name,
                    (unsigned long long)lam_image_size(image));
        int rc = lam_image_read(image, m->got, s->size, 0, &err);
        MODEL_CHECK(rc == 0, m, "%s: %s: %s", when, s->name, err.message);
        MODEL_CHECK(!memcmp(m->got, s->bytes, s->size), m, "%s: %s differs",
                    when, s->name);
        lam_image_close(image, NULL);
    }
}

/* --------------------------------------------------------- amend, key slots */

/* @o was refused on the way: the steps before have been made. */
static void adopt_steps(struct model *m, const struct lam_amend_options *o)
{
    struct sim_kind *kind = &m->shapes[m->top].kind;
    struct lam_image_info *info;

    assert_int_equal(lam_image_info(m->image, &info, NULL), 0);
    if (o->version == 3)
        kind->version = info->version;
    if (o->lazy_refcounts != LAM_SETTING_KEEP)
        kind->lazy = info->lazy_refcounts;
    kind->refcount_bits = info->refcount_bits;
    lam_image_info_free(info);
}

static void verify_info(struct model *m)
{
    const struct sim_kind *kind = &model_shape(m)->kind;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image_info *info;

    int rc = lam_image_info(m->image, &info, &err);
    MODEL_CHECK(rc == 0, m, "info: %s", err.message);
    MODEL_CHECK(info->version == kind->version &&
                info->refcount_bits == kind->refcount_bits &&
                info->lazy_refcounts == kind->lazy, m,
                "version %u, %u bits, lazy %d", info->version,
                info->refcount_bits, info->lazy_refcounts);
    lam_image_info_free(info);
}

static void amend_op(struct model *m)
{
    struct lam_amend_options o = LAM_AMEND_OPTIONS_INIT;
    struct sim_kind *kind = &m->shapes[m->top].kind;
    struct lam_error err = LAM_ERROR_INIT;

    if (model_below(m, 2))
        o.version = 2 + (unsigned)model_below(m, 2);
    if (model_below(m, 2))
        o.refcount_bits = 1u << model_below(m, 7);
    o.lazy_refcounts = (enum lam_setting)model_below(m, 3);
    if (o.version == 2) {
        o.refcount_bits = 16;
        o.lazy_refcounts = LAM_SETTING_OFF;
    }
    if (model_settle(m, lam_image_amend(m->image, &o, &err), true, &err)) {
        kind->version = o.version ? o.version : kind->version;
        kind->refcount_bits = o.refcount_bits ? o.refcount_bits
                                              : kind->refcount_bits;
        if (o.lazy_refcounts != LAM_SETTING_KEEP)
            kind->lazy = o.lazy_refcounts == LAM_SETTING_ON;
    } else if (o.refcount_bits) {
        adopt_steps(m, &o);
    }
    verify_info(m);
    model_verify(m, "afterwards");
}

static void key_op(struct model *m)
{
    struct lam_key_slot_options o = LAM_KEY_SLOT_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    if (model_shape(m)->store != SIM_LUKS)
        return;
    o.active = !m->other_key;
    o.keyring = sim_keyring();
    o.iter_time = 1;
    *(o.active ? &o.new_secret : &o.old_secret) = "other";
    model_settle(m, lam_image_key_slot(m->image, &o, &err), false, &err);
    m->other_key = o.active;
}

void model_change_op(struct model *m)
{
    static const uint8_t weights[] = {
        MODEL_GROW, MODEL_GROW, MODEL_SHRINK, MODEL_SHRINK, MODEL_CREATE,
        MODEL_CREATE, MODEL_CREATE, MODEL_APPLY, MODEL_APPLY, MODEL_DELETE,
        MODEL_AMEND, MODEL_KEY,
    };

    m->op = weights[model_below(m, sizeof weights)];
    if (m->op <= MODEL_SHRINK)
        resize_op(m);
    else if (m->op == MODEL_CREATE)
        create_op(m);
    else if (m->op == MODEL_APPLY)
        apply_op(m);
    else if (m->op == MODEL_DELETE)
        delete_op(m);
    else if (m->op == MODEL_AMEND)
        amend_op(m);
    else
        key_op(m);
}
