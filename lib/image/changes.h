/* SPDX-License-Identifier: MIT */
/*
 * changes.h - what the guest changes while a job copies the top layer.
 */
#ifndef LAM_IMAGE_CHANGES_H
#define LAM_IMAGE_CHANGES_H

#include "image/image.h"

/* Blocks of the disk that were changed since they were last taken. */
struct changes {
    pthread_rwlock_t hold;      /* changes hold it shared; exclusive: the guest
                                   changes nothing */
    uint64_t size;              /* of the disk */
    unsigned block_bits;
    _Atomic uint64_t *words;    /* a bit a block */
    size_t nb_words;
    atomic_bool paced;          /* changes_pace() */
    _Atomic int64_t allowance;  /* bytes that may be noted anew meanwhile */
};

/* From now on, until changes_end(), they are noted.  The caller holds
 * image_graph_lock() and is not inside the gate. */
int changes_begin(struct lam_image *image, struct lam_error *err);
void changes_end(struct lam_image *image);

/* The first changed range at or after @offset, which counts as unchanged from
 * now on; false: none. */
bool changes_take(struct changes *c, uint64_t offset, struct range *out);

/* Bytes in changed blocks. */
uint64_t changes_total(const struct changes *c);

/* From now on, or not any more: a change that notes more than the copying has
 * allowed for takes its time, some milliseconds.  So what is left to be copied
 * becomes less, however fast the guest is. */
void changes_pace(struct changes *c, bool on);
void changes_allow(struct changes *c, uint64_t bytes);
void changes_wait_pace(const struct changes *c);

/* Around a change of the guest's, inside the gate.  It is noted when it has
 * been made: who takes it before sees none of it, or all. */
static inline void change_begin(struct lam_image *image)
{
    struct changes *c = image->changes;

    if (!c)
        return;
    if (atomic_load(&c->paced))
        changes_wait_pace(c);
    pthread_rwlock_rdlock(&c->hold);
}

void change_note(struct changes *c, uint64_t offset, uint64_t length);

static inline int change_end(struct lam_image *image, uint64_t offset,
                             uint64_t length, int rc)
{
    if (image->changes) {
        change_note(image->changes, offset, length);
        pthread_rwlock_unlock(&image->changes->hold);
    }
    return rc;
}

#endif
