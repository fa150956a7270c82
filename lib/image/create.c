/* SPDX-License-Identifier: MIT */
/*
 * create.c - a new image file.
 *
 * Everything that can be wrong with the request is found before the first file
 * is touched: options, backing file, size.  What this call has made is removed
 * again if a later step fails.
 */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "image/host.h"
#include "image/image.h"
#include "image/name.h"
#include "io/attributes.h"

/* What is asked for, and what the formats have to say of it. */
struct creation {
    struct lam_create_options options;
    const struct host_driver *driver;   /* of the image's name */
    uint32_t below_id;          /* content_id() of the backing image */
    char **others;              /* files beside the image file */
    size_t nb_others;
};

static void creation_deinit(struct creation *c)
{
    for (size_t i = 0; i < c->nb_others; i++)
        free(c->others[i]);
    free(c->others);
}

/* ------------------------------------------------------------- dry run */

/*
 * A format judges its options before it changes anything.  So it may try on an
 * object that refuses the first change with a code of its own, and if it comes
 * as far as that, nothing is wrong.
 */
enum { REFUSED = ECANCELED };

static ssize_t refuse_transfer(struct lam_io *io, const struct iovec *iov,
                               int iovcnt, uint64_t offset)
{
    (void)io;
    (void)iov;
    (void)iovcnt;
    (void)offset;
    return -REFUSED;
}

static int refuse_truncate(struct lam_io *io, uint64_t size)
{
    (void)io;
    (void)size;
    return -REFUSED;
}

static int empty_size(struct lam_io *io, uint64_t *size)
{
    (void)io;
    *size = 0;
    return 0;
}

static void refuser_close(struct lam_io *io)
{
    lam_io_deinit(io);
}

static const struct lam_io_ops refuser_ops = {
    .name = "refuser",
    .readv = refuse_transfer,
    .writev = refuse_transfer,
    .truncate = refuse_truncate,
    .size = empty_size,
    .close = refuser_close,
};

static int refuser_init(struct lam_io *io, struct lam_error *err)
{
    int rc = lam_io_init(io, &refuser_ops, "image", err);
    io->writable = true;
    io->limits.can_grow = true;
    return rc;
}

/* Where @others are to be, all are the same: none is ever written to. */
static int try_create(const struct format_ops *ops, const char *path,
                      struct lam_io *image, struct lam_io *other,
                      const struct creation *c, struct lam_error *err)
{
    const struct lam_create_options *options = &c->options;

    if (!ops->create_set)
        return ops->create(image, options->data_file ? other : NULL, options,
                           err);
    lam_autofree struct lam_io **files = calloc(c->nb_others + 1,
                                                sizeof(struct lam_io *));
    if (!files)
        return lam_fail(err, ENOMEM, "no memory for %zu files", c->nb_others);
    for (size_t i = 0; i < c->nb_others; i++)
        files[i] = other;
    const struct format_new set = { path, image, files, c->nb_others,
                                    c->below_id };
    return ops->create_set(&set, options, err);
}

static int dry_run(const struct format_ops *ops, const char *path,
                   const struct creation *c, struct lam_error *err)
{
    struct lam_error why = LAM_ERROR_INIT;
    struct lam_io image, other;
    int rc = refuser_init(&image, err);
    if (rc < 0)
        return rc;
    rc = refuser_init(&other, err);
    if (rc == 0) {
        rc = try_create(ops, path, &image, &other, c, &why);
        lam_io_close(&other);
    }
    lam_io_close(&image);
    if (rc == 0 || rc == -REFUSED)
        return 0;
    return lam_fail(err, -rc, "%s", why.message);
}

/* ------------------------------------------------------------ backing file */

/* The file that is there already, if any, is not part of the chain below. */
static int check_not_below(const char *path, const struct lam_image *below,
                           struct lam_error *err)
{
    struct stat st;

    if (stat(path, &st) < 0)
        return 0;
    bool device = S_ISBLK(st.st_mode);
    for (; below; below = below->backing) {
        struct lam_io_identity id;
        lam_io_identity(below->io, &id);
        if (id.known && id.is_block_device == device
            && id.dev == (device ? st.st_rdev : st.st_dev)
            && (device || id.ino == st.st_ino))
            return lam_fail(err, EINVAL, "Error: Trying to create an image "
                            "with the same filename as the backing file");
    }
    return 0;
}

static int refuse_below(const struct format_ops *ops, struct lam_error *err)
{
    return lam_fail(err, EINVAL, "backing_file must be a %s image", ops->name);
}

