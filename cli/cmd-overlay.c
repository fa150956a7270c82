/* SPDX-License-Identifier: MIT */
/*
 * cmd-overlay.c - `overlay`: an external snapshot in one step.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "interrupt.h"
#include "layers.h"
#include "print.h"
#include "settled.h"
#include "source-option.h"

struct overlay_args {
    struct source_options source;
    struct keyvals options;
    const char *image, *overlay, *backing_format;
    bool read_only, force, quiet;
};

enum { OPT_READ_ONLY = OPT_OWN, OPT_FORCE };

static const struct command_option option_rows[] = {
    SOURCE_OPTIONS,
    { 'F', "backing-format", "FMT",
      "the same as -f: IMAGE is what create calls the backing file", 0 },
    { 'o', "options", "LIST",
      "of the overlay: cluster_size, lazy_refcounts, extended_l2, "
      "encrypt.*", 0 },
    { OPT_READ_ONLY, "read-only", NULL,
      "take write permission from IMAGE's file", 0 },
    { OPT_FORCE, "force", NULL, "replace a file OVERLAY that is there", 0 },
    OPTION_QUIET,
    OPTION_HELP,
    { 0 },
};

/* ------------------------------------------------------------- command line */

static int take_options(const struct cli *cli, struct keyvals *kv)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (keyvals_parse(kv, optarg, &err) == 0)
        return -1;
    cli_report(cli, &err);
    return 1;
}

/* -1: go on; else the exit status. */
static int take_option(const struct cli *cli, int c, void *opaque)
{
    struct overlay_args *args = opaque;

    switch (c) {
    case 'F':
        args->backing_format = optarg;
        return -1;
    case 'o':
        return take_options(cli, &args->options);
    case OPT_READ_ONLY:
        args->read_only = true;
        return -1;
    case OPT_FORCE:
        args->force = true;
        return -1;
    case 'q':
        args->quiet = true;
        return -1;
    default:
        return source_option(cli, c, &args->source);
    }
}

/* -f and -F say the same.  -1: go on; else the exit status. */
static int join_formats(const struct cli *cli, struct overlay_args *args)
{
    const char *format = args->source.format, *other = args->backing_format;

    if (format && other && strcmp(format, other)) {
        cli_error(cli, "'%s' cannot be both '%s' (-f) and '%s' (-F)",
                  args->image, format, other);
        return 1;
    }
    if (other)
        args->source.format = other;
    return source_options_check(cli, &args->source);
}

static int parse_args(const struct cli *cli, int argc, char **argv,
                      struct overlay_args *args)
{
    int status = command_parse(cli, &command_overlay, argc, argv, take_option,
                               args);

    if (status >= 0)
        return status;
    if (optind != argc - 2)
        return cli_usage(cli, "Expecting the names of an image and of its new "
                         "overlay");
    args->image = argv[optind];
    args->overlay = argv[optind + 1];
    return join_formats(cli, args);
}

/* ------------------------------------------------------------------ options */

/* What IMAGE decides, or makes no sense for an overlay. */
static int check_keys(const struct cli *cli, const struct keyvals *kv)
{
    static const char *const known[] = {
        "cluster_size", "lazy_refcounts", "extended_l2",
    };

    for (size_t i = 0; i < kv->count; i++) {
        const char *key = kv->items[i].key;
        bool found = !strncmp(key, "encrypt.", 8);

        for (size_t k = 0; k < sizeof known / sizeof known[0]; k++)
            found |= !strcmp(key, known[k]);
        if (found)
            continue;
        cli_error(cli, "Option '%s' cannot be given for an overlay", key);
        return -EINVAL;
    }
    return 0;
}

static int make_options(const struct cli *cli, struct overlay_args *args,
                        struct lam_overlay_options *o)
{
    struct lam_create_options create = LAM_CREATE_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    int rc = check_keys(cli, &args->options);

    if (rc < 0)
        return rc;
    create.encryption.keyring = cli->keyring;
    rc = create_options_apply("qcow2", &args->options, &create, &err);
    if (rc < 0) {
        cli_report(cli, &err);
        return rc;
    }
    o->cluster_size = create.cluster_size;
    o->lazy_refcounts = create.lazy_refcounts;
    o->extended_l2 = create.extended_l2;
    o->encryption = create.encryption;
    return 0;
}

/* ----------------------------------------------------------------- the deed */

/* On disk, or not done. */
static int take_permission(int fd, mode_t mode)
{
    const mode_t write = S_IWUSR | S_IWGRP | S_IWOTH;

    if ((mode & write) && fchmod(fd, mode & ~write) < 0)
        return -errno;
    if (fsync(fd) == 0)
        return 0;
    int rc = -errno;
    fchmod(fd, mode);
    return rc;
}

