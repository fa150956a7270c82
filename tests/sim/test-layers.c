/* SPDX-License-Identifier: MIT */
/*
 * test-layers.c - chains that are snapshotted, committed, rebased, streamed and
 * resized at random, against a byte array for what each layer has to show.
 */
#include "layers.h"

#include "image/graph.h"
#include "job/rebase.h"

/* A change makes two at most of what a chain has. */
enum { ROUNDS = 30, SHORT_CHAIN = 6 };

static void ok(struct layer_chain *c, int rc, const struct lam_error *err,
               const char *what)
{
    SIM_CHECK(rc == 0, c->seed, "%s: %s", what, err->message);
}

static void guest_session(struct layer_chain *c, uint64_t max)
{
    struct lam_image *image = layers_open(c, c->count, true, NULL);
    uint64_t n = 1 + sim_below(&c->random, max);

    while (n--)
        layers_guest(c, image);
    layers_close(c, image);
}

static void resize(struct layer_chain *c)
{
    struct lam_image *image = layers_open(c, c->count, true, NULL);
    struct lam_error err = LAM_ERROR_INIT;
    uint64_t size = layers_pick_size(c);

    ok(c, lam_image_resize(image, size, LAM_PREALLOC_OFF, LAM_TRUNCATE_SHRINK,
                           &err), &err, "resize");
    layers_resize_model(layers_top(c), size);
    layers_close(c, image);
}

/* Layers [from, to) are gone; nothing refers to them. */
static void remove_disks(struct layer_chain *c, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        layer_disk_free(&c->disks[i]);
    memmove(&c->disks[from], &c->disks[to],
            (c->count - to) * sizeof c->disks[0]);
    c->count -= to - from;
}

/* The top into layer @base: that shows what the top shows, and what it had
 * behind the top's end. */
static void model_commit(struct layer_chain *c, unsigned base)
{
    struct layer_disk *top = layers_top(c), *d = &c->disks[base];

    if (d->size < top->size)
        layers_resize_model(d, top->size);
    memcpy(d->bytes, top->bytes, top->size);
}

/* What is known of the chain before a change of it must not be believed
 * afterwards. */
static void look(struct layer_chain *c, struct lam_image *image,
                 const char *when)
{
    layers_compare(c, layers_top(c), image, when);
}

static void commit(struct layer_chain *c)
{
    struct lam_commit_options o = LAM_COMMIT_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    o.depth = 1 + (unsigned)sim_below(&c->random, c->count - 1);
    o.keep = o.depth == 1 && sim_below(&c->random, 2);
    o.job.workers = 1 + (unsigned)sim_below(&c->random, 3);
    struct lam_image *image = layers_open(c, c->count,
                                          o.depth == 1 && !o.keep, NULL);
    look(c, image, "before a commit");
    ok(c, lam_image_commit(image, &o, &err), &err, "commit");
    look(c, image, "the same image after a commit");
    layers_close(c, image);
    unsigned base = c->count - 1 - o.depth;
    model_commit(c, base);
    layers_verify(c, c->count, "the top after a commit");
    /* Those between show anything now; so does whatever is not the base. */
    remove_disks(c, base + 1, o.depth == 1 && !o.keep ? base + 1 : c->count);
    if (c->disks[base].kind == NULL && c->count == base + 1)
        layers_add_overlay(c);
}

static void stream(struct layer_chain *c)
{
    struct lam_stream_options o = LAM_STREAM_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = layers_open(c, c->count, true, NULL);
    unsigned stay = (unsigned)sim_below(&c->random, c->count - 1);

    o.depth = stay ? c->count - stay : LAM_DEPTH_ALL;
    o.compress = sim_below(&c->random, 2);
    o.job.workers = 1 + (unsigned)sim_below(&c->random, 3);
    if (getenv("LAM_SEED"))
        print_message("stream: %u stay, compress %d, %u workers\n", stay,
                      o.compress, o.job.workers);
    look(c, image, "before a stream");
    ok(c, lam_image_stream(image, &o, &err), &err, "stream");
    look(c, image, "the same image after a stream");
    SIM_CHECK(image_depth(image) == stay + 1, c->seed, "stream: %u layers",
              image_depth(image));
    layers_close(c, image);
    remove_disks(c, stay, c->count - 1);
}

