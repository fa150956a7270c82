/* SPDX-License-Identifier: MIT */
/*
 * order-scripts.c - scripts in which the power fails (test-order.c), and in
 * which the disk does (test-fault-script.c).
 *
 * Cells of the table are units; a cluster has 4, or 1 if it is 512 bytes.
 */
#include "order.h"

const struct order_script order_shared[ORDER_SHARED] = {
    { "bitmaps changed", 40, {
        { ORDER_WRITE, 0, 4 }, { ORDER_ADD, 0, 0 }, { ORDER_WRITE, 8, 4 },
    }, {
        { ORDER_WRITE, 2, 4 }, { ORDER_ADD, 1, 1 }, { ORDER_MERGE, 1, 0 },
        { ORDER_DISABLE, 0, 0 }, { ORDER_WRITE, 20, 4 },
        { ORDER_CLEAR, 0, 0 }, { ORDER_ENABLE, 1, 0 }, { ORDER_UNMAP, 4, 8 },
        { ORDER_RESIZE, 30, 0 }, { ORDER_REOPEN, 0, 0 },
        { ORDER_WRITE, 24, 4 }, { ORDER_CLEAR, 1, 0 },
        { ORDER_RESIZE, 42, 0 }, { ORDER_REMOVE, 0, 0 },
    } },
    /* Snapshots while a bitmap records, and a bitmap stored beside them. */
    { "bitmaps and snapshots", 32, {
        { ORDER_WRITE, 0, 10 }, { ORDER_ADD, 0, 0 }, { ORDER_CREATE, 0, 0 },
        { ORDER_WRITE, 4, 1 },
    }, {
        { ORDER_WRITE, 8, 2 }, { ORDER_CREATE, 1, 0 }, { ORDER_WRITE, 0, 3 },
        { ORDER_REOPEN, 0, 0 }, { ORDER_WRITE, 20, 4 }, { ORDER_ADD, 1, 1 },
        { ORDER_MERGE, 1, 0 }, { ORDER_DELETE, 0, 0 }, { ORDER_WRITE, 2, 1 },
        { ORDER_CLEAR, 0, 0 }, { ORDER_REMOVE, 0, 0 },
        { ORDER_REMOVE, 1, 0 }, { ORDER_APPLY, 1, 0 }, { ORDER_ADD, 2, 0 },
        { ORDER_WRITE, 12, 2 }, { ORDER_CREATE, 2, 0 },
        { ORDER_WRITE, 12, 1 },
    } },
    { "bitmaps and amend", 24, {
        { ORDER_WRITE, 0, 9 }, { ORDER_ADD, 0, 0 }, { ORDER_WRITE, 3, 2 },
    }, {
        { ORDER_WRITE, 16, 3 }, { ORDER_LAZY, 1, 0 }, { ORDER_WRITE, 4, 2 },
        { ORDER_BITS, 64, 0 }, { ORDER_NAME, 1, 0 }, { ORDER_KEY, 1, 0 },
        { ORDER_WRITE, 8, 3 }, { ORDER_REOPEN, 0, 0 }, { ORDER_WRITE, 0, 2 },
        { ORDER_RAW, 0, 0 }, { ORDER_LENGTH, 30, 0 }, { ORDER_WRITE, 26, 2 },
        { ORDER_BITS, 16, 0 }, { ORDER_LAZY, 0, 0 }, { ORDER_LENGTH, 21, 0 },
        { ORDER_REMOVE, 0, 0 }, { ORDER_VERSION, 2, 0 },
        { ORDER_WRITE, 12, 2 },
    } },
    { "amend", 24, {
        { ORDER_WRITE, 0, 9 }, { ORDER_CREATE, 0, 0 }, { ORDER_WRITE, 0, 1 },
        { ORDER_ZERO, 12, 4 },
    }, {
        { ORDER_WRITE, 16, 3 }, { ORDER_LAZY, 1, 0 }, { ORDER_WRITE, 4, 2 },
        { ORDER_NAME, 1, 0 }, { ORDER_LAZY, 0, 0 }, { ORDER_BITS, 64, 0 },
        { ORDER_WRITE, 8, 3 }, { ORDER_BITS, 16, 0 }, { ORDER_KEY, 1, 0 },
        { ORDER_WRITE, 0, 4 },
        { ORDER_VERSION, 2, 0 }, { ORDER_WRITE, 12, 1 },
        { ORDER_VERSION, 3, 0 }, { ORDER_WRITE, 20, 4 }, { ORDER_KEY, 0, 0 },
    } },
};
