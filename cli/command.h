/* SPDX-License-Identifier: MIT */
/*
 * command.h - what a subcommand is: its options in one table, from which
 * getopt_long() is called and --help, manual pages and completions are made.
 */
#ifndef LAMELLA_CLI_COMMAND_H
#define LAMELLA_CLI_COMMAND_H

#include <getopt.h>

#include "cli.h"

enum {
    OPTION_EXTRA = 1 << 0,      /* the genuine tools have no such option */
    OPTION_MAYBE = 1 << 1,      /* --name or --name=VALUE */
};

/*
 * An option.  Texts are reflowed: "\n" begins a line, "\n\n" a paragraph.  A
 * row with a text alone is a heading; one without text is another name of the
 * row above it.  What a value is called says what completion offers: FMT,
 * CACHE, FILE and so on (scripts/make-completions), or "one|two".
 */
struct command_option {
    int key;                    /* a letter, or a number above letters */
    const char *name;           /* --name */
    const char *value;          /* NULL: it takes none */
    const char *text;
    unsigned flags;             /* OPTION_... */
};

struct command {
    const char *name;
    /* argv[0] is cli->command, so that getopt_long()'s messages name it;
     * returns the exit status. */
    int (*run)(const struct cli *cli, int argc, char **argv);
    const char *summary;        /* no more than 55 characters */
    const char *synopsis;       /* what stands behind the name */
    const char *about;          /* instead of the summary in help; or NULL */
    const struct command_option *options;   /* the last one is zero */
    const char *notes;          /* behind the options; or NULL */
    const char *status;         /* exit status; NULL: 0 done, 1 failed */
    const char *examples;       /* a line each, without the command's name */
    void (*print_more)(const struct cli *cli);  /* behind the options */
    const char *order;          /* "+", "-": for getopt_long(); or NULL */
    const char *genuine;        /* the long options that the genuine tool has,
                                   in its order; or NULL: all but EXTRA */
    bool help_on_mistakes;      /* as qemu-io has it, under its name */
};

extern const struct command
    command_amend, command_bench, command_bitmap, command_chain, command_check,
    command_commit, command_compare, command_convert, command_create,
    command_dd, command_info, command_io, command_map, command_measure,
    command_overlay, command_rebase, command_resize, command_snapshot,
    command_stream;

/* Rows that most tables have. */
#define OPTION_HELP { 'h', "help", NULL, "print this help", 0 }
#define OPTION_QUIET { 'q', "quiet", NULL, "print nothing but errors", 0 }
#define OPTION_PROGRESS { 'p', "progress", NULL, "show progress", 0 }
#define OPTION_CACHE(letter)                                                \
    { letter, "cache", "CACHE", "cache mode: none, writeback (default), "    \
      "writethrough, directsync or unsafe", 0 }

/* Takes one option's @key, its value in optarg.  -1: go on; else the exit
 * status. */
typedef int command_option_fn(const struct cli *cli, int key, void *args);

/*
 * Calls @take for each option in @argv, with @args; -h, and what is no option
 * of @command's, are seen to here.  Returns -1, with optind at the operands,
 * or the exit status.
 */
int command_parse(const struct cli *cli, const struct command *command,
                  int argc, char **argv, command_option_fn *take, void *args);

/* A mistake has been told: prints where to find help, or all of it.  Returns
 * 1. */
int command_mistake(const struct cli *cli, const struct command *command);

/* --help on stdout.  Returns the exit status. */
int command_help(const struct cli *cli, const struct command *command);

/*
 * @text in lines of at most 79 columns, the first from column @at on, the
 * others indented by @indent; ends the last line.
 */
void command_print_text(FILE *out, const char *text, unsigned at,
                        unsigned indent);

/* The name of the @index-th format that this build has, in order of the
 * alphabet; NULL behind the last one. */
const char *command_format(size_t index);

/* The same for all drivers: those formats, and what a node can be beside. */
const char *command_driver(size_t index);

/* The tables as a JSON object, for what is generated from them: @program's,
 * which is none of the @nb @commands. */
int command_print_json(const struct cli *cli, const struct command *program,
                       const struct command *const *commands, size_t nb);

#endif
