/* SPDX-License-Identifier: MIT */
/*
 * cmd-check.c - `check`: count every reference to every cluster, and say what
 * does not add up.  With -r put it right, and check again.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "interrupt.h"
#include "print.h"
#include "source-option.h"

enum {
    STATUS_CLEAN = 0, STATUS_FAILED = 1, STATUS_CORRUPT = 2, STATUS_LEAKS = 3,
    STATUS_NO_CHECK = 63,
};

struct check_args {
    const char *filename;
    struct source_options source;
    bool json, quiet;
    unsigned repair;            /* LAM_REPAIR_... */
};

static const struct command_option option_rows[] = {
    OPTION_FORMAT, OPTION_IMAGE_OPTS,
    OPTION_CACHE('T'),
    { 'r', "repair", "leaks|all",
      "leaks: free clusters that nothing refers to; all: whatever can be put "
      "right without guessing", 0 },
    OPTION_SHARE,
    { 'q', "quiet", NULL, "no summary, only what is wrong and the status", 0 },
    OPTION_OUTPUT, OPTION_OBJECT, OPTION_UNTRUSTED,
    OPTION_HELP,
    { 0 },
};

static int repair_option(const struct cli *cli, const char *what,
                         struct check_args *args)
{
    if (!strcmp(what, "leaks"))
        args->repair = LAM_REPAIR_LEAKS;
    else if (!strcmp(what, "all"))
        args->repair = LAM_REPAIR_ALL;
    else
        return cli_usage(cli, "--repair (-r) expects 'leaks' or 'all' not '%s'",
                         what);
    return -1;
}

/* -1: go on; else the exit status. */
static int take_option(const struct cli *cli, int c, void *opaque)
{
    struct check_args *args = opaque;

    switch (c) {
    case 'q':
        args->quiet = true;
        return -1;
    case 'T':
        args->source.cache = optarg;
        return -1;
    case 'r':
        return repair_option(cli, optarg, args);
    case OPT_OUTPUT:
        return output_option(cli, optarg, &args->json) < 0 ? 1 : -1;
    default:
        return source_option(cli, c, &args->source);
    }
}

static int parse_args(const struct cli *cli, int argc, char **argv,
                      struct check_args *args)
{
    int status = command_parse(cli, &command_check, argc, argv, take_option,
                               args);

    if (status >= 0)
        return status;
    return source_operand(cli, argc, argv, &args->source, &args->filename);
}

/* ----------------------------------------------------------------- printing */

static void on_finding(void *opaque, enum lam_finding_kind kind,
                       const char *text)
{
    (void)opaque;
    (void)kind;
    print_escaped(stderr, text);
    putc('\n', stderr);
}

static double percent(uint64_t part, uint64_t whole)
{
    return (double)part * 100 / (double)whole;
}

static void print_text(const struct lam_check_result *r)
{
    if (!r->corruptions && !r->leaks && !r->check_errors)
        puts("No errors were found on the image.");
    if (r->corruptions)
        printf("\n%" PRIu64 " errors were found on the image.\n"
               "Data may be corrupted, or further writes to the image may "
               "corrupt it.\n", r->corruptions);
    if (r->leaks)
        printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
               "This means waste of disk space, but no harm to data.\n",
               r->leaks);
    if (r->check_errors)
        printf("\n%" PRIu64 " internal errors have occurred during the "
               "check.\n", r->check_errors);
    if (r->total_clusters && r->allocated_clusters)
        printf("%" PRIu64 "/%" PRIu64 " = %0.2f%% allocated, %0.2f%% "
               "fragmented, %0.2f%% compressed clusters\n",
               r->allocated_clusters, r->total_clusters,
               percent(r->allocated_clusters, r->total_clusters),
               percent(r->fragmented_clusters, r->allocated_clusters),
               percent(r->compressed_clusters, r->allocated_clusters));
    if (r->image_end_offset)
        printf("Image end offset: %" PRIu64 "\n", r->image_end_offset);
}

static void add_number(struct json_object *object, const char *key,
                       uint64_t value)
{
    json_object_object_add(object, key, json_object_new_uint64(value));
}

static void add_count(struct json_object *object, const char *key,
                      uint64_t value)
{
    if (value)
        add_number(object, key, value);
}

static void print_report(struct lam_image *image,
                         const struct lam_check_result *r)
{
    struct json_object *object = json_object_new_object();

    add_count(object, "image-end-offset", r->image_end_offset);
    add_count(object, "compressed-clusters", r->compressed_clusters);
    add_count(object, "total-clusters", r->total_clusters);
    add_count(object, "corruptions", r->corruptions);
    add_count(object, "corruptions-fixed", r->corruptions_fixed);
    add_number(object, "check-errors", r->check_errors);
    add_count(object, "leaks-fixed", r->leaks_fixed);
    add_count(object, "leaks", r->leaks);
    add_count(object, "allocated-clusters", r->allocated_clusters);
    json_object_object_add(object, "filename",
                           json_object_new_string(lam_image_name(image)));
    json_object_object_add(object, "format",
                           json_object_new_string(lam_image_format(image)));
    add_count(object, "fragmented-clusters", r->fragmented_clusters);
    print_json(stdout, object);
    json_object_put(object);
}

