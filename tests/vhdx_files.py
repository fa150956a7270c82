# SPDX-License-Identifier: MIT
"""VHDX files by hand, field by field: what no tool at hand makes."""
import functools
import struct
import uuid

MiB = 1 << 20
SECTOR = 4096


def table():
    numbers = []
    for number in range(256):
        for _ in range(8):
            number = number >> 1 ^ (0x82f63b78 if number & 1 else 0)
        numbers.append(number)
    return numbers


TABLE = table()


@functools.lru_cache(maxsize=64)
def crc32c(data):
    crc = 0xffffffff
    for byte in data.rstrip(b'\0') if len(data) > SECTOR else data:
        crc = TABLE[(crc ^ byte) & 255] ^ crc >> 8
    if len(data) > SECTOR:
        for _ in range(len(data) - len(data.rstrip(b'\0'))):
            crc = TABLE[crc & 255] ^ crc >> 8
    return crc ^ 0xffffffff


def seal(data):
    data = bytearray(data)
    data[4:8] = bytes(4)
    data[4:8] = struct.pack('<I', crc32c(bytes(data)))
    return bytes(data)


def guid(text):
    return uuid.UUID(text).bytes_le


BAT = guid('2dc27766-f623-4200-9d64-115e9bfd4a08')
METADATA = guid('8b7ca206-4790-4b9a-b8fe-575f050f886e')
PARAMETERS = guid('caa16737-fa36-4d43-b3b6-33f0aa44e76b')
SIZE = guid('2fa54224-cd1b-4876-b211-5dbed83bf4b8')
PAGE83 = guid('beca12ab-b2e6-4523-93ef-c309e000c746')
LOGICAL = guid('8141bf1d-a96f-4709-ba47-f233a8faab5f')
PHYSICAL = guid('cda348c7-445d-4471-9cc9-e9885251c556')
LOCATOR = guid('a8d35f2d-b30b-454d-abf7-d3d84834ab0c')
LOCATOR_VHDX = guid('b04aefb7-d19e-4a81-b789-25b8e9445913')
UNKNOWN = b'\5' * 16


def header(sequence, log=bytes(16), log_version=0, version=1, log_length=MiB,
           log_offset=MiB, writer=b'\1' * 16):
    data = struct.pack('<4sIQ16s16s16sHHIQ', b'head', 0, sequence, writer,
                       b'\2' * 16, log, log_version, version, log_length,
                       log_offset)
    return seal(data.ljust(4096, b'\0'))


REGIONS = [(BAT, 2 * MiB, MiB, 1), (METADATA, 3 * MiB, MiB, 1)]


def regions(entries=tuple(REGIONS), count=None, signature=b'regi'):
    data = struct.pack('<4sIII', signature, 0,
                       len(entries) if count is None else count, 0)
    for name, *numbers in entries:
        data += name + struct.pack('<QII', *numbers)
    return seal(data.ljust(65536, b'\0'))


def items(block=MiB, size=16 * MiB, flags=0, logical=512, physical=512):
    """(guid, content, flags)"""
    return [(PARAMETERS, struct.pack('<II', block, flags), 4),
            (SIZE, struct.pack('<Q', size), 6), (PAGE83, b'\3' * 16, 6),
            (LOGICAL, struct.pack('<I', logical), 6),
            (PHYSICAL, struct.pack('<I', physical), 6)]


def metadata(content, count=None, signature=b'metadata'):
    head = struct.pack('<8sHH20s', signature, 0,
                       len(content) if count is None else count, b'')
    data = b''
    for name, value, flags, *place in content:
        offset, length = place or (65536 + len(data), len(value))
        head += name + struct.pack('<IIII', offset, length, flags, 0)
        data += value
    return (head.ljust(65536, b'\0') + data).ljust(MiB, b'\0')


def locator(values):
    head = LOCATOR_VHDX + struct.pack('<HH', 0, len(values))
    entries, data = b'', b''
    base = 20 + 12 * len(values)
    for key, value in values.items():
        key, value = key.encode('utf-16-le'), value.encode('utf-16-le')
        at = base + len(data)
        entries += struct.pack('<IIHH', at, at + len(key), len(key),
                               len(value))
        data += key + value
    return head + entries + data


def image(bat=(), content=None, headers=None, tables=None, log=b'', data=b'',
          identifier=b'vhdxfile'):
    """@data: what follows the metadata, from 4 MiB on."""
    out = bytearray(4 * MiB)
    out[0:8] = identifier
    first, second = headers or (header(5), header(6))
    one, two = tables or (regions(), regions())
    out[0x10000:0x11000], out[0x20000:0x21000] = first, second
    out[0x30000:0x40000], out[0x40000:0x50000] = one, two
    out[MiB:MiB + len(log)] = log
    out[2 * MiB:2 * MiB + 8 * len(bat)] = struct.pack('<%dQ' % len(bat), *bat)
    out[3 * MiB:] = metadata(content or items())
    return bytes(out) + data


LOG = b'\x77' * 16
WAITING = header(5), header(6, log=LOG)


def log_entry(sequence, changes, tail=0, flushed=5 * MiB, last=5 * MiB,
              name=LOG):
    """@changes: (file offset, 4096 bytes, or so many bytes of zeroes)"""
    heads = -(-(64 + 32 * len(changes)) // SECTOR)
    descriptors, sectors = b'', b''
    for offset, what in changes:
        if isinstance(what, int):
            descriptors += struct.pack('<4sIQQQ', b'zero', 0, what, offset,
                                       sequence)
            continue
        descriptors += struct.pack('<4s4s8sQQ', b'desc', what[4092:], what[:8],
                                   offset, sequence)
        sectors += struct.pack('<4sI', b'data', sequence >> 32) + \
            what[8:4092] + struct.pack('<I', sequence & 0xffffffff)
    head = struct.pack('<4sIIIQII16sQQ', b'loge', 0,
                       SECTOR * heads + len(sectors), tail, sequence,
                       len(changes), 0, name, flushed, last)
    return seal((head + descriptors).ljust(SECTOR * heads, b'\0') + sectors)


def bat_sector(*entries):
    return struct.pack('<%dQ' % len(entries), *entries).ljust(SECTOR, b'\0')
