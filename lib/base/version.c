/* SPDX-License-Identifier: MIT */
/*
 * version.c - which library this is.
 */
#include "lamella.h"

#define TEXT_(x) #x
#define TEXT(x)  TEXT_(x)

const char *lam_version(void)
{
    return TEXT(LAM_VERSION_MAJOR) "." TEXT(LAM_VERSION_MINOR) "."
           TEXT(LAM_VERSION_PATCH);
}
