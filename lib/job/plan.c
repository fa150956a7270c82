/* SPDX-License-Identifier: MIT */
/*
 * plan.c - the thin plan: what a zero range costs on a target, and why.
 *
 * One function for each kind of target; the table in docs/architecture.md ("The
 * thin plan") has a row for each return in here.
 */
#include "job/plan.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void choose(struct lam_thin_plan *plan, enum lam_zero_method method,
                   bool thin, const char *reason)
{
    plan->method = method;
    plan->thin = thin;
    plan->lost_thinness = false;
    snprintf(plan->reason, sizeof plan->reason, "%s", reason);
}

/* The same where thin was to be had, were it not for the target. */
static void choose_lost(struct lam_thin_plan *plan,
                        enum lam_zero_method method, const char *reason)
{
    choose(plan, method, false, reason);
    plan->lost_thinness = true;
}

/* A device without the command has the kernel write the zeroes, and an old
 * kernel may leave stale pages behind it. */
bool plan_host_zeroes(const struct plan_input *in)
{
    const struct lam_io_limits *l = &in->limits;

    if (!l->is_block_device)
        return l->can_zero_range;
    return l->can_zero_range && l->zero_max &&
           (l->direct || in->kernel >= PLAN_KERNEL_DROPS_PAGES);
}

/* -S 0: as cheap as can be without giving blocks back. */
static void plan_allocated(const struct plan_input *in,
                           struct lam_thin_plan *plan)
{
    if (in->has_metadata)
        choose(plan, LAM_ZERO_BY_WRITE, false,
               "-S 0: zeroes are stored like data");
    else if (plan_host_zeroes(in))
        choose(plan, LAM_ZERO_BY_ZERO_RANGE, false,
               "-S 0: zeroed by the host, blocks stay allocated");
    else
        choose(plan, LAM_ZERO_BY_WRITE, false,
               "-S 0: zeroes are written, blocks stay allocated");
}

static void plan_metadata(const struct plan_input *in,
                          struct lam_thin_plan *plan)
{
    if (in->has_backing)
        choose(plan, LAM_ZERO_BY_METADATA, true,
               "zero clusters hide the backing file and own no space");
    else if (in->convert_flags & LAM_CONVERT_NEW_TARGET)
        choose(plan, LAM_ZERO_BY_METADATA, true,
               "a new image reads as zeroes where nothing is allocated");
    else
        choose(plan, LAM_ZERO_BY_METADATA, true,
               "what the image stores there is released; what reads as zero "
               "already is left alone");
}

static void plan_file(const struct plan_input *in, struct lam_thin_plan *plan)
{
    if (in->convert_flags & LAM_CONVERT_NEW_TARGET)
        choose(plan, LAM_ZERO_BY_SKIP, true, "a new file reads as zeroes");
    else if (in->limits.can_punch)
        choose(plan, LAM_ZERO_BY_PUNCH, true,
               "the file system punches holes, which read as zeroes");
    else if (in->limits.can_zero_range)
        choose_lost(plan, LAM_ZERO_BY_ZERO_RANGE,
                    "the file system cannot punch holes; ranges are zeroed "
                    "and stay allocated");
    else
        choose_lost(plan, LAM_ZERO_BY_WRITE,
                    "the file system can neither punch holes nor zero a "
                    "range; zeroes are written");
}

/* The device gives nothing back that is sure to read as zero. */
static void plan_device_thick(const struct plan_input *in,
                              struct lam_thin_plan *plan)
{
    bool frees = in->limits.can_discard;

    if (plan_host_zeroes(in))
        choose_lost(plan, LAM_ZERO_BY_ZERO_RANGE,
                    frees ? "what the device frees may read as anything; it "
                            "zeroes ranges, which stay allocated"
                          : "no discard support; the device zeroes ranges, "
                            "which stay allocated");
    else
        choose_lost(plan, LAM_ZERO_BY_WRITE,
                    frees ? "what the device frees may read as anything; "
                            "zeroes are written"
                          : "no discard support; zeroes are written");
}

/* Pages that were cached before a discard may be shown after it. */
static bool cache_in_the_way(const struct plan_input *in,
                             struct lam_thin_plan *plan)
{
    if (in->limits.direct)
        return false;
    if (in->kernel < PLAN_KERNEL_DROPS_PAGES)
        choose_lost(plan, LAM_ZERO_BY_WRITE,
                    "this kernel may keep cached pages of a discarded range; "
                    "zeroes are written (-t none avoids it)");
    else if (in->pages_survive)
        choose_lost(plan, LAM_ZERO_BY_WRITE,
                    "reading back a discarded range showed old data in the "
                    "cache; zeroes are written");
    else
        return false;
    return true;
}

/*
 * A file's blocks are freed for little, a range at a time, and those that stay
 * are written to in half the time of those that have been freed.  Where a
 * granule is no more than what zeroes are looked for in, that leaves as little
 * mapped.  A disk had better be asked as seldom as can be.
 */
static bool frees_by_range(const struct lam_io_limits *l)
{
    return l->is_loop && l->direct && l->can_punch && !l->discard_alignment &&
           l->discard_granularity <= PLAN_FINE_GRANULE;
}

