/* SPDX-License-Identifier: MIT */
/*
 * libcrypto.h - what we call in libcrypto, which is loaded by who needs it.
 *
 * The dynamic linker takes longer over libcrypto than over all else together,
 * and most images have nothing to encrypt or to hash.
 */
#ifndef LAM_CRYPTO_LIBCRYPTO_H
#define LAM_CRYPTO_LIBCRYPTO_H

#include <openssl/evp.h>

#include "base/error.h"

#define LIBCRYPTO_FUNCTIONS(F)                                              \
    F(EVP_CIPHER_CTX_free)                                                  \
    F(EVP_CIPHER_CTX_new)                                                   \
    F(EVP_CIPHER_CTX_set_padding)                                           \
    F(EVP_CIPHER_get_key_length)                                            \
    F(EVP_CipherInit_ex)                                                    \
    F(EVP_CipherUpdate)                                                     \
    F(EVP_DigestFinal_ex)                                                   \
    F(EVP_DigestInit_ex)                                                    \
    F(EVP_DigestUpdate)                                                     \
    F(EVP_MD_CTX_free)                                                      \
    F(EVP_MD_CTX_new)                                                       \
    F(EVP_get_cipherbyname)                                                 \
    F(EVP_get_digestbyname)                                                 \
    F(PKCS5_PBKDF2_HMAC)

#define LIBCRYPTO_MEMBER(name) __typeof__(name) *name;
struct libcrypto {
    LIBCRYPTO_FUNCTIONS(LIBCRYPTO_MEMBER)
};
#undef LIBCRYPTO_MEMBER

/*
 * The functions, in *@out; any thread.  -ENOTSUP: there is no such library
 * here.  It is loaded once and stays.
 */
int libcrypto_load(const struct libcrypto **out, struct lam_error *err);

/* The same for who has what libcrypto made: it is there. */
const struct libcrypto *libcrypto(void);

#endif
