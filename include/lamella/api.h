/* SPDX-License-Identifier: MIT */
/* lamella/api.h - what every other header needs; the version. */
#ifndef LAMELLA_API_H
#define LAMELLA_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Some functions are called as the struct that they fill in, as stat() is; g++
 * -Wshadow minds where these headers are not the system's. */
#ifdef __cplusplus
#define LAM_BEGIN_DECLS                                                     \
    _Pragma("GCC diagnostic push")                                          \
    _Pragma("GCC diagnostic ignored \"-Wshadow\"")                          \
    extern "C" {
#define LAM_END_DECLS } _Pragma("GCC diagnostic pop")
#else
#define LAM_BEGIN_DECLS
#define LAM_END_DECLS
#endif

LAM_BEGIN_DECLS

#define LAM_API __attribute__((visibility("default")))

#define LAM_VERSION_MAJOR 0
#define LAM_VERSION_MINOR 1
#define LAM_VERSION_PATCH 0

/* "MAJOR.MINOR.PATCH" of the library that is running; static storage. */
LAM_API const char *lam_version(void);

LAM_END_DECLS

#endif
