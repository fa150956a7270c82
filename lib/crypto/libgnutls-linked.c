/* SPDX-License-Identifier: MIT */
/*
 * libgnutls-linked.c - GnuTLS where it is linked to (-Ddlopen=false, static
 * programs).
 */
#include "crypto/libgnutls.h"

#define ADDRESS(name) .name = name,
static const struct libgnutls functions = { GNUTLS_FUNCTIONS(ADDRESS) };
#undef ADDRESS

int libgnutls_load(const struct libgnutls **out, struct lam_error *err)
{
    (void)err;
    *out = &functions;
    return 0;
}

const struct libgnutls *libgnutls(void)
{
    return &functions;
}
