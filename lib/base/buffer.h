/* SPDX-License-Identifier: MIT */
/*
 * buffer.h - page-aligned memory for I/O, which O_DIRECT demands.
 */
#ifndef LAM_BASE_BUFFER_H
#define LAM_BASE_BUFFER_H

#include <stddef.h>

/* Aligned to 4096 bytes, not cleared; NULL if there is no memory.  free(). */
void *buffer_new(size_t bytes);

#endif
