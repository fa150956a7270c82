/* SPDX-License-Identifier: MIT */
/*
 * values.c - lists of named values: see values.h.
 */
#include "format/values.h"

#include <stdlib.h>
#include <string.h>

#include "base/arith.h"

/* Room for one more; NULL: no memory. */
static struct lam_value *append(struct lam_image_info *info, const char *name,
                                enum lam_value_kind kind,
                                struct lam_error *err)
{
    struct lam_value *grown = realloc(info->values, (info->nb_values + 1) *
                                      sizeof *grown);
    if (!grown) {
        lam_fail(err, ENOMEM, "no memory for a description");
        return NULL;
    }
    info->values = grown;
    grown[info->nb_values] = (struct lam_value){ .name = name, .kind = kind };
    return &grown[info->nb_values++];
}

int values_text(struct lam_image_info *info, const char *name,
                const char *text, struct lam_error *err)
{
    struct lam_value *v = append(info, name, LAM_VALUE_TEXT, err);

    if (!v)
        return -ENOMEM;
    v->text = strdup(text);
    return v->text ? 0 : lam_fail(err, ENOMEM, "no memory for '%s'", text);
}

int values_number(struct lam_image_info *info, const char *name,
                  uint64_t number, struct lam_error *err)
{
    struct lam_value *v = append(info, name, LAM_VALUE_NUMBER, err);

    if (!v)
        return -ENOMEM;
    v->number = number;
    return 0;
}

int values_bool(struct lam_image_info *info, const char *name, bool value,
                struct lam_error *err)
{
    struct lam_value *v = append(info, name, LAM_VALUE_BOOL, err);

    if (!v)
        return -ENOMEM;
    v->number = value;
    return 0;
}

int values_begin(struct lam_image_info *info, const char *name,
                 enum lam_value_kind kind, struct lam_error *err)
{
    assert(kind == LAM_VALUE_LIST || kind == LAM_VALUE_OBJECT);
    return append(info, name, kind, err) ? 0 : -ENOMEM;
}

int values_end(struct lam_image_info *info, struct lam_error *err)
{
    return append(info, NULL, LAM_VALUE_END, err) ? 0 : -ENOMEM;
}

/* ------------------------------------------------------------ options */

const char *option_text(const struct lam_create_options *options,
                        const char *name, const char *standard)
{
    for (size_t i = options->nb_named; i-- > 0;)
        if (!strcmp(options->named[i].name, name))
            return options->named[i].value;
    return standard;
}

int option_bool(const struct lam_create_options *options, const char *name,
                bool standard, bool *value, struct lam_error *err)
{
    static const char *const words[][2] = {
        { "off", "on" }, { "no", "yes" }, { "false", "true" }, { "n", "y" },
    };
    const char *text = option_text(options, name, NULL);

    *value = standard;
    if (!text)
        return 0;
    for (size_t i = 0; i < LAM_ARRAY_SIZE(words); i++) {
        for (size_t on = 0; on < 2; on++) {
            if (strcmp(text, words[i][on]))
                continue;
            *value = on;
            return 0;
        }
    }
    return lam_fail(err, EINVAL, "Parameter '%s' expects 'on' or 'off'", name);
}

static int scale(const char *suffix, uint64_t *value)
{
    static const char letters[] = "BKMGTPE";
    const char *found = *suffix ? strchr(letters, *suffix & ~0x20) : letters;

    if (!found || (*suffix && suffix[1]))
        return -EINVAL;
    return mul_overflows(*value, UINT64_C(1) << (10 * (found - letters)), value)
        ? -ERANGE : 0;
}

int option_size(const struct lam_create_options *options, const char *name,
                uint64_t standard, uint64_t *value, struct lam_error *err)
{
    const char *text = option_text(options, name, NULL);
    char *end;

    *value = standard;
    if (!text)
        return 0;
    errno = 0;
    unsigned long long number = strtoull(text, &end, 0);
    *value = number;
    int rc = errno || strchr(text, '-') ? -ERANGE : end == text ? -EINVAL
           : scale(end, value);
    if (rc == -ERANGE)
        return lam_fail(err, EINVAL, "Value '%s' is out of range for parameter "
                        "'%s'", text, name);
    return rc == 0 ? 0 : lam_fail(err, EINVAL, "Parameter '%s' expects a "
                                  "non-negative number below 2^64", name);
}
