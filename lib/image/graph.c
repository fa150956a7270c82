/* SPDX-License-Identifier: MIT */
/*
 * graph.c - the gate that changes of a chain pass, and the changes.
 *
 * Requests count themselves in one of several counters, chosen by their thread,
 * so that threads that read at the same time do not pull one cache line to and
 * fro.  A change closes the gate and waits until all counters are at zero.  A
 * request counts first and looks at the gate then, a change the other way
 * round: one of the two sees the other.
 *
 * Many requests under way take a while to end, each waiting for the others at
 * the file and for the processors.  So a change first narrows the gate: few are
 * let in at a time, which keeps the host busy, until only so few are inside.
 * Then it closes, and waits for these alone.
 *
 * A flush takes as long as the disk does.  Where a change has to wait for those
 * under way it does so before, while all but new flushes come and go.
 */
#include "image/graph.h"

#include <string.h>
#include <time.h>

#include "image/merged.h"

enum { SLOTS = 16 };

/* How many are let in while the gate is narrow. */
enum { NARROW = 2 };

enum gate { GATE_OPEN, GATE_NARROW, GATE_CLOSED };

struct slot {
    _Alignas(64) atomic_uint inside;
};

struct graph {
    struct slot slots[SLOTS];
    atomic_uint flushes;        /* that have left, and are not done */
    atomic_bool no_flushes;     /* new ones wait; changes under the lock */
    atomic_int gate;            /* enum gate; changes under the lock */
    uint64_t changes;
    uint64_t closed_at, closed; /* nanoseconds: when, and how long in the end */
    struct merged *merged;
    pthread_mutex_t lock;
    pthread_cond_t ended;       /* what a change waits for */
    pthread_cond_t resumed;     /* the gate has room for another one */
    pthread_cond_t flushable;   /* no_flushes ends */
};

int graph_new(struct graph **out, struct lam_error *err)
{
    struct graph *g = aligned_alloc(_Alignof(struct graph), sizeof *g);

    if (!g)
        return lam_fail(err, ENOMEM, "no memory for a chain of images");
    memset(g, 0, sizeof *g);
    int rc = merged_new(&g->merged, err);
    if (rc < 0) {
        free(g);
        return rc;
    }
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->ended, NULL);
    pthread_cond_init(&g->resumed, NULL);
    pthread_cond_init(&g->flushable, NULL);
    *out = g;
    return 0;
}

void graph_free(struct graph *g)
{
    if (!g)
        return;
    pthread_cond_destroy(&g->flushable);
    pthread_cond_destroy(&g->resumed);
    pthread_cond_destroy(&g->ended);
    pthread_mutex_destroy(&g->lock);
    merged_free(g->merged);
    free(g);
}

/* Threads are told apart by their descriptors' addresses, pages apart. */
static unsigned my_slot(void)
{
    uint64_t self = (uint64_t)(uintptr_t)pthread_self();

    return (unsigned)((self >> 6) * UINT64_C(0x9e3779b97f4a7c15) >> 60) % SLOTS;
}

static unsigned count_inside(const struct graph *g)
{
    unsigned count = 0;

    for (unsigned i = 0; i < SLOTS; i++)
        count += atomic_load(&g->slots[i].inside);
    return count;
}

static bool has_room(const struct graph *g)
{
    int gate = atomic_load(&g->gate);

    return gate == GATE_OPEN
        || (gate == GATE_NARROW && count_inside(g) < NARROW);
}

/* Who has left, or turned back, makes room for the next or for the change. */
static void make_room(struct graph *g)
{
    LAM_LOCKED(&g->lock);
    int gate = atomic_load(&g->gate);

    if (gate == GATE_NARROW)
        pthread_cond_signal(&g->resumed);
    if (gate != GATE_OPEN
        && count_inside(g) <= (gate == GATE_NARROW ? NARROW : 0))
        pthread_cond_signal(&g->ended);
}

static void wait_for_room(struct graph *g, unsigned token)
{
    LAM_LOCKED(&g->lock);
    while (!has_room(g))
        pthread_cond_wait(&g->resumed, &g->lock);
    atomic_fetch_add(&g->slots[token].inside, 1);
}

unsigned graph_enter(struct graph *g)
{
    unsigned token = my_slot();

    atomic_fetch_add(&g->slots[token].inside, 1);
    if (atomic_load(&g->gate) == GATE_OPEN)
        return token;
    graph_leave(g, token);
    wait_for_room(g, token);
    return token;
}

void graph_leave(struct graph *g, unsigned token)
{
    unsigned before = atomic_fetch_sub(&g->slots[token].inside, 1);

    assert(before > 0);
    (void)before;
    if (atomic_load(&g->gate) != GATE_OPEN)
        make_room(g);
}

