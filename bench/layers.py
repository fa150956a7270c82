# SPDX-License-Identifier: MIT
"""Writes the layers of deep chains, which the genuine tools take minutes for."""
import os
import random
import struct

from harness import GiB, KiB

CLUSTER = 64 * KiB
COPIED = 1 << 63


def header(size, l1_entries, backing):
    name = os.fsencode(backing) if backing else b''
    extension = struct.pack('>II', 0xe2792aca, 5) + b'qcow2\0\0\0' \
        if backing else b''
    at = 104 + len(extension) + 8
    return struct.pack('>4sIQIIQIIQQIIQQQQII', b'QFI\xfb', 3,
                       at if backing else 0, len(name), 16, size, 0,
                       l1_entries, 3 * CLUSTER, CLUSTER, 1, 0, 0, 0, 0, 0, 4,
                       104) + extension + bytes(8) + name


def write_layer(path, size, clusters, backing=None, pattern=None):
    """A qcow2 image that has the guest clusters (numbers) @clusters, each full
    of bytes that depend on its number and on @pattern.  Tables are sparse in
    the file as far as they are empty."""
    per_table = CLUSTER // 8
    l1_entries = -(-size // (CLUSTER * per_table))
    tables = sorted({number // per_table for number in clusters})
    first_table = 3 + -(-l1_entries * 8 // CLUSTER)
    first_data = first_table + len(tables)
    total = first_data + len(clusters)
    where = {table: first_table + i for i, table in enumerate(tables)}
    assert total <= CLUSTER // 2, 'one refcount block'
    with open(path, 'wb') as out:
        out.write(header(size, l1_entries, backing))
        out.seek(CLUSTER)
        out.write(struct.pack('>Q', 2 * CLUSTER))
        out.seek(2 * CLUSTER)
        out.write(b'\0\1' * total)
        for table, at in where.items():
            out.seek(3 * CLUSTER + 8 * table)
            out.write(struct.pack('>Q', COPIED | at * CLUSTER))
        out.truncate(total * CLUSTER)
        for i, number in enumerate(sorted(clusters)):
            out.seek(where[number // per_table] * CLUSTER +
                     number % per_table * 8)
            out.write(struct.pack('>Q', COPIED | (first_data + i) * CLUSTER))
        out.seek(first_data * CLUSTER)
        for number in sorted(clusters):
            word = struct.pack('>II', number, pattern or 0xbeef)
            out.write(word * (CLUSTER // 8))


def write_chain(stem, depth, size=16 * GiB, data=GiB):
    """stem1.qcow2 .. with @data bytes scattered in the lowest, and 16 clusters
    in every other one: four places of four.  The top is stem<depth>.qcow2."""
    rng = random.Random(depth)
    number = range(size // CLUSTER)
    write_layer('%s1.qcow2' % stem, size, rng.sample(number, data // CLUSTER))
    for layer in range(2, depth + 1):
        places = rng.sample(range(size // CLUSTER // 4), 4)
        write_layer('%s%d.qcow2' % (stem, layer), size,
                    [4 * place + i for place in places for i in range(4)],
                    '%s%d.qcow2' % (stem, layer - 1), layer)
