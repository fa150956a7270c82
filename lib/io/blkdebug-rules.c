/* SPDX-License-Identifier: MIT */
/*
 * blkdebug-rules.c - the rules of an object that fails, from keys and values
 * and from a file of them.
 *
 *     [inject-error]
 *     event = "read_aio"
 *     errno = "5"
 *
 * Messages are those of QEMU's driver, whose files these are.
 */
#include "io/blkdebug.h"

#include <string.h>

#include "base/cleanup.h"

/* Of a configuration file; nobody writes longer ones. */
enum { CONFIG_MAX = 1 << 20 };

void blkdebug_options_deinit(struct blkdebug_options *options)
{
    free(options->rules);
    *options = (struct blkdebug_options){ 0 };
}

struct blkdebug_rule *blkdebug_add_rule(struct blkdebug_options *options,
                                        enum blkdebug_action action)
{
    if (options->nb_rules == options->capacity) {
        size_t capacity = options->capacity ? 2 * options->capacity : 8;
        struct blkdebug_rule *rules = realloc(options->rules,
                                              capacity * sizeof *rules);
        if (!rules)
            return NULL;
        options->rules = rules;
        options->capacity = capacity;
    }
    struct blkdebug_rule *rule = &options->rules[options->nb_rules++];
    *rule = (struct blkdebug_rule){
        .action = action, .kinds = BLKDEBUG_ALL, .errnum = EIO, .sector = -1,
    };
    return rule;
}

/* ------------------------------------------------------------------- values */

static int take_event(struct blkdebug_rule *rule, const char *value,
                      struct lam_error *err)
{
    int event = io_event_parse(value);

    if (event < 0)
        return lam_fail(err, EINVAL, "invalid parameter value: %s", value);
    rule->event = (enum io_event)event;
    rule->has_event = true;
    return 0;
}

static int take_kind(struct blkdebug_rule *rule, const char *value,
                     struct lam_error *err)
{
    static const struct { const char *name; unsigned kind; } kinds[] = {
        { "read", BLKDEBUG_READ }, { "write", BLKDEBUG_WRITE },
        { "write-zeroes", BLKDEBUG_WRITE_ZEROES },
        { "discard", BLKDEBUG_DISCARD }, { "flush", BLKDEBUG_FLUSH },
        { "block-status", BLKDEBUG_BLOCK_STATUS },
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(kinds); i++)
        if (!strcmp(value, kinds[i].name)) {
            rule->kinds = kinds[i].kind;
            return 0;
        }
    return lam_fail(err, EINVAL, "invalid parameter value: %s", value);
}

/* As strtoull() understands it: -1 is the largest number. */
static int take_number(const char *key, const char *value, uint64_t *out,
                       struct lam_error *err)
{
    char *end;

    errno = 0;
    *out = strtoull(value, &end, 0);
    if (end == value || *end)
        return lam_fail(err, EINVAL, "Parameter '%s' expects a number", key);
    if (errno)
        return lam_fail(err, EINVAL, "Value '%s' is too large for parameter "
                        "'%s'", value, key);
    return 0;
}

static int take_bool(const char *key, const char *value, bool *out,
                     struct lam_error *err)
{
    static const char *const words[] = {
        "off", "on", "no", "yes", "false", "true", "n", "y",
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(words); i++)
        if (!strcmp(value, words[i])) {
            *out = i & 1;
            return 0;
        }
    return lam_fail(err, EINVAL, "Parameter '%s' expects 'on' or 'off'", key);
}

/* ----------------------------------------------------------------- one rule */

bool blkdebug_has_key(enum blkdebug_action action, const char *key)
{
    static const struct { const char *key; bool inject, set; } keys[] = {
        { "event", true, true },        { "state", true, true },
        { "new_state", false, true },   { "iotype", true, false },
        { "errno", true, false },       { "sector", true, false },
        { "once", true, false },        { "immediately", true, false },
    };

    for (size_t i = 0; i < LAM_ARRAY_SIZE(keys); i++)
        if (!strcmp(key, keys[i].key))
            return action == BLKDEBUG_INJECT_ERROR ? keys[i].inject
                                                   : keys[i].set;
    return false;
}