bool graph_try_enter(struct graph *g, unsigned *token)
{
    *token = my_slot();
    atomic_fetch_add(&g->slots[*token].inside, 1);
    if (atomic_load(&g->gate) == GATE_OPEN)
        return true;
    graph_leave(g, *token);
    return false;
}

void graph_flush_begin(struct graph *g)
{
    atomic_fetch_add(&g->flushes, 1);
}

void graph_flush_wait(struct graph *g)
{
    if (!atomic_load(&g->no_flushes))
        return;
    LAM_LOCKED(&g->lock);
    while (atomic_load(&g->no_flushes))
        pthread_cond_wait(&g->flushable, &g->lock);
}

/* The lock is what whoever waits looks at the count under. */
void graph_flush_end(struct graph *g)
{
    LAM_LOCKED(&g->lock);
    atomic_fetch_sub(&g->flushes, 1);
    pthread_cond_broadcast(&g->ended);
}

void image_graph_lock(struct lam_image *top)
{
    pthread_mutex_lock(&top->resize_lock);
}

void image_graph_unlock(struct lam_image *top)
{
    pthread_mutex_unlock(&top->resize_lock);
}

/* In the order of their addresses, so that two who hold the same do not wait
 * for each other. */
void image_graph_hold(struct lam_image *a, struct lam_image *b)
{
    bool swapped = (uintptr_t)a > (uintptr_t)b;
    struct lam_image *first = swapped ? b : a, *second = swapped ? a : b;

    if (first)
        pthread_mutex_lock(&first->resize_lock);
    if (second && second != first)
        pthread_mutex_lock(&second->resize_lock);
}

void image_graph_release(struct lam_image *a, struct lam_image *b)
{
    if (a)
        pthread_mutex_unlock(&a->resize_lock);
    if (b && b != a)
        pthread_mutex_unlock(&b->resize_lock);
}

static uint64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void close_gate(struct graph *g)
{
    assert(atomic_load(&g->gate) == GATE_OPEN);
    atomic_store(&g->gate, GATE_NARROW);
    while (count_inside(g) > NARROW)
        pthread_cond_wait(&g->ended, &g->lock);
    g->closed_at = now();
    atomic_store(&g->gate, GATE_CLOSED);
    while (count_inside(g))
        pthread_cond_wait(&g->ended, &g->lock);
}

static void wait_flushes(struct graph *g)
{
    while (atomic_load(&g->flushes))
        pthread_cond_wait(&g->ended, &g->lock);
}

void image_graph_begin_change(struct lam_image *top)
{
    struct graph *g = top->graph;

    assert(top->level == 0);
    LAM_LOCKED(&g->lock);
    atomic_store(&g->no_flushes, true);
    wait_flushes(g);
    close_gate(g);
    wait_flushes(g);            /* that were on their way in */
}

void image_graph_begin_insert(struct lam_image *top)
{
    struct graph *g = top->graph;

    assert(top->level == 0);
    LAM_LOCKED(&g->lock);
    close_gate(g);
}

void image_graph_wait_flushes(struct lam_image *top)
{
    LAM_LOCKED(&top->graph->lock);
    wait_flushes(top->graph);
}

void image_graph_end_change(struct lam_image *top)
{
    struct graph *g = top->graph;
    LAM_LOCKED(&g->lock);

    assert(atomic_load(&g->gate) == GATE_CLOSED);
    g->changes++;
    merged_reset(g->merged, top, 0);
    atomic_store(&g->gate, GATE_OPEN);
    atomic_store(&g->no_flushes, false);
    pthread_cond_broadcast(&g->resumed);
    pthread_cond_broadcast(&g->flushable);
    g->closed = now() - g->closed_at;
}

uint64_t image_graph_changes(const struct lam_image *image)
{
    return image->graph->changes;
}

uint64_t image_graph_closed(const struct lam_image *image)
{
    return image->graph->closed;
}

struct merged *image_merged(const struct lam_image *image)
{
    return image->graph->merged;
}

void image_set_map_budget(struct lam_image *top, uint64_t bytes)
{
    if (bytes)
        merged_reset(top->graph->merged, top, bytes);
}

/* ----------------------------------------------------------------- changes */

static int make_array(unsigned count, struct lam_image ***out,
                      struct lam_error *err)
{
    if (count > UINT16_MAX)
        return lam_fail(err, ELOOP, "a chain of %u images is beyond the limit "
                        "of %u", count, UINT16_MAX);
    *out = calloc(count, sizeof **out);
    return *out ? 0 : lam_fail(err, ENOMEM, "no memory for a chain of %u "
                               "images", count);
}

static unsigned count_layers(const struct lam_image *image)
{
    unsigned count = 0;

    for (; image; image = image->backing)
        count++;
    return count;
}

