/* SPDX-License-Identifier: MIT */
/*
 * libnettle.h - what we call in libnettle, which is loaded by who needs it:
 * almost nobody.
 */
#ifndef LAM_CRYPTO_LIBNETTLE_H
#define LAM_CRYPTO_LIBNETTLE_H

#include <nettle/cast128.h>
#include <nettle/serpent.h>
#include <nettle/twofish.h>

#include "base/error.h"

#define LIBNETTLE_FUNCTIONS(F)                                              \
    F(nettle_cast128_decrypt)                                               \
    F(nettle_cast128_encrypt)                                               \
    F(nettle_cast128_set_key)                                               \
    F(nettle_serpent_decrypt)                                               \
    F(nettle_serpent_encrypt)                                               \
    F(nettle_serpent_set_key)                                               \
    F(nettle_twofish_decrypt)                                               \
    F(nettle_twofish_encrypt)                                               \
    F(nettle_twofish_set_key)

#define LIBNETTLE_MEMBER(name) __typeof__(name) *name;
struct libnettle {
    LIBNETTLE_FUNCTIONS(LIBNETTLE_MEMBER)
};
#undef LIBNETTLE_MEMBER

/*
 * The functions, in *@out; any thread.  -ENOTSUP: there is no such library
 * here.  It is loaded once and stays.
 */
int libnettle_load(const struct libnettle **out, struct lam_error *err);

/* The same for who has what libnettle made: it is there. */
const struct libnettle *libnettle(void);

#endif