/*
 * Comes before the overlay: while there is one, nobody writes below it, not
 * after a power cut either.  Killed between the two, the command leaves a file
 * without write permission and no overlay; asked again, it makes it.
 * *@mode is what the file had.  One that nobody may change anyway, immutable
 * or on a file system that is mounted read-only, is left as it is.
 */
static int make_read_only(const struct cli *cli, const char *path, mode_t *mode)
{
    struct stat st;

    if (stat(path, &st) < 0 || !S_ISREG(st.st_mode)) {
        cli_error(cli, "Could not make '%s' read-only: not a regular file",
                  path);
        return -EINVAL;
    }
    *mode = st.st_mode & 07777;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int rc = fd < 0 ? -errno : take_permission(fd, *mode);
    if (fd >= 0)
        close(fd);
    if (rc < 0 && access(path, W_OK) < 0 && (errno == EROFS || errno == EPERM))
        return 0;
    if (rc < 0)
        cli_error(cli, "Could not make '%s' read-only: %s", path,
                  strerror(-rc));
    return rc;
}

static int create(const struct cli *cli, const struct overlay_args *args,
                  const struct lam_overlay_options *options,
                  struct lam_image *image)
{
    struct lam_error err = LAM_ERROR_INIT;
    int rc = lam_image_overlay_create(image, args->overlay, args->force,
                                      options, &err);

    if (rc < 0)
        cli_report(cli, &err);
    return rc;
}

static int create_over_read_only(const struct cli *cli,
                                 const struct overlay_args *args,
                                 const struct lam_overlay_options *options,
                                 struct lam_image *image)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image_info *info;
    mode_t mode;
    int rc = lam_image_info(image, &info, &err);

    if (rc < 0) {
        cli_report(cli, &err);
        return rc;
    }
    rc = make_read_only(cli, info->filename, &mode);
    if (rc == 0) {
        rc = create(cli, args, options, image);
        if (rc < 0)
            chmod(info->filename, mode);
    }
    lam_image_info_free(info);
    return rc;
}

static int make_overlay(const struct cli *cli, const struct overlay_args *args,
                        const struct lam_overlay_options *options,
                        struct lam_image *image)
{
    struct notices notices = NOTICES_INIT;
    char size[32];

    /* A signal finds no half of an overlay: that takes moments, and is brought
     * to its end.  The second one ends the command. */
    interrupt_catch();
    int rc = args->read_only
        ? create_over_read_only(cli, args, options, image)
        : create(cli, args, options, image);

    if (rc < 0)
        return rc;
    settled_note_path(args->overlay);
    layers_note_changed(&notices, image, LAM_DEPTH_ALL);
    notices_tell(cli, &notices);
    if (!args->quiet)
        printf("Overlay '%s' of '%s' (%s, %s) made.\n", args->overlay,
               args->image, lam_image_format(image),
               human_size(lam_image_size(image), size));
    return 0;
}

static int run_overlay(const struct cli *cli, int argc, char **argv)
{
    struct overlay_args args = { .image = NULL };
    struct lam_overlay_options options = LAM_OVERLAY_OPTIONS_INIT;
    struct lam_image *image;
    int status = parse_args(cli, argc, argv, &args);

    if (status < 0) {
        int rc = make_options(cli, &args, &options);

        if (rc == 0)
            rc = source_open(cli, args.image, &args.source, 0, &image);
        if (rc == 0) {
            warn_guessed(image);
            rc = make_overlay(cli, &args, &options, image);
            lam_image_close(image, NULL);
        }
        status = cli_finish(cli, rc < 0);
    }
    keyvals_deinit(&args.options);
    return status;
}

const struct command command_overlay = {
    .name = "overlay",
    .run = run_overlay,
    .summary = "Freeze an image: go on in a new overlay",
    .synopsis =
        "[-f FMT | -F FMT | --image-opts] [-o OPTIONS] [--read-only] "
        "[--force] [-q] IMAGE OVERLAY",
    .about =
        "Freeze an image and go on in a new overlay: an external snapshot.",
    .options = option_rows,
    .notes =
        "The overlay has IMAGE's size, and records its format and a name "
        "that is relative to the overlay's directory.  Refused if somebody "
        "has IMAGE open for writing.  --read-only takes the permission first: "
        "killed before the overlay is there, the same command again makes "
        "it.",
    .examples =
        "disk.qcow2 disk.after-update.qcow2\n"
        "--read-only -f raw template.raw vm2.qcow2\n",
};
