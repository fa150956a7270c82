/* SPDX-License-Identifier: MIT */
/* lamella/map.h - where the guest's bytes lie. */
#ifndef LAMELLA_MAP_H
#define LAMELLA_MAP_H

#include <lamella/error.h>

LAM_BEGIN_DECLS

struct lam_image;

enum lam_extent_state {
    LAM_EXTENT_UNALLOCATED, /* no layer that was asked has anything */
    LAM_EXTENT_ZERO,        /* reads as zeroes */
    LAM_EXTENT_DATA,        /* host bytes at host_offset */
    LAM_EXTENT_COMPRESSED,  /* host_length bytes of payload at host_offset */
};

enum {
    /* host_offset is valid (data, a zero cluster that owns its host cluster,
     * a hole of a raw file, an unused preallocated subcluster). */
    LAM_EXTENT_HAS_HOST = 1 << 0,
    /* A data extent whose host bytes are known to be a hole: reads as zero
     * (only with LAM_MAP_HOST_HOLES). */
    LAM_EXTENT_HOST_HOLE = 1 << 1,
    /* host_offset counts in the external data file, not in the image file.  Of
     * several extent files every other one has it: lam_image_extent_file(). */
    LAM_EXTENT_DATA_FILE = 1 << 2,
    /* Past the end of the layers below: a zero extent no layer has stored. */
    LAM_EXTENT_BEYOND_BACKING = 1 << 3,
    /* The host bytes are not the guest's: they are encrypted. */
    LAM_EXTENT_ENCRYPTED = 1 << 4,
    /* Data of which a server says that they take no place with it, and not what
     * they read as; with another question put to it ("x-dirty-bitmap"), what
     * that one's answer marks. */
    LAM_EXTENT_ABSENT = 1 << 5,
};

struct lam_extent {
    uint64_t offset;        /* guest offset */
    uint64_t length;        /* bytes, never 0 */
    uint64_t host_offset;   /* of the byte at @offset; of the payload's first
                               byte if compressed */
    uint32_t host_length;   /* payload bytes if compressed, else 0 */
    uint16_t depth;         /* layer that answered: 0 is the image asked */
    uint8_t state;          /* enum lam_extent_state */
    uint8_t flags;          /* LAM_EXTENT_... */
};

/* Growable list: ascending, no gaps, owned by whoever holds it. */
struct lam_extents {
    struct lam_extent *items;
    size_t count;
    size_t capacity;
};

#define LAM_EXTENTS_INIT { NULL, 0, 0 }

/* Frees the items; the list is empty and usable afterwards.  The owner's: not
 * from two threads at once. */
LAM_API void lam_extents_deinit(struct lam_extents *extents);

#define LAM_DEPTH_ALL UINT32_MAX

enum {
    /* Ask the host file about holes under data extents (costs a system call
     * an extent). */
    LAM_MAP_HOST_HOLES = 1 << 0,
};

/*
 * lam_image_map() - how a guest range is stored.
 *
 * Appends to @out the extents that cover [offset, offset + length): ascending,
 * without gaps, neighbours in one state merged (compressed clusters are not
 * merged).  @depth is the number of layers to look through: 1 is this image
 * alone, LAM_DEPTH_ALL the whole chain; not 0.  Any alignment, inside
 * lam_image_size().  The list grows with fragmentation: ask for a large image
 * in windows.
 *
 * @out belongs to the caller and is unchanged after a failure.  Returns 0, or
 * -EINVAL if the range ends beyond the image, or it is open for its header
 * only; -EUCLEAN if metadata contradicts itself; -EIO, -ENOMEM.  May read
 * metadata from disk.
 */
LAM_API int lam_image_map(struct lam_image *image, uint64_t offset,
                          uint64_t length, uint32_t depth, unsigned flags,
                          struct lam_extents *out, struct lam_error *err);

/*
 * lam_image_map_window() - how much to ask lam_image_map() for at once.
 *
 * For a walk over a whole disk, from @offset on and through @depth layers, that
 * is to take little memory: @window bytes, or more where what follows is known
 * to be empty (exbibytes of it, in one step), or less where the image ends
 * before.  0 from its end on.  Reads no tables; the contents may change until
 * the map is asked for.  From any thread.
 */
LAM_API uint64_t lam_image_map_window(struct lam_image *image, uint64_t offset,
                                      uint32_t depth, uint64_t window);

/*
 * The file that the data of @extent, out of a map of @image's chain, lie in:
 * the image file of its layer, an external data file, or one of several
 * extents; a "json:" name if it is seen through a window.  NULL: an object
 * without a name, or a layer that the chain no longer has.  Lives as long as
 * the layer.
 */
LAM_API const char *lam_image_extent_file(struct lam_image *image,
                                          const struct lam_extent *extent);

LAM_END_DECLS

#endif
