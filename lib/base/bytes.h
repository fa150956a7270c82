/* SPDX-License-Identifier: MIT */
/*
 * bytes.h - integers on bytes, whatever their alignment: big-endian (be) and
 * little-endian (le).
 */
#ifndef LAM_BASE_BYTES_H
#define LAM_BASE_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define LAM_BYTES_PAIR(order, bits)                                         \
    static inline uint##bits##_t order##bits##_get(const void *p)           \
    {                                                                       \
        uint##bits##_t v;                                                   \
        memcpy(&v, p, sizeof v);                                            \
        return order##bits##toh(v);                                         \
    }                                                                       \
    static inline void order##bits##_put(void *p, uint##bits##_t v)         \
    {                                                                       \
        v = hto##order##bits(v);                                            \
        memcpy(p, &v, sizeof v);                                            \
    }

LAM_BYTES_PAIR(be, 16)
LAM_BYTES_PAIR(be, 32)
LAM_BYTES_PAIR(be, 64)
LAM_BYTES_PAIR(le, 16)
LAM_BYTES_PAIR(le, 32)
LAM_BYTES_PAIR(le, 64)

#undef LAM_BYTES_PAIR

#endif
