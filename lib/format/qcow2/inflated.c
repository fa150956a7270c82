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
    uint32_t made;          /* bytes of @data, from the cluster's beginning */
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
static struct inflated_entry *replace(struct qcow2 *q, bool *evicted)
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
        *evicted = e->state == ENTRY_VALID;
        if (*evicted)
            unhash(q, e);
        e->state = ENTRY_FREE;
        return e;
    }
    return NULL;
}

/* ----------------------------------------------------------------- entries */

/* What a request needs of a cluster, and what it makes of it. */
struct look {
    const struct lam_extent *extent;
    size_t need;            /* bytes from the cluster's beginning */
    size_t make;            /* with 1 of hold(): so many or more */
    struct inflated_entry *e;
};

/* Who reads on where somebody has just been: each thread of a few that read one
 * after the other is near enough. */
static bool reads_on(struct qcow2 *q, const struct lam_extent *extent)
{
    uint64_t near = q->g.cluster_size / 2;
    uint64_t last = q->inflated.last_end;

    q->inflated.last_end = extent->offset + extent->length;
    return extent->offset - last + near < 2 * near;
}

/* The whole of it this time, when those who look at the beginning are gone. */
static int hold_longer(struct qcow2 *q, struct look *look)
{
    struct inflated_entry *e = look->e;

    e->state = ENTRY_LOADING;
    e->pins++;
    e->touched = true;
    while (e->pins > 1)
        pthread_cond_wait(&q->inflated.loaded, &q->inflated.lock);
    look->make = q->g.cluster_size;
    return 1;
}

/*
 * Takes hold of the extent's entry: 0 it is valid, 1 the caller has to fill it,
 * -EAGAIN there is no room.  Under the lock, which is let go to wait.
 */
static int hold(struct qcow2 *q, struct look *look)
{
    const struct lam_extent *extent = look->extent;
    struct inflated *c = &q->inflated;
    bool evicted, on = reads_on(q, extent);
    struct inflated_entry *e;

    while ((e = find(q, extent)) && e->state == ENTRY_LOADING)
        pthread_cond_wait(&c->loaded, &c->lock);
    look->e = e;
    if (e && e->made < look->need)
        return hold_longer(q, look);
    if (e) {
        e->pins++;
        e->touched = true;
        return 0;
    }
    look->e = e = replace(q, &evicted);
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
    look->make = evicted && !on ? look->need : q->g.cluster_size;
    return 1;
}

static int hold_entry(struct qcow2 *q, struct look *look)
{
    LAM_LOCKED(&q->inflated.lock);
    if (!make_entries(q))
        return -EAGAIN;
    atomic_store(&q->inflated.used, true);
    return hold(q, look);
}

static void let_go(struct qcow2 *q, struct inflated_entry *e)
{
    LAM_LOCKED(&q->inflated.lock);
    e->pins--;
    if (e->state == ENTRY_FORGOTTEN && !e->pins)
        e->state = ENTRY_FREE;
    if (e->pins && e->state != ENTRY_VALID)     /* hold_longer() */
        pthread_cond_broadcast(&q->inflated.loaded);
}

/* The end of filling: valid, or gone. */
static void settle(struct qcow2 *q, struct inflated_entry *e, size_t made,
                   bool ok)
{
    struct inflated *c = &q->inflated;

    LAM_LOCKED(&c->lock);
    e->made = (uint32_t)made;
    if (e->state == ENTRY_LOADING) {
        e->state = ok ? ENTRY_VALID : ENTRY_FORGOTTEN;
        if (!ok)
            unhash(q, e);
    }
    pthread_cond_broadcast(&c->loaded);
}

static int fill(struct qcow2 *q, const struct look *look, struct lam_error *err)
{
    struct inflated_entry *e = look->e;
    size_t made = 0;

    if (!e->data)
        e->data = buffer_new(q->g.cluster_size);
    int rc = e->data ? qcow2_read_beginning(q, look->extent, e->data,
                                            look->make, &made, err)
                     : lam_fail(err, ENOMEM, "no memory for a cluster of %"
                                PRIu64 " bytes", q->g.cluster_size);
    settle(q, e, made, rc == 0);
    return rc;
}

/* Everything that is kept is in use at this moment. */
static int read_beside(struct qcow2 *q, const struct look *look, void *buf,
                       struct lam_error *err)
{
    const struct lam_extent *extent = look->extent;
    lam_autofree uint8_t *cluster = buffer_new(q->g.cluster_size);
    size_t made;

    if (!cluster)
        return lam_fail(err, ENOMEM, "no memory for a cluster of %" PRIu64
                        " bytes", q->g.cluster_size);
    int rc = qcow2_read_beginning(q, extent, cluster, look->need, &made, err);
    if (rc == 0)
        memcpy(buf, cluster + in_cluster(&q->g, extent->offset),
               extent->length);
    return rc;
}

int qcow2_read_compressed_part(void *format, const struct lam_extent *extent,
                               void *buf, struct lam_error *err)
{
    struct qcow2 *q = format;
    struct look look = {
        .extent = extent,
        .need = in_cluster(&q->g, extent->offset) + extent->length,
    };

    assert(look.need <= q->g.cluster_size);
    int rc = hold_entry(q, &look);
    if (rc == -EAGAIN)
        return read_beside(q, &look, buf, err);
    if (rc == 1)
        rc = fill(q, &look, err);
    if (rc == 0)
        memcpy(buf, look.e->data + in_cluster(&q->g, extent->offset),
               extent->length);
    let_go(q, look.e);
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
