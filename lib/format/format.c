/* SPDX-License-Identifier: MIT */
/*
 * format.c - the formats we know, by name and by their first bytes.
 */
#include "format/format.h"

#include <string.h>

static const struct format_ops *const formats[] = {
    &format_qcow2,
    &format_luks,
    &format_raw,
};

const struct format_ops *format_find(const char *name)
{
    for (size_t i = 0; i < LAM_ARRAY_SIZE(formats); i++)
        if (!strcmp(formats[i]->name, name))
            return formats[i];
    return NULL;
}

const struct format_ops *format_probe(const uint8_t *head, size_t length)
{
    const struct format_ops *best = &format_raw;
    int best_score = 0;

    for (size_t i = 0; i < LAM_ARRAY_SIZE(formats); i++) {
        int score = formats[i]->probe(head, length);
        if (score > best_score) {
            best = formats[i];
            best_score = score;
        }
    }
    return best;
}
