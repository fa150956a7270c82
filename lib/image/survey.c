/* SPDX-License-Identifier: MIT */
/*
 * survey.c - what many layers together say about a range, asked by several
 * threads.
 *
 * Who asks layer after layer for what is still open waits for each: for its
 * tables to be read, for its memory to be fetched.  So groups of layers are
 * asked at once, each for all that the first group left open, and what they say
 * is laid one below the other afterwards.
 */
#include "image/survey.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/workers.h"

struct group {
    struct descent descent;
    int rc;
};

struct survey {
    struct lam_image *const *layers;
    unsigned nb_layers, nb_groups;
    const struct descent *above;
    struct group *groups;
    atomic_uint next;           /* group to be asked */
    atomic_uint last;           /* the groups below it are of no use */
};

/* Until nothing is open. */
static int ask(struct descent *d, struct lam_image *const *layers,
               unsigned nb_layers, unsigned level, struct lam_error *err)
{
    int rc = 0;

    for (unsigned i = 0; i < nb_layers && d->open.count && rc == 0; i++)
        rc = descent_ask(d, layers[i], level + i, DESCENT_ONCE, err);
    return rc;
}

static void set_last(struct survey *s, unsigned group)
{
    unsigned last = atomic_load(&s->last);

    while (group < last &&
           !atomic_compare_exchange_weak(&s->last, &last, group))
        ;
}

static unsigned layers_of(const struct survey *s, unsigned group)
{
    return (unsigned)min_u64(SURVEY_GROUP,
                             s->nb_layers - group * SURVEY_GROUP);
}

static int ask_group(struct survey *s, unsigned group)
{
    struct descent *d = &s->groups[group].descent;
    struct lam_image *const *layers = s->layers + group * SURVEY_GROUP;
    unsigned nb_layers = layers_of(s, group);
    int rc = descent_begin_below(d, s->above, NULL);

    for (unsigned i = 0; i < nb_layers && rc == 0; i++)
        rc = atomic_load_explicit(&s->last, memory_order_relaxed) < group
            ? -ECANCELED : ask(d, layers + i, 1, i, NULL);
    if (rc == 0 && !d->open.count)
        set_last(s, group);
    return rc < 0 ? rc : descent_end(d, nb_layers - 1, NULL);
}

/* Who puts the answers together decides what a failure means. */
static int step(void *job, unsigned worker, struct lam_error *err)
{
    struct survey *s = job;
    unsigned group = atomic_fetch_add(&s->next, 1);

    (void)worker, (void)err;
    if (group >= s->nb_groups || group > atomic_load(&s->last))
        return 0;
    s->groups[group].rc = ask_group(s, group);
    return 1;
}

static int take_group(const struct group *g, struct descent *d, unsigned level,
                      struct lam_error *err)
{
    const struct lam_extents answer = {
        .items = g->descent.finds.items, .count = g->descent.finds.count,
    };
    int rc = descent_take(d, &answer, level, err);

    descent_next(d);
    d->reserved |= g->descent.reserved;
    return rc;
}

/* A group that failed may have been asked for what is covered above it: it is
 * asked again, for what is open now. */
static int put_together(struct survey *s, struct descent *d, unsigned level,
                        struct lam_error *err)
{
    int rc = 0;

    for (unsigned i = 0; i < s->nb_groups && d->open.count && rc == 0; i++) {
        unsigned first = i * SURVEY_GROUP;
        rc = s->groups[i].rc < 0
            ? ask(d, s->layers + first, layers_of(s, i), level + first, err)
            : take_group(&s->groups[i], d, level + first, err);
    }
    return rc;
}

static void groups_free(struct survey *s)
{
    for (unsigned i = 0; i < s->nb_groups && s->groups; i++)
        descent_deinit(&s->groups[i].descent);
    free(s->groups);
}

/* All that @d has open of the layers from @level on, of which there are
 * @nb_layers. */
static int ask_at_once(struct descent *d, struct lam_image *const *layers,
                       unsigned nb_layers, unsigned level, unsigned nb_threads,
                       struct lam_error *err)
{
    struct survey s lam_cleanup(groups_free) = {
        .layers = layers, .nb_layers = nb_layers, .above = d,
        .nb_groups = (nb_layers + SURVEY_GROUP - 1) / SURVEY_GROUP,
        .last = UINT_MAX,
    };
    s.groups = calloc(s.nb_groups, sizeof *s.groups);
    if (!s.groups)
        return lam_fail(err, ENOMEM, "no memory for %u layers", nb_layers);
    for (unsigned i = 0; i < s.nb_groups; i++)
        s.groups[i] = (struct group){ DESCENT_INIT, -ECANCELED };
    int rc = workers_run((unsigned)min_u64(nb_threads, s.nb_groups), step, &s,
                         err);
    return rc < 0 ? rc : put_together(&s, d, level, err);
}

int survey_layers(struct lam_image *const *layers, unsigned nb_layers,
                  struct range r, unsigned nb_threads, struct descent *d,
                  struct lam_error *err)
{
    unsigned first = nb_threads > 1 && nb_layers >= 3 * SURVEY_GROUP
        ? SURVEY_GROUP : nb_layers;
    int rc = descent_begin(d, r, err);

    if (rc == 0)
        rc = ask(d, layers, first, 0, err);
    if (rc == 0 && first < nb_layers && d->open.count)
        rc = ask_at_once(d, layers + first, nb_layers - first, first,
                         nb_threads, err);
    return rc < 0 ? rc : descent_end(d, nb_layers - 1, err);
}
