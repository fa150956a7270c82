/* SPDX-License-Identifier: MIT */
/*
 * kernel-key.c - keys that the kernel keeps for a process.
 *
 * The call has no function in the C library.
 */
#include "crypto/kernel-key.h"

#include <linux/keyctl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "crypto/crypt.h"

/* The length of the key, of which @size bytes are read; -1 and errno. */
static long read_key(int32_t serial, uint8_t *data, size_t size)
{
    return syscall(SYS_keyctl, (long)KEYCTL_READ, (long)serial, data, size, 0L);
}

static int unreadable(int32_t serial, struct lam_error *err)
{
    return lam_fail_errno(err, errno, "Unable to read serial key %08x",
                          (unsigned)serial);
}

int kernel_key_read(int32_t serial, uint8_t **data, size_t *length,
                    struct lam_error *err)
{
    long size = read_key(serial, NULL, 0);

    while (size >= 0) {
        uint8_t *bytes = malloc((size_t)size + 1);
        if (!bytes)
            return lam_fail(err, ENOMEM, "no memory for a secret");
        long n = read_key(serial, bytes, (size_t)size);
        if (n >= 0 && n <= size) {
            bytes[n] = '\0';
            *data = bytes;
            *length = (size_t)n;
            return 0;
        }
        /* Somebody has put more into it meanwhile, or it went. */
        int code = errno;
        crypto_wipe(bytes, (size_t)size);
        free(bytes);
        errno = code;
        size = n;
    }
    return unreadable(serial, err);
}
