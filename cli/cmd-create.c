/* SPDX-License-Identifier: MIT */
/*
 * cmd-create.c - `create`: a new image, perhaps on top of a backing file.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "settled.h"
#include "source-option.h"

struct create_args {
    const char *format;
    const char *filename;
    const char *size;           /* the positional argument, or NULL */
    uint64_t bytes;             /* the same */
    const char *help;           /* the -o list that asked for help */
    struct keyvals options;     /* -o */
    struct keyvals own;         /* -b and -F */
    bool unchecked, quiet, untrusted;
};

/* "FILENAME: message", as qemu-img reports what has to do with the image. */
static int fail(const struct cli *cli, const struct create_args *args,
                const struct lam_error *err)
{
    cli_error(cli, "%s: %s", args->filename, err->message);
    return -EINVAL;
}

static int fail_text(const struct cli *cli, const struct create_args *args,
                     const char *text)
{
    cli_error(cli, "%s: %s", args->filename, text);
    return -EINVAL;
}

/* ------------------------------------------------------------- command line */

static const struct command_option option_rows[] = {
    { 'f', "format", "FMT",
      "format of the new image: raw (default), qcow2, luks, or another one that "
      "lamella was built with (\"lamella --help\" lists them)", 0 },
    { 'o', "options", "OPTIONS",
      "options of the format, \"key=value,...\"; several -o add up; \"-o "
      "help\" lists them", 0 },
    { 'b', "backing", "FILE",
      "new image shows FILE where it has no data itself; a relative name "
      "counts from the new image's directory", 0 },
    { 'F', "backing-format", "FMT", "format of the backing file", 0 },
    { 'u', "backing-unsafe", NULL, "do not open the backing file", 0 },
    OPTION_QUIET,
    OPTION_OBJECT,
    OPTION_UNTRUSTED,
    OPTION_HELP,
    { 0 },
};

/* An option that adds to the list of -o.  -b and -F win over it whatever the
 * order, so they are kept apart until the end. */
static int take_pair(const struct cli *cli, int key, struct create_args *args)
{
    struct lam_error err = LAM_ERROR_INIT;
    int rc;

    if (key == 'o' && keyvals_ask_help(optarg)) {
        args->help = optarg;
        return -1;
    }
    rc = key == 'o' ? keyvals_parse(&args->options, optarg, &err)
                    : keyvals_set(&args->own, key == 'b' ? "backing_file"
                                                         : "backing_fmt",
                                  optarg, &err);
    if (rc < 0)
        cli_report(cli, &err);
    return rc < 0 ? 1 : -1;
}

/* -1: go on; else the exit status. */
static int take_option(const struct cli *cli, int key, void *opaque)
{
    struct create_args *args = opaque;

    switch (key) {
    case 'q':
        args->quiet = true;
        return -1;
    case 'f':
        args->format = optarg;
        return -1;
    case 'u':
        args->unchecked = true;
        return -1;
    case OPT_UNTRUSTED:
        args->untrusted = true;
        return -1;
    case OPT_OBJECT:
        return take_object(cli, optarg);
    default:
        return take_pair(cli, key, args);
    }
}

static int parse_args(const struct cli *cli, int argc, char **argv,
                      struct create_args *args)
{
    struct lam_error err = LAM_ERROR_INIT;
    int status = command_parse(cli, &command_create, argc, argv, take_option,
                               args);

    if (status >= 0)
        return status;
    if (optind < argc)
        args->filename = argv[optind++];
    if (optind < argc)
        args->size = argv[optind++];
    if (args->help)
        return -1;              /* whatever else there is */
    if (args->size && parse_size_named(args->size, "image size", &args->bytes,
                                       &err) < 0) {
        cli_report(cli, &err);
        return 1;
    }
    if (optind < argc)
        return cli_usage(cli, "Unexpected argument: %s", argv[optind]);
    return -1;
}

/* -------------------------------------------------------- the backing file */

