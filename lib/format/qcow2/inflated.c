/* SPDX-License-Identifier: MIT */
/*
 * inflated.c - compressed clusters that were inflated a moment ago.
 */
#include "format/qcow2/qcow2.h"

#include <inttypes.h>
#include <string.h>

#include "base/buffer.h"

/* Bytes kept by an image, and clusters at least. */
enum { BUDGET = 4 << 20, MIN_CLUSTERS = 4, MAX_CLUSTERS = 1024 };

enum entry_state {
    ENTRY_FREE,
    ENTRY_LOADING,          /* pinned by who inflates it */
    ENTRY_VALID,
    ENTRY_FORGOTTEN,        /* out of the hash table; free with its last pin */
};

struct inflated_entry {
    uint64_t host;
    uint32_t length;
    enum entry_state state;
    unsigned pins;
    bool touched;           /* since the clock's hand passed */
    uint8_t *data;
    struct inflated_entry *next;
};

void inflated_init(struct inflated *c)
{
    *c = (struct inflated){ 0 };
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->loaded, NULL);
}

void inflated_deinit(struct inflated *c)
{
    for (size_t i = 0; i < c->count; i++)
        free(c->entries[i].data);
    free(c->entries);
    free(c->hash);
    pthread_cond_destroy(&c->loaded);
    pthread_mutex_destroy(&c->lock);
}

/* ---------------------------------------------------------- hash and clock */

static struct inflated_entry **bucket(struct qcow2 *q, uint64_t cluster)
{
    struct inflated *c = &q->inflated;

    return &c->hash[(cluster * UINT64_C(0x9e3779b97f4a7c15) >> 32) &
                    c->hash_mask];
}

static bool make_entries(struct qcow2 *q)
{
    struct inflated *c = &q->inflated;

    if (c->entries)
        return true;
    size_t n = (size_t)min_u64(max_u64(BUDGET / q->g.cluster_size,
                                       MIN_CLUSTERS), MAX_CLUSTERS);
    size_t buckets = 1;
    while (buckets < n)
        buckets *= 2;
    c->hash = calloc(buckets, sizeof(struct inflated_entry *));
    if (!c->hash)
        return false;
    c->entries = calloc(n, sizeof *c->entries);
    if (!c->entries) {
        free(lam_take(&c->hash));
        return false;
    }
    c->count = n;
    c->hash_mask = buckets - 1;
    return true;
}

static void unhash(struct qcow2 *q, struct inflated_entry *e)
{
    struct inflated_entry **link = bucket(q, host_cluster(&q->g, e->host));

    while (*link != e)
        link = &(*link)->next;
    *link = e->next;
}

static struct inflated_entry *find(struct qcow2 *q,
                                   const struct lam_extent *extent)
{
    uint64_t cluster = host_cluster(&q->g, extent->host_offset);

    for (struct inflated_entry *e = *bucket(q, cluster); e; e = e->next)
        if (e->host == extent->host_offset &&
            e->length == extent->host_length)
            return e;
    return NULL;
}

/* An entry without pins, out of the hash table; NULL if there is none. */
static struct inflated_entry *replace(struct qcow2 *q)
{
    struct inflated *c = &q->inflated;

    for (size_t i = 0; i < 2 * c->count; i++) {
        struct inflated_entry *e = &c->entries[c->hand++ % c->count];

        if (e->pins)
            continue;
        if (e->state == ENTRY_VALID && e->touched) {
            e->touched = false;
            continue;
        }
        if (e->state == ENTRY_VALID)
            unhash(q, e);
        e->state = ENTRY_FREE;
        return e;
    }
    return NULL;
}

/* ----------------------------------------------------------------- entries */

/* Takes hold of the extent's entry: 0 it is valid, 1 the caller has to fill it,
 * -EAGAIN there is no room.  Under the lock, which is let go to wait. */
static int hold(struct qcow2 *q, const struct lam_extent *extent,
                struct inflated_entry **out)
{
    struct inflated *c = &q->inflated;
    struct inflated_entry *e;

    while ((e = find(q, extent)) && e->state == ENTRY_LOADING)
        pthread_cond_wait(&c->loaded, &c->lock);
    if (e) {
        e->pins++;
        e->touched = true;
        *out = e;
        return 0;
    }
    e = replace(q);
    if (!e)
        return -EAGAIN;
    uint64_t cluster = host_cluster(&q->g, extent->host_offset);
    struct inflated_entry **first = bucket(q, cluster);
    e->host = extent->host_offset;
    e->length = extent->host_length;
    e->state = ENTRY_LOADING;
    e->pins = 1;
    e->touched = false;         /* one look is no reason to stay */
    e->next = *first;
    *first = e;
    *out = e;
    return 1;
}

