/* SPDX-License-Identifier: MIT */
/*
 * changes.c - what the guest changes while a job copies the top layer.
 */
#include "image/changes.h"

#include <time.h>

#include "base/cleanup.h"
#include "image/graph.h"

enum { BLOCK_BITS = 16, MAX_BITS = 1 << 23 };

/* The longest that one change takes its time. */
enum { PACE_MS = 10 };

static int changes_new(uint64_t size, struct changes **out,
                       struct lam_error *err)
{
    lam_autofree struct changes *c = calloc(1, sizeof *c);

    if (!c)
        return lam_fail(err, ENOMEM, "no memory to note changes");
    c->size = size;
    c->block_bits = BLOCK_BITS;
    while (size >> c->block_bits > MAX_BITS)
        c->block_bits++;
    c->nb_words = (size_t)(size >> c->block_bits) / 64 + 1;
    c->words = calloc(c->nb_words, sizeof *c->words);
    if (!c->words)
        return lam_fail(err, ENOMEM, "no memory to note changes");
    lam_rwlock_init_writers_first(&c->hold);
    *out = lam_take(&c);
    return 0;
}

static void set_changes(struct lam_image *image, struct changes *c)
{
    image_graph_begin_change(image);
    image->changes = c;
    image_graph_end_change(image);
}

int changes_begin(struct lam_image *image, struct lam_error *err)
{
    struct changes *c = NULL;
    int rc = changes_new(image->size, &c, err);

    if (rc == 0)
        set_changes(image, c);
    return rc;
}

void changes_end(struct lam_image *image)
{
    struct changes *c = image->changes;

    if (!c)
        return;
    set_changes(image, NULL);
    pthread_rwlock_destroy(&c->hold);
    free(c->words);
    free(c);
}

void change_note(struct changes *c, uint64_t offset, uint64_t length)
{
    if (!length || offset >= c->size)
        return;                 /* a request that was refused */
    length = min_u64(length, c->size - offset);
    for (uint64_t b = offset >> c->block_bits;
         b <= (offset + length - 1) >> c->block_bits; b++) {
        uint64_t bit = UINT64_C(1) << b % 64;

        if (!(atomic_fetch_or(&c->words[b / 64], bit) & bit))
            atomic_fetch_sub(&c->allowance, INT64_C(1) << c->block_bits);
    }
}

/* -------------------------------------------------------------------- pace */

void changes_pace(struct changes *c, bool on)
{
    atomic_store(&c->allowance, 0);
    atomic_store(&c->paced, on);
}

void changes_allow(struct changes *c, uint64_t bytes)
{
    atomic_fetch_add(&c->allowance, (int64_t)bytes);
}

/* It never waits for the copying itself, which may be waiting for what the
 * caller has begun. */
void changes_wait_pace(const struct changes *c)
{
    struct timespec millisecond = { 0, 1000000 };

    for (int i = 0; i < PACE_MS && atomic_load(&c->paced) &&
         atomic_load(&c->allowance) <= 0; i++)
        nanosleep(&millisecond, NULL);
}

/* ------------------------------------------------------------------- taking */

bool changes_take(struct changes *c, uint64_t offset, struct range *out)
{
    uint64_t end = div_up(c->size, UINT64_C(1) << c->block_bits);

    for (uint64_t b = div_up(offset, UINT64_C(1) << c->block_bits); b < end;
         b++) {
        uint64_t bit = UINT64_C(1) << b % 64;

        if (!atomic_load(&c->words[b / 64])) {
            b |= 63;
            continue;
        }
        if (!(atomic_fetch_and(&c->words[b / 64], ~bit) & bit))
            continue;
        *out = range_intersect(range_make(b << c->block_bits,
                                          UINT64_C(1) << c->block_bits),
                               range_make(0, c->size));
        return true;
    }
    return false;
}

uint64_t changes_total(const struct changes *c)
{
    uint64_t blocks = 0;

    for (size_t i = 0; i < c->nb_words; i++)
        blocks += (uint64_t)__builtin_popcountll(atomic_load(&c->words[i]));
    return blocks << c->block_bits;
}
