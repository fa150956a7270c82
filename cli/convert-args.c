/* SPDX-License-Identifier: MIT */
/*
 * convert-args.c - the command line of `convert`.
 */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "convert-args.h"
#include "source-option.h"

/* The largest -S, as in qemu-img. */
#define SPARSE_MAX UINT64_C(16777216)

enum {
    OPT_TARGET_IMAGE_OPTS = OPT_OWN, OPT_TARGET_IS_ZERO, OPT_SALVAGE,
    OPT_BITMAPS, OPT_SKIP_BROKEN, OPT_NO_SYNC, OPT_STRICT_CACHE, OPT_EXPLAIN,
    OPT_DIGEST, OPT_VERIFY, OPT_FORCE, OPT_RESUME,
};

const struct command_option convert_options[] = {
    { 0, NULL, NULL, "Source", 0 },
    { 'f', "source-format", "FMT",
      "format of the source (default: look at it)", 0 },
    OPTION_IMAGE_OPTS,
    { OPT_IMAGE_OPTS, "source-image-opts", NULL, NULL, 0 },
    { 'l', "source-snapshot", "SNAPSHOT",
      "read the internal snapshot with this name or id, or "
      "snapshot.name=NAME, snapshot.id=ID", OPTION_EXTRA },
    { 'l', "snapshot", "SNAPSHOT", NULL, 0 },
    { 'T', "source-cache", "CACHE", "cache mode (default: writeback)", 0 },
    OPTION_SHARE,
    { OPT_SALVAGE, "salvage", NULL,
      "what cannot be read becomes zeroes, and is listed", 0 },
    OPTION_OBJECT,
    OPTION_UNTRUSTED,
    { 0, NULL, NULL, "Target", 0 },
    { 'O', "target-format",
      "FMT", "format of the target (default: raw)", OPTION_EXTRA },
    { 'O', "output-format", "FMT", NULL, 0 },
    { 'o', "target-options", "OPTIONS",
      "options of the format; \"-o help\" lists them", OPTION_EXTRA },
    { 'o', "options", "OPTIONS", NULL, 0 },
    { 'n', "no-create", NULL,
      "write into TARGET, which exists and is large enough", OPTION_EXTRA },
    { OPT_TARGET_IMAGE_OPTS, "target-image-opts", NULL,
      "TARGET is \"key=value,...\" (needs -n)", 0 },
    { 't', "target-cache", "CACHE",
      "none, writeback (default), writethrough, directsync or "
      "unsafe", OPTION_EXTRA },
    { 't', "output-cache", "CACHE", NULL, 0 },
    { 'B', "backing", "FILE",
      "store only what FILE, of the same contents as the source's backing "
      "file, has not", 0 },
    { 'F', "backing-format", "FMT", "format of FILE", 0 },
    { 'c', "compress", NULL, "compress (qcow2)", OPTION_EXTRA },
    { OPT_BITMAPS, "bitmaps", NULL,
      "copy the persistent dirty bitmaps too", 0 },
    { OPT_SKIP_BROKEN, "skip-broken-bitmaps", NULL,
      "... but for those left in use", 0 },
    { OPT_NO_SYNC, "no-sync", NULL,
      "do not wait until the target is on disk", OPTION_EXTRA },
    { 0, NULL, NULL, "Zeroes", 0 },
    { 'S', "sparse-size", "SIZE",
      "zeroes are left out in blocks of SIZE, others are data (default: 4k); "
      "0: everything is allocated", 0 },
    { OPT_TARGET_IS_ZERO, "target-is-zero", NULL,
      "TARGET reads as zeroes: clear nothing (needs -n)", 0 },
    { OPT_STRICT_CACHE, "strict-cache", NULL,
      "on a block device without O_DIRECT, write zeroes rather than "
      "discard", OPTION_EXTRA },
    { OPT_EXPLAIN, "explain", NULL,
      "print what the target can do, what zeroes cost and why; copy "
      "nothing", OPTION_EXTRA },
    { 0, NULL, NULL, "Other", 0 },
    { OPT_DIGEST, "digest", "DIGEST",
      "print a digest of the guest's bytes: sha256, sha512, blake3, ... "
      "(\"help\" lists them), equal to that of the raw image.  Every hole is "
      "hashed as zeroes, a terabyte in some minutes.  DIGEST-tree is the "
      "digest of the digests of all 1 MiB blocks: parallel, and holes are "
      "free", OPTION_EXTRA },
    { OPT_FORCE, "force", NULL,
      "write to a TARGET that is mounted or otherwise in use by this "
      "machine", OPTION_EXTRA },
    { OPT_VERIFY, "verify", NULL,
      "read the target back, from the disk where the system allows it, and "
      "compare", OPTION_EXTRA },
    { OPT_RESUME, "resume", "FILE",
      "keep a journal in FILE: after whatever ended the command, the same "
      "one goes on with a raw TARGET where it is known to be on disk.  FILE "
      "is removed after a success", OPTION_EXTRA },
    { 'm', "parallel", "N", "requests in flight, 1 to 16 (default: 8)", 0 },
    { 'r', "rate", "RATE", "copy at most RATE bytes of data a second", 0 },
    { 'p', "progress", "json",
      "show progress, and at the end what was done; with =json as JSON, one "
      "object a line", OPTION_MAYBE | OPTION_EXTRA },
    OPTION_QUIET,
    { 'W', "oob-writes", NULL,
      "lay out an image's clusters in the order in which writes come; "
      "otherwise in that of the guest, the same at each run", 0 },
    { 'C', "copy-range-offloading", NULL,
      "let the host copy what it can without us: shared blocks inside one "
      "file system; zeroes in data are not looked for", 0 },
    OPTION_HELP,
    { 0 },
};

