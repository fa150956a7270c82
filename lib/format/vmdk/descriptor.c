/* SPDX-License-Identifier: MIT */
/*
 * descriptor.c - reading the text of a descriptor.
 *
 * Keys that we do not know are somebody else's and stay.  Of a key that is
 * there twice the first counts.
 */
#include "format/vmdk/descriptor.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/arith.h"
#include "base/cleanup.h"

static const char *const type_names[] = {
    [VMDK_FLAT] = "FLAT",
    [VMDK_SPARSE] = "SPARSE",
    [VMDK_ZERO] = "ZERO",
    [VMDK_VMFS] = "VMFS",
    [VMDK_VMFS_SPARSE] = "VMFSSPARSE",
    [VMDK_SE_SPARSE] = "SESPARSE",
};

const char *vmdk_line_type_name(enum vmdk_line_type type)
{
    return type_names[type];
}

void vmdk_descriptor_deinit(struct vmdk_descriptor *d)
{
    for (size_t i = 0; i < d->nb_lines; i++)
        free(d->lines[i].name);
    free(d->lines);
    free(d->create_type);
    free(d->parent);
    *d = (struct vmdk_descriptor){ 0 };
}

/* ---------------------------------------------------------- pieces of text */

/* Bytes of the text that have not been read yet. */
struct span {
    const char *at, *end;
};

