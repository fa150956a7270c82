/* SPDX-License-Identifier: MIT */
/*
 * gate.c - who may be opened because a header says so.
 *
 * A header is not to be believed: it may come from a stranger.  "siblings", the
 * default, keeps what it names beneath the directory of the image whose header
 * it is; the kernel enforces that (openat2, RESOLVE_BENEATH), so that neither
 * ".." nor a symbolic link leads out.  "trust" does as the genuine tools do.
 */
#include "image/gate.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>

#include "base/cleanup.h"

void gate_pass_deinit(struct gate_pass *pass)
{
    node_free(pass->node);
    free(pass->path);
    lam_cleanup_close(&pass->dirfd);
    *pass = (struct gate_pass)GATE_PASS_INIT;
}

const char *gate_edge_name(enum gate_edge edge)
{
    static const char *const names[] = {
        [GATE_BACKING] = "backing file",
        [GATE_DATA] = "data file",
        [GATE_EXTENT] = "extent file",
    };

    return names[edge];
}

static int no_memory(struct lam_error *err)
{
    return lam_fail(err, ENOMEM, "no memory for the name of a file");
}

/* No honest writer puts control characters into a name. */
static int check_characters(enum gate_edge edge, const char *name,
                            struct lam_error *err)
{
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return lam_fail(err, EUCLEAN, "the name of the %s holds the "
                            "control character 0x%02x", gate_edge_name(edge),
                            (unsigned)(unsigned char)*c);
    return 0;
}

/* The directory that @overlay was named in, as text. */
static char *directory_of(const char *overlay)
{
    const char *slash = strrchr(overlay, '/');
    if (!slash)
        return strdup(".");
    return strndup(overlay, slash == overlay ? 1 : (size_t)(slash - overlay));
}

static int refuse_outside(enum gate_edge edge, const char *name,
                          struct lam_error *err)
{
    return lam_fail(err, EPERM, "%s '%s' is not a file beneath the image's own "
                    "directory, which the policy demands", gate_edge_name(edge),
                    name);
}

/* @name, absolute or relative to the working directory, as a path relative to
 * @directory, without any link in it. */
static int path_beneath(enum gate_edge edge, const char *directory,
                        const char *name, char **out, struct lam_error *err)
{
    lam_autofree char *real_dir = realpath(directory, NULL);
    lam_autofree char *real = real_dir ? realpath(name, NULL) : NULL;
    if (!real)
        return lam_fail_errno(err, errno, "Could not open '%s'", name);

    size_t length = strlen(real_dir);
    if (length == 1)        /* the root has its slash already */
        length = 0;
    if (strncmp(real, real_dir, length) || real[length] != '/')
        return refuse_outside(edge, name, err);
    *out = strdup(real + length + 1);
    return *out ? 0 : no_memory(err);
}

static int admit_sibling(enum gate_edge edge, const char *overlay,
                         const char *name, struct gate_pass *pass,
                         struct lam_error *err)
{
    int rc = check_characters(edge, name, err);
    if (rc < 0)
        return rc;
    if (name_has_protocol(name))
        return lam_fail(err, EPERM, "%s '%s' is not a plain path, which the "
                        "policy demands", gate_edge_name(edge), name);

    lam_autofree char *directory = directory_of(overlay);
    if (!directory)
        return no_memory(err);
    if (edge != GATE_DATA && *name != '/') {
        pass->path = strdup(name);
        rc = pass->path ? 0 : no_memory(err);
    } else {
        rc = path_beneath(edge, directory, name, &pass->path, err);
    }
    if (rc < 0)
        return rc;

    pass->regular_only = true;
    pass->dirfd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (pass->dirfd < 0)
        return lam_fail_errno(err, errno, "Could not open directory '%s'",
                              directory);
    return 0;
}

int gate_admit(enum lam_policy policy, enum gate_edge edge,
               const char *overlay, const char *name, struct gate_pass *out,
               struct lam_error *err)
{
    struct gate_pass pass lam_cleanup(gate_pass_deinit) = GATE_PASS_INIT;
    int rc = 0;

    if (policy == LAM_POLICY_NONE)
        return lam_fail(err, EPERM, "the header names the %s '%s', and the "
                        "policy is to open none", gate_edge_name(edge), name);
    if (policy == LAM_POLICY_SIBLINGS)
        rc = admit_sibling(edge, overlay, name, &pass, err);
    if (rc == 0 && edge != GATE_DATA && !name_resolves(overlay, name))
        rc = lam_fail(err, EINVAL, "Cannot generate a base directory for NBD "
                      "nodes");
    if (rc < 0)
        return rc;

    /* The names of data files count from the working directory (12). */
    lam_autofree char *resolved = edge == GATE_DATA
        ? strdup(name) : name_resolve(overlay, name);
    if (!resolved)
        return no_memory(err);
    rc = policy == LAM_POLICY_TRUST ? node_from_name(resolved, &pass.node, err)
                                    : node_from_path(resolved, &pass.node, err);
    if (rc < 0)
        return rc;
    *out = pass;
    pass = (struct gate_pass)GATE_PASS_INIT;
    return 0;
}