/* What is only needed until the options have been judged. */
struct seen {
    struct convert_args *args;
    const char *format;         /* -O */
    bool sparse;
};

/* ----------------------------------------------------------- single options */

/* A size of any kind; @what names it. */
static int take_bytes(const struct cli *cli, const char *text,
                      const char *what, uint64_t *bytes)
{
    int rc = parse_size(text, bytes, NULL);

    if (rc == -ERANGE)
        cli_error(cli, "Invalid %s specified. Must be between 0 and %" PRId64
                  ".", what, INT64_MAX);
    else if (rc < 0)
        cli_error(cli, "Invalid %s specified: '%s'.", what, text);
    return rc;
}

static int take_sparse(const struct cli *cli, const char *text, uint64_t *size)
{
    if (take_bytes(cli, text, "buffer size for sparse output", size) < 0)
        return -EINVAL;
    if (*size % 512 == 0 && *size <= SPARSE_MAX)
        return 0;
    cli_error(cli, "Invalid buffer size for sparse output specified. Valid "
              "sizes are multiples of 512 up to %" PRIu64 ". Select 0 to "
              "disable sparse detection (fully allocates output).",
              SPARSE_MAX);
    return -EINVAL;
}

static int take_requests(const struct cli *cli, const char *text,
                         unsigned *requests)
{
    char *end;

    errno = 0;
    long n = strtol(text, &end, 0);
    if (end == text || *end) {
        cli_error(cli, "Invalid number of coroutines specified: '%s'.", text);
        return -EINVAL;
    }
    if (errno || n < 1 || n > 16) {
        cli_error(cli, "Invalid number of coroutines specified. Must be "
                  "between 1 and 16.");
        return -EINVAL;
    }
    *requests = (unsigned)n;
    return 0;
}

/* The target is the last thing that anything is said about. */
static void take_cache(const char *text, struct convert_args *args)
{
    args->bad_cache = NULL;
    if (lam_cache_mode_parse(text, &args->cache, NULL) < 0)
        args->bad_cache = text;
}

static int take_create(const struct cli *cli, const char *text,
                       struct convert_args *args)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (keyvals_ask_help(text)) {
        args->help = text;
        return 0;
    }
    if (keyvals_parse(&args->create, text, &err) == 0)
        return 0;
    cli_report(cli, &err);
    return -EINVAL;
}

/* -p, --progress and --progress=json. */
static int take_progress(const struct cli *cli, const char *text,
                         struct convert_args *args)
{
    args->progress = true;
    if (!text)
        return 0;
    if (strcmp(text, "json")) {
        cli_error(cli, "--progress: unknown form '%s'; there is json", text);
        return -EINVAL;
    }
    args->progress_json = true;
    return 0;
}

/* ------------------------------------------------------------ all options */

/* Options that only set something. */
static bool take_switch(int c, struct convert_args *args)
{
    const struct { int c; bool *to; } switches[] = {
        { 'c', &args->compress },
        { 'n', &args->no_create },
        { 'q', &args->quiet },
        { 'C', &args->offload },
        { OPT_TARGET_IMAGE_OPTS, &args->target_image_opts },
        { OPT_TARGET_IS_ZERO, &args->target_is_zero },
        { OPT_SALVAGE, &args->salvage },
        { OPT_VERIFY, &args->verify },
        { OPT_FORCE, &args->force },
        { OPT_BITMAPS, &args->bitmaps },
        { OPT_SKIP_BROKEN, &args->skip_broken_bitmaps },
        { OPT_NO_SYNC, &args->no_sync },
        { OPT_STRICT_CACHE, &args->strict_cache },
        { OPT_EXPLAIN, &args->explain },
        { 'W', &args->out_of_order },
    };
    for (size_t i = 0; i < sizeof switches / sizeof switches[0]; i++) {
        if (switches[i].c != c)
            continue;
        *switches[i].to = true;
        return true;
    }
    return false;
}

