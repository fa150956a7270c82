/* SPDX-License-Identifier: MIT */
/*
 * bytes.h - big-endian integers on bytes, whatever their alignment.
 */
#ifndef LAM_BASE_BYTES_H
#define LAM_BASE_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define LAM_BYTES_PAIR(bits)                                                \
    static inline uint##bits##_t be##bits##_get(const void *p)              \
    {                                                                       \
        uint##bits##_t v;                                                   \
        memcpy(&v, p, sizeof v);                                            \
        return be##bits##toh(v);                                            \
    }                                                                       \
    static inline void be##bits##_put(void *p, uint##bits##_t v)            \
    {                                                                       \
        v = htobe##bits(v);                                                 \
        memcpy(p, &v, sizeof v);                                            \
    }

LAM_BYTES_PAIR(16)
LAM_BYTES_PAIR(32)
LAM_BYTES_PAIR(64)

#undef LAM_BYTES_PAIR

#endif
