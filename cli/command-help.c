/* SPDX-License-Identifier: MIT */
/*
 * command-help.c - --help of a subcommand, from its table.
 */
#include <string.h>

#include "command.h"

enum {
    WIDTH = 79,
    MAX_COLUMN = 31,            /* of the texts behind the options */
};

/* -------------------------------------------------------------------- text */

static void begin_line(FILE *out, unsigned *at, unsigned indent)
{
    fprintf(out, "\n%*s", (int)indent, "");
    *at = indent;
}

void command_print_text(FILE *out, const char *text, unsigned at,
                        unsigned indent)
{
    unsigned blanks = 0;        /* before the next word */

    while (*text) {
        unsigned length = (unsigned)strcspn(text, " \n");

        if (length && blanks && at + blanks + length > WIDTH) {
            begin_line(out, &at, indent);
            blanks = 0;
        }
        fprintf(out, "%*s%.*s", (int)blanks, "", (int)length, text);
        at += blanks + length;
        text += length;
        blanks = (unsigned)strspn(text, " ");
        text += blanks;
        if (*text != '\n')
            continue;
        /* A blank line has no blanks. */
        if (*++text == '\n') {
            putc('\n', out);
            text++;
        }
        begin_line(out, &at, indent);
        blanks = 0;
    }
    putc('\n', out);
}

/* ----------------------------------------------------------------- options */

/* "  -x, --name VALUE", with the other names of the rows behind. */
static unsigned left_part(const struct command_option *o, char *buf,
                          size_t size)
{
    bool letter = o->key < 256, maybe = o->flags & OPTION_MAYBE;
    int n = letter ? snprintf(buf, size, "  -%c%s", o->key, o->name ? "," : "")
                   : snprintf(buf, size, "     ");

    if (o->name)
        n += snprintf(buf + n, size - (size_t)n, " --%s", o->name);
    for (const struct command_option *alias = o + 1; alias->key && !alias->text;
         alias++)
        n += snprintf(buf + n, size - (size_t)n, ", --%s", alias->name);
    if (o->value)
        n += snprintf(buf + n, size - (size_t)n, maybe ? "[=%s]" : " %s",
                      o->value);
    return (unsigned)n;
}

static bool is_heading(const struct command_option *o)
{
    return !o->key && o->text;
}

static unsigned text_column(const struct command *command)
{
    char left[128];
    unsigned column = 0;

    for (const struct command_option *o = command->options; o->key || o->text;
         o++) {
        unsigned end = is_heading(o) || !o->text
            ? 0 : left_part(o, left, sizeof left) + 2;
        if (end > column && end <= MAX_COLUMN)
            column = end;
    }
    return column;
}

static void print_option(const struct command_option *o, unsigned column)
{
    char left[128];
    unsigned end = left_part(o, left, sizeof left);

    fputs(left, stdout);
    if (end + 2 > column) {
        putchar('\n');
        end = 0;
    }
    printf("%*s", (int)(column - end), "");
    command_print_text(stdout, o->text, column, column);
}

static void print_options(const struct command *command)
{
    unsigned column = text_column(command);
    const struct command_option *o = command->options;

    if (!is_heading(o))
        printf("\nOptions:\n");
    for (; o->key || o->text; o++) {
        if (is_heading(o))
            printf("\n%s:\n", o->text);
        else if (o->text)
            print_option(o, column);
    }
}

/* --------------------------------------------------------------- the whole */

/* The command, as it is called: qemu-io has no subcommands. */
static unsigned print_name(const struct cli *cli, const struct command *command)
{
    bool itself = !command->name || !strcmp(cli->program, "qemu-io");

    return (unsigned)printf("  %s%s%s ", cli->program, itself ? "" : " ",
                            itself ? "" : command->name);
}

static void print_examples(const struct cli *cli, const struct command *command)
{
    const char *line = command->examples;

    printf("\nExamples:\n");
    while (*line) {
        size_t length = strcspn(line, "\n");
        print_name(cli, command);
        printf("%.*s\n", (int)length, line);
        line += length + (line[length] == '\n');
    }
}

int command_help(const struct cli *cli, const struct command *command)
{
    printf("Usage:\n\n");
    unsigned at = print_name(cli, command);
    command_print_text(stdout, command->synopsis, at, 8);
    if (command->about) {
        putchar('\n');
        command_print_text(stdout, command->about, 0, 0);
    } else {
        printf("\n%s.\n", command->summary);
    }
    print_options(command);
    if (command->print_more)
        command->print_more(cli);
    if (command->notes) {
        putchar('\n');
        command_print_text(stdout, command->notes, 0, 0);
    }
    printf("\nExit status: ");
    command_print_text(stdout, command->status ? command->status
                                               : "0 done, 1 failed.", 13, 0);
    print_examples(cli, command);
    return cli_finish(cli, 0);
}
