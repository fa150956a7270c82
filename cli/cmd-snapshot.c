/* SPDX-License-Identifier: MIT */
/*
 * cmd-snapshot.c - `snapshot`: list, create, apply and delete the internal
 * snapshots of an image.
 */
#include <errno.h>
#include <string.h>

#include "info.h"
#include "source-option.h"

struct snapshot_args {
    const char *filename;
    struct source_options source;
    int action;                 /* 'l', 'c', 'a', 'd'; 0: none given */
    const char *name;           /* but for 'l' */
};

static const struct command_option option_rows[] = {
    { 'l', "list", NULL, "list the snapshots (the default)", 0 },
    { 'c', "create", "SNAPSHOT",
      "keep the disk as it is now under this name", 0 },
    { 'a', "apply", "SNAPSHOT",
      "make the disk what it was then; an id or a name", 0 },
    { 'd', "delete",
      "SNAPSHOT", "forget the first snapshot with this name", 0 },
    SOURCE_OPTIONS,
    { 'q', "quiet", NULL, "print nothing but errors and the list", 0 },
    { 'U', "force-share", NULL,
      "take no lock: the image may be in use (-l only)", 0 },
    OPTION_HELP,
    { 0 },
};

static int take_action(const struct cli *cli, int c,
                       struct snapshot_args *args)
{
    if (args->action)
        return cli_usage(cli, "Cannot mix '-l', '-a', '-c', '-d'");
    args->action = c;
    args->name = optarg;
    return -1;
}

/* -1: go on; else the exit status. */
static int take_option(const struct cli *cli, int c, void *opaque)
{
    struct snapshot_args *args = opaque;

    switch (c) {
    case 'l':
    case 'c':
    case 'a':
    case 'd':
        return take_action(cli, c, args);
    case 'q':
        return -1;              /* there is nothing to be quiet about */
    default:
        return source_option(cli, c, &args->source);
    }
}

static int parse_args(const struct cli *cli, int argc, char **argv,
                      struct snapshot_args *args)
{
    int status = command_parse(cli, &command_snapshot, argc, argv, take_option,
                               args);

    if (status >= 0)
        return status;
    return source_operand(cli, argc, argv, &args->source, &args->filename);
}

static int list(const struct cli *cli, struct lam_image *image)
{
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image_info *info;

    if (lam_image_info(image, &info, &err) < 0) {
        cli_report(cli, &err);
        return 1;
    }
    info_print_snapshots(stdout, info);
    lam_image_info_free(info);
    return 0;
}

static int change(struct lam_image *image, const struct snapshot_args *args,
                  struct lam_error *err)
{
    switch (args->action) {
    case 'c':
        return lam_image_snapshot_create(image, args->name, err);
    case 'a':
        return lam_image_snapshot_apply(image, args->name, err);
    default:
        return lam_image_snapshot_delete(image, args->name, err);
    }
}

static void report(const struct cli *cli, const struct snapshot_args *args,
                   const struct lam_error *err)
{
    const char *verb = args->action == 'c' ? "create"
                     : args->action == 'a' ? "apply" : "delete";
    /* The genuine tool has no more to say than the number's text there. */
    bool brief = cli->as_qemu && args->action == 'c';

    cli_error(cli, "Could not %s snapshot '%s': %s", verb, args->name,
              brief ? strerror(err->code) : err->message);
}

static int run_snapshot(const struct cli *cli, int argc, char **argv)
{
    struct snapshot_args args = { 0 };
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;
    int status = parse_args(cli, argc, argv, &args);

    if (status >= 0)
        return status;
    bool reads = !args.action || args.action == 'l';
    if (!reads && args.source.force_share) {
        cli_error(cli, "Could not open '%s': force-share=on can only be used "
                  "with read-only images", args.filename);
        return 1;
    }
    unsigned flags = LAM_OPEN_NO_BACKING |
                     (reads ? 0 : LAM_OPEN_WRITE | LAM_OPEN_UNMAP);
    if (source_open(cli, args.filename, &args.source, flags, &image) < 0)
        return 1;
    if (!reads)
        warn_guessed(image);
    if (reads) {
        status = list(cli, image);
        lam_image_close(image, NULL);
        return cli_finish(cli, status);
    }
    status = 0;
    if (change(image, &args, &err) < 0) {
        report(cli, &args, &err);
        status = 1;
    }
    if (lam_image_close(image, &err) < 0 && !status) {
        report(cli, &args, &err);
        status = 1;
    }
    return status;
}

const struct command command_snapshot = {
    .name = "snapshot",
    .run = run_snapshot,
    .summary = "List and change internal snapshots",
    .synopsis =
        "[-f FMT | --image-opts] [-l | -a|-c|-d SNAPSHOT] [-q] [-U] FILENAME",
    .about =
        "List or change the internal snapshots of an image.",
    .options = option_rows,
    .genuine =
        "help quiet object format image-opts force-share list apply create "
        "delete",
    .notes =
        "Each change is on disk when the command ends, and is made by one "
        "write of the image's header: whenever it is killed, the image is as "
        "before or as wanted.",
    .status =
        "0 done, 1 failed: then nothing has changed.",
    .examples =
        "-l disk.qcow2\n"
        "-c after-upgrade disk.qcow2\n",
};
