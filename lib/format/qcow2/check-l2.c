/* SPDX-License-Identifier: MIT */
/*
 * check-l2.c - the entries of one L2 table: findings, references, statistics
 * (format document 14.2, 14.4).  The words are the genuine tool's.
 */
#include <inttypes.h>
#include <string.h>

#include "format/qcow2/check-internal.h"
#include "format/qcow2/l2.h"

/* Where the scan of a table stands. */
struct table_scan {
    const struct check_l2 *l2;
    uint64_t index;
    uint64_t next_contiguous;   /* 0: no cluster yet in this table */
};

/* A rebuild lets the file grow, and must know what is there by name; and in
 * the last cluster, for what begins there counts as a whole or not at all. */
static void note_beyond(struct check *c, uint64_t offset, uint64_t length,
                        uint64_t weight)
{
    uint64_t limit = c->refs.nb_clusters * 2 + 65536, end;
    int rc = 0;

    if (add_overflows(offset, length, &end))
        return;
    if (!c->beyond.leaves)
        rc = refmap_init(&c->beyond, limit, NULL);
    end = min_u64(div_up(end, c->g.cluster_size), limit);
    for (uint64_t i = host_cluster(&c->g, offset); i < end && rc == 0; i++)
        rc = refmap_add(&c->beyond, i, weight, NULL);
    c->incomplete |= rc < 0;
}

static int data_found(struct check *c, const struct table_scan *s,
                      uint64_t offset, uint64_t length, struct lam_error *err)
{
    uint64_t weight = s->l2->references;

    if (check_in_file(c, offset, length, weight))
        return check_add_references(c, offset, length, weight, err);
    if (c->fix & LAM_REPAIR_ERRORS)
        note_beyond(c, offset, length, weight);
    return 0;
}

static int compressed_entry_found(struct check *c, const struct table_scan *s,
                                  struct qcow2_l2_entry entry,
                                  struct lam_error *err)
{
    uint64_t offset = compressed_offset(&c->g, entry.word);

    if (c->data_file) {
        check_found(c, LAM_FINDING_CORRUPTION, s->l2->references,
                    "ERROR compressed cluster %" PRIu64 " with data file, "
                    "entry=0x%" PRIx64, s->index, entry.word);
        return 0;
    }
    if (entry.bitmap) {
        check_found(c, LAM_FINDING_CORRUPTION, s->l2->references,
                    "ERROR compressed cluster %" PRIu64 " with non-zero "
                    "subcluster allocation bitmap, entry=0x%" PRIx64, s->index,
                    entry.word);
        c->incomplete = true;       /* it is read nevertheless */
        return 0;
    }
    if (entry_copied(entry.word))
        check_found(c, LAM_FINDING_CORRUPTION, s->l2->references,
                    "ERROR: coffset=0x%" PRIx64 ": copied flag must never be "
                    "set for compressed clusters", offset);
    /* Compressed clusters are fragmented by nature. */
    c->out->allocated_clusters += s->l2->active;
    c->out->compressed_clusters += s->l2->active;
    c->out->fragmented_clusters += s->l2->active;
    return data_found(c, s, offset, compressed_length(&c->g, entry.word), err);
}

/* True if the entry shows data of the host cluster, as opposed to keeping it
 * for later. */
static bool shows_data(const struct check *c, struct qcow2_l2_entry entry,
                       enum qcow2_cluster_type type)
{
    return c->g.extended_l2 ? (entry.bitmap & QCOW2_ALL_ALLOCATED) != 0
                            : type == QCOW2_NORMAL;
}

static int host_entry_found(struct check *c, struct table_scan *s,
                            struct qcow2_l2_entry entry,
                            enum qcow2_cluster_type type, struct lam_error *err)
{
    uint64_t offset = entry_offset(entry.word);

