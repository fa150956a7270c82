/* SPDX-License-Identifier: MIT */
/*
 * crc32c.h - the checksum of iSCSI, which VHDX has taken over.
 */
#ifndef LAM_BASE_CRC32C_H
#define LAM_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Of @length more bytes; @crc is 0 at the start, or the result so far. */
uint32_t crc32c(uint32_t crc, const void *bytes, size_t length);

/* The same without an instruction for it; for tests. */
uint32_t crc32c_portable(uint32_t crc, const void *bytes, size_t length);

#endif
