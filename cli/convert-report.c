/* SPDX-License-Identifier: MIT */
/*
 * convert-report.c - what `convert` says while it works and when it is done.
 *
 * Called as qemu-img: what the genuine tool says.  As JSON: one object a line,
 * told apart by "event": progress, unreadable, summary.
 */
#include "convert-report.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "print.h"

/* What qemu-img loses is lost, and told, in pieces of this size. */
#define SECTOR 512

const char *zero_method_text(enum lam_zero_method method)
{
    switch (method) {
    case LAM_ZERO_BY_SKIP:
        return "skipped";
    case LAM_ZERO_BY_CLEAR_ONCE:
        return "skipped, after the target has been unmapped as a whole";
    case LAM_ZERO_BY_PUNCH:
        return "unmapped, a call for each range";
    case LAM_ZERO_BY_ZERO_RANGE:
        return "zeroed by the host, a call for each range";
    case LAM_ZERO_BY_DISCARD_PROVE:
        return "discarded, read back, and written where not zero";
    case LAM_ZERO_BY_METADATA:
        return "unallocated or zero clusters";
    case LAM_ZERO_BY_WRITE:
        break;
    }
    return "written";
}

/* ------------------------------------------------------------ --salvage */

static void unreadable_json(const struct report *r, const char *name,
                            uint64_t offset, uint64_t length,
                            const struct lam_error *err)
{
    fputs("{\"event\": \"unreadable\", \"image\": ", r->out);
    print_json_string(r->out, name);
    fprintf(r->out, ", \"offset\": %" PRIu64 ", \"length\": %" PRIu64
            ", \"error\": ", offset, length);
    print_json_string(r->out, err->message);
    fputs("}\n", r->out);
    fflush(r->out);
}

/* A lam_unreadable_fn. */
static void tell_unreadable(void *opaque, struct lam_image *source,
                            uint64_t offset, uint64_t length,
                            const struct lam_error *err)
{
    struct report *r = opaque;

    r->nb_lost++;
    r->bytes_lost += length;
    if (r->args->progress_json)
        unreadable_json(r, lam_image_name(source), offset, length, err);
    if (r->args->quiet)
        return;
    if (!r->cli->as_qemu) {
        cli_warning(r->cli, "%" PRIu64 " bytes at byte %" PRIu64 " are lost, "
                    "and zeroes in the target: %s", length, offset,
                    err->message);
        return;
    }
    /* There, an image that contradicts itself is an I/O error. */
    int code = err->code == EUCLEAN ? EIO : err->code;
    for (uint64_t at = 0; at < length; at += SECTOR)
        cli_warning(r->cli, "error while reading offset %" PRIu64 ": %s",
                    offset + at, strerror(code));
}

/* ------------------------------------------------------------ the end */

static double seconds_since(const struct timespec *start)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)(t.tv_sec - start->tv_sec) +
           (double)(t.tv_nsec - start->tv_nsec) / 1e9;
}

static void summary_text(const struct report *r,
                         const struct lam_convert_result *c,
                         const struct lam_thin_plan *plan)
{
    char text[7][32];

    fprintf(r->out, "%s in %.2f s (%.0f MiB/s): %s read, %s written, "
            "%s zeroed, %s discarded, %s skipped",
            human_size(c->bytes_guest, text[0]), r->seconds,
            (double)c->bytes_guest / (1 << 20) / (r->seconds + 1e-9),
            human_size(c->bytes_read, text[1]),
            human_size(c->bytes_written, text[2]),
            human_size(c->bytes_zeroed, text[3]),
            human_size(c->bytes_discarded, text[4]),
            human_size(c->bytes_skipped, text[5]));
    if (c->bytes_resumed)
        fprintf(r->out, ", %s done before",
                human_size(c->bytes_resumed, text[6]));
    if (plan)
        fprintf(r->out, "; zeroes: %s (%s)", zero_method_text(plan->method),
                plan->reason);
    fputc('\n', r->out);
}

static void summary_json(const struct report *r,
                         const struct lam_convert_result *c,
                         const struct lam_thin_plan *plan)
{
    const struct { const char *name; uint64_t value; } counts[] = {
        { "guest", c->bytes_guest }, { "read", c->bytes_read },
        { "written", c->bytes_written }, { "zeroed", c->bytes_zeroed },
        { "discarded", c->bytes_discarded }, { "skipped", c->bytes_skipped },
        { "unreadable", c->bytes_unreadable },
        { "resumed", c->bytes_resumed },
    };

    fputs("{\"event\": \"summary\"", r->out);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
        fprintf(r->out, ", \"%s\": %" PRIu64, counts[i].name, counts[i].value);
    fprintf(r->out, ", \"seconds\": %.3f, \"mib-per-second\": %.1f, "
            "\"verified\": %s", r->seconds,
            (double)c->bytes_guest / (1 << 20) / (r->seconds + 1e-9),
            r->args->verify ? "true" : "false");
    if (plan) {
        fputs(", \"zeroes\": ", r->out);
        print_json_string(r->out, zero_method_text(plan->method));
    }
    if (c->digest[0]) {
        fputs(", \"digest\": ", r->out);
        print_json_string(r->out, c->digest);
    }
    fputs("}\n", r->out);
}

static void phase_begin(struct report *r, const char *phase,
                        struct progress *shown,
                        struct lam_convert_options *options)
{
    bool show = r->args->progress && r->out == stdout;

    r->progress = shown ? shown
                : r->args->progress_json ? progress_begin_json(r->out, phase)
                : progress_begin(show);
    options->progress = progress_update;
    options->progress_opaque = r->progress;
}

void report_begin(struct report *r, const struct cli *cli,
                  const struct convert_args *args, bool to_stdout,
                  struct progress *shown, struct lam_convert_options *options)
{
    *r = (struct report){ .cli = cli, .args = args };
    r->out = to_stdout ? stderr : stdout;
    clock_gettime(CLOCK_MONOTONIC, &r->start);
    phase_begin(r, "copy", shown, options);
    options->unreadable = tell_unreadable;
    options->unreadable_opaque = r;
}

void report_verify(struct report *r, struct lam_convert_options *options)
{
    r->seconds = seconds_since(&r->start);
    progress_end(r->progress, true);
    phase_begin(r, "verify", NULL, options);
}

void report_end(struct report *r, int rc,
                const struct lam_convert_result *result,
                const struct lam_thin_plan *plan)
{
    if (r->seconds == 0)
        r->seconds = seconds_since(&r->start);
    progress_end(r->progress, rc == 0);
    if (r->nb_lost && !r->cli->as_qemu && !r->args->quiet)
        cli_warning(r->cli, "%" PRIu64 " bytes in %u range%s could not be "
                    "read, and are zeroes in '%s'", r->bytes_lost, r->nb_lost,
                    r->nb_lost == 1 ? "" : "s", r->args->target);
    if (rc < 0)
        return;
    if (r->args->progress_json)
        summary_json(r, result, plan);
    else if (result->digest[0])
        fprintf(r->out, "%s\n", result->digest);
    if (r->args->progress && !r->args->progress_json && !r->cli->as_qemu)
        summary_text(r, result, plan);
    fflush(r->out);
}
