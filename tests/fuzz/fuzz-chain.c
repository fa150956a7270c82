/* SPDX-License-Identifier: MIT */
/*
 * fuzz-chain.c - any bytes as an image whose header names other files, opened
 * as what a stranger sent: with policy none, and with siblings only.
 *
 * In a folder with a backing and a data file beside it, and a file outside that
 * must never be reached: it holds a pattern that nobody else has.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST = 64 << 10, SECRET = 0xe7, BASE = 0x11 };

static char folder[64], top[96];

static void put(const char *name, const void *bytes, size_t size)
{
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    if (fd < 0 || write(fd, bytes, size) != (ssize_t)size)
        abort();
    close(fd);
}

static void fill(const char *where, const char *name, int byte)
{
    static uint8_t buf[4096];
    char path[128];

    snprintf(path, sizeof path, "%s%s", where, name);
    memset(buf, byte, sizeof buf);
    put(path, buf, sizeof buf);
}

static void begin(void)
{
    snprintf(folder, sizeof folder, "fuzz-chain-%d/", (int)getpid());
    snprintf(top, sizeof top, "%stop", folder);
    if (mkdir(folder, 0700) < 0)
        abort();
    fill(folder, "base.raw", BASE);
    fill(folder, "d.raw", BASE);
    fill("", "secret", SECRET);
}

/* The stranger knows what the file outside is called, but not what is in it. */
static void look(struct lam_image *image, const uint8_t *data, size_t size)
{
    static uint8_t buf[MOST];
    uint8_t secret[32];
    uint64_t n = lam_image_size(image);

    memset(secret, SECRET, sizeof secret);
    n = n < MOST ? n : MOST;
    if (memmem(data, size, secret, sizeof secret))
        return;                 /* or had it from the start */
    if (lam_image_read(image, buf, n, 0, NULL) == 0 &&
        memmem(buf, n, secret, sizeof secret))
        abort();
}

static void try_policy(enum lam_policy policy, const uint8_t *data, size_t size)
{
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;
    struct lam_image *image;

    options.policy = policy;
    options.format = "qcow2";
    int rc = lam_image_open(top, &options, &image, &err);
    if (rc < 0) {
        if (image || !err.message[0])
            abort();
        return;
    }
    if (policy == LAM_POLICY_NONE &&
        (lam_image_backing(image) || image->data))
        abort();
    look(image, data, size);
    lam_image_close(image, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!folder[0])
        begin();
    put(top, data, size);
    try_policy(LAM_POLICY_NONE, data, size);
    try_policy(LAM_POLICY_SIBLINGS, data, size);
    return 0;
}
