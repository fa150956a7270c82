/* SPDX-License-Identifier: MIT */
/*
 * event.c - the names of events.
 */
#include "io/event.h"

#include <string.h>

static const char *const names[] = {
    [IO_EVENT_L1_UPDATE] = "l1_update",
    [IO_EVENT_L1_GROW_ALLOC_TABLE] = "l1_grow_alloc_table",
    [IO_EVENT_L1_GROW_WRITE_TABLE] = "l1_grow_write_table",
    [IO_EVENT_L1_GROW_ACTIVATE_TABLE] = "l1_grow_activate_table",
    [IO_EVENT_L2_LOAD] = "l2_load",
    [IO_EVENT_L2_UPDATE] = "l2_update",
    [IO_EVENT_L2_UPDATE_COMPRESSED] = "l2_update_compressed",
    [IO_EVENT_L2_ALLOC_COW_READ] = "l2_alloc_cow_read",
    [IO_EVENT_L2_ALLOC_WRITE] = "l2_alloc_write",
    [IO_EVENT_READ_AIO] = "read_aio",
    [IO_EVENT_READ_BACKING_AIO] = "read_backing_aio",
    [IO_EVENT_READ_COMPRESSED] = "read_compressed",
    [IO_EVENT_WRITE_AIO] = "write_aio",
    [IO_EVENT_WRITE_COMPRESSED] = "write_compressed",
    [IO_EVENT_VMSTATE_LOAD] = "vmstate_load",
    [IO_EVENT_VMSTATE_SAVE] = "vmstate_save",
    [IO_EVENT_COW_READ] = "cow_read",
    [IO_EVENT_COW_WRITE] = "cow_write",
    [IO_EVENT_REFTABLE_LOAD] = "reftable_load",
    [IO_EVENT_REFTABLE_GROW] = "reftable_grow",
    [IO_EVENT_REFTABLE_UPDATE] = "reftable_update",
    [IO_EVENT_REFBLOCK_LOAD] = "refblock_load",
    [IO_EVENT_REFBLOCK_UPDATE] = "refblock_update",
    [IO_EVENT_REFBLOCK_UPDATE_PART] = "refblock_update_part",
    [IO_EVENT_REFBLOCK_ALLOC] = "refblock_alloc",
    [IO_EVENT_REFBLOCK_ALLOC_HOOKUP] = "refblock_alloc_hookup",
    [IO_EVENT_REFBLOCK_ALLOC_WRITE] = "refblock_alloc_write",
    [IO_EVENT_REFBLOCK_ALLOC_WRITE_BLOCKS] = "refblock_alloc_write_blocks",
    [IO_EVENT_REFBLOCK_ALLOC_WRITE_TABLE] = "refblock_alloc_write_table",
    [IO_EVENT_REFBLOCK_ALLOC_SWITCH_TABLE] = "refblock_alloc_switch_table",
    [IO_EVENT_CLUSTER_ALLOC] = "cluster_alloc",
    [IO_EVENT_CLUSTER_ALLOC_BYTES] = "cluster_alloc_bytes",
    [IO_EVENT_CLUSTER_FREE] = "cluster_free",
    [IO_EVENT_FLUSH_TO_OS] = "flush_to_os",
    [IO_EVENT_FLUSH_TO_DISK] = "flush_to_disk",
    [IO_EVENT_PWRITEV_RMW_HEAD] = "pwritev_rmw_head",
    [IO_EVENT_PWRITEV_RMW_AFTER_HEAD] = "pwritev_rmw_after_head",
    [IO_EVENT_PWRITEV_RMW_TAIL] = "pwritev_rmw_tail",
    [IO_EVENT_PWRITEV_RMW_AFTER_TAIL] = "pwritev_rmw_after_tail",
    [IO_EVENT_PWRITEV] = "pwritev",
    [IO_EVENT_PWRITEV_ZERO] = "pwritev_zero",
    [IO_EVENT_PWRITEV_DONE] = "pwritev_done",
    [IO_EVENT_EMPTY_IMAGE_PREPARE] = "empty_image_prepare",
    [IO_EVENT_L1_SHRINK_WRITE_TABLE] = "l1_shrink_write_table",
    [IO_EVENT_L1_SHRINK_FREE_L2_CLUSTERS] = "l1_shrink_free_l2_clusters",
    [IO_EVENT_COR_WRITE] = "cor_write",
    [IO_EVENT_CLUSTER_ALLOC_SPACE] = "cluster_alloc_space",
    [IO_EVENT_NONE] = "none",
};

int io_event_parse(const char *name)
{
    _Static_assert(sizeof names / sizeof *names == IO_NB_EVENTS,
                   "every event has a name");
    for (int i = 0; i < IO_NB_EVENTS; i++)
        if (!strcmp(name, names[i]))
            return i;
    return -1;
}
