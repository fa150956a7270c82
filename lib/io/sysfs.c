/* SPDX-License-Identifier: MIT */
/*
 * sysfs.c - what the kernel says about a block device in /sys/dev/block.
 */
#include "io/sysfs.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define SYS_BLOCK "/sys/block"

void sysfs_path(char path[SYSFS_PATH_MAX], dev_t device, const char *attribute)
{
    snprintf(path, SYSFS_PATH_MAX, "/sys/dev/block/%u:%u/%s", major(device),
             minor(device), attribute);
}

bool sysfs_first_line(const char *path, char *text, size_t size)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    bool there = fgets(text, (int)size, f) != NULL;
    fclose(f);
    if (there)
        text[strcspn(text, "\n")] = '\0';
    return there;
}

bool sysfs_text(dev_t device, const char *attribute, char *text, size_t size)
{
    char path[SYSFS_PATH_MAX];

    sysfs_path(path, device, attribute);
    return sysfs_first_line(path, text, size);
}

bool sysfs_number(dev_t device, const char *attribute, uint64_t *value)
{
    char text[64];

    return sysfs_text(device, attribute, text, sizeof text) &&
           sscanf(text, "%" SCNu64, value) == 1;
}

void sysfs_name(dev_t device, char name[SYSFS_NAME_MAX])
{
    char path[SYSFS_PATH_MAX], target[SYSFS_PATH_MAX];

    snprintf(name, SYSFS_NAME_MAX, "%u:%u", major(device), minor(device));
    snprintf(path, sizeof path, "/sys/dev/block/%s", name);
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length <= 0)
        return;
    target[length] = '\0';
    const char *slash = strrchr(target, '/');
    snprintf(name, SYSFS_NAME_MAX, "%.*s", SYSFS_NAME_MAX - 1,
             slash ? slash + 1 : target);
}

static bool parse_device(const char *text, dev_t *device)
{
    unsigned number[2];

    if (sscanf(text, "%u:%u", &number[0], &number[1]) != 2)
        return false;
    *device = makedev(number[0], number[1]);
    return true;
}

bool sysfs_is_partition(dev_t device)
{
    uint64_t number;

    return sysfs_number(device, "partition", &number);
}

dev_t sysfs_disk(dev_t device)
{
    char text[64];
    dev_t disk;

    if (sysfs_is_partition(device) &&
        sysfs_text(device, "../dev", text, sizeof text) &&
        parse_device(text, &disk))
        return disk;
    return device;
}

/* @prefix: what the names of the entries begin with. */
static int each(const char *folder, const char *prefix, sysfs_fn *fn,
                void *opaque)
{
    DIR *dir = opendir(folder);
    int answer = 0;

    if (!dir)
        return 0;
    for (struct dirent *e = readdir(dir); e && answer == 0; e = readdir(dir)) {
        char path[2 * SYSFS_PATH_MAX], text[64];
        dev_t device;
        if (e->d_name[0] == '.' ||
            strncmp(e->d_name, prefix, strlen(prefix)) != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s/dev", folder, e->d_name);
        if (sysfs_first_line(path, text, sizeof text) &&
            parse_device(text, &device))
            answer = fn(device, opaque);
    }
    closedir(dir);
    return answer;
}

int sysfs_each(dev_t device, const char *folder, sysfs_fn *fn, void *opaque)
{
    char path[SYSFS_PATH_MAX];

    sysfs_path(path, device, folder);
    return each(path, "", fn, opaque);
}

int sysfs_each_device(const char *prefix, sysfs_fn *fn, void *opaque)
{
    return each(SYS_BLOCK, prefix, fn, opaque);
}