int blkdebug_set(struct blkdebug_rule *rule, const char *key,
                 const char *value, struct lam_error *err)
{
    uint64_t number = 0;
    bool ignored;

    assert(blkdebug_has_key(rule->action, key));
    if (!strcmp(key, "event"))
        return take_event(rule, value, err);
    if (!strcmp(key, "iotype"))
        return take_kind(rule, value, err);
    if (!strcmp(key, "once"))
        return take_bool(key, value, &rule->once, err);
    /* Ours always fails where it is: nobody could tell the difference. */
    if (!strcmp(key, "immediately"))
        return take_bool(key, value, &ignored, err);
    int rc = take_number(key, value, &number, err);
    if (rc < 0)
        return rc;
    if (!strcmp(key, "state"))
        rule->state = (uint32_t)number;
    else if (!strcmp(key, "new_state"))
        rule->new_state = (uint32_t)number;
    else if (!strcmp(key, "errno"))
        rule->errnum = (int)number;
    else
        rule->sector = (int64_t)number;
    return 0;
}

int blkdebug_check_rule(const struct blkdebug_rule *rule,
                        struct lam_error *err)
{
    return rule->has_event ? 0 : lam_fail(err, EINVAL,
                                          "Missing event name for rule");
}

/* --------------------------------------------------------------- the file */

struct parser {
    struct blkdebug_options *options;
    struct blkdebug_rule *rule; /* of the section; NULL: before the first */
};

static int end_section(struct parser *p, struct lam_error *err)
{
    return p->rule ? blkdebug_check_rule(p->rule, err) : 0;
}

/* What follows '['. */
static int begin_section(struct parser *p, char *line, struct lam_error *err)
{
    int rc = end_section(p, err);
    enum blkdebug_action action = BLKDEBUG_INJECT_ERROR;

    if (rc < 0)
        return rc;
    line[strcspn(line, "] \t\"")] = '\0';
    if (!strcmp(line, "set-state"))
        action = BLKDEBUG_SET_STATE;
    else if (strcmp(line, "inject-error"))
        return lam_fail(err, EINVAL, "There is no option group '%s'", line);
    p->rule = blkdebug_add_rule(p->options, action);
    return p->rule ? 0 : lam_fail(err, ENOMEM, "no memory for a rule");
}

/* key = "value"; what is no such value counts as an empty one. */
static int take_line(struct parser *p, char *line, struct lam_error *err)
{
    size_t length = strcspn(line, " \t");
    char *value = line + length;

    if (!p->rule)
        return lam_fail(err, EINVAL, "no group defined");
    value += strspn(value, " \t");
    if (*value == '=' && value[1 + strspn(value + 1, " \t")] == '"') {
        value = strchr(value, '"') + 1;
        value[strcspn(value, "\"")] = '\0';
    } else {
        value = line + strlen(line);
    }
    line[length] = '\0';
    if (!blkdebug_has_key(p->rule->action, line))
        return lam_fail(err, EINVAL, "Invalid parameter '%s'", line);
    return blkdebug_set(p->rule, line, value, err);
}

int blkdebug_parse(struct blkdebug_options *options, const char *text,
                   struct lam_error *err)
{
    struct parser p = { options, NULL };
    lam_autofree char *copy = strdup(text);
    char *rest = NULL;
    int rc = copy ? 0 : lam_fail(err, ENOMEM, "no memory for rules");

    for (char *line = copy ? strtok_r(copy, "\r\n", &rest) : NULL;
         line && rc == 0; line = strtok_r(NULL, "\r\n", &rest)) {
        line += strspn(line, " \t");
        if (!*line || *line == '#')
            continue;
        rc = *line == '[' ? begin_section(&p, line + 1, err)
                          : take_line(&p, line, err);
    }
    return rc < 0 ? rc : end_section(&p, err);
}

int blkdebug_read_config(struct blkdebug_options *options, const char *path,
                         struct lam_error *err)
{
    lam_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    lam_autofree char *text = malloc(CONFIG_MAX + 1);
    size_t length = 0;
    ssize_t n = 1;

    if (!text)
        return lam_fail(err, ENOMEM, "no memory for a blkdebug config file");
    while (fd >= 0 && length < CONFIG_MAX && n > 0) {
        n = read(fd, text + length, CONFIG_MAX - length);
        length += n > 0 ? (size_t)n : 0;
    }
    if (fd < 0 || n < 0)
        return lam_fail_errno(err, errno,
                              "Could not read blkdebug config file");
    if (length == CONFIG_MAX)
        return lam_fail(err, EFBIG, "'%s' is longer than the limit of %d bytes"
                        " of a blkdebug config file", path, CONFIG_MAX);
    text[length] = '\0';
    return blkdebug_parse(options, text, err);
}
