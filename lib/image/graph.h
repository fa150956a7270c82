/* SPDX-License-Identifier: MIT */
/*
 * graph.h - the gate that changes of a chain pass, and the changes.
 *
 * Every public request on an image of a chain holds the chain's gate shared
 * while it runs, so that within it layers, their order and their depth stay
 * what they are.  A change of the chain holds it exclusively: it waits for the
 * requests that are under way, and those that come meanwhile wait for it.
 *
 * A flush is inside while it finds out what to flush, and counted by itself
 * while it waits for the disk (graph_flush_begin()): a layer that is put on top
 * meanwhile does not disturb it, and need not wait.  All other changes wait for
 * it first, while requests come and go, and hold new flushes off.
 *
 *  1. No thread waits to enter the gate of a chain twice: what runs inside
 *     calls the functions without lam_ in front (image.h, write.h).
 *  2. What is administered (resize, amend, snapshots, bitmaps, changes of the
 *     chain) excludes each other by resize_lock of the top layer, which is
 *     taken before the gate.  So a change never holds requests up for the
 *     sake of a long amendment.
 *  3. The struct lam_image that the caller has is always the top layer: a
 *     change moves contents between it and the others.
 */
#ifndef LAM_IMAGE_GRAPH_H
#define LAM_IMAGE_GRAPH_H

#include "base/cleanup.h"
#include "image/image.h"

struct graph;
struct merged;

int graph_new(struct graph **out, struct lam_error *err);
void graph_free(struct graph *graph);

/* In and out again, on one thread; some ten nanoseconds. */
unsigned graph_enter(struct graph *graph);
void graph_leave(struct graph *graph, unsigned token);

/* The same without waiting: false while the chain changes.  Who enters like
 * this may leave on another thread, and enters as often as he likes. */
bool graph_try_enter(struct graph *graph, unsigned *token);

/* Before a flush enters: until no change waits for the flushes to end. */
void graph_flush_wait(struct graph *graph);

/* A flush that outlasts its being inside, where it begins.  It uses nothing of
 * struct lam_image any more, but what the format has of its own. */
void graph_flush_begin(struct graph *graph);
void graph_flush_end(struct graph *graph);

struct graph_inside {
    struct graph *graph;
    unsigned token;
};

static inline struct graph_inside graph_inside(struct graph *graph)
{
    return (struct graph_inside){ graph, graph_enter(graph) };
}

static inline void graph_inside_end(struct graph_inside *inside)
{
    graph_leave(inside->graph, inside->token);
}

/* Holds the gate of @image's chain shared until the end of the scope. */
#define IMAGE_INSIDE(image)                                                 \
    struct graph_inside LAM_CONCAT(inside_, __LINE__)                       \
        lam_cleanup(graph_inside_end) __attribute__((unused)) =             \
            graph_inside((image)->graph)

/*
 * For whoever changes the chain of @top, or prepares to: nobody else does, and
 * sizes stay as they are.  Requests go on.
 */
void image_graph_lock(struct lam_image *top);
void image_graph_unlock(struct lam_image *top);

/*
 * For a job that keeps depths from one request to the next: no chain changes
 * whose top is @a or @b (which may be the same, or NULL).  Requests go on.
 */
void image_graph_hold(struct lam_image *a, struct lam_image *b);
void image_graph_release(struct lam_image *a, struct lam_image *b);

/* Between the two no request runs on the chain.  The caller holds
 * image_graph_lock() and is not inside the gate; no I/O between them. */
void image_graph_begin_change(struct lam_image *top);
void image_graph_end_change(struct lam_image *top);

/* Begins a change that frees nothing and closes nothing: flushes go on.  Who
 * began like this waits for those of before the change in the end, when later
 * ones wait for him. */
void image_graph_begin_insert(struct lam_image *top);
void image_graph_wait_flushes(struct lam_image *top);

/* Counts the changes; stays as it is inside the gate.  What was mapped at
 * another count says nothing any more. */
uint64_t image_graph_changes(const struct lam_image *image);

/* How long requests were kept out by the last change, in nanoseconds: for tests
 * and benchmarks, while nobody changes the chain. */
uint64_t image_graph_closed(const struct lam_image *image);

/* The chain's merged map; and how much memory it may take, 0: as before, which
 * is said while no request is under way. */
struct merged *image_merged(const struct lam_image *image);
void image_set_map_budget(struct lam_image *top, uint64_t bytes);

/*
 * Put @overlay, open without a backing file, on top: @top is the overlay from
 * now on, and what @top was is its backing image, lam_image_backing(top).
 * @overlay's own struct is the one that holds it and belongs to the chain.
 * Between begin and end.  -ENOMEM, -ELOOP (depth) leave all as it was.
 */
int image_insert_overlay(struct lam_image *top, struct lam_image *overlay,
                         struct lam_error *err);

/*
 * Take the layers [from, to) out, counted from @top, which is 0; at least one
 * is left.  With @from 0 @top becomes what layer @to was.  *@dropped has them,
 * linked by their backing, for image_free() after the end of the change.
 * Between begin and end.  -ENOMEM leaves all as it was.
 */
int image_drop_layers(struct lam_image *top, unsigned from, unsigned to,
                      struct lam_image **dropped, struct lam_error *err);

/*
 * Put @image, open without a backing file, in the place of layer @level (not
 * 0): the same file opened for writing, say.  The old one is in *@replaced,
 * for image_free() after the end of the change.  Between begin and end;
 * cannot fail.
 */
void image_replace_layer(struct lam_image *top, unsigned level,
                         struct lam_image *image, struct lam_image **replaced);

/* The layer @level below @top from now on has @below as its backing image and
 * all that @below has; what it had is in *@replaced.  @below was opened as a
 * chain of its own.  -ENOMEM, -ELOOP leave all as it was. */
int image_set_backing(struct lam_image *top, unsigned level,
                      struct lam_image *below, struct lam_image **replaced,
                      struct lam_error *err);

#endif
