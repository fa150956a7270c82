/* SPDX-License-Identifier: MIT */
/*
 * provision.c - what a block device makes of requests to free and to zero.
 *
 * The kernel zeroes with leave to unmap in two ways that look alike from above:
 * a SCSI disk gets a WRITE SAME with the UNMAP bit, or, where it does not
 * promise that unmapped blocks read as zeroes or has no such command, a plain
 * one that fills every block.  Its zeroing_mode tells which.  Devices made of
 * others (device mapper, RAID) are no better than the worst among them.
 */
#include "io/provision.h"

#include <glob.h>
#include <stdio.h>
#include <string.h>

#include "io/sysfs.h"

enum {
    MAX_DEPTH = 8,              /* of devices on devices */
    VPD_LBP_MIN = 6,            /* bytes of the page that are looked at */
};

struct probe {
    struct provision *out;
    unsigned depth;
};

bool provision_page_undefined(const uint8_t *page, size_t length)
{
    if (length < VPD_LBP_MIN || page[1] != 0xb2)
        return false;
    /* LBPRZ: 000 indeterminate, xx1 zeroes, 010 a pattern of its own. */
    return !(page[5] >> 2 & 1);
}

/* The disk's own folder is named by its address, which is in the way. */
static bool scsi_text(dev_t device, const char *attribute, char *text,
                      size_t size)
{
    char name[SYSFS_PATH_MAX], pattern[SYSFS_PATH_MAX];
    glob_t found;

    snprintf(name, sizeof name, "device/scsi_disk/*/%s", attribute);
    sysfs_path(pattern, device, name);
    if (glob(pattern, 0, NULL, &found) != 0)
        return false;
    bool there = sysfs_first_line(found.gl_pathv[0], text, size);
    globfree(&found);
    return there;
}

static bool page_undefined(dev_t device)
{
    char path[SYSFS_PATH_MAX];
    uint8_t page[64];

    sysfs_path(path, device, "device/vpd_pgb2");
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    size_t length = fread(page, 1, sizeof page, f);
    fclose(f);
    return provision_page_undefined(page, length);
}

static void probe_scsi(dev_t device, struct provision *out)
{
    char mode[64];

    if (!scsi_text(device, "zeroing_mode", mode, sizeof mode))
        return;
    if (!strstr(mode, "unmap"))
        out->zeroing_keeps = true;
    if (page_undefined(device))
        out->discard_undefined = true;
}

/* Since 6.17 the queue tells; of others than NVMe a 0 means that nobody has
 * asked the driver yet. */
static void probe_queue(dev_t device, struct provision *out)
{
    char name[SYSFS_NAME_MAX];
    uint64_t most;

    sysfs_name(device, name);
    if (strncmp(name, "nvme", 4) == 0 &&
        sysfs_number(device, "queue/write_zeroes_unmap_max_hw_bytes", &most) &&
        most == 0)
        out->zeroing_keeps = true;
}

static int probe_device(dev_t device, void *opaque)
{
    struct probe *p = opaque;
    struct probe below = { .out = p->out, .depth = p->depth + 1 };
    dev_t disk = sysfs_disk(device);

    probe_scsi(disk, p->out);
    probe_queue(disk, p->out);
    if (p->depth < MAX_DEPTH)
        sysfs_each(disk, "slaves", probe_device, &below);
    return 0;
}

void provision_probe(dev_t device, struct provision *out)
{
    struct probe p = { .out = out };

    *out = (struct provision){ false, false };
    probe_device(device, &p);
}
