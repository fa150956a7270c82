/* SPDX-License-Identifier: MIT */
/*
 * convert-args.c - the command line of `convert`.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "convert-args.h"

static const char synopsis[] =
    "convert [-f FMT | --image-opts] [-T CACHE] [-U] [-l SNAPSHOT]\n"
    "        [-O FMT | --target-image-opts] [-o OPTIONS] [-t CACHE] [-n]\n"
    "        [-B FILE [-F FMT]] [-c] [-S SIZE] [-m N] [-r RATE] [-p] [-q]\n"
    "        [--salvage] [--digest NAME] [--verify] ...\n"
    "        SOURCE [SOURCE ...] TARGET";

static const char help[] =
    "Copy the guest contents of SOURCE (several: one after another) to TARGET.\n"
    "What is known to be zero is not read, and is given as little space as the\n"
    "target allows.  Exit status 0 means that the target is on disk.\n\n"
    "Source:\n"
    "  -f, --source-format FMT    format of the source (default: look at it)\n"
    "      --image-opts           SOURCE is \"key=value,...\", not a name\n"
    "  -l, --source-snapshot S    read the internal snapshot with this name or\n"
    "                             id, or snapshot.name=NAME, snapshot.id=ID\n"
    "  -T, --source-cache CACHE   cache mode (default: writeback)\n"
    "  -U, --force-share          do not lock the source\n"
    "      --salvage              what cannot be read becomes zeroes, and is\n"
    "                             listed\n"
    "      --untrusted            open no file that a header names\n\n"
    "Target:\n"
    "  -O, --target-format FMT    raw (default), qcow2 or luks\n"
    "  -o, --target-options OPTS  options of the format; \"-o help\" lists them\n"
    "  -n, --no-create            write into TARGET, which exists and is large\n"
    "                             enough\n"
    "      --target-image-opts    TARGET is \"key=value,...\" (needs -n)\n"
    "  -t, --target-cache CACHE   none, writeback (default), writethrough,\n"
    "                             directsync or unsafe\n"
    "  -B, --backing FILE         store only what FILE, of the same contents as\n"
    "                             the source's backing file, has not\n"
    "  -F, --backing-format FMT   format of FILE\n"
    "  -c, --compress             compress (qcow2)\n"
    "      --bitmaps              copy the persistent dirty bitmaps too\n"
    "      --skip-broken-bitmaps  ... but for those left in use\n"
    "      --no-sync              do not wait until the target is on disk\n\n"
    "Zeroes:\n"
    "  -S, --sparse-size SIZE     runs of zeroes shorter than SIZE are written\n"
    "                             as data (default: 4k); 0: everything is\n"
    "                             allocated\n"
    "      --target-is-zero       TARGET reads as zeroes: clear nothing (needs\n"
    "                             -n)\n"
    "      --strict-cache         on a block device without O_DIRECT, write\n"
    "                             zeroes rather than discard\n"
    "      --explain              print what the target can do, what zeroes\n"
    "                             cost and why; copy nothing\n\n"
    "Other:\n"
    "      --digest NAME          print a digest of the guest's bytes: sha256,\n"
    "                             sha512, blake2b512, ... (\"help\" lists them),\n"
    "                             equal to that of the raw image.  Every hole is\n"
    "                             hashed as zeroes, a terabyte in some minutes.\n"
    "                             NAME-tree is the digest of the digests of all\n"
    "                             1 MiB blocks: parallel, and holes are free\n"
    "      --force                write to a TARGET that is mounted or otherwise\n"
    "                             in use by this machine\n"
    "      --verify               read the target back, from the disk where the\n"
    "                             system allows it, and compare\n"
    "      --resume FILE          keep a journal in FILE: after whatever ended\n"
    "                             the command, the same one goes on with a raw\n"
    "                             TARGET where it is known to be on disk.  FILE is\n"
    "                             removed after a success\n"
    "  -m, --parallel N           requests in flight, 1 to 16 (default: 8)\n"
    "  -r, --rate RATE            copy at most RATE bytes of data a second\n"
    "  -p, --progress             show progress, and at the end what was done\n"
    "      --progress=json        the same as JSON, one object a line\n"
    "  -q, --quiet                print nothing but errors\n"
    "  -W, --oob-writes           accepted; writes are never held back\n"
    "  -C, --copy-range-offloading  let the host copy what it can without us:\n"
    "                             shared blocks inside one file system; zeroes in\n"
    "                             data are not looked for\n"
    "  -h, --help                 print this help\n\n"
    "TARGET may be a block device (with -n), a FIFO, /dev/stdout, or - for\n"
    "standard output (raw only; called as qemu-img, - is a file).  A target\n"
    "that this command created is removed if it fails.\n\n"
    "Examples:\n"
    "  convert -n -t none -O raw overlay.qcow2 /dev/vg/volume\n"
    "  convert -c -O qcow2 -o compression_type=zstd disk.raw disk.qcow2\n"
    "  convert --explain -n -t none overlay.qcow2 /dev/vg/volume\n";

/* The largest -S, as in qemu-img. */
#define SPARSE_MAX UINT64_C(16777216)

