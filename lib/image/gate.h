/* SPDX-License-Identifier: MIT */
/*
 * gate.h - who may be opened because a header says so.
 */
#ifndef LAM_IMAGE_GATE_H
#define LAM_IMAGE_GATE_H

#include "image/image.h"
#include "image/name.h"

enum gate_edge { GATE_BACKING, GATE_DATA, GATE_EXTENT };

/* "backing file" */
const char *gate_edge_name(enum gate_edge edge);

/* A way through the gate: how to open the file that a header names. */
struct gate_pass {
    struct node *node;          /* what to open; owned */
    char *path;                 /* relative to @dirfd if that is set; owned */
    int dirfd;                  /* -1: open node->filename as usual; owned */
    bool regular_only;
};

#define GATE_PASS_INIT { NULL, NULL, -1, false }

void gate_pass_deinit(struct gate_pass *pass);

/*
 * May the image at @overlay have the file that its header calls @name opened?
 * -EPERM if @policy says no, -EUCLEAN if no honest writer made that name.
 */
int gate_admit(enum lam_policy policy, enum gate_edge edge,
               const char *overlay, const char *name, struct gate_pass *out,
               struct lam_error *err);

#endif
