/* SPDX-License-Identifier: MIT */
/*
 * main.c - the table of subcommands and nothing else.
 *
 * Called as qemu-img or qemu-io (links), the command behaves as that program.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "cli.h"

static const struct {
    const char *name;
    cmd_fn *run;
    const char *summary;
} commands[] = {
    { "amend", cmd_amend, "Change an image's version and features in place" },
    { "bench", cmd_bench, "Time many requests of one kind" },
    { "bitmap", cmd_bitmap, "Change a persistent dirty bitmap of an image" },
    { "chain", cmd_chain, "Show an image's layers and what each holds" },
    { "check", cmd_check, "Check the metadata of an image" },
    { "commit", cmd_commit, "Write an overlay's data into its backing file" },
    { "compare", cmd_compare, "Check if two images have the same contents" },
    { "convert", cmd_convert, "Copy images to another image or device, thin" },
    { "create", cmd_create, "Create and format a new image file" },
    { "dd", cmd_dd, "Copy a part of an image to a new one" },
    { "info", cmd_info, "Display information about an image" },
    { "io", cmd_io, "Read, write and exercise an image (as qemu-io does)" },
    { "map", cmd_map, "Show where the guest's data is stored" },
    { "measure", cmd_measure, "Calculate the file size a new image needs" },
    { "overlay", cmd_overlay, "Freeze an image: go on in a new overlay" },
    { "rebase", cmd_rebase, "Give an image another backing file" },
    { "resize", cmd_resize, "Change the virtual size of an image" },
    { "snapshot", cmd_snapshot, "List and change internal snapshots" },
    { "stream", cmd_stream, "Pull data from lower layers, and drop them" },
};

static const size_t nb_commands = sizeof commands / sizeof commands[0];

static int main_help(const struct cli *cli)
{
    printf("Usage:\n\n"
           "  %s [--help | --version] COMMAND [--help | command options]\n\n"
           "Images, chains of external snapshots, and thin conversion.\n\n"
           "Options:\n"
           "  -h, --help     display this help and exit\n"
           "  -V, --version  display version info and exit\n\n"
           "Commands (%s COMMAND --help says more):\n\n",
           cli->program, cli->program);
    for (size_t i = 0; i < nb_commands; i++)
        printf("  %-8s  %s\n", commands[i].name, commands[i].summary);
    printf("\nCalled by the name qemu-img or qemu-io (links), it behaves as "
           "that program.\n\n"
           "Examples:\n"
           "  %s create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2\n"
           "  %s info --backing-chain overlay.qcow2\n"
           "  %s convert -n -t none -O raw overlay.qcow2 /dev/vg/volume\n",
           cli->program, cli->program, cli->program);
    return cli_finish(cli, 0);
}

static int run_command(struct cli *cli, int argc, char **argv)
{
    for (size_t i = 0; i < nb_commands; i++) {
        if (strcmp(commands[i].name, argv[0]))
            continue;

        char *name = NULL;
        if (asprintf(&name, "%s %s", cli->command, argv[0]) < 0) {
            cli_error(cli, "no memory");
            return 1;
        }
        cli->command = argv[0] = name;
        optind = 0;             /* start anew, with this argv */
        int status = commands[i].run(cli, argc, argv);
        free(name);
        return status;
    }
    return cli_usage(cli, "Command not found: %s", argv[0]);
}

static int main_options(struct cli *cli, int argc, char **argv)
{
    static const struct option options[] = {
        { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },
        { "trace", required_argument, NULL, 'T' },
        { NULL, 0, NULL, 0 },
    };
    int c;

    while ((c = getopt_long(argc, argv, "+hVT:", options, NULL)) != -1) {
        switch (c) {
        case 'h':
            return main_help(cli);
        case 'V':
            return cli_version(cli);
        case 'T':
            cli_trace(cli, optarg);
            break;
        default:
            return cli_try_help(cli);
        }
    }
    if (optind >= argc)
        return cli_usage(cli, "Not enough arguments");
    return run_command(cli, argc - optind, argv + optind);
}

/* A descriptor a layer: a chain of 1,000 needs more than the usual 1,024. */
static void raise_file_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv)
{
    static char fallback[] = "lamella";
    static char *no_args[] = { fallback, NULL };

    if (argc < 1) {             /* execve() allows it */
        argc = 1;
        argv = no_args;
    }
    raise_file_limit();
    const char *slash = strrchr(argv[0], '/');
    const char *name = slash ? slash + 1 : argv[0];
    struct cli cli = { "lamella", argv[0], false, NULL };

    if (lam_keyring_new(&cli.keyring, NULL) < 0) {
        cli_error(&cli, "no memory");
        return 1;
    }
    if (!strcmp(name, "qemu-img")) {
        cli.program = "qemu-img";
        cli.as_qemu = true;
    } else if (!strcmp(name, "qemu-io")) {
        cli.program = "qemu-io";
        cli.as_qemu = true;
    }
    int status = !strcmp(name, "qemu-io") ? cmd_io(&cli, argc, argv)
                                          : main_options(&cli, argc, argv);
    lam_keyring_free(cli.keyring);
    return status;
}
