# SPDX-License-Identifier: MIT
"""Single fields of the header set to values that are wrong or at a limit.

Name: (format of struct, offset, value); the base image is defects.base().
The list follows appendix B of the format document.
"""
import struct

from defects import base

FIELDS = {
    'magic': ('I', 0, 0x51464900),
    'version-0': ('I', 4, 0),
    'version-1': ('I', 4, 1),
    'version-4': ('I', 4, 4),
    'backing-offset-without-length': ('Q', 8, 4096),
    'backing-beyond-cluster': ('QI', 8, (1 << 20, 5)),
    'backing-across-cluster': ('QI', 8, (65530, 20)),
    'backing-too-long': ('QI', 8, (200, 1024)),
    'backing-offset-huge': ('QI', 8, ((1 << 64) - 1, 5)),
    'backing-in-header': ('QI', 8, (50, 5)),
    'cluster-bits-0': ('I', 20, 0),
    'cluster-bits-8': ('I', 20, 8),
    'cluster-bits-22': ('I', 20, 22),
    'cluster-bits-32': ('I', 20, 32),
    'cluster-bits-max': ('I', 20, 0xffffffff),
    'cluster-bits-smaller': ('I', 20, 9),
    'cluster-bits-larger': ('I', 20, 21),
    'size-0': ('Q', 24, 0),
    'size-odd': ('Q', 24, (1 << 20) - 100),
    'size-needs-larger-l1': ('Q', 24, 1 << 40),
    'size-2-to-63': ('Q', 24, 1 << 63),
    'size-max': ('Q', 24, (1 << 64) - 1),
    'crypt-aes': ('I', 32, 1),
    'crypt-luks-without-header': ('I', 32, 2),
    'crypt-unknown': ('I', 32, 3),
    'l1-size-0': ('I', 36, 0),
    'l1-size-larger': ('I', 36, 2000),
    'l1-size-limit': ('I', 36, 4194304),
    'l1-size-too-large': ('I', 36, 4194305),
    'l1-size-max': ('I', 36, 0xffffffff),
    'l1-offset-unaligned': ('Q', 40, 3 * 65536 + 8),
    'l1-offset-beyond-eof': ('Q', 40, 1 << 40),
    'l1-offset-2-to-63': ('Q', 40, 1 << 63),
    'l1-offset-wraps': ('Q', 40, (1 << 64) - 65536),
    'reftable-unaligned': ('Q', 48, 65536 + 8),
    'reftable-beyond-eof': ('Q', 48, 1 << 40),
    'reftable-wraps': ('Q', 48, (1 << 64) - 65536),
    'reftable-clusters-0': ('I', 56, 0),
    'reftable-clusters-129': ('I', 56, 129),
    'reftable-clusters-max': ('I', 56, 0xffffffff),
    'snapshots-too-many': ('I', 60, 65537),
    'snapshots-limit': ('I', 60, 65536),
    'snapshots-offset-unaligned': ('Q', 64, 4097),
    'snapshots-without-table': ('IQ', 60, (3, 0)),
    'snapshots-beyond-eof': ('IQ', 60, (3, 1 << 40)),
    'dirty': ('Q', 72, 1),
    'corrupt': ('Q', 72, 2),
    'data-file-missing': ('Q', 72, 4),
    'compression-bit-for-deflate': ('Q', 72, 8),
    'extended-l2-bit': ('Q', 72, 16),
    'incompatible-5': ('Q', 72, 32),
    'incompatible-63': ('Q', 72, 1 << 63),
    'compatible-63': ('Q', 80, 1 << 63),
    'autoclear-bitmaps': ('Q', 88, 1),
    'autoclear-raw-data': ('Q', 88, 2),
    'autoclear-63': ('Q', 88, 1 << 63),
    'refcount-order-0': ('I', 96, 0),
    'refcount-order-6': ('I', 96, 6),
    'refcount-order-7': ('I', 96, 7),
    'refcount-order-max': ('I', 96, 0xffffffff),
    'header-length-0': ('I', 100, 0),
    'header-length-72': ('I', 100, 72),
    'header-length-103': ('I', 100, 103),
    'header-length-105': ('I', 100, 105),
    'header-length-beyond-cluster': ('I', 100, 65537),
    'header-length-max': ('I', 100, 0xffffffff),
    'compression-type-1-without-bit': ('B', 104, 1),
    'compression-type-2': ('B', 104, 2),
    'extension-too-long': ('II', 112, (0x12345678, 70000)),
    'extension-huge': ('II', 112, (0x12345678, 0xffffffff)),
    'extension-end-with-length': ('II', 112, (0, 0xffffffff)),
    'feature-table-odd': ('II', 112, (0x6803f857, 47)),
    'bitmaps-short': ('II', 112, (0x23852875, 8)),
    'bitmaps-empty': ('IIIIQQ', 112, (0x23852875, 24, 0, 0, 0, 0)),
    'bitmaps-beyond-eof': ('IIIIQQ', 112, (0x23852875, 24, 1, 0, 100,
                                           1 << 40)),
    'bitmaps-too-many': ('IIIIQQ', 112, (0x23852875, 24, 65536, 0, 100,
                                         65536)),
    'format-name-16': ('II16s', 112, (0xe2792aca, 16, b'q' * 16)),
    'crypto-pointer-beyond-eof': ('IIQQ', 112, (0x0537be77, 16, 1 << 40,
                                                65536)),
}

CUTS = [0, 3, 4, 23, 71, 72, 100, 104, 105, 511, 512, 4096, 65535, 65536,
        65536 * 2, 65536 * 3, 65536 * 3 + 4, 65536 * 4, 65536 * 4 + 20,
        65536 * 5, 65536 * 5 + 1000, 65536 * 6, 65536 * 7, 65536 * 7 + 10]


def with_field(name):
    img = base()
    kind, offset, value = FIELDS[name]
    values = value if isinstance(value, tuple) else (value,)
    if name == 'autoclear-bitmaps':
        img.data[112:120] = bytes(8)
    struct.pack_into('>' + kind, img.data, offset, *values)
    return bytes(img.data)


def reserved_bits_only():
    """The refcount table's first entry names no block, but is not 0.

    Found by fuzz-image: a block was made for cluster 0, over the header.
    """
    img = base()
    img.put64(img.at(1), 4)
    return bytes(img.data)


def cut(length):
    return bytes(base().data[:length])
