/* SPDX-License-Identifier: MIT */
/*
 * option-object.c - --object: what images refer to by name.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "object.h"

static bool is_identifier(const char *text)
{
    if (!isalpha((unsigned char)*text))
        return false;
    while (*text && (isalnum((unsigned char)*text) || strchr("-._", *text)))
        text++;
    return *text == '\0';
}

bool object_help(const char *text)
{
    if (*text == '{' || !keyvals_ask_help(text))
        return false;
    char *type = strndup(text, strcspn(text, ","));
    const struct object_kind *kind = type ? object_kind_find(type) : NULL;

    if (kind)
        object_members_print(kind);
    else
        object_kinds_print();
    free(type);
    return true;
}

static int check_id(struct json_object *tree, struct lam_error *err)
{
    return is_identifier(object_text(tree, "id")) ? 0
        : option_fail(err, EINVAL, "Parameter 'id' expects an identifier\n"
                      "Identifiers consist of letters, digits, '-', '.', "
                      "'_', starting with a letter.");
}

/* What machines and networks have, and programs for images do not. */
static int refuse_foreign(struct json_object *tree, bool json,
                          struct lam_error *err)
{
    const char *type = object_text(tree, "qom-type");
    int rc = object_check_foreign(tree, type, json, err);

    if (rc == 0)
        rc = check_id(tree, err);
    return rc < 0 ? rc : option_fail(err, EINVAL, "invalid object type: %s",
                                     type);
}

static int add_object(const struct cli *cli, struct json_object *tree,
                      bool json, struct lam_error *err)
{
    int rc = object_check_one(tree, &object_type, json, err);

    if (rc < 0)
        return rc;
    const char *type = object_text(tree, "qom-type");
    const struct object_kind *kind = object_kind_find(type);
    if (!kind)
        return refuse_foreign(tree, json, err);
    if (!kind->make)
        return option_fail(err, EINVAL, "Parameter 'qom-type' does not accept "
                           "value '%s'", type);
    rc = object_check(tree, kind->members, json, err);
    if (rc == 0)
        rc = check_id(tree, err);
    return rc < 0 ? rc : kind->make(cli, tree, err);
}

int object_option(const struct cli *cli, const char *text,
                  struct lam_error *err)
{
    bool json = *text == '{';
    struct json_object *tree = NULL;
    int rc = json ? object_from_json(text, &tree, err)
                  : object_from_text(text, &tree, err);

    if (rc == 0)
        rc = add_object(cli, tree, json, err);
    json_object_put(tree);
    return rc;
}
