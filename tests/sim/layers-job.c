/* SPDX-License-Identifier: MIT */
/*
 * layers-job.c - a commit, rebase or stream of a chain in memory.
 */
#include "layers-job.h"

#include "image/graph.h"
#include "job/rebase.h"

static struct lam_image *open_other(struct layer_chain *c,
                                    struct lam_io *record)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;
    struct lam_io *io;

    assert_int_equal(lam_io_record_new(record, &io, NULL), 0);
    int rc = image_open_io(io, "raw", NULL, NULL, &image, &err);
    SIM_CHECK(rc == 0, c->seed, "open the new backing file: %s", err.message);
    return image;
}

static int rebase(struct layers_job *t, struct lam_image *image,
                  struct lam_io *other, struct lam_error *err)
{
    struct lam_rebase_options o = LAM_REBASE_OPTIONS_INIT;
    struct lam_image *below = NULL;

    if (t->job == REBASE) {
        below = open_other(&t->c, other);
        o.backing_file = t->c.disks[t->layers].name;
        o.backing_format = "raw";
    }
    o.compress = t->c.seed % 2;
    o.job.workers = 1;
    image_graph_lock(image);
    int rc = rebase_onto(image, &below, &o, err);
    image_graph_unlock(image);
    lam_image_close(below, NULL);
    return rc;
}

int job_run(struct layers_job *t, struct lam_image *image,
                   struct lam_io *other, struct lam_error *err)
{
    struct lam_commit_options commit = LAM_COMMIT_OPTIONS_INIT;
    struct lam_stream_options stream = LAM_STREAM_OPTIONS_INIT;

    commit.job.workers = stream.job.workers = 1;
    stream.compress = t->c.seed / 2 % 2;
    switch (t->job) {
    case COMMIT_LOW:
        commit.depth = 2;
        return lam_image_commit(image, &commit, err);
    case COMMIT:
        return lam_image_commit(image, &commit, err);
    case STREAM:
        stream.depth = 2;
        return lam_image_stream(image, &stream, err);
    case STREAM_ALL:
        return lam_image_stream(image, &stream, err);
    default:
        return rebase(t, image, other, err);
    }
}

/* The name in the header on @io; "": none. */
static void backing_name(struct lam_io *io, char name[16])
{
    struct qcow2_header h = { 0 };
    uint64_t length;
    uint8_t *bytes = sim_bytes(io, &length);

    assert_int_equal(header_decode(bytes, length, &h, NULL), 0);
    snprintf(name, 16, "%s", h.backing_file ? h.backing_file : "");
    header_deinit(&h);
    free(bytes);
}

/* The chain as the top's header names it: its layers in @out, with the disks
 * that are borrowed from @t. */
void job_chain_of(struct layers_job *t, struct layer_chain *out)
{
    struct layer_chain *c = &t->c;
    char name[16];

    *out = (struct layer_chain){ .seed = c->seed, .random = c->random };
    backing_name(c->disks[t->layers - 1].io, name);
    for (unsigned i = 0; i < t->objects; i++) {
        if (strcmp(name, c->disks[i].name))
            continue;
        unsigned first = i == t->layers ? i : 0;
        for (unsigned k = first; k <= i; k++)
            out->disks[out->count++] = c->disks[k];
    }
    SIM_CHECK(out->count || !*name, c->seed, "the header names '%s'", name);
    out->disks[out->count++] = c->disks[t->layers - 1];
}

/* True if there is nothing left to do. */
static bool is_done(const struct layers_job *t, const struct layer_chain *now)
{
    switch (t->job) {
    case STREAM:
        return now->count == 2;
    case STREAM_ALL:
    case FLATTEN:
        return now->count == 1;
    case REBASE:
        return !strcmp(now->disks[0].name, t->c.disks[t->layers].name);
    default:
        return false;
    }
}

void job_run_again(struct layers_job *t, const char *when)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct layer_chain now;

    job_chain_of(t, &now);
    if (is_done(t, &now))
        return;
    struct lam_image *image = layers_open(&now, now.count, true, NULL);
    int rc = job_run(t, image, t->c.disks[t->layers].io, &err);
    SIM_CHECK(rc == 0, t->c.seed, "%s: once more: %s", when, err.message);
    layers_close(&now, image);
    job_chain_of(t, &now);
    SIM_CHECK(is_done(t, &now) || t->job == COMMIT || t->job == COMMIT_LOW,
              t->c.seed, "%s: the job left %u layers", when, now.count);
    layers_verify(&now, now.count, when);
    layers_check(&now, false, when);
}

/* The base shows what the top does, once the job has ended. */
void job_verify_base(struct layers_job *t, const char *when)
{
    const struct layer_disk *top = &t->c.disks[t->layers - 1];
    struct layer_chain low = t->c;

    if (t->job != COMMIT && t->job != COMMIT_LOW)
        return;
    low.count = t->job == COMMIT ? t->layers - 1 : t->layers - 2;
    struct layer_disk *base = &low.disks[low.count - 1];
    struct layer_disk saved = *base;
    base->bytes = NULL;
    base->size = 0;
    layers_resize_model(base, max_u64(saved.size, top->size));
    memcpy(base->bytes, saved.bytes, saved.size);
    memcpy(base->bytes, top->bytes, top->size);
    layers_verify(&low, low.count, when);
    free(base->bytes);
}

void job_make_chain(struct layers_job *t)
{
    struct layer_chain *c = &t->c;

    t->job = (enum job_kind)(c->seed % JOBS);
    t->layers = t->job == COMMIT && c->seed / JOBS % 2 ? 2 : 3;
    t->objects = t->layers + 1;
    if (c->seed / JOBS % 2)
        layers_add_raw(c);
    else
        layers_add_overlay(c);
    while (c->count < t->layers) {
        struct lam_image *image;

        if (c->disks[c->count - 1].kind) {
            image = layers_open(c, c->count, true, NULL);
            for (unsigned i = 0; i < 12; i++)
                layers_guest(c, image);
            layers_close(c, image);
        }
        layers_add_overlay(c);
    }
    struct lam_image *image = layers_open(c, t->layers, true, NULL);
    for (unsigned i = 0; i < 12; i++)
        layers_guest(c, image);
    layers_close(c, image);
    layers_add_raw(c);
    c->count = t->layers;
}