/* A relative path counts from the directory of the new image; what has a
 * protocol ("nbd:", "json:") stands for itself.  NULL: no memory. */
static char *resolve_backing(const char *image, const char *backing)
{
    const char *slash = strrchr(image, '/');
    size_t colon = strcspn(backing, ":/");
    char *path;

    if (!slash || backing[0] == '/' || backing[colon] == ':')
        return strdup(backing);
    if (asprintf(&path, "%.*s%s", (int)(slash + 1 - image), image,
                 backing) < 0)
        return NULL;
    return path;
}

static int open_backing(const struct cli *cli, const struct create_args *args,
                        const char *backing, const char *format,
                        struct lam_image **out)
{
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    char *path = resolve_backing(args->filename, backing);

    if (!path)
        return fail_text(cli, args, "no memory");
    options.format = format;
    /* No passphrase is needed to lie over an encrypted image, and no leave of
     * who writes to it. */
    options.flags = LAM_OPEN_METADATA | LAM_OPEN_CHAIN | LAM_OPEN_FORCE_SHARE |
                    (cli->as_qemu ? 0 : LAM_OPEN_NAME_LAYERS);
    options.keyring = cli->keyring;
    options.throttles = cli->throttles;
    options.policy = args->untrusted ? LAM_POLICY_NONE : LAM_POLICY_TRUST;
    int rc = lam_image_open(path, &options, out, &err);
    if (rc < 0)
        cli_error(cli, "%s: %s%s", args->filename, open_reason(path, &err),
                  cli->as_qemu ? "\nCould not open backing image." : "");
    free(path);
    return rc;
}

/* Its format has been given, and it can be opened; adds its size if none was
 * given. */
static int use_backing(const struct cli *cli, struct create_args *args,
                       const char *backing)
{
    const char *format = keyvals_get(&args->options, "backing_fmt");
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;
    char size[32];

    if (args->unchecked && !format)
        return fail_text(cli, args,
                         "Backing file specified without backing format");
    if (args->unchecked)
        return 0;
    int rc = open_backing(cli, args, backing, format, &image);
    if (rc < 0)
        return rc;
    if (!format) {
        cli_error(cli, "%s: Backing file specified without backing format\n"
                  "Detected format of %s.", args->filename,
                  lam_image_format(image));
        rc = -EINVAL;
    } else if (!keyvals_get(&args->options, "size")) {
        snprintf(size, sizeof size, "%llu",
                 (unsigned long long)lam_image_size(image));
        rc = keyvals_set(&args->options, "size", size, &err);
        if (rc < 0)
            fail(cli, args, &err);
    }
    lam_image_close(image, NULL);
    return rc;
}

static int check_backing(const struct cli *cli, struct create_args *args)
{
    const char *backing = keyvals_get(&args->options, "backing_file");

    if (!backing)
        return 0;
    if (!*backing)
        return fail_text(cli, args,
                         "Expected backing file name, got empty string");
    if (!strcmp(backing, args->filename))
        return fail_text(cli, args, "Error: Trying to create an image with the "
                         "same filename as the backing file");
    return use_backing(cli, args, backing);
}

/* ----------------------------------------------------------------- creating */

/* The options of -o are judged between parsing the size and adding it to
 * them: so does qemu-img, and the first mistake is the one that is told. */
static int add_size(const struct cli *cli, struct create_args *args)
{
    struct lam_error err = LAM_ERROR_INIT;
    char size[32];

    if (create_options_check(args->format, &args->options, &err) < 0)
        return fail(cli, args, &err);
    if (!args->size)
        return 0;
    if (keyvals_get(&args->options, "size"))
        return fail_text(cli, args,
                         "The image size must be specified only once");
    snprintf(size, sizeof size, "%llu", (unsigned long long)args->bytes);
    if (keyvals_set(&args->options, "size", size, &err) < 0)
        return fail(cli, args, &err);
    return 0;
}

