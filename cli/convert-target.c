/* SPDX-License-Identifier: MIT */
/*
 * convert-target.c - the target of `convert`: made if need be, opened, and gone
 * again if the conversion fails.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "convert-target.h"

/* What is written comes in order, but for what the workers are apart. */
#define TARGET_L2_CACHE (8 * UINT64_C(1048576))

/* "TARGET: error while converting FORMAT: message", as qemu-img says when it
 * cannot make the target, or what `dd` says. */
static int cannot_make(const struct cli *cli, const struct convert_args *args,
                       const char *message)
{
    if (args->is_dd)
        cli_error(cli, "%s: error while creating output image: %s",
                  args->target, message);
    else
        cli_error(cli, "%s: error while converting %s: %s", args->target,
                  args->format, message);
    return -EINVAL;
}

static int refuse(const struct cli *cli, const char *message)
{
    cli_error(cli, "%s", message);
    return -EINVAL;
}

static int no_memory(const struct cli *cli)
{
    cli_error(cli, "no memory");
    return -ENOMEM;
}

/* ------------------------------------------------------------ names */

/* The host path in "PATH", "file:PATH" or "file:///PATH". */
static const char *host_path(const char *name)
{
    if (!strncmp(name, "file://", 7))
        return name + 7;
    return strncmp(name, "file:", 5) ? name : name + 5;
}

/* @name as it counts from the directory of @image; NULL: no memory. */
static char *beside(const char *image, const char *name)
{
    const char *slash = strrchr(image, '/');
    char *path;

    if (!slash || name[0] == '/')
        return strdup(name);
    if (asprintf(&path, "%.*s%s", (int)(slash + 1 - image), image, name) < 0)
        return NULL;
    return path;
}

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

static int find_paths(const struct cli *cli, const struct convert_args *args,
                      struct convert_target *target)
{
    const char *data = target->create.data_file;

    if (args->target_image_opts)
        return 0;
    target->path = strdup(host_path(args->target));
    if (!target->path)
        return no_memory(cli);
    target->existed = exists(target->path);
    if (!data)
        return 0;
    target->data_path = strdup(data);
    if (!target->data_path)
        return no_memory(cli);
    target->data_existed = exists(target->data_path);
    return 0;
}

/* ------------------------------------------------------------ what is asked */

/* -B and -F win over -o. */
static int merge_backing(const struct cli *cli, struct convert_args *args)
{
    const struct { const char *key, *value; } own[] = {
        { "backing_file", args->backing_file },
        { "backing_fmt", args->backing_format },
    };
    struct lam_error err = LAM_ERROR_INIT;

    for (size_t i = 0; i < 2; i++) {
        if (!own[i].value)
            continue;
        if (!format_takes_backing(args->format)) {
            cli_error(cli, "Backing %s not supported for file format '%s'",
                      i ? "file format" : "file", args->format);
            return -EINVAL;
        }
        if (keyvals_set(&args->create, own[i].key, own[i].value, &err) < 0) {
            cli_report(cli, &err);
            return -ENOMEM;
        }
    }
    args->backing_file = keyvals_get(&args->create, "backing_file");
    args->backing_format = keyvals_get(&args->create, "backing_fmt");
    return 0;
}

static int judge_backing(const struct cli *cli, const struct convert_args *args)
{
    if (!args->backing_file)
        return 0;
    if (args->nb_sources > 1)
        return refuse(cli, "Having a backing file for the target makes no "
                      "sense when concatenating multiple input images");
    if (!args->backing_format)
        return refuse(cli, "Use of backing file requires explicit backing "
                      "format");
    return 0;
}

static int judge_compression(const struct cli *cli,
                             const struct convert_args *args,
                             const struct convert_target *target)
{
    if (!args->compress)
        return 0;
    if (args->format && !format_compresses(args->format))
        return refuse(cli, "Compression not supported for this file format");
    if (target->create.preallocation != LAM_PREALLOC_OFF)
        return refuse(cli, "Compression and preallocation not supported at the "
                      "same time");
    if (target->create.encryption.format)
        return refuse(cli, "Compression and encryption not supported at the "
                      "same time");
    if (target->create.data_file)
        return refuse(cli, "Compression is not possible with an external data "
                      "file");
    return 0;
}

/* A new target: -o, and what follows from it. */
static int judge_new(const struct cli *cli, struct convert_args *args,
                     uint64_t size, struct convert_target *target)
{
    struct lam_create_options *create = &target->create;
    struct lam_error err = LAM_ERROR_INIT;

    if (create_options_check(args->format, &args->create, &err) < 0) {
        cli_report(cli, &err);
        return -EINVAL;
    }
    if (merge_backing(cli, args) < 0 || judge_backing(cli, args) < 0)
        return -EINVAL;
    create->format = args->format;
    create->encryption.keyring = cli->keyring;
    create->policy = args->source.untrusted ? LAM_POLICY_NONE
                                            : LAM_POLICY_TRUST;
    if (create_options_apply(args->format, &args->create, create, &err) < 0)
        return cannot_make(cli, args, err.message);
    if (!args->backing_file && args->backing_format &&
        !strcmp(args->format, "qcow2"))
        return cannot_make(cli, args, "Backing format cannot be used without "
                           "backing file");
    create->size = size;
    create->no_sync = true;     /* once, at the end */
    return 0;
}

