/* SPDX-License-Identifier: MIT */
/*
 * object-json.c - the JSON form of --object as a tree.
 */
#include <errno.h>
#include <string.h>

#include "object.h"

/* A comma with nothing behind it, outside of strings. */
static bool has_trailing_comma(const char *text)
{
    char quote = '\0', before = '\0';

    for (; *text; text++) {
        if (quote && *text == '\\' && text[1]) {
            text++;
        } else if (quote) {
            quote = *text == quote ? '\0' : quote;
        } else if (*text == '"' || *text == '\'') {
            quote = before = *text;
        } else if (!strchr(" \t\r\n", *text)) {
            if (before == ',' && (*text == '}' || *text == ']'))
                return true;
            before = *text;
        }
    }
    return false;
}

/* Objects have as many members as there are colons outside of strings: fewer
 * if one was given twice. */
static size_t count_colons(const char *text)
{
    size_t colons = 0;

    for (char quote = '\0'; *text; text++) {
        if (quote && *text == '\\' && text[1])
            text++;
        else if (quote)
            quote = *text == quote ? '\0' : quote;
        else if (*text == '"' || *text == '\'')
            quote = *text;
        else
            colons += *text == ':';
    }
    return colons;
}

static size_t count_members(struct json_object *tree)
{
    size_t count = 0;

    if (json_object_is_type(tree, json_type_array)) {
        for (size_t i = 0; i < json_object_array_length(tree); i++)
            count += count_members(json_object_array_get_idx(tree, i));
    } else if (json_object_is_type(tree, json_type_object)) {
        json_object_object_foreach(tree, key, value) {
            (void)key;
            count += 1 + count_members(value);
        }
    }
    return count;
}

/* The genuine tool's word for it, where it has another one; @at is where. */
static const char *reason(enum json_tokener_error error, const char *at)
{
    switch (error) {
    case json_tokener_continue:
        return "premature EOI";
    case json_tokener_error_parse_object_value_sep:
        return "expected separator in dict";
    case json_tokener_error_parse_array:
        return "expected separator in list";
    case json_tokener_error_parse_object_key_sep:
        return "missing : in object pair";
    case json_tokener_error_parse_object_key_name:
        return *at && strchr("-0123456789tfn[{", *at)
            ? "key is not a string in object" : "expecting value";
    default:
        return json_tokener_error_desc(error);
    }
}

static int bad_json(struct lam_error *err, const char *why, const char *text,
                    size_t length)
{
    return option_fail(err, EINVAL, "JSON parse error, %s%.*s%s", why,
                       (int)(length < 100 ? length : 100), text,
                       *why == '\\' ? " is not a valid Unicode character"
                                    : "'");
}

/* Behind the string at @text; NULL if it does not end. */
static const char *skip_string(const char *text, struct lam_error *err)
{
    const char *c = text + 1;

    for (; *c && *c != *text; c++) {
        if (*c != '\\')
            continue;
        if (*++c == 'u' && strspn(c + 1, "0123456789abcdefABCDEF") < 4) {
            size_t shown = strcspn(c, "\"'");
            bad_json(err, "\\u", c + 1, shown < 4 ? shown : 4);
            return NULL;
        }
        if (!*c)
            break;
    }
    if (!*c)
        bad_json(err, "stray '", text, strlen(text));
    return *c ? c + 1 : NULL;
}

static bool is_keyword(const char *text, size_t length)
{
    return (length == 4 && !strncmp(text, "true", 4)) ||
           (length == 5 && !strncmp(text, "false", 5)) ||
           (length == 4 && !strncmp(text, "null", 4));
}

/* No zero in front; the rest is for the parser. */
static bool is_number(const char *text, size_t length)
{
    size_t sign = *text == '-';

    return length > sign && text[sign] != '+' && text[sign] != '.' &&
           (text[sign] != '0' || length == sign + 1 ||
            strchr(".eE", text[sign + 1]));
}

/* Words and signs that JSON has not, and the parser lets pass. */
static int check_tokens(const char *text, struct lam_error *err)
{
    static const char number[] = "+-.0123456789eE";
    static const char word[] = "abcdefghijklmnopqrstuvwxyz";
    static const char signs[] = "{}[],: \t\r\n";

    while (*text) {
        size_t digits = strspn(text, number), letters = strspn(text, word);
        if (*text == '"' || *text == '\'') {
            text = skip_string(text, err);
            if (!text)
                return -EINVAL;
        } else if (letters) {
            if (!is_keyword(text, letters))
                return bad_json(err, "invalid keyword '", text, letters);
            text += letters;
        } else if (digits) {
            if (!is_number(text, digits))
                return bad_json(err, "stray '", text, digits);
            text += digits;
        } else if (strchr(signs, *text)) {
            text++;
        } else {
            return bad_json(err, "stray '", text, 1);
        }
    }
    return 0;
}

int object_from_json(const char *text, struct json_object **out,
                     struct lam_error *err)
{
    size_t length = strlen(text);
    struct json_tokener *tokener = length < INT32_MAX ? json_tokener_new()
                                                      : NULL;

    if (!tokener)
        return option_fail(err, ENOMEM, "no memory for an object");
    struct json_object *root =
        json_tokener_parse_ex(tokener, text, (int)length);
    enum json_tokener_error error = json_tokener_get_error(tokener);
    size_t end = json_tokener_get_parse_end(tokener);
    json_tokener_free(tokener);

    bool done = error == json_tokener_success;
    int rc = 0;
    if (done && end < length && strspn(text + end, " \t\r\n") < length - end)
        rc = option_fail(err, EINVAL, "Expecting at most one JSON value");
    else
        rc = check_tokens(text, err);
    if (rc == 0 && !done)
        rc = option_fail(err, EINVAL, "JSON parse error, %s",
                         reason(error, text + (end < length ? end : length)));
    else if (rc == 0 && has_trailing_comma(text))
        rc = option_fail(err, EINVAL, "JSON parse error, expecting value");
    else if (rc == 0 && count_colons(text) > count_members(root))
        rc = option_fail(err, EINVAL, "JSON parse error, duplicate key");
    if (rc < 0)
        json_object_put(root);
    else
        *out = root;
    return rc;
}