static size_t span_length(struct span s)
{
    return (size_t)(s.end - s.at);
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static void trim(struct span *s)
{
    while (s->at < s->end && is_blank(*s->at))
        s->at++;
    while (s->end > s->at && is_blank(s->end[-1]))
        s->end--;
}

/* The next line without its end and what is blank around it. */
static bool next_line(struct span *text, struct span *line)
{
    if (text->at == text->end)
        return false;
    const char *newline = memchr(text->at, '\n', span_length(*text));
    *line = (struct span){ text->at, newline ? newline : text->end };
    text->at = newline ? newline + 1 : text->end;
    if (line->end > line->at && line->end[-1] == '\r')
        line->end--;
    trim(line);
    return true;
}

static bool span_is(struct span s, const char *word)
{
    return span_length(s) == strlen(word) &&
           !memcmp(s.at, word, span_length(s));
}

/* The next word of @line; empty at the end. */
static struct span next_word(struct span *line)
{
    trim(line);
    struct span word = { line->at, line->at };

    while (word.end < line->end && !is_blank(*word.end))
        word.end++;
    line->at = word.end;
    return word;
}

static bool parse_number(struct span word, uint64_t *out)
{
    uint64_t value = 0;

    if (!span_length(word))
        return false;
    for (const char *c = word.at; c < word.end; c++) {
        if (!isdigit((unsigned char)*c) || mul_overflows(value, 10, &value) ||
            add_overflows(value, (uint64_t)(*c - '0'), &value))
            return false;
    }
    *out = value;
    return true;
}

static bool parse_hex(struct span word, uint32_t *out)
{
    uint32_t value = 0;

    if (!span_length(word) || span_length(word) > 8)
        return false;
    for (const char *c = word.at; c < word.end; c++) {
        unsigned char u = (unsigned char)*c;
        if (!isxdigit(u))
            return false;
        value = value << 4 | (uint32_t)(isdigit(u) ? u - '0'
                                                   : tolower(u) - 'a' + 10);
    }
    *out = value;
    return true;
}

static int copy_span(struct span s, char **out, struct lam_error *err)
{
    *out = strndup(s.at, span_length(s));
    return *out ? 0 : lam_fail(err, ENOMEM, "no memory for a VMDK descriptor");
}

/* ----------------------------------------------------------------- extents */

/* For messages: as much of a line as one reads. */
static int line_length(struct span line)
{
    return (int)min_u64(span_length(line), 200);
}

static int invalid_line(struct span line, struct lam_error *err)
{
    return lam_fail(err, EINVAL, "Invalid extent line: %.*s",
                    line_length(line), line.at);
}

static bool parse_access(struct span word, enum vmdk_access *out)
{
    static const char *const names[] = {
        [VMDK_RW] = "RW",
        [VMDK_RDONLY] = "RDONLY",
        [VMDK_NOACCESS] = "NOACCESS",
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(names); i++)
        if (span_is(word, names[i])) {
            *out = (enum vmdk_access)i;
            return true;
        }
    return false;
}

static bool parse_type(struct span word, enum vmdk_line_type *out)
{
    for (size_t i = 0; i < LAM_ARRAY_SIZE(type_names); i++)
        if (span_is(word, type_names[i])) {
            *out = (enum vmdk_line_type)i;
            return true;
        }
    return false;
}

/* "NAME" in quotes; may hold blanks. */
static bool parse_quoted(struct span *rest, struct span *out)
{
    trim(rest);
    if (span_length(*rest) < 2 || *rest->at != '"')
        return false;
    const char *quote = memchr(rest->at + 1, '"', span_length(*rest) - 1);
    if (!quote || quote == rest->at + 1)
        return false;
    *out = (struct span){ rest->at + 1, quote };
    rest->at = quote + 1;
    return true;
}

/* What stands behind the type: a name; for FLAT where in it the data begin. */
static int parse_place(struct span line, struct span rest,
                       struct vmdk_line *l, struct lam_error *err)
{
    struct span name;

    if (l->type == VMDK_ZERO)
        return 0;
    if (!parse_quoted(&rest, &name))
        return invalid_line(line, err);
    struct span offset = next_word(&rest);
    bool has_offset = parse_number(offset, &l->offset);
    if (l->type == VMDK_FLAT ? !has_offset : span_length(offset) > 0)
        return invalid_line(line, err);
    if (l->offset > INT64_MAX / VMDK_SECTOR)
        return invalid_line(line, err);
    return copy_span(name, &l->name, err);
}

static int add_line(struct vmdk_descriptor *d, const struct vmdk_line *l,
                    struct lam_error *err)
{
    if (d->nb_lines == VMDK_MAX_EXTENTS)
        return lam_fail(err, EINVAL, "the descriptor names more than the limit "
                        "of %d extents", VMDK_MAX_EXTENTS);
    if (!(d->nb_lines & (d->nb_lines - 1))) {
        size_t capacity = d->nb_lines ? 2 * d->nb_lines : 1;
        struct vmdk_line *lines = realloc(d->lines, capacity * sizeof *lines);
        if (!lines)
            return lam_fail(err, ENOMEM, "no memory for %zu extents", capacity);
        d->lines = lines;
    }
    d->lines[d->nb_lines++] = *l;
    return 0;
}

/* 1 if @line describes an extent, 0 if not. */
static int parse_extent(struct vmdk_descriptor *d, struct span line,
                        struct lam_error *err)
{
    struct span rest = line;
    struct vmdk_line l = { 0 };

    if (!parse_access(next_word(&rest), &l.access))
        return 0;
    if (!parse_number(next_word(&rest), &l.sectors) || !l.sectors ||
        l.sectors > INT64_MAX / VMDK_SECTOR)
        return invalid_line(line, err);
    if (!parse_type(next_word(&rest), &l.type))
        return lam_fail(err, ENOTSUP, "Invalid extent line: %.*s",
                        line_length(line), line.at);
    int rc = parse_place(line, rest, &l, err);
    if (rc == 0)
        rc = add_line(d, &l, err);
    if (rc < 0)
        free(l.name);
    return rc < 0 ? rc : 1;
}

/* -------------------------------------------------------------------- keys */

static struct span unquoted(struct span s)
{
    if (span_length(s) >= 2 && *s.at == '"' && s.end[-1] == '"')
        return (struct span){ s.at + 1, s.end - 1 };
    return s;
}

struct parse {
    struct vmdk_descriptor *d;
    const char *text;
    bool embedded;
};

static int parse_cid(const struct parse *p, const char *key,
                     struct span value, uint32_t *id, size_t *at,
                     size_t *digits, struct lam_error *err)
{
    if (!parse_hex(value, id))
        return lam_fail(err, EINVAL, "%s '%.*s' is not a number of 1 to 8 "
                        "hexadecimal digits", key, line_length(value),
                        value.at);
    *at = (size_t)(value.at - p->text);
    *digits = span_length(value);
    return 0;
}

static int parse_key(const struct parse *p, struct span key, struct span value,
                     struct lam_error *err)
{
    struct vmdk_descriptor *d = p->d;

    if (span_is(key, "CID") && !d->cid_digits)
        return parse_cid(p, "CID", value, &d->cid, &d->cid_at, &d->cid_digits,
                         err);
    if (span_is(key, "parentCID") && !d->parent_cid_digits)
        return parse_cid(p, "parentCID", value, &d->parent_cid,
                         &d->parent_cid_at, &d->parent_cid_digits, err);
    if (span_is(key, "createType") && !d->create_type)
        return copy_span(unquoted(value), &d->create_type, err);
    if (span_is(key, "parentFileNameHint") && !d->parent)
        return copy_span(unquoted(value), &d->parent, err);
    return 0;
}

static int parse_line(const struct parse *p, struct span line,
                      struct lam_error *err)
{
    if (line.at == line.end || *line.at == '#')
        return 0;
    int rc = p->embedded ? 0 : parse_extent(p->d, line, err);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    const char *equals = memchr(line.at, '=', span_length(line));
    if (!equals)
        return 0;
    struct span key = { line.at, equals }, value = { equals + 1, line.end };
    trim(&key);
    trim(&value);
    return parse_key(p, key, value, err);
}

/* Comments, then "version=1" to 3: there is no better mark. */
bool vmdk_is_descriptor(const char *text, size_t length)
{
    struct span rest = { text, text + length }, line;

    while (next_line(&rest, &line)) {
        if (line.at == line.end || *line.at == '#')
            continue;
        return span_is(line, "version=1") || span_is(line, "version=2") ||
               span_is(line, "version=3");
    }
    return false;
}

int vmdk_descriptor_parse(const char *text, size_t length, bool embedded,
                          struct vmdk_descriptor *out, struct lam_error *err)
{
    struct span rest = { text, text + strnlen(text, length) }, line;
    const struct parse p = { out, text, embedded };

    *out = (struct vmdk_descriptor){
        .parent_cid = VMDK_NO_CID,
        .length = span_length(rest),
        .room = embedded ? length : 0,
    };
    if (!length)
        return lam_fail(err, EINVAL, "File is too small, not a valid image");
    if (!vmdk_is_descriptor(text, span_length(rest)))
        return lam_fail(err, EINVAL, "invalid VMDK image descriptor");
    while (next_line(&rest, &line)) {
        int rc = parse_line(&p, line, err);
        if (rc < 0)
            return rc;
    }
    if (!out->cid_digits)
        return lam_fail(err, EINVAL, "the VMDK descriptor has no CID");
    if (!out->create_type)
        return lam_fail(err, EINVAL, "invalid VMDK image descriptor: it has no "
                        "createType");
    return 0;
}