static int hold_entry(struct qcow2 *q, const struct lam_extent *extent,
                      struct inflated_entry **out)
{
    LAM_LOCKED(&q->inflated.lock);
    if (!make_entries(q))
        return -EAGAIN;
    atomic_store(&q->inflated.used, true);
    return hold(q, extent, out);
}

static void let_go(struct qcow2 *q, struct inflated_entry *e)
{
    LAM_LOCKED(&q->inflated.lock);
    e->pins--;
    if (e->state == ENTRY_FORGOTTEN && !e->pins)
        e->state = ENTRY_FREE;
}

/* The end of filling: valid, or gone. */
static void settle(struct qcow2 *q, struct inflated_entry *e, bool ok)
{
    struct inflated *c = &q->inflated;

    LAM_LOCKED(&c->lock);
    if (e->state == ENTRY_LOADING) {
        e->state = ok ? ENTRY_VALID : ENTRY_FORGOTTEN;
        if (!ok)
            unhash(q, e);
    }
    pthread_cond_broadcast(&c->loaded);
}

static int fill(struct qcow2 *q, const struct lam_extent *extent,
                struct inflated_entry *e, struct lam_error *err)
{
    if (!e->data)
        e->data = buffer_new(q->g.cluster_size);
    int rc = e->data ? qcow2_read_compressed(q, extent, e->data, err)
                     : lam_fail(err, ENOMEM, "no memory for a cluster of %"
                                PRIu64 " bytes", q->g.cluster_size);
    settle(q, e, rc == 0);
    return rc;
}

/* Everything that is kept is in use at this moment. */
static int read_beside(struct qcow2 *q, const struct lam_extent *extent,
                       void *buf, struct lam_error *err)
{
    lam_autofree uint8_t *cluster = buffer_new(q->g.cluster_size);

    if (!cluster)
        return lam_fail(err, ENOMEM, "no memory for a cluster of %" PRIu64
                        " bytes", q->g.cluster_size);
    int rc = qcow2_read_compressed(q, extent, cluster, err);
    if (rc == 0)
        memcpy(buf, cluster + in_cluster(&q->g, extent->offset),
               extent->length);
    return rc;
}

int qcow2_read_compressed_part(void *format, const struct lam_extent *extent,
                               void *buf, struct lam_error *err)
{
    struct qcow2 *q = format;
    struct inflated_entry *e;

    assert(in_cluster(&q->g, extent->offset) + extent->length <=
           q->g.cluster_size);
    int rc = hold_entry(q, extent, &e);
    if (rc == -EAGAIN)
        return read_beside(q, extent, buf, err);
    if (rc == 1)
        rc = fill(q, extent, e, err);
    if (rc == 0)
        memcpy(buf, e->data + in_cluster(&q->g, extent->offset),
               extent->length);
    let_go(q, e);
    return rc;
}

void inflated_forget(struct qcow2 *q, uint64_t first, uint64_t n)
{
    struct inflated *c = &q->inflated;

    if (!atomic_load_explicit(&c->used, memory_order_relaxed))
        return;
    LAM_LOCKED(&c->lock);
    for (size_t i = 0; i < c->count; i++) {
        struct inflated_entry *e = &c->entries[i];

        if ((e->state != ENTRY_VALID && e->state != ENTRY_LOADING) ||
            host_cluster(&q->g, e->host) - first >= n)
            continue;
        unhash(q, e);
        e->state = e->pins ? ENTRY_FORGOTTEN : ENTRY_FREE;
    }
    pthread_cond_broadcast(&c->loaded);
}

void inflated_clean(struct qcow2 *q)
{
    struct inflated *c = &q->inflated;

    LAM_LOCKED(&c->lock);
    for (size_t i = 0; i < c->count; i++) {
        struct inflated_entry *e = &c->entries[i];

        if (e->pins)
            continue;
        if (e->state == ENTRY_VALID && e->touched) {
            e->touched = false;
            continue;
        }
        if (e->state == ENTRY_VALID)
            unhash(q, e);
        e->state = ENTRY_FREE;
        free(lam_take(&e->data));
    }
}
