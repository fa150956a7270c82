/* SPDX-License-Identifier: MIT */
/*
 * liburing-linked.c - liburing where it is linked to (-Ddlopen=false, static
 * programs).
 */
#include "io/liburing.h"

#define ADDRESS(name) .name = name,
static const struct liburing functions = { LIBURING_FUNCTIONS(ADDRESS) };
#undef ADDRESS

const struct liburing *liburing(void)
{
    return &functions;
}
