/* SPDX-License-Identifier: MIT */
/*
 * libnettle-linked.c - libnettle where it is linked to (-Ddlopen=false, static
 * programs).
 */
#include "crypto/libnettle.h"

#define ADDRESS(name) .name = name,
static const struct libnettle functions = { LIBNETTLE_FUNCTIONS(ADDRESS) };
#undef ADDRESS

int libnettle_load(const struct libnettle **out, struct lam_error *err)
{
    (void)err;
    *out = &functions;
    return 0;
}

const struct libnettle *libnettle(void)
{
    return &functions;
}