/* The chain from @top down numbered anew, in @layers, which has the room. */
static void number(struct lam_image *top, struct lam_image **layers,
                   unsigned count, struct graph *graph)
{
    unsigned level = 0;

    for (struct lam_image *i = top; i; i = i->backing) {
        layers[level] = i;
        i->layers = layers;
        i->nb_layers = count;
        if (i->graph != graph)
            i->graph = graph;   /* the top's is read on the way to the gate */
        i->level = level++;
    }
    assert(level == count);
}

/* A chain of its own no longer: what was its top's alone goes. */
static void absorb(struct lam_image *former_top)
{
    free(former_top->layers);
    graph_free(former_top->graph);
    former_top->layers = NULL;
    former_top->graph = NULL;
}

int image_link(struct lam_image *top, struct lam_error *err)
{
    unsigned count = count_layers(top);
    struct lam_image **layers;
    struct graph *graph;
    int rc = make_array(count, &layers, err);

    if (rc < 0)
        return rc;
    rc = graph_new(&graph, err);
    if (rc < 0) {
        free(layers);
        return rc;
    }
    if (top->backing && top->backing->level == 0)
        absorb(top->backing);
    number(top, layers, count, graph);
    merged_reset(graph->merged, top, 0);
    return 0;
}

/* What comes before @backing in the struct is what the image is; behind it is
 * its place in the chain, and the locks of that place. */
static void swap_contents(struct lam_image *a, struct lam_image *b)
{
    enum { BYTES = offsetof(struct lam_image, backing) };
    uint8_t contents[BYTES];
    uint64_t size = a->size;

    memcpy(contents, a, BYTES);
    memcpy(a, b, BYTES);
    memcpy(b, contents, BYTES);
    atomic_store(&a->size, b->size);
    atomic_store(&b->size, size);
}

int image_insert_overlay(struct lam_image *top, struct lam_image *overlay,
                         struct lam_error *err)
{
    struct graph *graph = top->graph;
    struct lam_image **old = top->layers, **layers;
    unsigned count = top->nb_layers + 1;

    assert(top->level == 0 && overlay->level == 0 && !overlay->backing);
    int rc = make_array(count, &layers, err);
    if (rc < 0)
        return rc;
    absorb(overlay);
    swap_contents(top, overlay);
    overlay->backing = top->backing;
    top->backing = overlay;
    number(top, layers, count, graph);
    free(old);
    return 0;
}

/* What hangs on to nothing any more: linked by backing, for image_free(). */
static void set_free(struct lam_image *first)
{
    for (struct lam_image *i = first; i; i = i->backing) {
        i->layers = NULL;
        i->nb_layers = 0;
        i->level = 0;
        i->graph = NULL;
    }
}

int image_drop_layers(struct lam_image *top, unsigned from, unsigned to,
                      struct lam_image **dropped, struct lam_error *err)
{
    struct graph *graph = top->graph;
    struct lam_image **old = top->layers, **layers;
    unsigned count = top->nb_layers - (to - from);

    assert(top->level == 0 && from < to && to <= top->nb_layers && count > 0);
    int rc = make_array(count, &layers, err);
    if (rc < 0)
        return rc;
    /* The top cannot go: it takes the contents of the first that stays, whose
     * struct goes in its stead, behind the others. */
    if (from == 0) {
        swap_contents(top, old[to]);
        *dropped = old[1];
        top->backing = old[to]->backing;
        old[to]->backing = NULL;
    } else {
        *dropped = old[from];
        old[from - 1]->backing = to < top->nb_layers ? old[to] : NULL;
        old[to - 1]->backing = NULL;
    }
    set_free(*dropped);
    number(top, layers, count, graph);
    free(old);
    return 0;
}

void image_replace_layer(struct lam_image *top, unsigned level,
                         struct lam_image *image, struct lam_image **replaced)
{
    struct lam_image *old = image_layer(top, level);

    assert(level > 0 && image->level == 0 && !image->backing);
    absorb(image);
    image->backing = old->backing;
    old->backing = NULL;
    top->layers[level - 1]->backing = image;
    top->layers[level] = image;
    image->layers = top->layers;
    image->nb_layers = top->nb_layers;
    image->graph = top->graph;
    image->level = level;
    set_free(old);
    *replaced = old;
}

int image_set_backing(struct lam_image *top, unsigned level,
                      struct lam_image *below, struct lam_image **replaced,
                      struct lam_error *err)
{
    struct graph *graph = top->graph;
    struct lam_image *layer = image_layer(top, level), **old = top->layers;
    struct lam_image **layers;
    unsigned count = level + 1 + (below ? below->nb_layers : 0);
    int rc = make_array(count, &layers, err);

    if (rc < 0)
        return rc;
    if (below) {
        assert(below->level == 0);
        absorb(below);
    }
    *replaced = layer->backing;
    layer->backing = below;
    set_free(*replaced);
    number(top, layers, count, graph);
    free(old);
    return 0;
}
