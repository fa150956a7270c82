/* SPDX-License-Identifier: MIT */
/*
 * object-check.c - a tree against the members that its kind has.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "object.h"

/* Where in the tree we are. */
struct place {
    const char *path;           /* "rules[0].match"; "rules.0.match" of text */
    bool json;
    struct lam_error *err;
};

static int wrong_type(const struct place *p, const char *expected)
{
    return option_fail(p->err, EINVAL, "Invalid parameter type for '%s', "
                       "expected: %s", p->path, expected);
}

static int no_memory(const struct place *p)
{
    return option_fail(p->err, ENOMEM, "no memory for an object");
}

/* ------------------------------------------------------------------ leaves */

/* @value as text; NULL and an error if it is something else. */
static const char *take_text(const struct place *p, struct json_object *value,
                             const char *expected)
{
    if (json_object_is_type(value, json_type_string))
        return json_object_get_string(value);
    if (!p->json && value)
        option_fail(p->err, EINVAL, "Parameters '%s.*' are unexpected",
                    p->path);
    else
        wrong_type(p, expected);
    return NULL;
}

static int check_word(const struct place *p, const struct member *m,
                      struct json_object *value)
{
    const char *text = take_text(p, value, "string");

    if (!text)
        return -EINVAL;
    for (size_t i = 0; m->words[i]; i++) {
        if (!strcmp(m->words[i], text))
            return 0;
    }
    return option_fail(p->err, EINVAL, "Parameter '%s' does not accept value "
                       "'%s'", m->name, text);
}

static int check_bool(const struct place *p, struct json_object *value,
                      struct json_object **typed)
{
    bool on;

    if (p->json)
        return json_object_is_type(value, json_type_boolean)
            ? 0 : wrong_type(p, "boolean");
    const char *text = take_text(p, value, "boolean");
    if (!text)
        return -EINVAL;
    if (parse_bool(text, &on) < 0)
        return option_fail(p->err, EINVAL, "Parameter '%s' expects 'on' or "
                           "'off'", p->path);
    *typed = json_object_new_boolean(on);
    return *typed ? 0 : no_memory(p);
}

static int text_to_int(const struct place *p, struct json_object *value,
                       int64_t *number)
{
    const char *text = take_text(p, value, "integer");
    char *end;

    if (!text)
        return -EINVAL;
    errno = 0;
    *number = strtoll(text, &end, 0);
    if (end == text || *end || errno || strchr(" \t\n\v\f\r", *text))
        return option_fail(p->err, EINVAL, "Parameter '%s' expects integer",
                           p->path);
    return 0;
}

static bool fits_int64(struct json_object *value)
{
    return json_object_is_type(value, json_type_int) &&
           (json_object_get_int64(value) < INT64_MAX ||
            json_object_get_uint64(value) == INT64_MAX);
}

static int check_int(const struct place *p, const struct member *m,
                     struct json_object *value, struct json_object **typed)
{
    int64_t number = 0;
    int rc = p->json ? 0 : text_to_int(p, value, &number);

    if (p->json && fits_int64(value))
        number = json_object_get_int64(value);
    else if (p->json)
        rc = m->name ? wrong_type(p, "integer")
            : option_fail(p->err, EINVAL, "Parameter '%s' expects uint64",
                          p->path);
    if (rc < 0)
        return rc;
    if (m->type && (number < m->least || number > m->most))
        return option_fail(p->err, EINVAL, "Parameter '%s' expects %s",
                           m->name ? m->name : "null", m->type);
    *typed = json_object_new_int64(number);
    return *typed ? 0 : no_memory(p);
}

/* ----------------------------------------------------------------- branches */

static int check_part(const struct place *p, const struct member *members,
                      struct json_object *tree);

static int check_list(const struct place *p, const struct member *m,
                      struct json_object *list);

