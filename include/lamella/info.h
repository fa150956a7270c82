/* SPDX-License-Identifier: MIT */
/* lamella/info.h - what is known of an image. */
#ifndef LAMELLA_INFO_H
#define LAMELLA_INFO_H

#include <lamella/error.h>

LAM_BEGIN_DECLS

struct lam_image;

struct lam_snapshot_info {
    char *id, *name;
    uint64_t vm_state_size;     /* bytes */
    uint64_t date_sec;
    uint32_t date_nsec;
    uint64_t vm_clock_nsec;
    uint64_t icount;            /* UINT64_MAX: not recorded */
    uint64_t disk_size;         /* virtual size when it was taken */
};

struct lam_bitmap_info {
    char *name;
    uint64_t granularity;       /* bytes */
    bool in_use, automatic;
};

enum { LAM_KEY_SLOTS = 8 };

/* How an image is encrypted (format document 10); no passphrase is needed to
 * know.  All but @format is set for LUKS only. */
struct lam_encryption_info {
    const char *format;         /* "aes", "luks"; static, as the others */
    const char *cipher_alg;     /* "aes-256" */
    const char *cipher_mode;    /* "xts" */
    const char *ivgen_alg;      /* "plain64" */
    const char *ivgen_hash_alg; /* NULL: not named */
    const char *hash_alg;
    char uuid[48];
    uint64_t payload_offset;    /* bytes */
    uint64_t master_key_iterations;
    struct {
        bool active;
        uint64_t iterations;    /* of an active slot */
        uint64_t key_offset;    /* bytes from the start of the LUKS header */
        uint32_t stripes;
    } slots[LAM_KEY_SLOTS];
    bool detached_header;       /* the header is a file of its own, and the
                                   disk begins where the other file does */
};

/* What a format has to say of an image, as a tree in one list: LAM_VALUE_LIST
 * and LAM_VALUE_OBJECT begin what LAM_VALUE_END ends. */
enum lam_value_kind { LAM_VALUE_TEXT, LAM_VALUE_NUMBER, LAM_VALUE_BOOL,
                      LAM_VALUE_LIST, LAM_VALUE_OBJECT, LAM_VALUE_END };

struct lam_value {
    const char *name;           /* "create-type", static; NULL inside a list */
    enum lam_value_kind kind;
    char *text;
    uint64_t number;            /* of a bool: 0 or 1 */
};

/* A file that an image is made of beside its image file. */
struct lam_file_info {
    char *filename;
    uint64_t length;            /* bytes */
    uint64_t actual_size;       /* bytes allocated on the host */
};

struct lam_image_child;

/* What `info` shows.  Strings are NULL where the image has no such thing. */
struct lam_image_info {
    char *filename;             /* as opened, or json:{...} */
    char *format;
    bool format_guessed;        /* nobody said it: the file was looked at */
    uint64_t virtual_size;
    uint64_t actual_size;       /* bytes allocated on the host, by the image
                                   file and all @files */
    bool actual_size_unknown;   /* below a driver that does not tell it as the
                                   genuine tool has it; the number holds */
    uint64_t file_length;       /* length of the image file (device size) */
    uint64_t cluster_size;      /* 0: none */
    bool tells_holes;           /* holes of the host below its data are known to
                                   read as zero: as in a raw image, or what
                                   preallocation left */
    bool encrypted;
    bool dirty;
    char *backing_filename;     /* as the header has it */
    char *full_backing_filename;/* resolved against the image's name; NULL also
                                   where that has no directory (NBD) */
    char *backing_format;
    /* qcow2 */
    bool is_qcow2;
    unsigned version;           /* 2 or 3 */
    const char *compression_type;   /* "zlib", "zstd"; static */
    bool lazy_refcounts, corrupt, extended_l2;
    unsigned refcount_bits;
    char *data_file;
    bool data_file_raw;
    struct lam_snapshot_info *snapshots;
    size_t nb_snapshots;
    struct lam_bitmap_info *bitmaps;
    size_t nb_bitmaps;
    bool bitmaps_lost;          /* there are some, but a program that knows
                                   none has written to the image since: they
                                   go with the next change */
    struct lam_encryption_info *encryption; /* NULL: none */
    struct lam_value *values;   /* of formats other than qcow2 and luks */
    size_t nb_values;
    bool dirty_unknown;         /* the format does not tell */
    struct lam_file_info *files;    /* extents of their own; each once */
    size_t nb_files;
    /* The nodes that it stands on, its file above all, and what those stand on;
     * all are described as images are. */
    struct lam_image_child *children;
    size_t nb_children;
    bool protocol;              /* a child that is no image: @format says how
                                   it is read ("file", "host_device"), and the
                                   virtual size is that of the file */
};

struct lam_image_child {
    const char *name;           /* "file", "backing", "data-file"; static */
    struct lam_image_info *info;
};

/*
 * lam_image_info() - what is known of @image and of the nodes below it.
 *
 * Opens no file: of the backing file it tells the name.  *@out is the caller's,
 * to be freed with lam_image_info_free(), to which NULL may be given.  Reads
 * lists of snapshots and bitmaps from disk.  Returns 0, or -EIO, -EUCLEAN,
 * -ENOMEM.
 */
LAM_API int lam_image_info(struct lam_image *image,
                           struct lam_image_info **out, struct lam_error *err);
LAM_API void lam_image_info_free(struct lam_image_info *info);

LAM_END_DECLS

#endif
