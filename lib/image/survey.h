/* SPDX-License-Identifier: MIT */
/*
 * survey.h - what many layers together say about a range, asked by several
 * threads.
 */
#ifndef LAM_IMAGE_SURVEY_H
#define LAM_IMAGE_SURVEY_H

#include "image/descent.h"

/* Layers that are asked in a row by one thread; fewer than twice as many below
 * the first of these are not worth a thread. */
enum { SURVEY_GROUP = 32 };

/*
 * Ask the @nb_layers of @layers, from the first down, for @r, past their
 * caches; levels count from the first.  @d is empty, and has the complete
 * answer then.
 *
 * With @nb_threads above 1 other threads help with all that the first layers
 * leave open; they have ended when this returns.  The answer is the same.  A
 * layer is asked for more than it would be otherwise, but none is heard of that
 * would not be asked: damage below what covers it stays unseen.
 */
int survey_layers(struct lam_image *const *layers, unsigned nb_layers,
                  struct range r, unsigned nb_threads, struct descent *d,
                  struct lam_error *err);

#endif