/* A format that records what its backing image is has to see it. */
static int note_below(struct creation *c, const struct format_ops *ops,
                      const struct lam_image *below, struct lam_error *err)
{
    if (!ops->content_id)
        return 0;
    if (below->ops != ops)
        return refuse_below(ops, err);
    c->below_id = ops->content_id(below->format);
    return 0;
}

static int look_at_backing(const char *path, const struct format_ops *ops,
                           struct creation *c, struct lam_error *err)
{
    struct lam_create_options *options = &c->options;
    struct lam_open_options o = LAM_OPEN_OPTIONS_INIT;
    struct lam_image *backing;
    lam_autofree char *name = name_resolve(path, options->backing_file);
    if (!name)
        return lam_fail(err, ENOMEM, "no memory for a file name");

    /* An encrypted one needs no passphrase to lie below; and who writes to it
     * meanwhile does not mind. */
    o.flags = LAM_OPEN_METADATA | LAM_OPEN_CHAIN | LAM_OPEN_FORCE_SHARE;
    o.format = options->backing_format;
    o.keyring = options->encryption.keyring;
    o.policy = options->policy;
    int rc = image_open(name, &o, &backing, err);
    if (rc < 0)
        return options->backing_unchecked ? rc
            : lam_error_prefix(err, rc, "Could not open backing file");
    rc = check_not_below(path, backing, err);
    if (rc == 0)
        rc = note_below(c, ops, backing, err);
    if (rc == 0 && options->size == LAM_SIZE_FROM_BACKING)
        options->size = lam_image_size(backing);
    lam_image_close(backing, NULL);
    return rc;
}

static int check_backing(const char *path, const struct format_ops *ops,
                         struct creation *c, struct lam_error *err)
{
    const struct lam_create_options *options = &c->options;

    if (!options->backing_file && options->backing_format && ops->content_id &&
        strcmp(options->backing_format, ops->name))
        return refuse_below(ops, err);
    if (!options->backing_file)
        return 0;
    if (!ops->can_have_backing)
        return lam_fail(err, ENOTSUP, "Backing file not supported for file "
                        "format '%s'", ops->name);
    if (!*options->backing_file)
        return lam_fail(err, EINVAL,
                        "Expected backing file name, got empty string");
    if (!options->backing_format)
        return lam_fail(err, EINVAL,
                        "Backing file specified without backing format");
    return options->backing_unchecked && !ops->content_id
        ? 0 : look_at_backing(path, ops, c, err);
}

/* ------------------------------------------------------------- files */

/* A file that is being written; gone again unless it is kept. */
struct target {
    const char *path;
    struct lam_io *io;
    bool made;                  /* was not there before */
};

static void target_deinit(struct target *t)
{
    lam_io_close(t->io);
    if (t->made)
        unlink(t->path);
}

static int target_open(struct target *t, const char *path,
                       const struct lam_create_options *options,
                       struct lam_error *err)
{
    struct lam_io_open_options o = LAM_IO_OPEN_INIT;
    struct stat st;

    o.writable = o.create = o.truncate = o.characters = true;
    if (options->no_sync)
        o.cache = LAM_CACHE_UNSAFE;
    t->path = path;
    bool absent = stat(path, &st) < 0 && errno == ENOENT;
    if (!absent && S_ISDIR(st.st_mode))
        return lam_fail_errno(err, EISDIR, "Could not create '%s'", path);
    int rc = lam_io_open(path, &o, &t->io, err);
    if (rc < 0)
        return rc;
    t->made = absent;
    io_set_attributes(t->io, options->nocow, options->extent_size_hint);
    return 0;
}

int image_sync_directory(const char *path, struct lam_error *err)
{
    const char *slash = strrchr(path, '/');
    lam_autofree char *directory = !slash ? strdup(".")
        : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    if (!directory)
        return lam_fail(err, ENOMEM, "no memory for a file name");
    lam_autoclose int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* One may write into a directory that one may not read. */
    if (fd < 0)
        return 0;
    if (fsync(fd) < 0 && errno != EINVAL && errno != EROFS)
        return lam_fail_errno(err, errno, "Could not flush directory '%s'",
                              directory);
    return 0;
}

static int target_keep(struct target *t, struct lam_error *err)
{
    if (!t->io)
        return 0;
    int rc = lam_io_flush(t->io, err);
    if (rc == 0 && t->made && t->io->cache != LAM_CACHE_UNSAFE)
        rc = image_sync_directory(t->path, err);
    if (rc == 0)
        t->made = false;
    return rc;
}