/* -b and -F over what -o said, where the format can have a backing file. */
static int add_own_options(const struct cli *cli, struct create_args *args)
{
    const struct keyvals *own = &args->own;
    struct lam_error err = LAM_ERROR_INIT;

    if (own->count && !format_takes_backing(args->format)) {
        cli_error(cli, "%s: Backing %s not supported for file format '%s'",
                  args->filename,
                  keyvals_get(own, "backing_file") ? "file" : "file format",
                  args->format);
        return -EINVAL;
    }
    for (size_t i = 0; i < own->count; i++) {
        if (keyvals_set(&args->options, own->items[i].key, own->items[i].value,
                        &err) < 0)
            return fail(cli, args, &err);
    }
    return 0;
}

static int create(const struct cli *cli, struct create_args *args)
{
    struct lam_create_options options = LAM_CREATE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    if (!args->quiet) {
        create_options_print(stdout, args->filename, args->format,
                             &args->options);
        fflush(stdout);
    }
    options.format = args->format;
    options.encryption.keyring = cli->keyring;
    options.backing_unchecked = args->unchecked;
    options.policy = args->untrusted ? LAM_POLICY_NONE : LAM_POLICY_TRUST;
    int rc = create_options_apply(args->format, &args->options, &options, &err);
    /* The other formats have always let it pass. */
    if (rc == 0 && options.backing_format && !options.backing_file &&
        !strcmp(args->format, "qcow2"))
        rc = option_fail(&err, EINVAL,
                         "Backing format cannot be used without backing file");
    if (rc == 0)
        rc = lam_image_create(args->filename, &options, &err);
    if (rc < 0)
        fail(cli, args, &err);
    else if (options.backing_file)
        settled_note_path(args->filename);
    return rc;
}

static int run(const struct cli *cli, struct create_args *args)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (create_format_check(args->format, &err) < 0) {
        fail(cli, args, &err);
        return 1;
    }
    if (lam_image_create_check(args->filename, &err) < 0) {
        fail(cli, args, &err);
        return 1;
    }
    if (add_size(cli, args) < 0 || add_own_options(cli, args) < 0 ||
        check_backing(cli, args) < 0)
        return 1;
    if (!keyvals_get(&args->options, "size")) {
        fail_text(cli, args, "Image creation needs a size parameter");
        return 1;
    }
    if (create(cli, args) < 0)
        return 1;
    return cli_finish_change(cli, 0);
}

static int run_create(const struct cli *cli, int argc, char **argv)
{
    struct create_args args = { .format = "raw" };
    struct lam_error err = LAM_ERROR_INIT;
    int status = parse_args(cli, argc, argv, &args);

    if (status < 0 && args.help &&
        create_options_help(stdout, args.format, args.filename, &err) < 0) {
        cli_report(cli, &err);
        status = 1;
    } else if (status < 0 && args.help) {
        status = cli_finish(cli, 0);
    } else if (status < 0 && !args.filename) {
        status = cli_usage(cli, "Expecting image file name");
    } else if (status < 0) {
        status = run(cli, &args);
    }
    keyvals_deinit(&args.options);
    keyvals_deinit(&args.own);
    return status;
}

const struct command command_create = {
    .name = "create",
    .run = run_create,
    .summary = "Create and format a new image file",
    .synopsis =
        "[-f FMT] [-o OPTIONS] [-b BACKING_FILE [-F BACKING_FMT]] [-u] [-q] "
        "FILENAME [SIZE]",
    .options = option_rows,
    .genuine =
        "help quiet object format backing backing-format backing-unsafe "
        "options",
    .notes =
        "FILENAME is replaced if it exists.  SIZE is in bytes, or with a "
        "suffix (k M G T P E, powers of 1024); with -b its default is the "
        "size of the backing file.",
    .examples =
        "-f qcow2 disk.qcow2 20G\n"
        "-f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2\n",
};
