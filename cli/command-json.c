/* SPDX-License-Identifier: MIT */
/*
 * command-json.c - the tables of all subcommands as JSON, from which manual
 * pages and completions are made.
 */
#include "command.h"
#include "print.h"

static void add_text(struct json_object *o, const char *key, const char *text)
{
    if (text)
        json_object_object_add(o, key, json_object_new_string(text));
}

static void add_flag(struct json_object *o, const char *key, bool value)
{
    if (value)
        json_object_object_add(o, key, json_object_new_boolean(value));
}

static struct json_object *option_json(const struct command_option *option,
                                       const char *heading)
{
    struct json_object *o = json_object_new_object();
    const char letter[2] = { option->key < 256 ? (char)option->key : '\0' };

    add_text(o, "heading", heading);
    add_text(o, "letter", *letter ? letter : NULL);
    add_text(o, "name", option->name);
    add_text(o, "value", option->value);
    add_text(o, "text", option->text);
    add_flag(o, "value-optional", option->flags & OPTION_MAYBE);
    add_flag(o, "extra", option->flags & OPTION_EXTRA);
    return o;
}

static struct json_object *options_json(const struct command_option *option)
{
    struct json_object *list = json_object_new_array();
    const char *heading = "Options";

    for (; option->key || option->text; option++) {
        if (option->key)
            json_object_array_add(list, option_json(option, heading));
        else
            heading = option->text;
    }
    return list;
}

static struct json_object *command_json(const struct command *c)
{
    struct json_object *o = json_object_new_object();

    add_text(o, "name", c->name);
    add_text(o, "summary", c->summary);
    add_text(o, "synopsis", c->synopsis);
    add_text(o, "about", c->about);
    json_object_object_add(o, "options", options_json(c->options));
    add_text(o, "notes", c->notes);
    add_text(o, "status", c->status);
    add_text(o, "examples", c->examples);
    return o;
}

static struct json_object *formats_json(void)
{
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; command_format(i); i++)
        json_object_array_add(list, json_object_new_string(command_format(i)));
    return list;
}

int command_print_json(const struct cli *cli, const struct command *program,
                       const struct command *const *commands, size_t nb)
{
    struct json_object *o = json_object_new_object();
    struct json_object *list = json_object_new_array();

    for (size_t i = 0; i < nb; i++)
        json_object_array_add(list, command_json(commands[i]));
    add_text(o, "version", lam_version());
    json_object_object_add(o, "program", command_json(program));
    json_object_object_add(o, "commands", list);
    json_object_object_add(o, "formats", formats_json());
    print_json(stdout, o);
    json_object_put(o);
    return cli_finish(cli, 0);
}