/* The files beside the image file. */
struct targets {
    struct target *items;
    struct lam_io **ios;
    size_t count;
};

static void targets_deinit(struct targets *t)
{
    for (size_t i = 0; i < t->count; i++)
        target_deinit(&t->items[i]);
    free(t->items);
    free(t->ios);
}

static int targets_open(struct targets *t, const struct creation *c,
                        struct lam_error *err)
{
    int rc = 0;

    t->items = calloc(c->nb_others + 1, sizeof *t->items);
    t->ios = calloc(c->nb_others + 1, sizeof(struct lam_io *));
    if (!t->items || !t->ios)
        return lam_fail(err, ENOMEM, "no memory for %zu files", c->nb_others);
    for (size_t i = 0; i < c->nb_others && rc == 0; i++) {
        t->count++;
        rc = target_open(&t->items[i], c->others[i], &c->options, err);
        lam_error_prefix(err, rc, "Could not create '%s'", c->others[i]);
        t->ios[i] = t->items[i].io;
    }
    return rc;
}

static int targets_keep(struct targets *t, struct lam_error *err)
{
    int rc = 0;

    for (size_t i = 0; i < t->count && rc == 0; i++)
        rc = target_keep(&t->items[i], err);
    return rc;
}

/* The image itself, on whatever its name's driver makes or has. */
static int image_open_new(struct target *t, const char *path,
                          const struct creation *c, struct lam_error *err)
{
    t->path = path;
    return c->driver->open_new
        ? c->driver->open_new(path, c->options.no_sync ? LAM_CACHE_UNSAFE
                                                       : LAM_CACHE_WRITEBACK,
                              &t->io, err)
        : target_open(t, path, &c->options, err);
}

static int write_set(const char *path, const struct format_ops *ops,
                     const struct creation *c, struct lam_error *err)
{
    struct targets others lam_cleanup(targets_deinit) = { 0 };
    struct target image lam_cleanup(target_deinit) = { 0 };
    int rc = targets_open(&others, c, err);
    if (rc == 0)
        rc = image_open_new(&image, path, c, err);
    if (rc < 0)
        return rc;

    const struct format_new set = { path, image.io, others.ios, others.count,
                                    c->below_id };
    rc = ops->create_set(&set, &c->options, err);
    if (rc == 0)
        rc = targets_keep(&others, err);
    return rc < 0 ? rc : target_keep(&image, err);
}

static int write_files(const char *path, const struct format_ops *ops,
                       const struct creation *c, struct lam_error *err)
{
    const struct lam_create_options *options = &c->options;
    struct target data lam_cleanup(target_deinit) = { 0 };
    struct target image lam_cleanup(target_deinit) = { 0 };
    int rc = options->data_file ? target_open(&data, options->data_file,
                                              options, err) : 0;
    if (rc == 0)
        rc = image_open_new(&image, path, c, err);
    if (rc == 0)
        rc = ops->create(image.io, data.io, options, err);
    if (rc == 0)
        rc = target_keep(&data, err);
    /* The image last: it is what names the data file. */
    if (rc == 0)
        rc = target_keep(&image, err);
    return rc;
}

/* ------------------------------------------------------------- public call */

/* What has no member of its own is an option that the format has. */
static int check_named(const struct format_ops *ops,
                       const struct lam_create_options *options,
                       struct lam_error *err)
{
    for (size_t i = 0; i < options->nb_named; i++) {
        const char *name = options->named[i].name;
        size_t k = 0;
        while (k < ops->nb_options && strcmp(ops->options[k].name, name))
            k++;
        if (k == ops->nb_options)
            return lam_fail(err, EINVAL, "Invalid parameter '%s'", name);
    }
    return 0;
}

/* The files that belong to the image at @path. */
static int name_others(const char *path, const struct format_ops *ops,
                       struct creation *c, struct lam_error *err)
{
    char *name;
    int rc;

    while (ops->other_file && (rc = ops->other_file(&c->options, path,
                                                    c->nb_others, &name,
                                                    err)) != 0) {
        if (rc < 0)
            return rc;
        char **others = realloc(c->others, (c->nb_others + 1) * sizeof(char *));
        if (!others) {
            free(name);
            return lam_fail(err, ENOMEM, "no memory for a file name");
        }
        c->others = others;
        c->others[c->nb_others++] = name;
    }
    return 0;
}

/* "./a" and "a", too: neither need be there yet. */
static bool same_path(const char *a, const char *b)
{
    a += strncmp(a, "./", 2) ? 0 : 2;
    b += strncmp(b, "./", 2) ? 0 : 2;
    return !strcmp(a, b);
}