static int take_value(const struct cli *cli, int c, struct seen *seen)
{
    struct convert_args *args = seen->args;

    switch (c) {
    case 'T':
        args->source.cache = optarg;
        return 0;
    case 'O':
        seen->format = optarg;
        return 0;
    case 'B':
        args->backing_file = optarg;
        return 0;
    case 'F':
        args->backing_format = optarg;
        return 0;
    case 'l':
        return snapshot_option(cli, optarg, &args->snapshot_options,
                               &args->snapshot);
    case 'o':
        return take_create(cli, optarg, args);
    case 't':
        take_cache(optarg, args);
        return 0;
    case 'S':
        seen->sparse = true;
        return take_sparse(cli, optarg, &args->sparse_size);
    case 'm':
        return take_requests(cli, optarg, &args->requests);
    case 'r':
        return take_bytes(cli, optarg, "rate limit", &args->rate);
    case 'p':
        return take_progress(cli, optarg, args);
    case OPT_DIGEST:
        args->digest = optarg;
        return 0;
    case OPT_RESUME:
        args->journal = optarg;
        return 0;
    default:
        return source_option(cli, c, &args->source) < 0 ? 0 : -EINVAL;
    }
}

static int take_option(const struct cli *cli, int c, void *opaque)
{
    struct seen *seen = opaque;

    if (c == OPT_OBJECT)
        return take_object(cli, optarg);
    return take_switch(c, seen->args) || take_value(cli, c, seen) == 0 ? -1 : 1;
}

/* ------------------------------------------------------------ judging them */

/* What contradicts itself: the message, or NULL. */
static const char *contradiction(const struct convert_args *args,
                                 const struct seen *seen)
{
    if (args->skip_broken_bitmaps && !args->bitmaps)
        return "Use of --skip-broken-bitmaps requires --bitmaps";
    if (args->target_image_opts && !args->no_create)
        return "--target-image-opts requires use of -n flag";
    if (args->target_is_zero && !args->no_create)
        return "--target-is-zero requires use of -n flag";
    if (args->offload && args->compress)
        return "Cannot enable copy offloading when -c is used";
    if (args->offload && seen->sparse)
        return "Cannot enable copy offloading when -S is used";
    if (args->offload && args->salvage)
        return "Cannot use copy offloading in salvaging mode";
    if (args->no_create && (args->create.count || args->help))
        return "-o has no effect when skipping image creation";
    if (args->help)
        return NULL;
    if ((args->source.image_opts && args->source.format) ||
        (args->target_image_opts && seen->format))
        return "--image-opts and --format are mutually exclusive";
    if (args->journal && (args->compress || args->bitmaps || !args->format ||
                          strcmp(args->format, "raw")))
        return "--resume needs a raw target (-O raw)";
    if (args->journal && args->digest)
        return "--resume cannot be used with --digest, which needs all bytes "
               "in one go";
    if (args->journal && (args->no_sync || args->cache == LAM_CACHE_UNSAFE))
        return "--resume cannot be used with a target that is never flushed "
               "(--no-sync, -t unsafe)";
    return NULL;
}

static int print_create_help(const struct cli *cli,
                             const struct convert_args *args)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (create_options_help(stdout, args->format,
                            args->nb_sources ? args->target : NULL,
                            &err) == 0)
        return cli_finish(cli, 0);
    cli_report(cli, &err);
    return 1;
}

static int judge(const struct cli *cli, struct convert_args *args,
                 const struct seen *seen)
{
    const char *wrong = contradiction(args, seen);

    if (!wrong && args->nb_sources == 0 && !args->help)
        wrong = "Must specify image file name";
    if (wrong) {
        cli_error(cli, "%s", wrong);
        return 1;
    }
    if (args->help)
        return print_create_help(cli, args);
    return source_cache_check(cli, &args->source) < 0 ? 1 : -1;
}

static int judge_digest(const struct cli *cli, const char *name)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (!strcmp(name, "help")) {
        for (size_t i = 0; lam_digest_name(i); i++)
            puts(lam_digest_name(i));
        return cli_finish(cli, 0);
    }
    if (lam_digest_check(name, &err) == 0)
        return -1;
    cli_error(cli, "--digest: %s", err.message);
    return 1;
}

int convert_args_parse(const struct cli *cli, int argc, char **argv,
                       struct convert_args *args)
{
    struct seen seen = { .args = args };

    *args = (struct convert_args){ .sparse_size = 4096 };
    args->cache = LAM_CACHE_WRITEBACK;
    int status = command_parse(cli, &command_convert, argc, argv, take_option,
                               &seen);
    if (status >= 0)
        return status;
    args->format = seen.format ? seen.format
                               : args->target_image_opts ? NULL : "raw";
    if (optind < argc)
        args->target = argv[argc - 1];
    if (optind + 1 < argc) {
        args->sources = argv + optind;
        args->nb_sources = (size_t)(argc - optind - 1);
    }
    if (args->quiet)
        args->progress = args->progress_json = false;
    if (args->digest) {
        status = judge_digest(cli, args->digest);
        if (status >= 0)
            return status;
    }
    status = judge(cli, args, &seen);
    args->resuming = args->journal && access(args->journal, F_OK) == 0;
    args->no_create |= args->resuming;
    return status;
}

void convert_args_deinit(struct convert_args *args)
{
    keyvals_deinit(&args->snapshot_options);
    keyvals_deinit(&args->create);
}
