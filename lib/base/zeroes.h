/* SPDX-License-Identifier: MIT */
/*
 * zeroes.h - is this memory all zero, and where does that change.
 *
 * SIMD where the processor has it (asked at run time), portable C else.
 */
#ifndef LAM_BASE_ZEROES_H
#define LAM_BASE_ZEROES_H

#include <stdbool.h>
#include <stddef.h>

bool memory_is_zero(const void *p, size_t length);

/*
 * The length of the run that starts at @p: *@zero says whether its @unit-byte
 * blocks are all zero or none is.  The last block may be short.  @unit is at
 * least 1.  Returns at least 1 and at most @length (> 0).
 */
size_t zero_run(const void *p, size_t length, size_t unit, bool *zero);

/* One way to answer memory_is_zero(); best first, the portable one last. */
struct zeroes_method {
    const char *name;
    bool (*usable)(void);       /* on this processor */
    bool (*is_zero)(const unsigned char *p, size_t length);
};

/* All that were compiled in; for tests and benchmarks. */
const struct zeroes_method *zeroes_methods(size_t *count);

#endif