static void plan_device(const struct plan_input *in,
                        struct lam_thin_plan *plan)
{
    const struct lam_io_limits *l = &in->limits;
    bool frees = l->can_discard &&
                 (l->discard_reads_zero || !l->discard_undefined);

    if (!l->direct && (in->convert_flags & LAM_CONVERT_STRICT_CACHE))
        choose(plan, LAM_ZERO_BY_WRITE, false,
               "strict cache rule: without O_DIRECT zeroes are written");
    else if (!l->can_punch && !frees)
        plan_device_thick(in, plan);
    else if (cache_in_the_way(in, plan))
        return;
    else if (frees_by_range(l))
        choose(plan, LAM_ZERO_BY_PUNCH, true,
               "the file below punches holes, which read as zeroes");
    else if (l->can_punch || l->discard_reads_zero)
        choose(plan, LAM_ZERO_BY_CLEAR_ONCE, true,
               l->direct ? "the device is unmapped once, which makes it read "
                           "as zeroes"
                         : "the device is unmapped once; this kernel drops "
                           "cached pages with it (checked by reading back)");
    else if (in->discards_stale)
        choose_lost(plan, LAM_ZERO_BY_DISCARD_PROVE,
                    "some of what was discarded did not read as zero, was "
                    "zeroed, and stays allocated");
    else
        choose(plan, LAM_ZERO_BY_DISCARD_PROVE, true,
               "the device frees what is discarded but does not promise "
               "zeroes: read back, and written where it is not zero");
}

static void describe_metadata(const struct plan_input *in,
                              struct lam_thin_plan *plan)
{
    snprintf(plan->limits, sizeof plan->limits,
             "image with clusters of %" PRIu64 " bytes, %s backing file",
             in->cluster_size, in->has_backing ? "with a" : "without");
}

static const char *yes_no(bool b)
{
    return b ? "yes" : "no";
}

__attribute__((format(printf, 2, 3)))
static void describe(struct lam_thin_plan *plan, const char *fmt, ...)
{
    size_t length = strlen(plan->limits);
    va_list args;

    va_start(args, fmt);
    vsnprintf(plan->limits + length, sizeof plan->limits - length, fmt, args);
    va_end(args);
}

static const char *freed_reads(const struct lam_io_limits *l)
{
    if (l->discard_reads_zero)
        return "as zero";
    return l->discard_undefined ? "as anything" : "as zero or not";
}

static void describe_device(const struct lam_io_limits *l,
                            struct lam_thin_plan *plan)
{
    describe(plan, "block device, %s; sectors of %" PRIu32 " bytes (physical %"
             PRIu32 "); unmap to zeroes: %s; zero a range: ",
             l->direct ? "O_DIRECT" : "cached", l->logical_sector,
             l->physical_sector, yes_no(l->can_punch));
    if (l->zero_max)
        describe(plan, "at most %" PRIu64 " bytes a request", l->zero_max);
    else
        describe(plan, "no");
    if (!l->can_discard) {
        describe(plan, "; discard: no");
        return;
    }
    describe(plan, "; discard: at most %" PRIu64 " bytes a request, "
             "granules of %" PRIu64, l->discard_max, l->discard_granularity);
    if (l->discard_alignment)
        describe(plan, " from %" PRIu64, l->discard_alignment);
    describe(plan, "; what was discarded reads %s", freed_reads(l));
}

static void describe_limits(const struct plan_input *in,
                            struct lam_thin_plan *plan)
{
    const struct lam_io_limits *l = &in->limits;
    const char *access = l->direct ? "O_DIRECT" : "cached";

    if (l->is_block_device)
        describe_device(l, plan);
    else if (in->convert_flags & LAM_CONVERT_NEW_TARGET)
        describe(plan, "new file, %s", access);
    else
        describe(plan, "file, %s; punch holes: %s; zero a range: %s", access,
                 yes_no(l->can_punch), yes_no(l->can_zero_range));
}

void plan_decide(const struct plan_input *in, struct lam_thin_plan *plan)
{
    plan->limits[0] = '\0';
    if (in->has_metadata)
        describe_metadata(in, plan);
    else
        describe_limits(in, plan);

    if (in->convert_flags & LAM_CONVERT_TARGET_IS_ZERO && in->sparse_size)
        choose(plan, LAM_ZERO_BY_SKIP, true,
               "the caller says that the target reads as zeroes");
    else if (in->stores_all)
        choose(plan, LAM_ZERO_BY_WRITE, false,
               "zeroes are encrypted and stored like data");
    else if (in->sparse_size == 0)
        plan_allocated(in, plan);
    else if (in->has_metadata)
        plan_metadata(in, plan);
    else if (in->limits.is_block_device)
        plan_device(in, plan);
    else
        plan_file(in, plan);
}

unsigned plan_kernel_parse(const char *release)
{
    unsigned major, minor;

    if (sscanf(release, "%3u.%3u", &major, &minor) != 2)
        return 0;
    return PLAN_KERNEL(major, minor);
}