int convert_target_init(const struct cli *cli, struct convert_args *args,
                        uint64_t size, struct convert_target *target)
{
    struct lam_error err = LAM_ERROR_INIT;
    int rc = 0;

    *target = (struct convert_target){
        .name = args->target,
        .create = LAM_CREATE_OPTIONS_INIT,
    };
    if (args->format)
        rc = create_format_check(args->format, &err);
    /* What is there already is opened, whatever cannot be made. */
    if (rc == -ENOTSUP && args->no_create)
        rc = 0;
    if (rc < 0) {
        cli_report(cli, &err);
        return -EINVAL;
    }
    if (!args->no_create)
        rc = judge_new(cli, args, size, target);
    else if (args->backing_file && args->nb_sources > 1)
        rc = judge_backing(cli, args);
    if (rc == 0)
        rc = judge_compression(cli, args, target);
    return rc < 0 ? rc : find_paths(cli, args, target);
}

/* --------------------------------------------------------- source = target? */

static int refuse_same(const struct cli *cli,
                       const struct convert_target *target, const char *name,
                       const char *what)
{
    cli_error(cli, "%s: the target is the same file as %s '%s'", target->name,
              what, name);
    return -EINVAL;
}

int convert_target_distinct(const struct cli *cli,
                            const struct convert_target *target,
                            struct lam_image *const *sources, size_t count)
{
    const char *backing = target->create.backing_file;

    if (!target->path || !target->existed)
        return 0;
    for (size_t i = 0; i < count; i++) {
        struct lam_image *layer = sources[i];
        for (; layer; layer = lam_image_backing(layer)) {
            const char *name = lam_image_name(layer);
            if (cli_same_file(target->path, host_path(name)))
                return refuse_same(cli, target, name, layer == sources[i]
                                   ? "the source" : "the backing file");
        }
    }
    if (!backing)
        return 0;
    char *path = beside(target->path, host_path(backing));
    bool same = path && cli_same_file(target->path, path);
    free(path);
    return same ? refuse_same(cli, target, backing, "its backing file") : 0;
}

/* ------------------------------------------------------------ opening */

static const unsigned FOR_WRITING = LAM_OPEN_WRITE | LAM_OPEN_UNMAP;

static int open_image(const struct cli *cli, const struct convert_args *args,
                      struct convert_target *target, unsigned flags)
{
    struct lam_open_options options = LAM_OPEN_OPTIONS_INIT;
    struct lam_error err = LAM_ERROR_INIT;

    options.format = args->format;
    options.cache = args->cache;
    /* Closing the image would wait for the disk as well. */
    if (args->no_sync && args->cache == LAM_CACHE_WRITEBACK)
        options.cache = LAM_CACHE_UNSAFE;
    options.keyring = cli->keyring;
    options.throttles = cli->throttles;
    options.key_secret = target->create.encryption.key_secret;
    options.l2_cache_size = TARGET_L2_CACHE;
    options.policy = args->source.untrusted ? LAM_POLICY_NONE
                                            : LAM_POLICY_TRUST;
    /* The file that was named on this command line is nobody's secret. */
    if (target->create.backing_file)
        options.policy = LAM_POLICY_TRUST;
    options.flags = flags;
    if (args->target_image_opts)
        options.flags |= LAM_OPEN_IMAGE_OPTS;
    /* A mounted volume is refused; qemu-img writes to it. */
    if (!cli->as_qemu && !args->force)
        options.flags |= LAM_OPEN_EXCLUSIVE;
    warn_name(cli, args->target, args->target_image_opts);
    int rc = lam_image_open(args->target, &options, &target->image, &err);
    if (rc < 0)
        cli_report(cli, &err);
    return rc;
}

static bool is_block_device(const char *path)
{
    struct stat st;
    return path && stat(path, &st) == 0 && S_ISBLK(st.st_mode);
}

static int judge_cache(const struct cli *cli, const struct convert_args *args)
{
    if (!args->bad_cache)
        return 0;
    cli_error(cli, "Invalid cache option: %s", args->bad_cache);
    return -EINVAL;
}

bool convert_target_is_given(const struct convert_args *args,
                             const struct convert_target *target)
{
    return args->no_create ||
           (!strcmp(args->format, "raw") && is_block_device(target->path));
}

int convert_target_open_given(const struct cli *cli,
                              const struct convert_args *args,
                              struct convert_target *target)
{
    int rc = judge_cache(cli, args);

    return rc < 0 ? rc : open_image(cli, args, target, FOR_WRITING);
}

