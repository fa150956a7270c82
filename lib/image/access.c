/* SPDX-License-Identifier: MIT */
/*
 * access.c - what jobs change of single layers.
 *
 * A layer below the top is open for reading.  A job that writes to it makes it
 * writable for its time; what is cached and mapped stays as it is.
 */
#include "image/access.h"

#include "base/cleanup.h"
#include "image/graph.h"
#include "image/write.h"

static enum lam_io_locking locking_of(const struct lam_image *layer)
{
    if (layer->unlocked)
        return LAM_IO_UNLOCKED;
    return layer->ops == &format_raw ? LAM_IO_LOCKED_SHARED : LAM_IO_LOCKED;
}

/* A raw image that a job writes to is not shared with whoever else does. */
static enum lam_io_locking job_locking_of(const struct lam_image *layer)
{
    return layer->unlocked ? LAM_IO_UNLOCKED : LAM_IO_LOCKED;
}

/* The files beside the image file: the external data file, or the format's. */
static struct lam_io *other_file(const struct lam_image *layer, size_t index)
{
    if (layer->ops->file)
        return layer->ops->file(layer->format, index);
    return index == 0 ? layer->data : NULL;
}

static int files_set_writable(struct lam_image *layer, bool writable,
                              struct lam_error *err)
{
    struct lam_io *io;
    size_t n = 0;
    int rc = lam_io_set_writable(layer->io, writable, writable
                                 ? job_locking_of(layer) : locking_of(layer),
                                 err);

    while (rc == 0 && (io = other_file(layer, n))) {
        rc = lam_io_set_writable(io, writable, job_locking_of(layer), err);
        n += rc == 0;
    }
    if (rc == 0 || !writable)
        return rc;
    while (n-- > 0)
        lam_io_set_writable(other_file(layer, n), false, job_locking_of(layer),
                            NULL);
    lam_io_set_writable(layer->io, false, locking_of(layer), NULL);
    return rc;
}

static void note_writable(struct lam_image *layer, bool writable)
{
    struct lam_image *top = layer->layers[0];

    image_graph_begin_change(top);
    layer->writable = writable;
    if (layer != top)
        top->written = writable ? layer : NULL;
    image_graph_end_change(top);
}

static int begin_writing(struct lam_image *layer, struct lam_error *err)
{
    if (!layer->ops->write_begin)
        return lam_fail(err, EROFS, "'%s': Image is read-only", layer->name);
    int rc = files_set_writable(layer, true, err);

    if (rc < 0)
        return rc;
    if (layer->ops->set_writable)
        rc = layer->ops->set_writable(layer->format, true, err);
    if (rc < 0)
        files_set_writable(layer, false, NULL);
    else
        note_writable(layer, true);
    return lam_error_prefix(err, rc, "'%s'", layer->name);
}

/* The files stay open for writing where they cannot be opened for reading. */
int layer_end_writing(struct lam_image *layer, struct lam_error *err)
{
    int rc = 0;

    assert(!layer->writable);
    if (layer->ops->set_writable)
        rc = layer->ops->set_writable(layer->format, false, err);
    files_set_writable(layer, false, NULL);
    return lam_error_prefix(err, rc, "'%s'", layer->name);
}

int layer_set_writable(struct lam_image *layer, bool writable,
                       struct lam_error *err)
{
    if (layer->writable == writable)
        return 0;
    if (writable)
        return begin_writing(layer, err);
    note_writable(layer, false);
    return layer_end_writing(layer, err);
}

/* ------------------------------------------- the top layer's own state */

/* The format holds off whoever changes its mapping.  Writes in place change
 * none; they hold whole_units for reading. */
static void hold_writes(struct lam_image *image)
{
    image_lock_units(image);
}

static void resume_writes(struct lam_image *image)
{
    pthread_rwlock_unlock(&image->whole_units);
}

int image_empty(struct lam_image *image, struct lam_error *err)
{
    int rc = image_check_writable(image, err);

    if (rc < 0)
        return rc;
    if (!image->ops->empty)
        return lam_fail(err, ENOTSUP, "format '%s' cannot be emptied",
                        image->ops->name);
    hold_writes(image);
    rc = image->ops->empty(image->format, err);
    resume_writes(image);
    return lam_error_prefix(err, rc, "'%s'", image->name);
}

/* Whoever asks what the header says holds the gate. */
static int set_backing_between(struct lam_image *image, const char *name,
                               const char *format, struct lam_error *err)
{
    int rc = image->ops->set_backing(image->format, name, format, err);

    if (rc < 0)
        return rc;
    image_graph_begin_change(image->layers[0]);
    image->ops->take_backing(image->format);
    image_graph_end_change(image->layers[0]);
    return 0;
}

/* This is I/O while the gate is closed, but little is left of it. */
static int set_backing_alone(struct lam_image *image, const char *name,
                             const char *format, struct lam_error *err)
{
    int rc = image->ops->flush(image->format, err);

    if (rc < 0)
        return rc;
    image_graph_begin_change(image->layers[0]);
    rc = image->ops->set_backing(image->format, name, format, err);
    image_graph_end_change(image->layers[0]);
    return rc;
}

int image_record_backing(struct lam_image *image, const char *name,
                         const char *format, struct lam_error *err)
{
    int rc = image_check_writable(image, err);

    if (rc < 0)
        return rc;
    if (!image->ops->set_backing)
        return lam_fail(err, ENOTSUP, "format '%s' has no backing file",
                        image->ops->name);
    return image->ops->take_backing
        ? set_backing_between(image, name, format, err)
        : set_backing_alone(image, name, format, err);
}

void image_expect_backing(struct lam_image *image, bool expected)
{
    if (!image->ops->expect_backing)
        return;
    image_graph_begin_change(image->layers[0]);
    image->ops->expect_backing(image->format, expected);
    image_graph_end_change(image->layers[0]);
}
