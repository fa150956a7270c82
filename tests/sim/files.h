/* SPDX-License-Identifier: MIT */
/*
 * files.h - images of every shape with all their host objects: plain ones,
 * encrypted ones, and those with an external data file.
 */
#ifndef TEST_SIM_FILES_H
#define TEST_SIM_FILES_H

#include "sim.h"

enum sim_store {
    SIM_INSIDE,                 /* guest data lie in the image file */
    SIM_DATA_FILE,              /* ... in an external data file */
    SIM_DATA_RAW,               /* ... in one that is a raw image too */
    SIM_LUKS,                   /* ... encrypted in the image file */
};

struct sim_shape {
    struct sim_kind kind;
    enum sim_store store;
};

static const struct sim_shape sim_shapes[] = {
    { { "512, 16 bit", 512, 3, 16, false, false, false }, SIM_INSIDE },
    { { "512, 1 bit", 512, 3, 1, false, false, false }, SIM_INSIDE },
    { { "512, 64 bit", 512, 3, 64, false, false, true }, SIM_INSIDE },
    { { "512, v2", 512, 2, 16, false, false, false }, SIM_INSIDE },
    { { "1k, 32 bit", 1024, 3, 32, false, false, false }, SIM_INSIDE },
    { { "4k", 4096, 3, 16, false, false, false }, SIM_INSIDE },
    { { "4k, v2", 4096, 2, 16, false, false, false }, SIM_INSIDE },
    { { "4k, lazy", 4096, 3, 16, true, false, false }, SIM_INSIDE },
    { { "4k, 2 bit", 4096, 3, 2, false, false, false }, SIM_INSIDE },
    { { "4k, 4 bit, lazy", 4096, 3, 4, true, false, true }, SIM_INSIDE },
    { { "16k, subclusters", 16384, 3, 16, false, true, false }, SIM_INSIDE },
    { { "64k", 65536, 3, 16, false, false, false }, SIM_INSIDE },
    { { "64k, 8 bit, zstd", 65536, 3, 8, false, false, true }, SIM_INSIDE },
    { { "64k, subclusters", 65536, 3, 16, true, true, true }, SIM_INSIDE },
    { { "2M", 2097152, 3, 16, false, false, false }, SIM_INSIDE },
    { { "2M, subclusters", 2097152, 3, 16, false, true, true }, SIM_INSIDE },
    { { "data, 4k", 4096, 3, 16, false, false, false }, SIM_DATA_FILE },
    { { "data, subclusters", 16384, 3, 8, false, true, false },
      SIM_DATA_FILE },
    { { "data, lazy, 512", 512, 3, 16, true, false, false }, SIM_DATA_FILE },
    { { "raw data, 512", 512, 3, 16, false, false, false }, SIM_DATA_RAW },
    { { "raw data, 64k", 65536, 3, 16, false, false, false }, SIM_DATA_RAW },
    { { "raw data, subclusters", 16384, 3, 16, true, true, false },
      SIM_DATA_RAW },
    { { "luks, 4k", 4096, 3, 16, false, false, false }, SIM_LUKS },
    { { "luks, 512", 512, 3, 16, false, false, false }, SIM_LUKS },
    { { "luks, v2, 4k", 4096, 2, 16, false, false, false }, SIM_LUKS },
    { { "luks, subclusters", 16384, 3, 16, true, true, false }, SIM_LUKS },
};

/* Memory objects, which survive the images that are opened on them. */
struct sim_files {
    struct lam_io *image;
    struct lam_io *data;        /* NULL: there is none */
};

static inline bool sim_has_data_file(const struct sim_shape *shape)
{
    return shape->store == SIM_DATA_FILE || shape->store == SIM_DATA_RAW;
}

/* "stays" and "other", made once. */
static inline const struct lam_keyring *sim_keyring(void)
{
    static const struct lam_secret secrets[] = {
        { .id = "stays", .data = "that one" },
        { .id = "other", .data = "this one" },
    };
    static struct lam_keyring *ring;

    if (ring)
        return ring;
    assert_int_equal(lam_keyring_new(&ring, NULL), 0);
    for (size_t i = 0; i < LAM_ARRAY_SIZE(secrets); i++)
        assert_int_equal(lam_keyring_add(ring, &secrets[i], NULL), 0);
    return ring;
}

static inline struct lam_create_options
sim_shape_options(const struct sim_shape *shape, uint64_t size,
                  const char *backing, const char *data_name)
{
    struct lam_create_options o = sim_create_options(&shape->kind, size,
                                                     false);

    o.backing_file = backing;
    o.backing_format = backing ? "qcow2" : NULL;
    if (sim_has_data_file(shape)) {
        o.data_file = data_name;
        o.data_file_raw = shape->store == SIM_DATA_RAW;
    }
    if (shape->store == SIM_LUKS)
        o.encryption = (struct lam_encryption_options){
            .format = "luks", .keyring = sim_keyring(), .key_secret = "stays",
            .iter_time = 1,
        };
    return o;
}

/* False: this library was built without encryption. */
static inline bool sim_files_create(const struct sim_shape *shape,
                                    uint64_t size, const char *backing,
                                    const char *data_name,
                                    struct sim_files *out)
{
    struct lam_create_options o = sim_shape_options(shape, size, backing,
                                                    data_name);
    struct lam_error err = LAM_ERROR_INIT;

    *out = (struct sim_files){ NULL, NULL };
    assert_int_equal(lam_io_memory_new(NULL, 0, &out->image, &err), 0);
    if (sim_has_data_file(shape))
        assert_int_equal(lam_io_memory_new(NULL, 0, &out->data, &err), 0);
    int rc = format_qcow2.create(out->image, out->data, &o, &err);
    if (rc == 0)
        return true;
    lam_io_close(out->image);
    lam_io_close(out->data);
    *out = (struct sim_files){ NULL, NULL };
    if (shape->store != SIM_LUKS || rc != -ENOTSUP)
        fail_msg("create %s: %s", shape->kind.name, err.message);
    return false;
}

static inline void sim_files_close(struct sim_files *files)
{
    lam_io_close(files->image);
    lam_io_close(files->data);
}

static inline struct sim_files sim_files_copy(const struct sim_files *files)
{
    return (struct sim_files){
        sim_copy(files->image), files->data ? sim_copy(files->data) : NULL
    };
}

/* Takes @io, @data (or NULL) and @backing over. */
static inline int sim_open(struct lam_io *io, struct lam_io *data,
                           const struct lam_open_options *options,
                           struct lam_image *backing, struct lam_image **out,
                           struct lam_error *err)
{
    struct lam_open_options o = *options;

    o.keyring = sim_keyring();
    if (!o.key_secret)
        o.key_secret = "stays";
    return image_open_ios(io, data, "qcow2", &o, backing, out, err);
}

/* Opened on the files, which stay the caller's. */
static inline int sim_files_open(const struct sim_files *files,
                                 const struct lam_open_options *options,
                                 struct lam_image *backing,
                                 struct lam_image **out, struct lam_error *err)
{
    struct lam_io *io, *data = NULL;

    assert_int_equal(lam_io_record_new(files->image, &io, NULL), 0);
    if (files->data)
        assert_int_equal(lam_io_record_new(files->data, &data, NULL), 0);
    return sim_open(io, data, options, backing, out, err);
}

#endif