static int judge(const char *path, const struct format_ops *ops,
                 struct creation *c, struct lam_error *err)
{
    const struct lam_create_options *o = &c->options;

    if (o->data_file && same_path(o->data_file, path))
        return lam_fail(err, EINVAL, "'%s' cannot be its own data file", path);
    int rc = check_named(ops, o, err);
    if (rc == 0)
        rc = check_backing(path, ops, c, err);
    if (rc < 0)
        return rc;
    if (o->size == LAM_SIZE_FROM_BACKING)
        return lam_fail(err, EINVAL, "Image creation needs a size parameter");
    if (o->size > INT64_MAX)
        return lam_fail(err, EFBIG, "Image size must be less than 8 EiB!");
    rc = name_others(path, ops, c, err);
    return rc < 0 ? rc : dry_run(ops, path, c, err);
}

static int create_at(const struct host_driver *driver, const char *path,
                     const struct lam_create_options *options,
                     struct lam_error *err)
{
    struct creation c lam_cleanup(creation_deinit) = {
        .options = *options, .driver = driver,
    };
    const char *format = options->format;
    const struct format_ops *ops = format ? format_find_new(format) : NULL;

    if (!ops)
        return lam_fail(err, EINVAL, "Unknown file format '%s'",
                        format ? format : "");
    if (!ops->create && !ops->create_set)
        return lam_fail(err, ENOTSUP, "Format driver '%s' does not support "
                        "image creation", ops->name);
    int rc = judge(path, ops, &c, err);
    if (rc < 0)
        return rc;
    return ops->create_set ? write_set(path, ops, &c, err)
                           : write_files(path, ops, &c, err);
}

/* The path of a new image.  Nothing but files and devices can be made. */
static int target_path(const char *name, const char **path,
                       struct lam_error *err)
{
    const struct host_driver *driver = host_driver_of(name);

    if (!driver)
        return lam_fail(err, ENOTSUP, "Unknown protocol '%.*s'",
                        (int)strcspn(name, ":"), name);
    if (!driver->makes_files && !driver->uses_files)
        return lam_fail(err, ENOTSUP, "Protocol driver '%s' does not support "
                        "image creation", driver->name);
    size_t length = driver->open_new ? 0 : strlen(driver->prefix);
    *path = strncmp(name, driver->prefix, length) ? name : name + length;
    return 0;
}

/* A name that says that a device is meant does not make a file. */
static int check_there(const char *name, const char *path,
                       struct lam_error *err)
{
    const struct host_driver *driver = host_driver_of(name);
    struct stat st;

    if (driver->makes_files || driver->open_new || stat(path, &st) == 0)
        return 0;
    return lam_fail_errno(err, errno, "Protocol driver '%s' does not support "
                          "creating new images, so an existing image must be "
                          "selected as the target; however, opening the given "
                          "target as an existing image failed: Could not open "
                          "'%s'", driver->name, path);
}

/* The data file is named as the image is, and its path is what the header
 * gets. */
static int data_file_path(const char *name, char **out, struct lam_error *err)
{
    const struct host_driver *driver = host_driver_of(name);
    const char *path = NULL;

    if (driver && (driver->open_new ||
                   (!driver->makes_files && !driver->uses_files)))
        return lam_fail(err, ENOTSUP, "Driver '%s' does not support image "
                        "creation", driver->name);
    int rc = target_path(name, &path, err);
    if (rc == 0)
        rc = check_there(name, path, err);
    if (rc < 0)
        return rc;
    *out = name_of_path(path);
    return *out ? 0 : lam_fail(err, ENOMEM, "no memory for a file name");
}

int lam_image_create_check(const char *name, struct lam_error *err)
{
    const char *path;

    return target_path(name, &path, err);
}

int lam_image_create(const char *name, const struct lam_create_options *options,
                     struct lam_error *err)
{
    struct lam_create_options o = *options;
    lam_autofree char *data_file = NULL;
    const char *path = NULL;
    int rc = lam_check_choice(options->preallocation, LAM_PREALLOC_FULL,
                              "preallocation mode", err);

    if (rc == 0)
        rc = lam_check_choice(options->policy, LAM_POLICY_NONE, "policy", err);
    if (rc == 0)
        rc = target_path(name, &path, err);
    if (rc == 0)
        rc = check_there(name, path, err);
    if (rc == 0 && o.data_file)
        rc = data_file_path(o.data_file, &data_file, err);
    o.data_file = data_file;
    return rc < 0 ? rc : create_at(host_driver_of(name), path, &o, err);
}
