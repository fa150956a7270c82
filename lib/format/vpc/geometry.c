/* SPDX-License-Identifier: MIT */
/*
 * geometry.c - cylinders, heads and sectors of a VHD (appendix "CHS
 * Calculation" of the specification).
 */
#include "base/arith.h"
#include "format/vpc/footer.h"

const struct vpc_geometry vpc_geometry_largest = { 65535, 16, 255 };

uint64_t vpc_geometry_sectors(struct vpc_geometry g)
{
    return (uint64_t)g.cylinders * g.heads * g.sectors;
}

bool vpc_geometry_is_largest(struct vpc_geometry g)
{
    return vpc_geometry_sectors(g) ==
           vpc_geometry_sectors(vpc_geometry_largest);
}

struct vpc_geometry vpc_geometry(uint64_t sectors)
{
    uint64_t tracks, heads;
    uint8_t per_track;

    sectors = min_u64(sectors, vpc_geometry_sectors(vpc_geometry_largest));
    if (sectors >= UINT64_C(65535) * 16 * 63) {
        per_track = 255;
        heads = 16;
        tracks = sectors / per_track;
    } else {
        per_track = 17;
        tracks = sectors / per_track;
        heads = max_u64(div_up(tracks, 1024), 4);
        if (tracks >= heads * 1024 || heads > 16) {
            per_track = 31;
            heads = 16;
            tracks = sectors / per_track;
        }
        if (tracks >= heads * 1024) {
            per_track = 63;
            heads = 16;
            tracks = sectors / per_track;
        }
    }
    return (struct vpc_geometry){ (uint16_t)(tracks / heads), (uint8_t)heads,
                                  per_track };
}

/* It cuts the last track and the last cylinder off, so that a few more have to
 * be asked for. */
struct vpc_geometry vpc_geometry_for(uint64_t sectors)
{
    uint64_t most = vpc_geometry_sectors(vpc_geometry_largest);

    if (!sectors)
        return (struct vpc_geometry){ 0, 0, 0 };
    for (uint64_t ask = sectors; ask <= most; ask++) {
        struct vpc_geometry g = vpc_geometry(ask);
        if (vpc_geometry_sectors(g) >= sectors)
            return g;
    }
    return vpc_geometry_largest;
}
