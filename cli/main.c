/* SPDX-License-Identifier: MIT */
/*
 * main.c - the table of subcommands and nothing else.
 *
 * Called as qemu-img or qemu-io (links), the command behaves as that program.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "process.h"

static const struct command *const commands[] = {
    &command_amend, &command_bench, &command_bitmap, &command_chain,
    &command_check, &command_commit, &command_compare, &command_convert,
    &command_create, &command_dd, &command_info, &command_io, &command_map,
    &command_measure, &command_overlay, &command_rebase, &command_resize,
    &command_snapshot, &command_stream,
};

static const size_t nb_commands = sizeof commands / sizeof commands[0];

/* What this build has, as qemu-img tells at this place. */
static void print_formats(void)
{
    enum { WIDTH = 80 };
    size_t column = WIDTH;

    printf("\nSupported image formats:\n");
    for (size_t i = 0; command_driver(i); i++) {
        size_t length = strlen(command_driver(i)) + 1;
        if (column + length >= WIDTH) {
            printf("\n ");
            column = 1;
        }
        printf(" %s", command_driver(i));
        column += length;
    }
    putchar('\n');
}

static void print_commands(const struct cli *cli)
{
    printf("\nCommands (%s COMMAND --help says more):\n", cli->program);
    for (size_t i = 0; i < nb_commands; i++)
        printf("  %-8s  %s\n", commands[i]->name, commands[i]->summary);
    print_formats();
}

static const struct command_option option_rows[] = {
    { 'h', "help", "json", "print this help and exit; with =json what all "
      "commands have to say of themselves, for programs", OPTION_MAYBE },
    { 'V', "version", NULL, "print the version and exit", 0 },
    { 'T', "trace", "PATTERN", "accepted; there are no events to trace", 0 },
    { 0 },
};

static const struct command program = {
    .summary = "Images, chains of external snapshots, and thin conversion",
    .synopsis = "[--help | --version] COMMAND [--help | command options]",
    .options = option_rows,
    .print_more = print_commands,
    .order = "+",
    .notes =
        "\"lamella help [COMMAND]\" prints the same as --help.  Called by the "
        "name qemu-img or qemu-io (links), it behaves as that program.",
    .status =
        "that of the command, which tells it with --help.",
    .examples =
        "create -f qcow2 -b base.qcow2 -F qcow2 overlay.qcow2\n"
        "info --backing-chain overlay.qcow2\n"
        "convert -n -t none -O raw overlay.qcow2 /dev/vg/volume\n",
};

static int run_command(struct cli *cli, int argc, char **argv)
{
    for (size_t i = 0; i < nb_commands; i++) {
        if (strcmp(commands[i]->name, argv[0]))
            continue;

        char *name = NULL;
        if (asprintf(&name, "%s %s", cli->command, argv[0]) < 0) {
            cli_error(cli, "no memory");
            return 1;
        }
        cli->command = argv[0] = name;
        optind = 0;             /* start anew, with this argv */
        int status = commands[i]->run(cli, argc, argv);
        free(name);
        return status;
    }
    return cli_usage(cli, "Command not found: %s", argv[0]);
}

static int take_option(const struct cli *cli, int key, void *args)
{
    (void)args;
    if (key == 'V')
        return cli_version(cli);
    if (key == 'T')
        return cli_trace(cli, optarg);
    if (!strcmp(optarg, "json"))
        return command_print_json(cli, &program, commands, nb_commands);
    return cli_usage(cli, "--help: unknown form '%s'; there is json", optarg);
}

/* "help", "help COMMAND": what people type who know git. */
static int run_help(struct cli *cli, int argc, char **argv)
{
    static char option[] = "--help";
    char *args[] = { argv[argc > 1], option, NULL };

    if (argc > 1)
        return run_command(cli, 2, args);
    optind = 0;
    return command_parse(cli, &program, 2, args, take_option, NULL);
}

static int run_main(struct cli *cli, int argc, char **argv)
{
    int status = command_parse(cli, &program, argc, argv, take_option, NULL);

    if (status >= 0)
        return status;
    argc -= optind;
    argv += optind;
    if (argc < 1)
        return cli_usage(cli, "Not enough arguments");
    if (!cli->as_qemu && !strcmp(argv[0], "help"))
        return run_help(cli, argc, argv);
    return run_command(cli, argc, argv);
}

int main(int argc, char **argv)
{
    static char fallback[] = "lamella";
    static char *no_args[] = { fallback, NULL };

    if (argc < 1) {             /* execve() allows it */
        argc = 1;
        argv = no_args;
    }
    const char *slash = strrchr(argv[0], '/');
    const char *name = slash ? slash + 1 : argv[0];
    struct cli cli = { .program = "lamella", .command = argv[0] };

    if (!strcmp(name, "qemu-img")) {
        cli.program = "qemu-img";
        cli.as_qemu = true;
    } else if (!strcmp(name, "qemu-io")) {
        cli.program = "qemu-io";
        cli.as_qemu = true;
    }
    process_begin(&cli);
    if (lam_keyring_new(&cli.keyring, NULL) < 0 ||
        lam_throttles_new(&cli.throttles, NULL) < 0) {
        cli_error(&cli, "no memory");
        return 1;
    }
    int status = !strcmp(name, "qemu-io") ? command_io.run(&cli, argc, argv)
                                          : run_main(&cli, argc, argv);
    lam_keyring_free(cli.keyring);
    lam_throttles_free(cli.throttles);
    return status;
}
