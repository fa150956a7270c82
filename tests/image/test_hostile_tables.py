# SPDX-License-Identifier: MIT
"""Structures of qcow2 that lie: wrong lengths, overlaps, offsets that wrap,
impossible counts, streams that are none.

Each is refused or reported by check in a line that has the field, the value and
the limit.  A command that reads changes nothing, a failure is one line and
leaves no output, all within bounds of time and memory.  (defects.py has the
damage that a repair is to mend, header_fields.py single fields.)
"""
import os
import re
import resource
import struct
import subprocess
import zlib

import pytest

from defects import (BM_DIRECTORY, BM_TABLE, COMPRESSED, COPIED, DATA0,
                     DATA_FILE, L1, L2, PACKED, REFBLOCK, REFTABLE, SN_TABLE,
                     base)
from harness import GiB, pytest_fail

CS = 65536
FORMAT, FEATURES, BITMAPS, CRYPTO, UNKNOWN = \
    0xe2792aca, 0x6803f857, 0x23852875, 0x0537be77, 0x12345678
TOP = (1 << 56) - CS            # the last offset that an entry can have
LAST = (1 << 64) - CS
LIMITS = [(resource.RLIMIT_AS, GiB), (resource.RLIMIT_CPU, 5)]


def at(cluster, offset=0):
    return cluster * CS + offset


def u32(offset, value):
    return offset, struct.pack('>I', value)


def u64(offset, value):
    return offset, struct.pack('>Q', value)


def entry(index, value, size=8):
    return u64(at(L2, index * size), value)