enum {
    OPT_IMAGE_OPTS = 256, OPT_TARGET_IMAGE_OPTS, OPT_OBJECT,
    OPT_TARGET_IS_ZERO, OPT_SALVAGE, OPT_BITMAPS, OPT_SKIP_BROKEN,
    OPT_NO_SYNC, OPT_STRICT_CACHE, OPT_EXPLAIN, OPT_UNTRUSTED,
    OPT_DIGEST, OPT_VERIFY, OPT_FORCE, OPT_RESUME,
};

static const struct option long_options[] = {
    { "help", no_argument, NULL, 'h' },
    { "quiet", no_argument, NULL, 'q' },
    { "progress", optional_argument, NULL, 'p' },
    { "source-format", required_argument, NULL, 'f' },
    { "source-image-opts", no_argument, NULL, OPT_IMAGE_OPTS },
    { "image-opts", no_argument, NULL, OPT_IMAGE_OPTS },
    { "source-snapshot", required_argument, NULL, 'l' },
    { "source-cache", required_argument, NULL, 'T' },
    { "target-format", required_argument, NULL, 'O' },
    { "target-image-opts", no_argument, NULL, OPT_TARGET_IMAGE_OPTS },
    { "target-options", required_argument, NULL, 'o' },
    { "compress", no_argument, NULL, 'c' },
    { "target-cache", required_argument, NULL, 't' },
    { "backing", required_argument, NULL, 'B' },
    { "backing-format", required_argument, NULL, 'F' },
    { "no-create", no_argument, NULL, 'n' },
    { "target-is-zero", no_argument, NULL, OPT_TARGET_IS_ZERO },
    { "sparse-size", required_argument, NULL, 'S' },
    { "bitmaps", no_argument, NULL, OPT_BITMAPS },
    { "skip-broken-bitmaps", no_argument, NULL, OPT_SKIP_BROKEN },
    { "force-share", no_argument, NULL, 'U' },
    { "rate", required_argument, NULL, 'r' },
    { "parallel", required_argument, NULL, 'm' },
    { "copy-range-offloading", no_argument, NULL, 'C' },
    { "salvage", no_argument, NULL, OPT_SALVAGE },
    { "oob-writes", no_argument, NULL, 'W' },
    { "object", required_argument, NULL, OPT_OBJECT },
    { "no-sync", no_argument, NULL, OPT_NO_SYNC },
    { "strict-cache", no_argument, NULL, OPT_STRICT_CACHE },
    { "explain", no_argument, NULL, OPT_EXPLAIN },
    { "untrusted", no_argument, NULL, OPT_UNTRUSTED },
    { "digest", required_argument, NULL, OPT_DIGEST },
    { "verify", no_argument, NULL, OPT_VERIFY },
    { "force", no_argument, NULL, OPT_FORCE },
    { "resume", required_argument, NULL, OPT_RESUME },
    { NULL, 0, NULL, 0 },
};

