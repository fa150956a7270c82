/* SPDX-License-Identifier: MIT */
/*
 * test-model.c - random operations of every kind over three layers, against
 * byte arrays.
 *
 * Each layer is written as the top of what is below it: writes, zeroes,
 * discards, sizes, snapshots, bitmaps, amendments, passphrases, as they come.
 * Nothing fails but what is refused, and that changes nothing.  After each
 * close check finds nothing, not even a leak, and opened again the image has
 * the disk, the snapshots and the bitmaps of the model.
 *
 * LAM_LEAVE=DIR writes each finished layer there, and beside it what it is to
 * hold (tests/interop reads them).
 */
#include "model.h"

static const char *file_name(char *buf, size_t size, unsigned layer,
                             const char *suffix)
{
    snprintf(buf, size, "layer%u.%s", layer, suffix);
    return buf;
}

/* ------------------------------------------------- left for other readers */

static void leave_bytes(const struct model *m, const char *suffix,
                        const void *bytes, uint64_t length)
{
    char path[4096], name[64];

    snprintf(path, sizeof path, "%s/%s", getenv("LAM_LEAVE"),
             file_name(name, sizeof name, m->top, suffix));
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, length, f), length);
    assert_int_equal(fclose(f), 0);
}

static void leave_file(const struct model *m, const char *suffix,
                       struct lam_io *io)
{
    uint64_t length;

    if (!io)
        return;
    uint8_t *bytes = sim_bytes(io, &length);
    leave_bytes(m, suffix, bytes, length);
    free(bytes);
}

static void leave(const struct model *m)
{
    char suffix[64];

    if (!getenv("LAM_LEAVE"))
        return;
    leave_file(m, "qcow2", m->files[m->top].image);
    leave_file(m, "data", m->files[m->top].data);
    leave_bytes(m, "raw", m->expect, model_size(m));
    for (unsigned i = 0; i < m->nb_snapshots; i++) {
        snprintf(suffix, sizeof suffix, "snapshot-%s.raw",
                 m->snapshots[i].name);
        leave_bytes(m, suffix, m->snapshots[i].bytes, m->snapshots[i].size);
    }
}

/* ------------------------------------------------------------------ layers */

static void reopen(struct model *m)
{
    m->op = MODEL_REOPEN;
    model_close(m);
    model_verify(m, "closed");
    model_open(m);
    model_verify(m, "opened");
    m->done[m->op]++;
}

static void step(struct model *m)
{
    uint64_t what = model_below(m, 64);

    if (what < 4)
        reopen(m);
    else if (what < 16)
        model_change_op(m);
    else if (what < 24)
        model_bitmap_op(m);
    else
        model_disk_op(m);
}

static void forget_extras(struct model *m)
{
    while (m->nb_snapshots)
        free(m->snapshots[--m->nb_snapshots].bytes);
    while (m->nb_bitmaps)
        free(m->bitmaps[--m->nb_bitmaps].bits);
    m->other_key = false;
}

/* False: this kind cannot be made here. */
static bool add_layer(struct model *m, uint64_t ops)
{
    uint64_t below = m->top ? m->sizes[m->top - 1] : 0;
    uint64_t most = max_u64(LAM_MIB, 4 * model_shape(m)->kind.cluster_size);
    uint64_t size = align_up(most / 2 + model_below(m, most / 2),
                             MODEL_SECTOR);
    char backing[32], data[32];

    if (!sim_files_create(model_shape(m), size,
                          m->top ? file_name(backing, sizeof backing,
                                             m->top - 1, "qcow2") : NULL,
                          file_name(data, sizeof data, m->top, "data"),
                          &m->files[m->top]))
        return false;
    m->sizes[m->top] = size;
    m->capacity = most;
    if (size > below)
        memset(m->expect + below, 0, size - below);
    m->op = MODEL_REOPEN;
    model_open(m);
    for (uint64_t i = 0; i < ops; i++)
        step(m);
    reopen(m);
    model_close(m);
    leave(m);
    forget_extras(m);
    return true;
}

/* The middle layer is of any shape. */
static void pick_shapes(struct model *m)
{
    for (unsigned i = 0; i < MODEL_LAYERS; i++) {
        uint64_t n = i == 1 ? sim_random(&m->random) : m->seed;

        m->shapes[i] = sim_shapes[n % LAM_ARRAY_SIZE(sim_shapes)];
        if (i > 0 && m->shapes[i].store == SIM_DATA_RAW)
            m->shapes[i].store = SIM_DATA_FILE; /* or it would not be raw */
    }
}

static void run_seed(uint64_t seed, uint64_t ops, uint64_t *done)
{
    struct model m = { .seed = seed, .random = seed };
    uint64_t most = 8 * LAM_MIB;

    pick_shapes(&m);
    m.expect = calloc(1, most);
    m.buf = malloc(most);
    m.got = malloc(most);
    assert_true(m.expect && m.buf && m.got);
    for (m.top = 0; m.top < MODEL_LAYERS; m.top++)
        if (!add_layer(&m, ops))
            break;
    for (unsigned i = 0; i < MODEL_NB_OPS; i++) {
        if (getenv("LAM_SEED"))
            print_message("%s: %llu done, %llu refused\n", model_op_names[i],
                          (unsigned long long)m.done[i],
                          (unsigned long long)m.refused[i]);
        done[i] += m.done[i];
    }
    for (unsigned i = 0; i < MODEL_LAYERS; i++)
        sim_files_close(&m.files[i]);
    free(m.expect);
    free(m.buf);
    free(m.got);
}

static void test_model(void **state)
{
    uint64_t first, end, ops = sim_setting("LAM_OPS", 130);
    uint64_t done[MODEL_NB_OPS] = { 0 };

    (void)state;
    sim_seeds(LAM_ARRAY_SIZE(sim_shapes), &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_seed(seed, ops, done);
    /* Nothing is tested by operations that are always refused. */
    for (unsigned i = 0; i < MODEL_NB_OPS; i++)
        if (end - first >= LAM_ARRAY_SIZE(sim_shapes) && ops >= 100 &&
            i != MODEL_KEY)
            assert_true(done[i] > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_model) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
