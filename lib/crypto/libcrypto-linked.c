/* SPDX-License-Identifier: MIT */
/*
 * libcrypto-linked.c - libcrypto where it is linked to (-Ddlopen=false, static
 * programs).
 */
#include "crypto/libcrypto.h"

#define ADDRESS(name) .name = name,
static const struct libcrypto functions = { LIBCRYPTO_FUNCTIONS(ADDRESS) };
#undef ADDRESS

int libcrypto_load(const struct libcrypto **out, struct lam_error *err)
{
    (void)err;
    *out = &functions;
    return 0;
}

const struct libcrypto *libcrypto(void)
{
    return &functions;
}