static int status_of(int rc, const struct lam_check_result *r)
{
    if (rc < 0 || r->check_errors)
        return STATUS_FAILED;
    if (r->corruptions)
        return STATUS_CORRUPT;
    return r->leaks ? STATUS_LEAKS : STATUS_CLEAN;
}

static int run(const struct check_args *args, struct lam_image *image,
               struct lam_check_result *r, struct lam_error *err)
{
    return args->repair
        ? lam_image_repair(image, args->repair, on_finding, NULL, r, err)
        : lam_image_check(image, on_finding, NULL, r, err);
}

/* What was repaired; and what a check finds now. */
static int check_again(const struct check_args *args, struct lam_image *image,
                       struct lam_check_result *r, struct lam_error *err)
{
    uint64_t leaks_fixed = r->leaks_fixed;
    uint64_t corruptions_fixed = r->corruptions_fixed;

    if (!args->quiet && !args->json)
        printf("The following inconsistencies were found and repaired:\n\n"
               "    %" PRIu64 " leaked clusters\n    %" PRIu64
               " corruptions\n\nDouble checking the fixed image now...\n",
               leaks_fixed, corruptions_fixed);
    int rc = lam_image_check(image, on_finding, NULL, r, err);
    r->leaks_fixed = leaks_fixed;
    r->corruptions_fixed = corruptions_fixed;
    return rc;
}

static int check(const struct cli *cli, const struct check_args *args,
                 struct lam_image *image)
{
    struct lam_check_result result = { 0 };
    struct lam_error err = LAM_ERROR_INIT;

    interrupt_explain(cli, args->repair ? "'%s' is repaired in part; check it "
                      "again" : "'%s' was not checked to the end",
                      args->filename);
    int rc = run(args, image, &result, &err);
    if (rc == -ENOTSUP) {
        cli_error(cli, "This image format does not support checks");
        return STATUS_NO_CHECK;
    }
    if (rc == 0 && (result.leaks_fixed || result.corruptions_fixed))
        rc = check_again(args, image, &result, &err);
    if (rc < 0) {
        cli_error(cli, "Check failed: %s", err.message);
        if (args->repair || !result.check_errors)
            return STATUS_FAILED;
    }
    if (rc == 0 && result.check_errors)
        cli_error(cli, "Check failed");
    if (!args->quiet && args->json)
        print_report(image, &result);
    else if (!args->quiet)
        print_text(&result);
    return status_of(rc, &result);
}

static int run_check(const struct cli *cli, int argc, char **argv)
{
    struct check_args args = { .filename = NULL };
    struct lam_image *image;
    int status = parse_args(cli, argc, argv, &args);

    if (status >= 0)
        return status;
    if (args.repair && args.source.force_share) {
        cli_error(cli, "Could not open '%s': force-share=on can only be used "
                  "with read-only images", args.filename);
        return STATUS_FAILED;
    }
    unsigned flags = LAM_OPEN_CHECK | LAM_OPEN_NO_BACKING |
                     (args.repair ? LAM_OPEN_WRITE : 0);
    if (source_open(cli, args.filename, &args.source, flags, &image) < 0)
        return STATUS_FAILED;
    if (args.repair)
        warn_guessed(image);
    status = check(cli, &args, image);
    lam_image_close(image, NULL);
    return cli_finish(cli, status);
}

const struct command command_check = {
    .name = "check",
    .run = run_check,
    .summary = "Check the metadata of an image",
    .synopsis =
        "[-f FMT | --image-opts] [-T CACHE] [-r leaks|all] [-q] [-U] "
        "[--output human|json] FILENAME",
    .about =
        "Check the metadata of an image, and repair it with -r.",
    .options = option_rows,
    .genuine =
        "help quiet format cache repair output object image-opts "
        "force-share",
    .notes =
        "Backing files are not opened; they may be missing. After repairs "
        "the image is checked again: that result counts.  Where a table "
        "cannot be read, what only it could refer to is not freed.",
    .status =
        "0 nothing wrong; 1 the check could not be completed; 2 corruption; "
        "3 leaked clusters only (space is wasted, data are safe); 63 the "
        "format has nothing to check.",
    .examples =
        "--output=json disk.qcow2\n"
        "-r leaks disk.qcow2\n",
};
