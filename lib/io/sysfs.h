/* SPDX-License-Identifier: MIT */
/*
 * sysfs.h - what the kernel says about a block device in /sys/dev/block.
 *
 * Everything here is advice that may be missing (no /sys, another system, an
 * old kernel); who asks has an answer of his own for that case.
 */
#ifndef LAM_IO_SYSFS_H
#define LAM_IO_SYSFS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    SYSFS_NAME_MAX = 64,        /* a device's name, with its final zero */
    SYSFS_PATH_MAX = 512,
};

/* Where an attribute of @device is to be found. */
void sysfs_path(char path[SYSFS_PATH_MAX], dev_t device,
                const char *attribute);

/* The text of a file up to its first newline; false if there is none. */
bool sysfs_first_line(const char *path, char *text, size_t size);

/* The text of an attribute, up to its first newline; false if there is none. */
bool sysfs_text(dev_t device, const char *attribute, char *text, size_t size);

/* The number that an attribute begins with. */
bool sysfs_number(dev_t device, const char *attribute, uint64_t *value);

/* "sda1"; "8:1" where there is no name. */
void sysfs_name(dev_t device, char name[SYSFS_NAME_MAX]);

/* Is it a part of another device? */
bool sysfs_is_partition(dev_t device);

/* The disk that @device is a partition of, or is. */
dev_t sysfs_disk(dev_t device);

/*
 * Calls @fn for each entry of a device's folder ("holders", "slaves", "" for
 * its own) that is a block device, until one answers other than 0; returns
 * that answer.
 */
typedef int sysfs_fn(dev_t device, void *opaque);
int sysfs_each(dev_t device, const char *folder, sysfs_fn *fn, void *opaque);

/* The same for all block devices whose name begins with @prefix. */
int sysfs_each_device(const char *prefix, sysfs_fn *fn, void *opaque);

#endif
