/* SPDX-License-Identifier: MIT */
/*
 * merged.c - one map for many layers that nobody writes to.
 *
 * The disk is divided into regions, about what an L2 table covers, each with a
 * map of its own (packed.h).  Who needs a region that is not there builds it,
 * holding no lock, while others who need it wait; whoever finds it copies what
 * he wants under the shared lock.  A clock chooses what goes when the budget is
 * used up.
 */
#include "image/merged.h"

#include <stdlib.h>

#include "base/cleanup.h"
#include "image/descent.h"
#include "image/packed.h"

enum { BUCKETS_MIN = 64 };

/* So many layers are asked before it pays to know which need not be. */
enum { BLANK_LAYERS = 16 };
/* A range of fewer is asked for region by region. */
enum { MANY_REGIONS = 16 };

static const uint64_t REGION_MIN = LAM_MIB, REGION_MAX = 512 * LAM_MIB;
/* Entries of a slice that an L2 cache would load on its own. */
static const uint64_t SMALL_SLICE = 512;

enum region_state { REGION_BUILDING, REGION_READY };

struct region {
    uint64_t number;
    atomic_int state;           /* enum region_state; READY for good */
    atomic_bool used;           /* since the clock's hand passed */
    bool reserved;
    size_t slot;
    struct region *next;        /* in its bucket */
    struct packed_map map;
};

struct merged {
    unsigned first, end;        /* layers; change outside the gate only */
    unsigned region_bits;
    uint64_t budget;
    bool looked_for_blank;      /* once: then these stay, and need no lock */
    uint8_t *blank;             /* or NULL; a bit a layer for each region */
    size_t blank_stride;        /* bytes of a region */

    pthread_rwlock_t lock;      /* all below, and the regions' places */
    struct region **buckets;
    size_t mask;
    struct region **slots;      /* those that are ready */
    size_t count, allocated, hand;
    uint64_t bytes, built;

    pthread_mutex_t build_lock; /* innermost */
    pthread_cond_t end_of_build;
};

/* -------------------------------------------------------------- the regions */

int merged_new(struct merged **out, struct lam_error *err)
{
    struct merged *m = calloc(1, sizeof *m);

    if (!m)
        return lam_fail(err, ENOMEM, "no memory for the map of a chain");
    m->budget = MERGED_DEFAULT_BUDGET;
    pthread_rwlock_init(&m->lock, NULL);
    pthread_mutex_init(&m->build_lock, NULL);
    pthread_cond_init(&m->end_of_build, NULL);
    *out = m;
    return 0;
}

static void region_free(struct region *r)
{
    packed_deinit(&r->map);
    free(r);
}

static void forget_all(struct merged *m)
{
    for (size_t i = 0; i < m->count; i++)
        region_free(m->slots[i]);
    free(m->slots);
    free(m->buckets);
    free(m->blank);
    m->blank = NULL;
    m->looked_for_blank = false;
    m->slots = m->buckets = NULL;
    m->count = m->allocated = m->hand = m->mask = 0;
    m->bytes = 0;
}

void merged_free(struct merged *m)
{
    if (!m)
        return;
    forget_all(m);
    pthread_cond_destroy(&m->end_of_build);
    pthread_mutex_destroy(&m->build_lock);
    pthread_rwlock_destroy(&m->lock);
    free(m);
}

unsigned merged_first(const struct merged *m)
{
    return m->first;
}

unsigned merged_end(const struct merged *m)
{
    return m->end;
}

static bool can_merge(const struct lam_image *layer)
{
    return !layer->writable && !layer->metadata_only && layer->format;
}

/* The longest run of layers that nobody writes to; a single one gains
 * nothing. */
static void find_layers(struct merged *m, const struct lam_image *top)
{
    m->first = m->end = 0;
    for (unsigned i = 0, n; i < top->nb_layers; i += n + 1) {
        for (n = 0; i + n < top->nb_layers && can_merge(top->layers[i + n]); )
            n++;
        if (n > 1 && n > m->end - m->first) {
            m->first = i;
            m->end = i + n;
        }
    }
}

/*
 * As much as an L2 table of the largest clusters covers.  If the budget does
 * not hold the map of the whole disk, fragmented as it may be, then less: what
 * lies scattered is to find room.
 */
