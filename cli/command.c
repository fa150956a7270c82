/* SPDX-License-Identifier: MIT */
/*
 * command.c - a subcommand's table of options, for getopt_long().
 */
#include <assert.h>
#include <string.h>

#include "command.h"

enum { MAX_OPTIONS = 63 };

struct tables {
    struct option names[MAX_OPTIONS + 1];
    char letters[2 * MAX_OPTIONS + 2];
};

/* "--name" or "--name=value" stands in @argv, in full. */
static bool spelled_out(const char *name, int argc, char **argv)
{
    size_t length = strlen(name);

    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (!strncmp(word, "--", 2) && !strncmp(word + 2, name, length) &&
            (!word[2 + length] || word[2 + length] == '='))
            return true;
    }
    return false;
}

const char *command_format(size_t index)
{
    static const char *const names[] = {
        "bochs", "cloop", "dmg", "luks", "parallels", "qcow", "qcow2", "qed",
        "raw", "vdi", "vhdx", "vmdk", "vpc",
    };
    struct lam_format_info info;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (lam_format_describe(names[i], &info, NULL) == 0 && !index--)
            return names[i];
    return NULL;
}

const char *command_driver(size_t index)
{
    static const char *const names[] = {
        "blkdebug", "blklogwrites", "blkverify", "bochs", "cloop", "compress",
        "copy-before-write", "copy-on-read", "dmg", "file", "ftp", "ftps",
        "host_cdrom", "host_device", "http", "https", "luks", "nbd",
        "null-aio", "null-co", "parallels", "preallocate", "qcow", "qcow2",
        "qed", "quorum", "raw", "snapshot-access", "throttle", "vdi", "vhdx",
        "vmdk", "vpc",
    };
    struct lam_format_info info;

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (lam_format_describe(names[i], &info, NULL) == 0 && !index--)
            return names[i];
    return NULL;
}

static int argument_of(const struct command_option *o)
{
    if (!o->value)
        return no_argument;
    return o->flags & OPTION_MAYBE ? optional_argument : required_argument;
}

/* Where @name stands among the words of @list; -1: nowhere. */
static int place_in(const char *list, const char *name)
{
    size_t length = strlen(name);
    int place = 0;

    for (const char *word = list; *word; place++) {
        size_t n = strcspn(word, " ");
        if (n == length && !strncmp(word, name, n))
            return place;
        word += n + (word[n] == ' ');
    }
    return -1;
}

/* An ambiguous abbreviation is told with all that it may mean, in order. */
static void sort_names(struct option *names, size_t n, const char *list)
{
    for (size_t i = 1; i < n; i++) {
        struct option moved = names[i];
        size_t at = i;

        for (; at > 0 && place_in(list, names[at - 1].name) >
                         place_in(list, moved.name); at--)
            names[at] = names[at - 1];
        names[at] = moved;
    }
}

/* Does somebody who calls us by a genuine tool's name find the option there? */
static bool is_genuine(const struct command *command,
                       const struct command_option *o)
{
    return !(o->flags & OPTION_EXTRA) &&
           (!command->genuine || place_in(command->genuine, o->name) >= 0);
}

/*
 * Under a genuine tool's name, what that one lacks has to be spelled out, so
 * that it makes no abbreviation of the others ambiguous.
 */
static void make_tables(const struct cli *cli, const struct command *command,
                        int argc, char **argv, struct tables *t)
{
    size_t n = 0;
    char *letter = t->letters;

    for (const char *p = command->order ? command->order : ""; *p; p++)
        *letter++ = *p;
    for (const struct command_option *o = command->options;
         o->key || o->text; o++) {
        if (o->key > 0 && o->key < 256) {
            *letter++ = (char)o->key;
            /* Only the name takes an optional value: "-pq" is two options. */
            if (argument_of(o) == required_argument)
                *letter++ = ':';
        }
        if (!o->name || (cli->as_qemu && !is_genuine(command, o) &&
                         !spelled_out(o->name, argc, argv)))
            continue;
        assert(n < MAX_OPTIONS);
        t->names[n++] = (struct option){ o->name, argument_of(o), NULL,
                                         o->key };
    }
    t->names[n] = (struct option){ NULL, 0, NULL, 0 };
    if (cli->as_qemu && command->genuine)
        sort_names(t->names, n, command->genuine);
    *letter = '\0';
}

int command_mistake(const struct cli *cli, const struct command *command)
{
    if (!cli->as_qemu || !command->help_on_mistakes)
        return cli_try_help(cli);
    command_help(cli, command);
    return 1;
}

int command_parse(const struct cli *cli, const struct command *command,
                  int argc, char **argv, command_option_fn *take, void *args)
{
    struct tables t;
    int key;

    make_tables(cli, command, argc, argv, &t);
    while ((key = getopt_long(argc, argv, t.letters, t.names, NULL)) != -1) {
        int status = key == 'h' && !optarg ? command_help(cli, command)
                   : key == '?' ? command_mistake(cli, command)
                   : take(cli, key, args);
        if (status >= 0)
            return status;
    }
    return -1;
}
