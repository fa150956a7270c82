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

#include "base/arith.h"
#include "base/bytes.h"
#include "io/sysfs.h"

enum {
    MAX_DEPTH = 8,              /* of devices on devices */
    VPD_LIMITS = 0xb0, VPD_PROVISIONING = 0xb2,
    LIMITS_MIN = 36, PROVISIONING_MIN = 6,  /* bytes that are looked at */
    SECTOR = 512,
};

struct probe {
    struct provision *out;
    unsigned depth;
};

bool provision_page_undefined(const uint8_t *page, size_t length)
{
    if (length < PROVISIONING_MIN || page[1] != VPD_PROVISIONING)
        return false;
    /* LBPRZ: 000 indeterminate, xx1 zeroes, 010 a pattern of its own. */
    return !(page[5] >> 2 & 1);
}

uint32_t provision_page_alignment(const uint8_t *page, size_t length)
{
    if (length < LIMITS_MIN || page[1] != VPD_LIMITS || !(page[32] & 0x80))
        return 0;
    return be32_get(page + 32) & 0x7fffffff;
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

/* A page of vital product data; 0 bytes if there is none. */
static size_t read_page(dev_t device, const char *name, uint8_t *page,
                        size_t size)
{
    char path[SYSFS_PATH_MAX];

    sysfs_path(path, device, name);
    FILE *f = fopen(path, "re");
    if (!f)
        return 0;
    size_t length = fread(page, 1, size, f);
    fclose(f);
    return length;
}

/*
 * What reads as anything may do so later: a disk can forget over a power cut
 * what it was told to free, and show the old blocks again.  A disk that QEMU
 * emulates says the same of a file's holes, which are what they were read as.
 */
static bool is_emulated(dev_t device)
{
    char vendor[16];

    return sysfs_text(device, "device/vendor", vendor, sizeof vendor) &&
           strncmp(vendor, "QEMU", 4) == 0;
}

static void probe_scsi(dev_t device, struct provision *out)
{
    uint8_t page[64];
    char mode[64];

    if (!scsi_text(device, "zeroing_mode", mode, sizeof mode))
        return;
    if (!strstr(mode, "unmap"))
        out->zeroing_keeps = true;
    size_t length = read_page(device, "device/vpd_pgb2", page, sizeof page);
    if (provision_page_undefined(page, length) && !is_emulated(device))
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

/* Some kernels say 0 of a disk whose granules begin elsewhere. */
static uint64_t alignment_on_disk(dev_t disk)
{
    uint8_t page[64];
    uint64_t block;
    size_t length = read_page(disk, "device/vpd_pgb0", page, sizeof page);

    if (!sysfs_number(disk, "queue/logical_block_size", &block))
        return 0;
    return provision_page_alignment(page, length) * block;
}

static uint64_t alignment(dev_t device)
{
    dev_t disk = sysfs_disk(device);
    uint64_t granule, start = 0, on_disk = alignment_on_disk(disk);

    if (on_disk == 0 ||
        !sysfs_number(disk, "queue/discard_granularity", &granule) ||
        granule == 0)
        return 0;
    if (disk != device && !sysfs_number(device, "start", &start))
        return 0;
    uint64_t into = start % max_u64(granule / SECTOR, 1) * SECTOR;
    return (on_disk % granule + granule - into) % granule;
}

void provision_probe(dev_t device, struct provision *out)
{
    struct probe p = { .out = out };

    *out = (struct provision){ .discard_alignment = alignment(device) };
    probe_device(device, &p);
}