def extensions(*items):
    """From the end of the header on."""
    data = b''.join(struct.pack('>II', kind, len(content)) +
                    content.ljust(-(-len(content) // 8) * 8, b'\0')
                    for kind, content in items)
    return 112, data


def crypto(offset, length):
    pointer = struct.pack('>QQ', offset, length)
    return [u32(32, 2), extensions((CRYPTO, pointer))]


def backing(name, offset=400):
    return [(8, struct.pack('>QI', offset, len(name))), (offset, name)]


def stored(offset, sectors):
    """Guest cluster 8 is compressed."""
    return entry(8, COMPRESSED | sectors << 54 | offset)


def payload(data):
    sectors = (len(data) + 511) // 512
    return [stored(at(PACKED + 1), sectors - 1),
            (at(PACKED + 1), data.ljust(sectors * 512, b'\0')),
            (at(REFBLOCK, 2 * (PACKED + 1)), b'\0\1')]


def zstd(data):
    return [(79, b'\x08'), (104, b'\1'), entry(4, 0), entry(5, 0),
            (at(REFBLOCK, 2 * PACKED), b'\0\0'), *payload(data)]


def raw_deflate(data):
    codec = zlib.compressobj(6, zlib.DEFLATED, -12)
    return codec.compress(data) + codec.flush()


SNAPSHOT, BITMAP = dict(snapshot=True), dict(bitmap=True)


def snapshot(offset, data):
    """In the only entry."""
    return at(SN_TABLE, offset), data


def bitmap(offset, data):
    return at(BM_DIRECTORY, offset), data


def counters(order, of_data0):
    """A block of this width; cluster 5 has the largest or the least of all."""
    bits = 1 << order
    most = (1 << bits) - 1
    values = [1] * 5 + [of_data0(0, most), 1, min(2, most)]
    block = sum(value << i * bits for i, value in enumerate(values))
    data = block.to_bytes(64, 'little')
    if bits > 8:
        data = b''.join(value.to_bytes(bits // 8, 'big') for value in values)
    return [u32(96, order), (at(REFBLOCK), bytes(64)), (at(REFBLOCK), data)]


# What happens: refused (by all commands), check (finds it), read (only reading
# does), unchecked (only check, which cannot), fine (odd, and legal).  Then what
# is said, as a pattern; what is written where; and arguments of base().
CASES = {
    # ---------------------------------------------------------- snapshot table
    'snapshots-gone': ('check', r'3 of 3 snapshots cannot be read: Snapshot '
                       'table at 0x640000 passes the end of the file at '
                       '0x80000: 40 bytes at 0 of it',
                       [(60, struct.pack('>IQ', 3, at(100)))]),
    'snapshot-one-gone': ('check', r'1 of 2 snapshots cannot be read.*'
                          '40 bytes at 72 of it', [u32(60, 2)], SNAPSHOT),
    'snapshot-id-long': ('check', r'1 of 1 .*: 65535 bytes at 64 of it',
                         [snapshot(12, b'\xff\xff')], SNAPSHOT),
    'snapshot-name-long': ('check', r'1 of 1 .*: 65535 bytes at 65 of it',
                           [snapshot(14, b'\xff\xff')], SNAPSHOT),
    'snapshot-no-names': ('fine', '', [snapshot(12, bytes(4))], SNAPSHOT),
    'snapshot-extra-0': ('check', r'snapshot table entry 0 is incomplete',
                         [snapshot(36, bytes(4))], SNAPSHOT),
    'snapshot-extra-max': ('unchecked', r'Too much extra metadata in snapshot '
                           r'table entry 0: 4294967295 bytes \(limit: 1024\)',
                           [snapshot(36, b'\xff' * 4)], SNAPSHOT),
    'snapshot-size-max': ('fine', '', [snapshot(48, b'\xff' * 8)], SNAPSHOT),
    'snapshot-state-max': ('fine', '', [snapshot(40, b'\xff' * 8)], SNAPSHOT),
    'snapshot-times-max': ('fine', '', [snapshot(16, b'\xff' * 16)], SNAPSHOT),
    'snapshot-l1-wraps': ('check', r'offset 0xffffffffffff0000 size 0x8',
                          [snapshot(0, struct.pack('>Q', LAST))], SNAPSHOT),
    'snapshot-l1-on-header': ('check', 'reserved bits set: 514649fb00000003',
                              [snapshot(0, bytes(8))], SNAPSHOT),
    'snapshot-l1-is-active': ('check', r'cluster 3 refcount=1 reference=2',
                              [snapshot(0, struct.pack('>Q', at(L1)))],
                              SNAPSHOT),
    'snapshot-l1-on-table': ('check', r'cluster 9 refcount=1 reference=',
                             [snapshot(0, struct.pack('>Q', at(SN_TABLE)))],
                             SNAPSHOT),
    'snapshot-l1-max': ('check', r'l1_size=0xffffffff: L1 table is too large',
                        [snapshot(8, b'\xff' * 4)], SNAPSHOT),
    'snapshot-entry-max': ('check', r'offset 0xffffffffff0000 size 0x10000',
                           [u64(at(8), TOP)], SNAPSHOT),
    'snapshots-on-block': ('check', r'l1_offset=0x1000100010001: L1 table is '
                           'not cluster aligned', [u64(64, at(REFBLOCK))],
                           SNAPSHOT),
    # ----------------------------------------------- counters of every width
    **{'counters-of-%d-max' % (1 << order): (
        'check', r'cluster 5 refcount=%d reference=1' % (2 ** (1 << order) - 1),
        counters(order, max)) for order in range(1, 7)},
    **{'counters-of-%d-zero' % (1 << order): (
        'check', r'cluster 5 refcount=0 reference=1', counters(order, min))
       for order in range(7)},
    # --------------------------------------------------------------- bitmaps
    'bitmap-flags-max': ('check', r"'b0' .*: flags 0xffffffff \(known: 0x3\)",
                         [bitmap(12, b'\xff' * 4)], BITMAP),
    'bitmap-type-0': ('check', r'type 0 \(known: 1\)', [bitmap(16, b'\0')],
                      BITMAP),
    'bitmap-granularity-8': ('check', r'granularity of 2\^8 \(limits: 2\^9 to '
                             r'2\^31\)', [bitmap(17, b'\x08')], BITMAP),
    'bitmap-granularity-max': ('check', r'granularity of 2\^255 \(limits: ',
                               [bitmap(17, b'\xff')], BITMAP),
    'bitmap-no-name': ('check', r'name of 0 bytes \(limits: 1 to 1023\)',
                       [bitmap(18, bytes(2)), u64(128, 24)], BITMAP),
    'bitmap-extra-max': ('check', r'an entry of 4294967328 bytes where 32 are',
                         [bitmap(20, b'\xff' * 4)], BITMAP),
    'bitmap-table-wraps': ('check', r'offset 0xffffffffffff0000 size 0x8',
                           [bitmap(0, struct.pack('>Q', LAST))], BITMAP),
    'bitmap-table-0': ('check', r"'b0' .*: table offset 0$",
                       [bitmap(0, bytes(8))], BITMAP),
    'bitmap-table-max': ('check', r'table of 4294967295 entries \(limit: 8192',
                         [bitmap(8, b'\xff' * 4)], BITMAP),
    'bitmap-data-max': ('check', r'offset 0xffffffffff0000 size 0x10000',
                        [u64(at(BM_TABLE), TOP)], BITMAP),
    'bitmap-data-on-table': ('check', r'cluster 9 refcount=1 reference=2',
                             [u64(at(BM_TABLE), at(BM_TABLE))], BITMAP),
    # ------------------------------------------------------- header, tables
    'reftable-on-header': ('check', r'table offset is 0, where the header lies',
                           [u64(48, 0)]),
    'reftable-on-l1': ('check', r'table at 0x30000 overlaps Active L1 table at '
                       '0x30000', [u64(48, at(L1))]),
    'reftable-on-l2': ('check', r'refcount block 0 is outside image: offset '
                       '0x8000000000050000, the file ends at 0x80000',
                       [u64(48, at(L2))]),
    'reftable-on-block': ('check', r'refcount table entry 0 has reserved bits '
                          'set: 1000100010001', [u64(48, at(REFBLOCK))]),
    'reftable-over-l1': ('check', r'table at 0x10000 overlaps Active L1 table '
                         'at 0x30000', [u32(56, 5)]),
    'reftable-past-end': ('check', r'table at 0x10000 \(8388608 bytes\) passes '
                          'the end of the file at 0x80000', [u32(56, 128)]),
    'l1-on-reftable': ('check', r'table at 0x10000 overlaps Active L1 table at '
                       '0x10000', [u64(40, at(REFTABLE))]),
    'l1-on-block': ('check', r'L1 entry with reserved bits set: 1000100010001',
                    [u64(40, at(REFBLOCK))]),
    'l1-over-l2': ('check', r'cluster 4 refcount=1 reference=2',
                   [u32(36, 8193)]),
    'snapshots-on-header': ('check', r'Snapshot table offset is 0, where the '
                            'header lies', [u64(64, 0)], dict(snapshot=True)),
    'snapshots-on-l1': ('check', r'Snapshot table at 0x30000 overlaps Active '
                        'L1 table at 0x30000', [u64(64, at(L1))],
                        dict(snapshot=True)),
    'snapshots-wrap': ('refused', r'Snapshot table offset invalid: '
                       r'0xffffffffffff0000 plus 40 bytes is beyond 2\^63',
                       [u64(64, LAST)], dict(snapshot=True)),
    # ----------------------------------------------------- header extensions
    'format-twice': ('fine', '', [extensions((FORMAT, b'qcow2'),
                                             (FORMAT, b'raw'))]),
    'format-escapes': ('read', r"Unknown driver 'q\\x1b\[31m\\x0a'",
                       [extensions((FORMAT, b'q\x1b[31m\n')),
                        *backing(b'none')]),
    'format-empty': ('read', r"Unknown driver ''",
                     [extensions((FORMAT, b'')), *backing(b'none')]),
    'features-twice': ('fine', '', [extensions((FEATURES, bytes(48)),
                                               (FEATURES, bytes(48)))]),
    'feature-of-no-kind': ('fine', '', [extensions(
        (FEATURES, b'\xff\xff' + b'name'.ljust(46, b'\0')))]),
    'feature-name-escapes': ('refused', r'feature\(s\): a\\x1b\[31m\\x0ax{39}$',
                             [extensions((FEATURES, b'\0\x3f' +
                                          b'a\x1b[31m\n'.ljust(46, b'x'))),
                              u64(72, 1 << 63)]),
    'bitmaps-reserved': ('refused', r'bitmaps_ext: Reserved field is 0x1, not '
                         'zero', [u32(124, 1)], dict(bitmap=True)),
    'bitmaps-unaligned': ('refused', r'directory offset invalid: 0x80008 is '
                          'not a multiple of the cluster size',
                          [u64(136, at(BM_DIRECTORY, 8))], dict(bitmap=True)),
    'bitmaps-wrap': ('refused', r'0xffffffffffff0000 plus 32 bytes is beyond '
                     r'2\^63', [u64(136, LAST)], dict(bitmap=True)),
    'bitmaps-size-max': ('refused', r'size \(18446744073709551615\) exceeds '
                         r'the maximum supported size \(67107840\)',
                         [u64(128, (1 << 64) - 1)], dict(bitmap=True)),
    'bitmaps-no-directory': ('check', r'Less bitmaps found than specified in '
                             'header extension: 0 of 1', [u64(128, 0)],
                             dict(bitmap=True)),
    'bitmaps-on-header': ('check', r'Bitmap directory offset is 0, where the '
                          'header lies', [u64(136, 0)], dict(bitmap=True)),
    'bitmaps-long': ('refused', r'bitmaps_ext: Invalid extension length: 32 '
                     r'\(must be 24\)', [u32(116, 32)], dict(bitmap=True)),
    'crypto-without-method': ('refused', r'only expected with LUKS encryption '
                              r'method \(2\), not 0',
                              [crypto(at(8), 4096)[1]]),
    'crypto-short': ('refused', r'extension size 8, but expected size 16',
                     [u32(32, 2), extensions((CRYPTO, bytes(8)))]),
    'crypto-unaligned': ('refused', r'Encryption header offset invalid: '
                         '0x80200 is not a multiple', crypto(at(8, 512), 4096)),
    'crypto-wraps': ('refused', r'Encryption header offset invalid: '
                     r'0xffffffffffff0000 plus 131072 bytes is beyond 2\^63',
                     crypto(LAST, 2 * CS)),
    'crypto-length-max': ('refused', r'Encryption header offset invalid: '
                          r'0x80000 plus \d{19,20} bytes is beyond',
                          crypto(at(8), (1 << 64) - 1)),
    'crypto-on-header': ('check', r'cluster 0 refcount=1 reference=2|header '
                         'lies', crypto(0, 4096)),
    'crypto-on-l1': ('check', r'Encryption header at 0x30000 overlaps Active '
                     'L1 table at 0x30000', crypto(at(L1), CS)),
    'unknown-fills-cluster': ('fine', '', [extensions(
        (UNKNOWN, bytes(CS - 120)))]),
    'unknown-one-too-long': ('refused', r'type 0x12345678 has 65417 bytes of '
                             r'data \(limit: 65416\)',
                             [u32(112, UNKNOWN), u32(116, CS - 119)]),
    'unknown-wraps-padded': ('refused', r'has 4294967292 bytes of data '
                             r'\(limit: 65416', [u32(112, UNKNOWN),
                                       u32(116, 0xfffffffc)]),
    'unknown-everywhere': ('fine', '', [(112, struct.pack(
        '>II', UNKNOWN, 0) * ((CS - 112) // 8))]),
    # ---------------------------------------------------------- backing name
    'backing-escapes': ('read', r"open 'a\\x1b\[31m\\x0ab': No such file",
                        backing(b'a\x1b[31m\nb')),
    'backing-nul': ('read', r"open 'base': No such file",
                    backing(b'base\0.raw')),
    'backing-in-extension': ('refused', r'type 0x12345678 has 100 bytes of '
                             r'data \(limit: 0\)',
                             [extensions((FORMAT, b'raw'),
                                         (UNKNOWN, bytes(100))),
                              *backing(b'base.raw', 136)]),
    'backing-over-header': ('refused', r'header_length 1650553701 \(limit: '
                            '65536', backing(b'base', 100)),
    'backing-json': ('read', r'JSON parse error', backing(b'json:{"driver":')),
    'backing-itself': ('read', r"'bad.qcow2' creates an infinite loop",
                       backing(b'bad.qcow2')),
    'backing-folder': ('read', r"requires '.' to be a regular file",
                       backing(b'.')),
    # ------------------------------------------------------------- refcounts
    'block-max': ('check', r'refcount block 0 is outside image: offset '
                  '0xfffffffffffe0000, the file ends at 0x80000',
                  [u64(at(REFTABLE), LAST - CS)]),
    'block-2-to-63': ('check', r'refcount block 1 is outside image: offset '
                      '0x8000000000000000', [u64(at(REFTABLE, 8), 1 << 63)]),
    'block-on-table': ('check', r'refcount block 1 refcount=2',
                       [u64(at(REFTABLE, 8), at(REFTABLE))]),
    'block-on-l1': ('check', r'refcount block 0 refcount=2',
                    [u64(at(REFTABLE), at(L1))]),
    'counter-max': ('check', r'cluster 5 refcount=65535 reference=1',
                    [(at(REFBLOCK, 10), b'\xff\xff')]),
    'counter-2-to-64': ('check', r'cluster 5 refcount=18446744073709551615 '
                        'reference=1', [u32(96, 6), (at(REFBLOCK), struct.pack(
                            '>8Q', 1, 1, 1, 1, 1, (1 << 64) - 1, 1, 2))]),
    'counter-of-a-bit': ('check', r'cluster 7 refcount=1 reference=2',
                         [u32(96, 0), (at(REFBLOCK), b'\xff'.ljust(16, b'\0'))
                          ]),
    # -------------------------------------------------------------- L1 and L2
    'l1-entry-l1': ('check', r'cluster 3 refcount=1 reference=3',
                    [u64(at(L1), COPIED | at(L1))]),
    'l1-entry-block': ('check', r'offset 0x1000100010000 size 0x10000',
                       [u64(at(L1), COPIED | at(REFBLOCK))]),
    'l1-entry-reftable': ('check', r'refcount block 0 refcount=2',
                          [u64(at(L1), COPIED | at(REFTABLE))]),
    'l1-entry-max': ('check', r'end of the file by one cluster or more: offset '
                     '0xffffffffff0000 size 0x10000',
                     [u64(at(L1), COPIED | TOP)]),
    'l2-entry-max': ('check', r'offset 0xffffffffff0000 size 0x10000',
                     [entry(8, COPIED | TOP)]),
    'l2-entry-l2': ('check', r'cluster 4 refcount=1 reference=2',
                    [entry(8, COPIED | at(L2))]),
    'l2-entry-reftable': ('check', r'cluster 1 refcount=1 reference=2',
                          [entry(8, COPIED | at(REFTABLE))]),
    'l2-entry-block': ('check', r'refcount block 0 refcount=2',
                       [entry(8, COPIED | at(REFBLOCK))]),
    'l2-entry-snapshots': ('check', r'cluster 9 refcount=1 reference=3',
                           [entry(8, COPIED | at(SN_TABLE))],
                           dict(snapshot=True)),
    'zero-entry-l1': ('check', r'cluster 3 refcount=1 reference=2',
                      [entry(8, COPIED | at(L1) | 1)]),
    'zero-entry-max': ('check', r'offset 0xffffffffff0000 size 0x10000',
                       [entry(8, COPIED | TOP | 1)]),
    'v2-zero-bit': ('check', r'zero cluster in a version 2 image: '
                    'l2_entry=8000000000050001',
                    [entry(0, COPIED | at(DATA0) | 1)], dict(version=2)),
    'v2-extension': ('refused', r'type 0x12345678 has 1048576 bytes of data '
                     r'\(limit: 65456\)', [u32(72, UNKNOWN), u32(76, 1 << 20)],
                     dict(version=2)),
    'v2-no-place': ('fine', '', [entry(i, COPIED) for i in range(8, 16)],
                    dict(version=2)),
    # ------------------------------------------------------------ subclusters
    'sub-all-bits': ('check', r'offset=50000: Allocated cluster has corrupted '
                     'subcluster', [u64(at(L2, 8), (1 << 64) - 1)],
                     dict(extended_l2=True)),
    'sub-no-place': ('check', r'Unallocated cluster has non-zero subcluster',
                     [u64(at(L2, 8 * 16 + 8), 0xffffffff)],
                     dict(extended_l2=True)),
    'sub-compressed': ('check', r'compressed cluster 4 with non-zero '
                       'subcluster allocation bitmap, entry=0x4000000000070000',
                       [u64(at(L2, 4 * 16 + 8), (1 << 64) - 1)],
                       dict(extended_l2=True)),
    'sub-max': ('check', r'offset 0xffffffffff0000 size 0x10000',
                [entry(8, COPIED | TOP, 16), u64(at(L2, 8 * 16 + 8), 1)],
                dict(extended_l2=True)),
    'sub-l1': ('check', r'cluster 3 refcount=1 reference=2',
               [entry(8, COPIED | at(L1), 16), u64(at(L2, 8 * 16 + 8), 1)],
               dict(extended_l2=True)),
    'sub-too-small': ('refused', r'Subclusters of 256 bytes are too small '
                      r'\(cluster_bits is 13', [u32(20, 13)],
                      dict(extended_l2=True)),
    # ----------------------------------------------------- compressed clusters
    'packed-max': ('check', r'offset 0x3fffffffffffff size 0x1fe01',
                   [stored((1 << 54) - 1, 255)]),
    'packed-too-many-sectors': ('check', r'offset 0x70000 size 0x20000',
                                [stored(at(PACKED), 255)]),
    'packed-across-end': ('check', r'cluster 7 refcount=2 reference=3',
                          [stored(at(PACKED + 1) - 512, 2)]),
    'packed-at-end': ('check', r'cluster 8 refcount=0 reference=1',
                      [stored(at(PACKED + 1), 0)]),
    'packed-on-header': ('check', r'cluster 0 refcount=1 reference=2',
                         [stored(0, 0)]),
    'packed-on-l2': ('check', r'cluster 4 refcount=1 reference=2',
                     [stored(at(L2), 3)]),
    'deflate-garbage': ('read', r'guest offset 0x80000, payload at host offset '
                        '0x80000: .* bad deflate data in 1024 bytes',
                        payload(b'\xff' * 600)),
    'deflate-short': ('read', r'512 bytes of payload inflate to 1000 bytes, '
                      'not to a cluster of 65536',
                      payload(raw_deflate(b'x' * 1000))),
    'deflate-wrapped': ('read', r'bad deflate data in 512 bytes',
                        payload(zlib.compress(b'x' * CS))),
    'zstd-is-deflate': ('read', r'guest offset 0x40000, .* bad zstd data in '
                        '512 bytes', [(79, b'\x08'), (104, b'\1')]),
    'zstd-garbage': ('read', r'bad zstd data in 512 bytes',
                     zstd(b'\x28\xb5\x2f\xfd' + b'\xff' * 300)),
    'zstd-window': ('read', r'requires too much memory',
                    zstd(b'\x28\xb5\x2f\xfd\0\xf8\1\0\0')),
    'zstd-content': ('read', r'requires too much memory', zstd(
        b'\x28\xb5\x2f\xfd\xe0' + b'\xff' * 8 + b'\1\0\0')),
    'zstd-skipped': ('read', r'inflate to 0 bytes, not to a cluster of 65536',
                     zstd(b'\x50\x2a\x4d\x18\xff\xff\xff\xff')),
}


def make(pokes, kind):
    data = base(**kind).data
    for offset, content in pokes:
        data.extend(bytes(max(0, offset + len(content) - len(data))))
        data[offset:offset + len(content)] = content
    return bytes(data)


def call(argv, cwd):
    def limit():
        for what, value in LIMITS:
            resource.setrlimit(what, (value, value))
    try:
        return subprocess.run(argv, cwd=cwd, timeout=30, text=True,
                              stdin=subprocess.DEVNULL, errors='replace',
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              preexec_fn=limit)
    except subprocess.TimeoutExpired:
        pytest_fail('no end: %s' % argv)


class Room:
    """The image 'bad.qcow2' in a folder, written anew for each command."""

    def __init__(self, lamella, folder, content):
        self.tool, self.folder, self.content = lamella.img, folder, content

    def changed(self):
        return (self.folder / 'bad.qcow2').read_bytes() != self.content

    def do(self, *arguments):
        (self.folder / 'bad.qcow2').write_bytes(self.content)
        done = call([*self.tool, *arguments], self.folder)
        if any(ord(char) < 32 and char != '\n' for char in done.stderr):
            pytest_fail('control characters: %r' % done.stderr)
        return done

    def read(self, *arguments):
        """One that reads: fails with one line, and changes nothing."""
        done = self.do(*arguments)
        if self.changed():
            pytest_fail('%s changed the image' % (arguments,))
        if done.returncode == 1 and len(done.stderr.splitlines()) != 1:
            pytest_fail('%s\nnot one line:\n%s' % (arguments, done.stderr))
        if done.returncode and (self.folder / 'out.raw').exists():
            pytest_fail('%s left its output' % (arguments,))
        return done

    def check(self):
        return self.read('check', '-f', 'qcow2', 'bad.qcow2')

    def convert(self):
        return self.read('convert', '-f', 'qcow2', '-O', 'raw', 'bad.qcow2',
                         'out.raw')

    def write(self):
        return self.do('io', '-f', 'qcow2', '-c', 'write 0 100k', '-c',
                       'write -z 100k 200k', '-c', 'write -c 512k 64k', '-c',
                       'discard 0 128k', 'bad.qcow2')


def expect(done, statuses, pattern):
    if done.returncode not in statuses or \
            not re.search(pattern, done.stderr, re.MULTILINE):
        pytest_fail('exit status %d; not said: %s\n%s' % (
            done.returncode, pattern, done.stderr[:2000]))


@pytest.mark.parametrize('name', CASES)
def test_lie(name, lamella, tmp_path):
    verdict, said, pokes, *kind = CASES[name]
    room = Room(lamella, tmp_path, make(pokes, *(kind or [{}])))
    check, convert = room.check(), room.convert()
    if verdict == 'refused':
        for done in (check, convert, room.read('info', 'bad.qcow2')):
            expect(done, [1], r"'bad\.qcow2'.*" + said)
    elif verdict == 'check':
        expect(check, [2, 3], said)
    elif verdict == 'unchecked':
        expect(check, [1], said)
        assert convert.returncode == 0
    elif verdict == 'read':
        expect(check, [0], '^$')
        expect(convert, [1], r"'bad\.qcow2'.*" + said)
    else:
        assert (check.returncode, convert.returncode) == (0, 0)
    done = room.write()
    if done.returncode not in (0, 1) or \
            (tmp_path / 'bad.qcow2').read_bytes()[:8] != room.content[:8]:
        pytest_fail('a write: exit status %d\n%s' % (done.returncode,
                                                    done.stderr))
    if verdict == 'refused' and room.changed():
        pytest_fail('refused, and written to')
    if room.do('check', '-r', 'all', '-f', 'qcow2', 'bad.qcow2').returncode \
            not in range(4):
        pytest_fail('a repair died')


def make_fifo(path):
    os.mkfifo(path)


def make_link(to):
    return lambda path: os.symlink(to, path)


# What lies there instead of the data file; then what check says, its status,
# and what convert says.
DATA_FILES = {
    'missing': (lambda path: None, 1, "open 'data.raw': No such file", None),
    'empty': (lambda path: path.touch(), 2,
              'guest offset 0x0 passes the end of the data file at 0x0',
              'the file ends at 0$'),
    'short': (lambda path: path.write_bytes(bytes(3 * CS + 1000)), 2,
              'guest offset 0x30000 passes the end of the data file at 0x303e8',
              'the file ends at 197608$'),
    'long': (lambda path: path.write_bytes(bytes(2 << 20)), 0, '^$', None),
    'fifo': (make_fifo, 1, "requires 'data.raw' to be a regular file", None),
    'folder': (lambda path: path.mkdir(), 1,
               "requires 'data.raw' to be a regular file", None),
    'loop': (make_link('data.raw'), 1, 'Too many levels', None),
    'itself': (make_link('bad.qcow2'), 1, 'is the image file itself', None),
}


@pytest.mark.parametrize('name', DATA_FILES)
def test_data_file(name, lamella, tmp_path):
    put, status, said, reading = DATA_FILES[name]
    put(tmp_path / DATA_FILE)
    room = Room(lamella, tmp_path, bytes(base(data_file=True).data))
    expect(room.check(), [status], said)
    done = room.convert()
    if status == 1:
        expect(done, [1], said)
        expect(room.write(), [1], r'data\.raw|itself')
        assert not room.changed()
    else:
        expect(done, [1] if reading else [0], reading or '^$')
    assert room.read('info', 'bad.qcow2').returncode == 0