    if (subclusters_invalid(entry.bitmap, true))
        check_found(c, LAM_FINDING_CORRUPTION, s->l2->references,
                    "ERROR offset=%" PRIx64 ": Allocated cluster has corrupted "
                    "subcluster allocation bitmap", offset);
    if (!is_aligned(offset, c->g.cluster_size)) {
        bool data = shows_data(c, entry, type);

        if (!data && c->h->version >= 3 && (c->fix & LAM_REPAIR_ERRORS)) {
            c->entry_fixes++;
            return 0;
        }
        check_found(c, LAM_FINDING_CORRUPTION, s->l2->references, "ERROR "
                    "offset=%" PRIx64 ": %s cluster is not properly aligned; "
                    "L2 entry corrupted.", offset, data ? "Data"
                                                        : "Preallocated");
    }

    c->out->allocated_clusters += s->l2->active;
    if (s->next_contiguous && offset != s->next_contiguous)
        c->out->fragmented_clusters += s->l2->active;
    s->next_contiguous = offset + c->g.cluster_size;
    if (s->l2->active)
        check_look_at_copied(c, entry.word, c->data_file);
    if (c->data_file)
        return 0;
    return data_found(c, s, offset, c->g.cluster_size, err);
}

/* With subclusters bit 0 has no meaning, and no place (format document 3.4). */
static void zero_bit_found(struct check *c, const struct table_scan *s,
                           struct qcow2_l2_entry entry)
{
    if (!c->g.extended_l2 || !(entry.word & QCOW2_ZERO))
        return;
    if (c->fix & LAM_REPAIR_ERRORS)
        c->entry_fixes++;
    else
        check_found(c, LAM_FINDING_CORRUPTION, s->l2->references, "ERROR found "
                    "l2 entry with reserved bits set: %" PRIx64, entry.word);
}

static int entry_found(struct check *c, struct table_scan *s,
                       struct qcow2_l2_entry entry, struct lam_error *err)
{
    enum qcow2_cluster_type type = entry_type(&c->g, entry.word, c->data_file);

    if (type == QCOW2_COMPRESSED_CLUSTER)
        return compressed_entry_found(c, s, entry, err);

    if (entry.word & QCOW2_L2_RESERVED) {
        check_found(c, LAM_FINDING_CORRUPTION, s->l2->references,
                    "ERROR found l2 entry with reserved bits set: %" PRIx64,
                    entry.word);
        c->reserved_bits = true;
    }
    zero_bit_found(c, s, entry);
    if ((entry.word & QCOW2_ZERO) && c->h->version < 3)
        check_found(c, LAM_FINDING_CORRUPTION, s->l2->references,
                    "ERROR zero cluster in a version 2 image: l2_entry=%"
                    PRIx64, entry.word);
    if (type == QCOW2_NORMAL || type == QCOW2_ZERO_ALLOC)
        return host_entry_found(c, s, entry, type, err);
    if (subclusters_invalid(entry.bitmap, false))
        check_found(c, LAM_FINDING_CORRUPTION, s->l2->references,
                    "ERROR: Unallocated cluster has non-zero subcluster "
                    "allocation map");
    return 0;
}

/* 64 bytes of a table: most of most tables is empty. */
static bool is_empty(const uint8_t *p)
{
    uint64_t words[8], all = 0;

    memcpy(words, p, sizeof words);
    for (unsigned i = 0; i < LAM_ARRAY_SIZE(words); i++)
        all |= words[i];
    return !all;
}

int check_l2_table(struct check *c, const struct check_l2 *l2,
                   struct lam_error *err)
{
    struct table_scan s = { .l2 = l2 };
    uint64_t step = 64 / c->g.l2_entry_size;

    for (uint64_t first = 0; first < c->g.l2_entries; first += step) {
        if (is_empty(c->cluster + first * c->g.l2_entry_size))
            continue;
        for (s.index = first; s.index < first + step; s.index++) {
            struct qcow2_l2_entry entry = l2_get(&c->g, c->cluster, s.index);
            int rc = 0;

            if (entry.word | entry.bitmap)
                rc = entry_found(c, &s, entry, err);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}