/* Onto a chain of its own, a lower layer of the same, or nothing. */
static void rebase(struct layer_chain *c)
{
    struct layer_chain other = { .seed = c->seed, .random = c->random,
                                 .names = c->names };
    struct lam_rebase_options o = LAM_REBASE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image = layers_open(c, c->count, true, NULL);
    struct lam_image *below = NULL;
    unsigned stay = (unsigned)sim_below(&c->random, c->count);
    struct layer_chain *from = stay ? c : &other;

    if (!stay && sim_below(&c->random, 4)) {
        layers_add_raw(&other);
        layers_add_overlay(&other);
        guest_session(&other, 12);
    }
    c->random = other.random;
    c->names = other.names;
    unsigned count = stay ? stay : other.count;
    if (count) {
        below = layers_open(from, count, false, NULL);
        o.backing_file = from->disks[count - 1].name;
        o.backing_format = from->disks[count - 1].kind ? "qcow2" : "raw";
    }
    o.compress = sim_below(&c->random, 2);
    look(c, image, "before a rebase");
    image_graph_lock(image);
    ok(c, rebase_onto(image, &below, &o, &err), &err, "rebase");
    image_graph_unlock(image);
    assert_null(below);
    look(c, image, "the same image after a rebase");
    layers_close(c, image);
    remove_disks(c, stay, c->count - 1);
    if (stay)
        return;
    memmove(&c->disks[other.count], &c->disks[0], sizeof c->disks[0]);
    memcpy(c->disks, other.disks, other.count * sizeof c->disks[0]);
    c->count = other.count + 1;
}

/* @depth: no snapshot of a chain of so many layers. */
static void change(struct layer_chain *c, unsigned depth)
{
    uint64_t what = sim_below(&c->random, 12);

    for (unsigned i = 0; getenv("LAM_SEED") && i < c->count; i++)
        print_message("%s %s %#llx%s", c->disks[i].name,
                      c->disks[i].kind ? c->disks[i].kind->name : "raw",
                      (unsigned long long)c->disks[i].size,
                      i + 1 < c->count ? " <- " : "");
    if (getenv("LAM_SEED"))
        print_message(": change %u\n", (unsigned)what);

    if (c->count < 2 || (what < 3 && c->count < depth))
        layers_add_overlay(c);
    else if (what < 5)
        resize(c);
    else if (what < 8)
        commit(c);
    else if (what < 10)
        stream(c);
    else
        rebase(c);
}

static void run_seed(uint64_t seed, uint64_t rounds)
{
    struct layer_chain c = { .seed = seed, .random = seed };

    if (sim_below(&c.random, 2))
        layers_add_raw(&c);
    layers_add_overlay(&c);
    for (uint64_t i = 0; i < rounds; i++) {
        if (layers_top(&c)->kind)
            guest_session(&c, 12);
        layers_verify(&c, c.count, "after the guest");
        change(&c, SHORT_CHAIN);
        for (unsigned n = 1; n <= c.count; n++)
            layers_verify(&c, n, "a round");
        layers_check(&c, true, "a round");
    }
    layers_free(&c);
}

static void test_layers(void **state)
{
    uint64_t first, end, rounds = sim_setting("LAM_OPS", ROUNDS);

    (void)state;
    sim_seeds(16, &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_seed(seed, rounds);
}

/* ---------------------------------------------------------- longer chains */

/* Few layers have something of their own, or nothing would show through all. */
static void grow(struct layer_chain *c, unsigned depth)
{
    while (c->count < depth) {
        layers_add_overlay(c);
        if (c->count == 1 || !sim_below(&c->random, depth / 3))
            guest_session(c, 3);
    }
}

/* The top, and one layer of ten or so. */
static void verify_some(struct layer_chain *c, const char *when)
{
    for (unsigned n = 1; n < c->count; n++)
        if (!sim_below(&c->random, 1 + c->count / 10))
            layers_verify(c, n, when);
    layers_verify(c, c->count, when);
}

static void run_deep(uint64_t seed, unsigned depth, uint64_t rounds)
{
    struct layer_chain c = { .seed = seed, .random = seed };

    if (sim_below(&c.random, 2))
        layers_add_raw(&c);
    for (uint64_t i = 0; i < rounds; i++) {
        grow(&c, depth);
        change(&c, depth);
        if (layers_top(&c)->kind)
            guest_session(&c, 3);
        verify_some(&c, "a round of a long chain");
        layers_check(&c, true, "a round of a long chain");
    }
    layers_free(&c);
}

static void test_ten_layers(void **state)
{
    uint64_t first, end, rounds = sim_setting("LAM_OPS", 10);

    (void)state;
    sim_seeds(10, &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_deep(seed, 10, rounds);
}

static void test_hundred_layers(void **state)
{
    uint64_t first, end, rounds = sim_setting("LAM_OPS", 6);

    (void)state;
    sim_seeds(4, &first, &end);
    for (uint64_t seed = first; seed < end; seed++)
        run_deep(seed, 100, rounds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_ten_layers),
        cmocka_unit_test(test_hundred_layers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
