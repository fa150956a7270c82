/* SPDX-License-Identifier: MIT */
/*
 * libnbd-linked.c - libnbd where it is linked to (-Ddlopen=false, static
 * programs).
 */
#include "io/libnbd-load.h"

#define ADDRESS(name) .name = name,
static const struct libnbd functions = { LIBNBD_FUNCTIONS(ADDRESS) };
#undef ADDRESS

int libnbd_load(const struct libnbd **out, struct lam_error *err)
{
    (void)err;
    *out = &functions;
    return 0;
}

const struct libnbd *libnbd(void)
{
    return &functions;
}
