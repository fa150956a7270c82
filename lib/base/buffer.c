/* SPDX-License-Identifier: MIT */
/*
 * buffer.c - page-aligned memory for I/O.
 */
#include "base/buffer.h"

#include <stdlib.h>

enum { BUFFER_ALIGNMENT = 4096 };

void *buffer_new(size_t bytes)
{
    void *p = NULL;
    /* One byte at least: NULL means that there is no memory. */
    if (posix_memalign(&p, BUFFER_ALIGNMENT, bytes ? bytes : 1))
        return NULL;
    return p;
}