/* What holds a mounted file system is not overwritten by mistake. */
static int refuse_used(const struct cli *cli, const struct convert_args *args,
                       const struct convert_target *target)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (cli->as_qemu || args->force || !target->path)
        return 0;
    int rc = lam_path_in_use(target->path, &err);
    if (rc < 0)
        cli_error(cli, "%s (--force overrides)", err.message);
    return rc;
}

int convert_target_open(const struct cli *cli, const struct convert_args *args,
                        struct convert_target *target)
{
    struct lam_error err = LAM_ERROR_INIT;
    int rc = refuse_used(cli, args, target);

    if (rc < 0)
        return rc;
    if (args->no_create)
        return convert_target_open_given(cli, args, target);
    rc = lam_image_create_check(args->target, &err);
    if (rc < 0) {
        cli_report(cli, &err);
        return rc;
    }
    rc = judge_cache(cli, args);
    if (rc < 0)
        return rc;
    rc = lam_image_create(args->target, &target->create, &err);
    /* qemu-img makes the image and fails when it opens it; we do neither. */
    if (rc < 0 && !strncmp(err.message, "Could not open backing file", 27)) {
        cli_error(cli, "Could not open '%s': %s", args->target, err.message);
        return rc;
    }
    if (rc < 0) {
        cannot_make(cli, args, err.message);
        return rc;
    }
    target->made = true;
    rc = open_image(cli, args, target, FOR_WRITING);
    /* Without them it is removed all the same, but for what lies beside it. */
    if (rc == 0)
        lam_image_info(target->image, &target->info, NULL);
    return rc;
}

/* ------------------------------------------------------------ the end */

/* The name of a new file is on disk once its directory is. */
static int sync_directory(const char *path)
{
    char *directory = strdup(path);
    if (!directory)
        return -ENOMEM;
    char *slash = strrchr(directory, '/');
    if (slash)
        slash[slash == directory] = '\0';
    int fd = open(slash ? directory : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(directory);
    if (fd < 0)
        return 0;       /* not ours to read; the file itself is safe */
    int rc = fsync(fd) < 0 && errno != EINVAL ? -errno : 0;
    close(fd);
    return rc;
}

/* What one is made of beside itself was overwritten if it was there before. */
static void remove_extents(const struct lam_image_info *info)
{
    for (size_t i = 0; info && i < info->nb_files; i++)
        unlink(info->files[i].filename);
}

static enum target_rest remove_made(const struct convert_args *args,
                                    const struct convert_target *target)
{
    if (args->journal && access(args->journal, F_OK) == 0)
        return TARGET_RESUMABLE;
    if (!target->made)
        return target->image ? TARGET_INCOMPLETE : TARGET_UNTOUCHED;
    if (target->data_path && !target->data_existed)
        unlink(target->data_path);
    if (!target->path || target->existed)
        return TARGET_INCOMPLETE;
    remove_extents(target->info);
    unlink(target->path);
    return TARGET_REMOVED;
}

static int close_image(const struct cli *cli, struct convert_target *target,
                       bool report)
{
    struct lam_error err = LAM_ERROR_INIT;

    if (!target->image)
        return 0;
    int rc = lam_image_close(target->image, &err);
    target->image = NULL;
    if (rc < 0 && report)
        cli_report(cli, &err);
    return rc;
}

int convert_target_reopen(const struct cli *cli,
                          const struct convert_args *args,
                          struct convert_target *target)
{
    int rc = close_image(cli, target, true);

    return rc < 0 ? rc : open_image(cli, args, target, 0);
}

const char *target_rest_text(enum target_rest rest)
{
    switch (rest) {
    case TARGET_REMOVED:
        return "is removed again";
    case TARGET_INCOMPLETE:
        return "is left incomplete";
    case TARGET_RESUMABLE:
        return "is left incomplete, and the same command goes on with it";
    case TARGET_UNTOUCHED:
        break;
    }
    return "is as it was";
}

int convert_target_end(const struct cli *cli, const struct convert_args *args,
                       struct convert_target *target, int rc,
                       enum target_rest *rest)
{
    *rest = TARGET_UNTOUCHED;
    /* Removed first, so that closing it writes nothing to disk for nothing. */
    if (rc < 0)
        *rest = remove_made(args, target);
    int end = close_image(cli, target, rc == 0);
    if (rc == 0)
        rc = end;
    if (rc == 0 && target->made && !target->existed &&
        !args->no_sync && args->cache != LAM_CACHE_UNSAFE) {
        rc = sync_directory(target->path);
        if (rc < 0)
            cli_error(cli, "Could not sync the directory of '%s': %s",
                      target->name, strerror(-rc));
    }
    if (rc < 0 && *rest == TARGET_UNTOUCHED)
        *rest = remove_made(args, target);
    /* Whoever was interrupted says so in a line of his own. */
    if (*rest == TARGET_INCOMPLETE && target->made && rc != -ECANCELED &&
        !cli->as_qemu)
        cli_error(cli, "%s existed before and is left incomplete",
                  target->name);
    lam_image_info_free(target->info);
    free(target->path);
    free(target->data_path);
    return rc;
}