static unsigned choose_region_bits(const struct merged *m,
                                   const struct lam_image *top)
{
    uint64_t largest = 0, smallest = REGION_MAX;
    unsigned bits = 0;

    for (unsigned i = m->first; i < m->end; i++) {
        const struct lam_image *layer = top->layers[i];
        uint64_t cluster = layer->ops->cluster_size(layer->format);
        if (cluster) {
            largest = max_u64(largest, cluster);
            smallest = min_u64(smallest, cluster);
        }
    }
    uint64_t region = largest * (largest / 8);
    if (top->size / smallest > m->budget / PACKED_BYTES)
        region = min_u64(region, SMALL_SLICE * largest);
    region = max_u64(min_u64(region, REGION_MAX), REGION_MIN);
    while (UINT64_C(2) << bits <= region)
        bits++;
    return bits;
}

void merged_reset(struct merged *m, struct lam_image *top, uint64_t budget)
{
    forget_all(m);
    if (budget)
        m->budget = budget;
    find_layers(m, top);
    if (m->first < m->end)
        m->region_bits = choose_region_bits(m, top);
}

static size_t bucket_of(const struct merged *m, uint64_t number)
{
    return (size_t)((number * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & m->mask;
}

static struct region *lookup(const struct merged *m, uint64_t number)
{
    struct region *r = m->buckets ? m->buckets[bucket_of(m, number)] : NULL;

    while (r && r->number != number)
        r = r->next;
    return r;
}

static void unlink_region(struct merged *m, struct region *r)
{
    struct region **p = &m->buckets[bucket_of(m, r->number)];

    while (*p != r)
        p = &(*p)->next;
    *p = r->next;
}

/* ----------------------------------------------------------------- eviction */

static uint64_t bytes_of(const struct region *r)
{
    return sizeof *r + packed_bytes(&r->map);
}

static void evict(struct merged *m, struct region *r)
{
    unlink_region(m, r);
    m->slots[r->slot] = m->slots[--m->count];
    m->slots[r->slot]->slot = r->slot;
    m->bytes -= bytes_of(r);
    region_free(r);
}

/* Exclusive.  @r itself stays, however large it is. */
static void make_room(struct merged *m, const struct region *r)
{
    while (m->bytes > m->budget && m->count > 1) {
        struct region *victim = m->slots[m->hand++ % m->count];
        if (victim != r && !atomic_exchange(&victim->used, false))
            evict(m, victim);
    }
}

static int reserve_slot(struct merged *m)
{
    if (m->count < m->allocated)
        return 0;
    size_t n = m->allocated ? 2 * m->allocated : BUCKETS_MIN;
    struct region **slots = realloc(m->slots, n * sizeof *slots);
    if (!slots)
        return -ENOMEM;
    m->slots = slots;
    m->allocated = n;
    return 0;
}

/* Twice as many buckets as slots; they are made with the first region. */
static int reserve_buckets(struct merged *m)
{
    size_t n = m->buckets ? m->mask + 1 : 0;

    if (m->count + 1 < n)
        return 0;
    size_t more = n ? 4 * n : 2 * BUCKETS_MIN;
    struct region **buckets = calloc(more, sizeof *buckets);
    if (!buckets)
        return -ENOMEM;
    struct region **old = m->buckets;
    m->buckets = buckets;
    m->mask = more - 1;
    for (size_t i = 0; i < n; i++)
        for (struct region *r = old[i], *next; r; r = next) {
            next = r->next;
            r->next = buckets[bucket_of(m, r->number)];
            buckets[bucket_of(m, r->number)] = r;
        }
    free(old);
    return 0;
}

/* ------------------------------------------------------------ what is blank */

/* What of the range, which is not empty, is unallocated in @layer for sure. */
static uint64_t blank_run(const struct lam_image *layer, struct range r)
{
    bool blank = false;
    uint64_t run = range_fits(r.offset, r.length, layer->size) &&
                   layer->ops->long_run
        ? layer->ops->long_run(layer->format, r.offset, r.length, &blank) : 0;

    return blank ? run : 0;
}

/*
 * In most regions most layers of a long chain have nothing.  Asking each costs
 * the memory of its tables, which is cold; so that is done once, layer after
 * layer, and one bit stays.  Where that would take too much of the budget, or
 * there is no memory, all are asked.  Exclusive.
 */
static void find_blank(struct merged *m, struct lam_image *const *layers)
{
    uint64_t region = UINT64_C(1) << m->region_bits;
    uint64_t regions = align_up(layers[0]->size, region) >> m->region_bits;
    unsigned nb_layers = m->end - m->first;

    if (m->looked_for_blank)
        return;
    m->looked_for_blank = true;
    m->blank_stride = (nb_layers + 7) / 8;
    if (nb_layers < BLANK_LAYERS || !regions ||
        m->blank_stride > m->budget / 16 / regions)
        return;
    m->blank = calloc((size_t)regions, m->blank_stride);
    for (unsigned i = 0; i < nb_layers && m->blank; i++)
        for (uint64_t k = 0; k < regions; k++)
            if (blank_run(layers[i], range_make(k * region, region)) == region)
                m->blank[k * m->blank_stride + i / 8] |=
                    (uint8_t)(1u << i % 8);
}

static bool known_blank(const struct merged *m, uint64_t number, unsigned layer)
{
    return m->blank && m->blank[number * m->blank_stride + layer / 8]
        & 1u << layer % 8;
}

/* ----------------------------------------------------------------- building */

/* Ask the layers for @r, inside a region, and all below for what those above
 * leave open. */
static int ask_layers(struct merged *m, struct lam_image *layer, struct range r,
                      struct descent *d, struct lam_error *err)
{
    unsigned nb_layers = m->end - m->first;
    uint64_t number = r.offset >> m->region_bits;
    int rc = descent_begin(d, r, err);

    for (unsigned i = 0; i < nb_layers && d->open.count && rc == 0; i++)
        if (!known_blank(m, number, i))
            rc = descent_ask(d, layer->layers[m->first + i], i, DESCENT_ONCE,
                             err);
    return rc < 0 ? rc : descent_end(d, nb_layers - 1, err);
}

static int build(struct merged *m, struct lam_image *layer, struct region *r)
{
    struct descent d lam_cleanup(descent_deinit) = DESCENT_INIT;
    int rc = ask_layers(m, layer, r->map.region, &d, NULL);

    r->reserved = d.reserved;
    return rc < 0 ? rc : packed_build(&r->map, d.finds.items, d.finds.count);
}

/* The end of a build: into the cache, or nowhere. */
static int built(struct merged *m, struct region *r, int rc)
{
    pthread_rwlock_wrlock(&m->lock);
    if (rc == 0)
        rc = reserve_slot(m);
    if (rc < 0) {
        unlink_region(m, r);
    } else {
        r->slot = m->count;
        m->slots[m->count++] = r;
        m->bytes += bytes_of(r);
        m->built++;
        atomic_store(&r->state, REGION_READY);
        make_room(m, r);
    }
    pthread_rwlock_unlock(&m->lock);
    pthread_mutex_lock(&m->build_lock);
    pthread_cond_broadcast(&m->end_of_build);
    pthread_mutex_unlock(&m->build_lock);
    if (rc < 0)
        region_free(r);
    return rc;
}

/* 1: @out is new, and ours to build.  0: somebody has it, or builds it. */
static int claim(struct merged *m, struct lam_image *layer, uint64_t number,
                 struct region **out)
{
    pthread_rwlock_t *lock lam_cleanup(lam_cleanup_rw_unlock) = &m->lock;

    pthread_rwlock_wrlock(lock);
    if (lookup(m, number))
        return 0;
    find_blank(m, layer->layers + m->first);
    struct region *r = calloc(1, sizeof *r);
    if (!r || reserve_buckets(m) < 0) {
        free(r);
        return -ENOMEM;
    }
    r->number = number;
    r->map.region = range_make(number << m->region_bits,
                               UINT64_C(1) << m->region_bits);
    r->used = true;
    r->next = m->buckets[bucket_of(m, number)];
    m->buckets[bucket_of(m, number)] = r;
    *out = r;
    return 1;
}

static bool is_building(struct merged *m, uint64_t number)
{
    pthread_rwlock_rdlock(&m->lock);
    struct region *r = lookup(m, number);
    bool building = r && atomic_load(&r->state) == REGION_BUILDING;
    pthread_rwlock_unlock(&m->lock);
    return building;
}

/* Make that the region is there, if that can be: 0, and look again. */
static int provide(struct merged *m, struct lam_image *layer, uint64_t number)
{
    struct region *r;
    int rc = claim(m, layer, number, &r);

    if (rc == 1)
        return built(m, r, build(m, layer, r));
    if (rc < 0)
        return rc;
    LAM_LOCKED(&m->build_lock);
    while (is_building(m, number))
        pthread_cond_wait(&m->end_of_build, &m->build_lock);
    return 0;
}

/* ------------------------------------------------------------------- asking */

/* 1: it was there, and @out has it.  0: it is not there. */
static int map_cached(struct merged *m, uint64_t number, struct range wanted,
                      unsigned depth, struct lam_extents *out, bool *reserved,
                      struct lam_error *err)
{
    pthread_rwlock_t *lock lam_cleanup(lam_cleanup_rw_unlock) = &m->lock;

    pthread_rwlock_rdlock(lock);
    struct region *r = lookup(m, number);
    if (!r || atomic_load(&r->state) != REGION_READY)
        return 0;
    if (!atomic_load_explicit(&r->used, memory_order_relaxed))
        atomic_store_explicit(&r->used, true, memory_order_relaxed);
    *reserved |= r->reserved;
    int rc = packed_copy(&r->map, wanted, depth, out, err);
    return rc < 0 ? rc : 1;
}

/* Without keeping anything: where the region as a whole cannot be had, because
 * some of it is damaged or memory is short, this part of it may still. */
static int map_uncached(struct merged *m, struct lam_image *layer,
                        struct range wanted, unsigned depth,
                        struct lam_extents *out, bool *reserved,
                        struct lam_error *err)
{
    struct descent d lam_cleanup(descent_deinit) = DESCENT_INIT;
    int rc = ask_layers(m, layer, wanted, &d, err);

    *reserved |= d.reserved;
    for (size_t i = 0; i < d.finds.count && rc == 0; i++) {
        d.finds.items[i].depth = (uint16_t)(d.finds.items[i].depth + depth);
        rc = extents_append(out, &d.finds.items[i], err);
    }
    return rc;
}

/* The one extent that @r begins with where no layer has anything; of length 0
 * where one has, or may have. */
static struct lam_extent blank_extent(const struct merged *m,
                                      const struct lam_image *top,
                                      struct range r, unsigned depth)
{
    struct lam_extent e = {
        .offset = r.offset, .state = LAM_EXTENT_UNALLOCATED,
        .depth = (uint16_t)(depth + m->end - m->first - 1),
    };

    for (unsigned i = m->first; i < m->end && r.length; i++) {
        const struct lam_image *layer = top->layers[i];
        if (r.offset >= layer->size) {
            e.state = LAM_EXTENT_ZERO;
            e.flags = LAM_EXTENT_BEYOND_BACKING;
            e.depth = (uint16_t)(depth + i - m->first);
            break;
        }
        r = range_intersect(r, range_make(0, layer->size));
        r.length = blank_run(layer, r);
    }
    e.length = r.length;
    return e;
}

/*
 * The regions of a disk of exbibytes are too many to be looked at one by one:
 * passes over those in which no layer has anything.
 */
static int skip_blank(const struct merged *m, const struct lam_image *layer,
                      struct range *r, unsigned depth, struct lam_extents *out,
                      struct lam_error *err)
{
    uint64_t region = UINT64_C(1) << m->region_bits;
    uint64_t first = region - (r->offset & (region - 1));
    struct range near = range_make(r->offset, first);

    if (r->length < MANY_REGIONS * region ||
        blank_extent(m, layer, near, depth).length < first)
        return 0;
    struct lam_extent e = blank_extent(m, layer, *r, depth);
    e.length = align_down(e.offset + e.length, region) - e.offset;
    *r = range_make(r->offset + e.length, r->length - e.length);
    return extents_append(out, &e, err);
}

int merged_map(struct merged *m, struct lam_image *layer, struct range r,
               unsigned depth, struct lam_extents *out, bool *reserved,
               struct lam_error *err)
{
    uint64_t region = UINT64_C(1) << m->region_bits;
    bool failed = false;

    assert(m->first < m->end && layer->level == m->first);
    while (r.length > 0) {
        int rc = skip_blank(m, layer, &r, depth, out, err);
        if (rc < 0)
            return rc;
        uint64_t n = min_u64(r.length, region - (r.offset & (region - 1)));
        uint64_t number = r.offset >> m->region_bits;
        struct range part = range_make(r.offset, n);
        rc = map_cached(m, number, part, depth, out, reserved, err);

        if (rc == 0 && !failed) {
            failed = provide(m, layer, number) < 0;
            continue;
        }
        if (rc == 0)
            rc = map_uncached(m, layer, part, depth, out, reserved, err);
        if (rc < 0)
            return rc;
        failed = false;
        r = range_make(r.offset + n, r.length - n);
    }
    return 0;
}

int merged_map_cached(struct merged *m, struct range r, unsigned depth,
                      struct lam_extents *out)
{
    uint64_t region = UINT64_C(1) << m->region_bits;
    bool reserved = false;

    while (r.length > 0) {
        uint64_t n = min_u64(r.length, region - (r.offset & (region - 1)));
        int rc = map_cached(m, r.offset >> m->region_bits,
                            range_make(r.offset, n), depth, out, &reserved,
                            NULL);
        if (rc <= 0)
            return rc < 0 ? rc : -EAGAIN;
        r = range_make(r.offset + n, r.length - n);
    }
    return 0;
}

void merged_statistics(struct merged *m, struct merged_statistics *out)
{
    pthread_rwlock_rdlock(&m->lock);
    *out = (struct merged_statistics){ m->built, m->bytes };
    pthread_rwlock_unlock(&m->lock);
}
