# SPDX-License-Identifier: MIT
"""VHD files by hand, field by field: what no tool at hand makes."""
import struct

SECTOR, BLOCK = 512, 2 << 20
UNUSED = 0xffffffff
FIXED, DYNAMIC, DIFFERENCING = 2, 3, 4


def seal(data, at):
    """With the checksum of @data in the four bytes at @at."""
    data = bytearray(data)
    data[at:at + 4] = bytes(4)
    data[at:at + 4] = struct.pack('>I', ~sum(data) & 0xffffffff)
    return bytes(data)


def footer(size=10 << 20, app=b'win ', chs=(302, 4, 17), kind=DYNAMIC,
           offset=512, cookie=b'conectix', uuid=b'\1' * 16):
    data = struct.pack('>8sIIQI4sI4sQQHBBII16s', cookie, 2, 0x10000, offset,
                       0x3295000, app, 0xa0000, b'Wi2k', size, size, *chs,
                       kind, 0, uuid)
    return seal(data.ljust(512, b'\0'), 64)


def header(table=1536, entries=5, block=BLOCK, cookie=b'cxsparse', name='',
           locators=()):
    """@locators: (platform, length, offset)"""
    data = struct.pack('>8sQQIIII16sII', cookie, 2 ** 64 - 1, table, 0x10000,
                       entries, block, 0, bytes(16), 0, 0)
    data += name.encode('utf-16-be').ljust(512, b'\0')
    for platform, length, offset in locators:
        data += struct.pack('>4sIIIQ', platform, 512, length, 0, offset)
    return seal(data.ljust(1024, b'\0'), 36)


def dynamic(table=None, blocks=b'', foot=None, head=None):
    """The whole file; @table: entries, @blocks: what follows it, from sector
    4 on."""
    foot = foot or footer()
    entries = list(table or ()) + [UNUSED] * (128 - len(table or ()))
    return foot + (head or header()) + struct.pack('>128I', *entries) + \
        blocks + foot


def fixed(data, **fields):
    return data + footer(kind=FIXED, offset=2 ** 64 - 1, **fields)


def block(data, bitmap=b'\xff' * 512):
    return bitmap + data.ljust(BLOCK, b'\0')


def differencing(parent, sectors, data, size=10 << 20, absolute=False):
    """One block, of which @sectors are there."""
    bitmap = bytearray(512)
    for sector in sectors:
        bitmap[sector // 8] |= 0x80 >> sector % 8
    path = parent.encode('utf-16-le')
    at = 2048 + 512 + BLOCK
    head = header(locators=[(b'W2ku' if absolute else b'W2ru', len(path),
                             at)])
    return dynamic([4], block(data, bytes(bitmap)) + path.ljust(512, b'\0'),
                   footer(size, kind=DIFFERENCING), head)
