/* SPDX-License-Identifier: MIT */
/*
 * throttle-group.c - no more than so much a second, for all members together.
 *
 * Each limit is a leaking bucket: requests fill it by what they move, it leaks
 * at the average rate, and while it is fuller than it may be, requests wait.
 * What it may hold decides how long a burst is let through.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "io/throttle.h"

enum { KINDS = LAM_THROTTLE_KINDS };

/* Where nothing is said of bursts, a bucket holds this part of a second. */
#define IDLE_SECONDS 0.1

struct bucket {
    struct lam_throttle_limit limit;
    double level;               /* of this second's and earlier requests */
    double burst;               /* the same, leaking at the burst's rate */
};

struct throttle_group {
    char *id;
    struct bucket buckets[KINDS];
    uint64_t iops_size;
    atomic_uint references;
    pthread_mutex_t lock;       /* the buckets, and: */
    double seen;                /* when they were looked at, seconds */
};

struct lam_throttles {
    struct throttle_group **groups;
    size_t count;
};

static double larger(double a, double b)
{
    return a > b ? a : b;
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ----------------------------------------------------------------- buckets */

static void leak(struct bucket *b, double seconds)
{
    double average = (double)b->limit.average;
    double burst = (double)b->limit.burst;

    b->level = larger(0, b->level - average * seconds);
    b->burst = larger(0, b->burst - burst * seconds);
}

/* Seconds until there is room again. */
static double delay(const struct bucket *b)
{
    double average = (double)b->limit.average;
    double burst = (double)b->limit.burst;
    uint64_t seconds = max_u64(b->limit.burst_seconds, 1);
    double room = burst > 0 ? burst * (double)seconds : average * IDLE_SECONDS;
    double wait = 0;

    if (average > 0 && b->level > room)
        wait = (b->level - room) / average;
    /* A burst of several seconds has a rate of its own. */
    if (burst > 0 && b->limit.burst_seconds > 1
        && b->burst > burst * IDLE_SECONDS)
        wait = larger(wait, (b->burst - burst * IDLE_SECONDS) / burst);
    return wait;
}

static bool concerns(enum lam_throttle_kind kind, bool write)
{
    switch (kind) {
    case LAM_THROTTLE_BPS_READ:
    case LAM_THROTTLE_IOPS_READ:
        return !write;
    case LAM_THROTTLE_BPS_WRITE:
    case LAM_THROTTLE_IOPS_WRITE:
        return write;
    case LAM_THROTTLE_BPS_TOTAL:
    case LAM_THROTTLE_IOPS_TOTAL:
        break;
    }
    return true;
}

static bool counts_bytes(enum lam_throttle_kind kind)
{
    return kind == LAM_THROTTLE_BPS_TOTAL || kind == LAM_THROTTLE_BPS_READ
        || kind == LAM_THROTTLE_BPS_WRITE;
}

/* What is left to wait before the request may begin; 0: it is counted. */
static double admit(struct throttle_group *g, bool write, uint64_t bytes)
{
    LAM_LOCKED(&g->lock);
    double t = now(), wait = 0;

    for (unsigned i = 0; i < KINDS; i++) {
        leak(&g->buckets[i], t - g->seen);
        if (concerns((enum lam_throttle_kind)i, write))
            wait = larger(wait, delay(&g->buckets[i]));
    }
    g->seen = t;
    if (wait > 0)
        return wait;
    double requests = g->iops_size && bytes > g->iops_size
        ? (double)bytes / (double)g->iops_size : 1;
    for (unsigned i = 0; i < KINDS; i++) {
        struct bucket *b = &g->buckets[i];
        double units = counts_bytes((enum lam_throttle_kind)i) ? (double)bytes
                                                               : requests;
        if (!concerns((enum lam_throttle_kind)i, write))
            continue;
        b->level += units;
        b->burst += units;
    }
    return 0;
}

void throttle_wait(struct throttle_group *group, bool write, uint64_t bytes)
{
    double wait;

    while ((wait = admit(group, write, bytes)) > 0) {
        /* Who waits longer looks again in between. */
        double nap_seconds = wait < 1 ? wait : 0.999;
        const struct timespec nap = { 0, (long)(nap_seconds * 1e9) };

        nanosleep(&nap, NULL);
    }
}

/* ------------------------------------------------------------------ groups */

struct throttle_group *throttle_group_get(struct throttle_group *group)
{
    if (group)
        atomic_fetch_add(&group->references, 1);
    return group;
}

void throttle_group_put(struct throttle_group *group)
{
    if (!group || atomic_fetch_sub(&group->references, 1) > 1)
        return;
    pthread_mutex_destroy(&group->lock);
    free(group->id);
    free(group);
}

static int check_limit(const struct lam_throttle_limit *l,
                       struct lam_error *err)
{
    if (l->average > LAM_THROTTLE_MAX || l->burst > LAM_THROTTLE_MAX)
        return lam_fail(err, EINVAL, "bps/iops/max values must be within "
                        "[0, %lld]", (long long)LAM_THROTTLE_MAX);
    if (l->burst && !l->average)
        return lam_fail(err, EINVAL, "bps_max/iops_max require corresponding "
                        "bps/iops values");
    if (l->burst && l->burst < l->average)
        return lam_fail(err, EINVAL, "bps_max/iops_max cannot be lower than "
                        "bps/iops");
    if (!l->burst_seconds)
        return lam_fail(err, EINVAL, "the burst length cannot be 0");
    if (l->burst_seconds > 1 && !l->burst)
        return lam_fail(err, EINVAL, "burst length set without burst rate");
    return 0;
}

static int check_options(const struct lam_throttle_options *o,
                         struct lam_error *err)
{
    const struct lam_throttle_limit *l = o->limits;
    int rc = 0;

    if (!o->id)
        return lam_fail(err, EINVAL, "Parameter 'id' is missing");
    for (unsigned first = 0; first < KINDS; first += 3) {
        bool total = l[first].average || l[first].burst;
        bool single = l[first + 1].average || l[first + 2].average
            || l[first + 1].burst || l[first + 2].burst;
        if (total && single)
            return lam_fail(err, EINVAL, "bps/iops/max total values and "
                            "read/write values cannot be used at the same "
                            "time");
    }
    if (o->iops_size && !l[LAM_THROTTLE_IOPS_TOTAL].average
        && !l[LAM_THROTTLE_IOPS_READ].average
        && !l[LAM_THROTTLE_IOPS_WRITE].average)
        return lam_fail(err, EINVAL, "iops size requires an iops value to be "
                        "set");
    for (unsigned i = 0; i < KINDS && rc == 0; i++)
        rc = check_limit(&l[i], err);
    return rc;
}

static struct throttle_group *new_group(const struct lam_throttle_options *o)
{
    struct throttle_group *g = calloc(1, sizeof *g);

    if (g)
        g->id = strdup(o->id);
    if (!g || !g->id) {
        free(g);
        return NULL;
    }
    for (unsigned i = 0; i < KINDS; i++)
        g->buckets[i].limit = o->limits[i];
    g->iops_size = o->iops_size;
    g->seen = now();
    atomic_init(&g->references, 1);
    pthread_mutex_init(&g->lock, NULL);
    return g;
}

/* ----------------------------------------------------------- lists of them */

int lam_throttles_new(struct lam_throttles **out, struct lam_error *err)
{
    *out = calloc(1, sizeof **out);
    return *out ? 0 : lam_fail(err, ENOMEM, "no memory for throttle groups");
}

void lam_throttles_free(struct lam_throttles *throttles)
{
    if (!throttles)
        return;
    for (size_t i = 0; i < throttles->count; i++)
        throttle_group_put(throttles->groups[i]);
    free(throttles->groups);
    free(throttles);
}

static struct throttle_group *find(const struct lam_throttles *throttles,
                                   const char *id)
{
    for (size_t i = 0; throttles && i < throttles->count; i++)
        if (!strcmp(throttles->groups[i]->id, id))
            return throttles->groups[i];
    return NULL;
}

struct throttle_group *throttle_find(const struct lam_throttles *throttles,
                                     const char *id)
{
    return throttle_group_get(find(throttles, id));
}

int lam_throttles_add(struct lam_throttles *throttles,
                      const struct lam_throttle_options *options,
                      struct lam_error *err)
{
    int rc = check_options(options, err);

    if (rc < 0)
        return rc;
    if (find(throttles, options->id))
        return lam_fail(err, EEXIST, "attempt to add duplicate property '%s' "
                        "to object (type 'container')", options->id);
    struct throttle_group **groups =
        reallocarray(throttles->groups, throttles->count + 1, sizeof *groups);
    if (groups)
        throttles->groups = groups;
    struct throttle_group *g = groups ? new_group(options) : NULL;
    if (!g)
        return lam_fail(err, ENOMEM, "no memory for throttle group '%s'",
                        options->id);
    groups[throttles->count++] = g;
    return 0;
}