/* What is only needed until the options have been judged. */
struct seen {
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

static int take_cache(const struct cli *cli, const char *text,
                      struct convert_args *args)
{
    if (lam_cache_mode_parse(text, &args->cache, NULL) == 0)
        return 0;
    cli_error(cli, "Invalid cache option: %s", text);
    return -EINVAL;
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

static int take_object(const struct cli *cli, const char *text)
{
    struct lam_error err = LAM_ERROR_INIT;

    int rc = object_option(cli, text, &err);
    if (rc < 0)
        cli_report(cli, &err);
    return rc;
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
        { 'U', &args->source.force_share },
        { 'C', &args->offload },
        { OPT_IMAGE_OPTS, &args->source.image_opts },
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
        { OPT_UNTRUSTED, &args->source.untrusted },
    };
    for (size_t i = 0; i < sizeof switches / sizeof switches[0]; i++) {
        if (switches[i].c != c)
            continue;
        *switches[i].to = true;
        return true;
    }
    return c == 'W';
}

static int take_value(const struct cli *cli, int c, struct convert_args *args,
                      struct seen *seen)
{
    switch (c) {
    case 'f':
        args->source.format = optarg;
        return 0;
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
        return take_cache(cli, optarg, args);
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
        return take_object(cli, optarg);
    }
}

static int take_options(const struct cli *cli, int argc, char **argv,
                        struct convert_args *args, struct seen *seen)
{
    int c;

    while ((c = getopt_long(argc, argv, "hf:O:B:F:co:l:S:pt:T:qnm:WUCr:",
                            long_options, NULL)) != -1) {
        if (c == 'h')
            return cli_help(cli, synopsis, help);
        if (c == '?')
            return cli_try_help(cli);
        if (!take_switch(c, args) && take_value(cli, c, args, seen) < 0)
            return 1;
    }
    return -1;
}

/* ------------------------------------------------------------ judging them */

/* What contradicts itself: the message, or NULL. */
static const char *contradiction(const struct convert_args *args,
                                 const struct seen *seen)
{
    if (args->skip_broken_bitmaps && !args->bitmaps)
        return "Use of --skip-broken-bitmaps requires --bitmaps";
    if ((args->source.image_opts && args->source.format) ||
        (args->target_image_opts && seen->format))
        return "--image-opts and --format are mutually exclusive";
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
    if (args->snapshot && args->nb_sources > 1)
        return "No support for concatenating multiple snapshot";
    if (args->journal && (args->compress || args->bitmaps || !args->format ||
                          strcmp(args->format, "raw")))
        return "--resume needs a raw target (-O raw)";
    if (args->journal && args->digest)
        return "--resume cannot be used with --digest, which needs all bytes "
               "in one go";
    if (args->journal && (args->no_sync || args->cache == LAM_CACHE_UNSAFE))
        return "--resume cannot be used with a target that is never flushed "
               "(--no-sync, -t unsafe)";
    if (args->no_create && args->create.count)
        return "-o has no effect when skipping image creation";
    return NULL;
}

static int judge(const struct cli *cli, struct convert_args *args,
                 const struct seen *seen)
{
    const char *wrong = contradiction(args, seen);

    if (!wrong && args->nb_sources == 0)
        wrong = "Must specify image file name";
    if (wrong) {
        cli_error(cli, "%s", wrong);
        return 1;
    }
    return -1;
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

static int print_create_help(const struct cli *cli,
                             const struct convert_args *args)
{
    if (!create_format_known(args->format)) {
        cli_error(cli, "Unknown file format '%s'", args->format);
        return 1;
    }
    create_options_help(stdout, args->format, args->target != NULL);
    return cli_finish(cli, 0);
}

int convert_args_parse(const struct cli *cli, int argc, char **argv,
                       struct convert_args *args)
{
    struct seen seen = { 0 };

    *args = (struct convert_args){ .sparse_size = 4096 };
    args->cache = LAM_CACHE_WRITEBACK;
    int status = take_options(cli, argc, argv, args, &seen);
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
    if (args->help && args->format)
        return print_create_help(cli, args);
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
