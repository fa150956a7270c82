/* SPDX-License-Identifier: MIT */
/*
 * in-use.c - does this machine itself use a device that is to be overwritten?
 *
 * Locks on images tell of other programs that know images.  A mounted file
 * system, swap, a volume manager know nothing of them: the kernel does.  Four
 * places tell, and none tells everything: the table of mounts (of our
 * namespace), the table of swap areas, the holders in sysfs, and an exclusive
 * open, which fails for whatever the others did not show.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "io/sysfs.h"

#define MOUNTS "/proc/self/mountinfo"
#define SWAPS  "/proc/swaps"

/* What is asked about: a device, or a file that loop devices may stand on. */
struct subject {
    const char *path;
    struct stat st;
    struct lam_error *err;
};

static bool is_device(const char *path, dev_t device)
{
    struct stat st;

    return strncmp(path, "/dev/", 5) == 0 && stat(path, &st) == 0 &&
           S_ISBLK(st.st_mode) && st.st_rdev == device;
}

/*
 * One line of mountinfo: "36 35 8:1 / /mnt rw,noatime ... - ext4 /dev/sda1 rw".
 * File systems on several devices have a number of their own, and one of the
 * devices as their source.  The place stays escaped as it is.
 */
static bool line_mounts(const char *line, dev_t device, char *place)
{
    char source[SYSFS_PATH_MAX] = "";
    unsigned number[2];

    if (sscanf(line, "%*u %*u %u:%u %*s %511s", &number[0], &number[1],
               place) != 3)
        return false;
    if (makedev(number[0], number[1]) == device)
        return true;
    const char *rest = strstr(line, " - ");
    return rest && sscanf(rest, " - %*s %511s", source) == 1 &&
           is_device(source, device);
}

static bool is_mounted(dev_t device, char place[SYSFS_PATH_MAX])
{
    lam_autofree char *line = NULL;
    size_t size = 0;
    bool found = false;
    FILE *f = fopen(MOUNTS, "re");

    if (!f)
        return false;
    while (!found && getline(&line, &size, f) > 0)
        found = line_mounts(line, device, place);
    fclose(f);
    return found;
}

/* Swap areas are listed by path, a device or a file. */
static bool is_swap(const struct stat *st)
{
    lam_autofree char *line = NULL;
    size_t size = 0;
    bool found = false;
    FILE *f = fopen(SWAPS, "re");

    if (!f)
        return false;
    while (!found && getline(&line, &size, f) > 0) {
        char path[SYSFS_PATH_MAX];
        struct stat area;
        if (sscanf(line, "%511s", path) != 1 || path[0] != '/' ||
            stat(path, &area) < 0)
            continue;
        found = S_ISBLK(st->st_mode) ? area.st_rdev == st->st_rdev
                                     : area.st_dev == st->st_dev &&
                                       area.st_ino == st->st_ino;
    }
    fclose(f);
    return found;
}

static int first_holder(dev_t device, void *opaque)
{
    *(dev_t *)opaque = device;
    return 1;
}

/* -EBUSY if @device, which is the subject or lies on it, is used. */
static int check_device(dev_t device, void *opaque)
{
    struct subject *s = opaque;
    struct stat st = { .st_mode = S_IFBLK, .st_rdev = device };
    char name[SYSFS_NAME_MAX], place[SYSFS_PATH_MAX];
    dev_t holder;

    sysfs_name(device, name);
    if (is_mounted(device, place))
        return lam_fail(s->err, EBUSY, "'%s' is in use: %s is mounted on %s",
                        s->path, name, place);
    if (is_swap(&st))
        return lam_fail(s->err, EBUSY, "'%s' is in use: %s is a swap area",
                        s->path, name);
    if (!sysfs_each(device, "holders", first_holder, &holder))
        return 0;
    char holder_name[SYSFS_NAME_MAX];
    sysfs_name(holder, holder_name);
    return lam_fail(s->err, EBUSY, "'%s' is in use: %s is part of %s",
                    s->path, name, holder_name);
}

static int check_partition(dev_t device, void *opaque)
{
    return sysfs_is_partition(device) ? check_device(device, opaque) : 0;
}

static int check_with_partitions(dev_t device, struct subject *s)
{
    int rc = check_device(device, s);

    return rc == 0 ? sysfs_each(device, "", check_partition, s) : rc;
}

/* A loop device may stand on a file that has been deleted since, or on one
 * whose name means another file in our namespace: then nothing is known. */
static int check_loop(dev_t loop, void *opaque)
{
    struct subject *s = opaque;
    char backing[SYSFS_PATH_MAX];
    struct stat st;

    if (!sysfs_text(loop, "loop/backing_file", backing, sizeof backing) ||
        stat(backing, &st) < 0)
        return 0;
    bool same = S_ISBLK(s->st.st_mode)
                    ? S_ISBLK(st.st_mode) && st.st_rdev == s->st.st_rdev
                    : st.st_dev == s->st.st_dev && st.st_ino == s->st.st_ino;
    return same ? check_with_partitions(loop, s) : 0;
}

static int check_exclusive(const struct subject *s)
{
    lam_autoclose int fd = open(s->path, O_RDONLY | O_EXCL | O_CLOEXEC |
                                O_NONBLOCK);
    if (fd < 0 && errno == EBUSY)
        return lam_fail(s->err, EBUSY, "'%s' is in use: another program or "
                        "the kernel holds it exclusively", s->path);
    return 0;
}

static int check_block_device(struct subject *s)
{
    dev_t disk = sysfs_disk(s->st.st_rdev);
    int rc = check_with_partitions(s->st.st_rdev, s);

    if (rc == 0 && disk != s->st.st_rdev)
        rc = check_device(disk, s);
    return rc == 0 ? check_exclusive(s) : rc;
}

int lam_path_in_use(const char *path, struct lam_error *err)
{
    struct subject s = { .path = path, .err = err };
    int rc = 0;

    if (stat(path, &s.st) < 0)
        return 0;
    if (S_ISBLK(s.st.st_mode))
        rc = check_block_device(&s);
    else if (!S_ISREG(s.st.st_mode))
        return 0;
    else if (is_swap(&s.st))
        rc = lam_fail(err, EBUSY, "'%s' is in use: it is a swap area", path);
    return rc == 0 ? sysfs_each_device("loop", check_loop, &s) : rc;
}
