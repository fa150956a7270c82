/* SPDX-License-Identifier: MIT */
/*
 * dmg.h - the tables of chunks inside a disk image of macOS.
 */
#ifndef LAM_FORMAT_DMG_H
#define LAM_FORMAT_DMG_H

#include "format/chunks/chunks.h"

struct dmg_source {
    struct chunks *chunks;
    uint64_t length;            /* of the file */
    uint64_t data_fork;         /* host offset that chunks count from */
    bool metadata_only;         /* what cannot be inflated does not matter */
};

/* One table ("mish"), of a partition of the disk. */
int dmg_parse_table(const struct dmg_source *source, const uint8_t *table,
                    size_t bytes, struct lam_error *err);

/* All tables in the property list, or in the resource fork's data. */
int dmg_parse_xml(const struct dmg_source *source, const char *xml,
                  size_t bytes, struct lam_error *err);
int dmg_parse_resources(const struct dmg_source *source, const uint8_t *data,
                        size_t bytes, struct lam_error *err);

#endif
