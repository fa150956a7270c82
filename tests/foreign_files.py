# SPDX-License-Identifier: MIT
"""Images in formats that no tool at hand writes, from bytes: bochs, cloop and
DMG after their public descriptions."""
import base64
import bz2
import struct
import zlib

SECTOR = 512


def bochs(disk, extent=64 * 1024, version=2):
    """Growing: extents in reverse order, and sectors of zeroes left out."""
    count = -(-len(disk) // extent)
    bitmap = -(-extent // SECTOR // 8)
    catalog, body = [0xffffffff] * count, b''
    for number, i in enumerate(reversed(range(count))):
        piece = disk[i * extent:(i + 1) * extent].ljust(extent, b'\0')
        bits = bytearray(-(-bitmap // SECTOR) * SECTOR)
        for sector in range(extent // SECTOR):
            if any(piece[sector * SECTOR:(sector + 1) * SECTOR]):
                bits[sector // 8] |= 1 << sector % 8
        if any(bits):
            catalog[i] = len(body) // (extent + len(bits))
            body += bytes(bits) + piece
    head = struct.pack('<32s16s16sIIIII', b'Bochs Virtual HD Image',
                       b'Redolog', b'Growing', version << 16, 512, count,
                       bitmap, extent)
    head += struct.pack('<Q', len(disk)) if version == 1 else \
        struct.pack('<IQ', 0, len(disk))
    return head.ljust(512, b'\0') + struct.pack('<%dI' % count, *catalog) + body


def cloop(disk, block=64 * 1024):
    blocks = [zlib.compress(disk[i:i + block].ljust(block, b'\0'))
              for i in range(0, len(disk), block)]
    script = (b'#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t '
              b'iso9660 /dev/cloop $1\n')
    at = 136 + 8 * (len(blocks) + 1)
    offsets = [at]
    for packed in blocks:
        offsets.append(offsets[-1] + len(packed))
    return script.ljust(128, b'\0') + struct.pack('>II', block, len(blocks)) + \
        struct.pack('>%dQ' % len(offsets), *offsets) + b''.join(blocks)


def adc(data):
    """Literals, and a run as what it is: both ways to copy."""
    out, at = b'', 0
    while at < len(data):
        run = 1
        while at + run < len(data) and data[at + run] == data[at] and \
                run < 68:
            run += 1
        if run >= 5:
            near = min(run - 1, 18)
            out += bytes([0x80, data[at]])
            if at % 2:
                out += bytes([(near - 3) << 2, 0])
            else:
                near = max(4, run - 1)
                out += bytes([0x40 | (near - 4), 0, 0])
            at += 1 + near
        else:
            out += bytes([0x80, data[at]])
            at += 1
    return out


DMG_TYPES = {'zero': 0, 'raw': 1, 'free': 2, 'adc': 0x80000004,
             'zlib': 0x80000005, 'bz2': 0x80000006, 'lzfse': 0x80000007}
PACK = {'zero': lambda data: b'', 'free': lambda data: b'',
        'raw': lambda data: data, 'adc': adc, 'zlib': zlib.compress,
        'bz2': bz2.compress, 'lzfse': lambda data: b'bvx$'}


def dmg(disk, kinds=('zlib', 'raw', 'bz2'), chunk=64 * 1024, resources=False,
        segments=1):
    """Kinds by turns, zeroes as such; two tables of chunks."""
    body, tables = b'', []
    half = len(disk) // 2 // chunk * chunk
    for start, end in ((0, half), (half, len(disk))):
        chunks = []
        for at in range(start, end, chunk):
            data = disk[at:min(at + chunk, end)]
            kind = kinds[at // chunk % len(kinds)] if any(data) else 'zero'
            packed = PACK[kind](data)
            chunks.append((DMG_TYPES[kind], 0, (at - start) // SECTOR,
                           len(data) // SECTOR, len(body), len(packed)))
            body += packed
        chunks.append((0xffffffff, 0, (end - start) // SECTOR, 0, len(body), 0))
        head = struct.pack('>4sIQQQII', b'mish', 1, start // SECTOR,
                           (end - start) // SECTOR, 0, 0, 0)
        tables.append(head.ljust(200, b'\0') + struct.pack('>I', len(chunks)) +
                      b''.join(struct.pack('>IIQQQQ', *c) for c in chunks))
    fork = b''.join(struct.pack('>I', len(t)) + t for t in tables)
    fork = struct.pack('>IIII', 256, 0, len(fork), 0).ljust(256, b'\0') + fork
    xml = ('<?xml version="1.0"?><plist><dict><key>resource-fork</key><dict>'
           '<key>blkx</key><array>' + ''.join(
               '<dict><key>Data</key>\n<data>\n%s</data></dict>' %
               base64.encodebytes(t).decode() for t in tables) +
           '</array></dict></dict></plist>').encode()
    tail = fork if resources else xml
    koly = bytearray(512)
    struct.pack_into('>4sII', koly, 0, b'koly', 4, 512)
    struct.pack_into('>QQ', koly, 24, 0, len(body))
    struct.pack_into('>II', koly, 56, 1, segments)
    struct.pack_into('>QQ', koly, 40 if resources else 216, len(body),
                     len(tail))
    struct.pack_into('>Q', koly, 492, len(disk) // SECTOR)
    return body + tail + bytes(koly)