/* *@typed: what takes the place of @value, if anything does. */
static int check_value(const struct place *p, const struct member *m,
                       struct json_object *value, struct json_object **typed)
{
    switch (m->kind) {
    case MEMBER_STRING: return take_text(p, value, "string") ? 0 : -EINVAL;
    case MEMBER_WORD: return check_word(p, m, value);
    case MEMBER_BOOL: return check_bool(p, value, typed);
    case MEMBER_INT: return check_int(p, m, value, typed);
    case MEMBER_LIST: return check_list(p, m, value);
    case MEMBER_PART: return check_part(p, m->inner, value);
    case MEMBER_END: break;
    }
    return 0;
}

static int check_list(const struct place *p, const struct member *m,
                      struct json_object *list)
{
    size_t count;

    if (!json_object_is_type(list, json_type_array))
        return wrong_type(p, "array");
    count = json_object_array_length(list);
    for (size_t i = 0; i < count; i++) {
        struct json_object *typed = NULL;
        char *path = NULL;
        if (asprintf(&path, p->json ? "%s[%zu]" : "%s.%zu", p->path, i) < 0)
            return no_memory(p);
        struct place place = { path, p->json, p->err };
        int rc = check_value(&place, m->inner,
                             json_object_array_get_idx(list, i), &typed);
        free(path);
        if (rc == 0 && typed && json_object_array_put_idx(list, i, typed) < 0)
            rc = no_memory(p);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static char *path_of(const struct place *p, const char *name)
{
    char *path = NULL;

    if (asprintf(&path, "%s%s%s", p->path, *p->path ? "." : "", name) < 0)
        return NULL;
    return path;
}

static int check_member(const struct place *p, const struct member *m,
                        struct json_object *tree)
{
    struct json_object *value = NULL, *typed = NULL;
    bool there = json_object_object_get_ex(tree, m->name, &value);

    if (!there && !m->required)
        return 0;
    char *path = path_of(p, m->name);
    if (!path)
        return no_memory(p);
    struct place place = { path, p->json, p->err };
    int rc = there ? check_value(&place, m, value, &typed)
        : option_fail(p->err, EINVAL, "Parameter '%s' is missing", path);
    if (rc == 0 && typed && json_object_object_add(tree, m->name, typed) < 0)
        rc = no_memory(p);
    free(path);
    return rc;
}

static bool is_member(const struct member *m, const char *name)
{
    while (m->kind != MEMBER_END && strcmp(m->name, name))
        m++;
    return m->kind != MEMBER_END;
}

static int check_part(const struct place *p, const struct member *members,
                      struct json_object *tree)
{
    if (!json_object_is_type(tree, json_type_object))
        return wrong_type(p, "object");
    for (const struct member *m = members; m->kind != MEMBER_END; m++) {
        int rc = check_member(p, m, tree);
        if (rc < 0)
            return rc;
    }
    json_object_object_foreach(tree, key, value) {
        (void)value;
        if (is_member(members, key))
            continue;
        char *path = path_of(p, key);
        if (!path)
            return no_memory(p);
        int rc = option_fail(p->err, EINVAL, "Parameter '%s' is unexpected",
                             path);
        free(path);
        return rc;
    }
    return 0;
}

int object_check(struct json_object *tree, const struct member *members,
                 bool json, struct lam_error *err)
{
    const struct place place = { "", json, err };

    return check_part(&place, members, tree);
}

int object_check_one(struct json_object *tree, const struct member *member,
                     bool json, struct lam_error *err)
{
    const struct place place = { "", json, err };

    return check_member(&place, member, tree);
}

/* ---------------------------------------------------------- a checked tree */

const char *object_text(struct json_object *tree, const char *name)
{
    struct json_object *value = NULL;

    return json_object_object_get_ex(tree, name, &value)
        ? json_object_get_string(value) : NULL;
}

int64_t object_number(struct json_object *tree, const char *name,
                      int64_t otherwise)
{
    struct json_object *value = NULL;

    return json_object_object_get_ex(tree, name, &value)
        ? json_object_get_int64(value) : otherwise;
}

bool object_switch(struct json_object *tree, const char *name, bool otherwise)
{
    struct json_object *value = NULL;

    return json_object_object_get_ex(tree, name, &value)
        ? json_object_get_boolean(value) : otherwise;
}
