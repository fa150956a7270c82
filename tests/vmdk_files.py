# SPDX-License-Identifier: MIT
"""VMDKs made by hand, right ones and wrong ones."""
import struct
import zlib

SECTOR = 512
GRAIN = 128                     # sectors
NO_CID = 0xffffffff
AT_END = (1 << 64) - 1

HEADER = '<4sIIQQQQIQQQB4sH'
FIELDS = ['magic', 'version', 'flags', 'capacity', 'grain_size',
          'descriptor_offset', 'descriptor_size', 'gtes', 'rgd_offset',
          'gd_offset', 'overhead', 'unclean', 'newlines', 'compression']


def descriptor(*lines, cid='12345678', parent='ffffffff',
               kind='monolithicSparse', version=1):
    return ('# Disk DescriptorFile\nversion=%s\nCID=%s\nparentCID=%s\n'
            'createType="%s"\n\n# Extent description\n%s\n\n'
            'ddb.adapterType = "ide"\n' % (
                version, cid, parent, kind, '\n'.join(lines))).encode()


def header(**changes):
    values = dict(magic=b'KDMV', version=1, flags=3, capacity=2048,
                  grain_size=GRAIN, descriptor_offset=1, descriptor_size=20,
                  gtes=512, rgd_offset=21, gd_offset=26, overhead=128,
                  unclean=0, newlines=b'\n \r\n', compression=0)
    values.update(changes)
    return struct.pack(HEADER, *(values[name] for name in FIELDS)).ljust(
        SECTOR, b'\0')


def sectors(data, count):
    return data.ljust(count * SECTOR, b'\0')


def table(entries):
    return struct.pack('<512I', *entries, *[0] * (512 - len(entries)))


def sparse(entries=(128, 256), text=None, gd=27, rgd=22, redundant=None,
           grains=2, **changes):
    """1 MiB: header, descriptor, RGD, its table, GD, its table, grains."""
    if text is None:
        text = descriptor('RW 2048 SPARSE "x.vmdk"')
    head = header(**changes) + sectors(text, 20)
    head += sectors(struct.pack('<I', rgd), 1)
    head += table(entries if redundant is None else redundant)
    head += sectors(struct.pack('<I', gd), 1) + table(entries)
    body = b''.join(bytes([0x11 * (i + 1)]) * (GRAIN * SECTOR)
                    for i in range(grains))
    return sectors(head, 128) + body


def cowd(entries, grain=GRAIN, capacity=2048, gd=4, tables=None, version=1,
         magic=b'COWD', at=5):
    """An extent of an ESX server: header, directory, tables of 4096 entries,
    and a grain full of 0x11, 0x22, ... for each guest grain of @entries."""
    needed = -(-capacity // (grain * 4096)) if grain else 1
    first = -(-(5 + 32 * needed) // max(grain, 1)) * grain
    head = struct.pack('<4s7I', magic, version, 3, capacity, grain, gd,
                       needed if tables is None else tables, 0)
    places = struct.pack('<%dI' % needed, *(at + 32 * i
                                            for i in range(needed)))
    numbers = [0] * (4096 * needed)
    for place, index in enumerate(entries):
        numbers[index] = first + place * grain
    body = b''.join(bytes([0x11 * (i + 1)]) * (grain * SECTOR)
                    for i in range(len(entries)))
    return sectors(sectors(head, 4) + sectors(places, 1) +
                   struct.pack('<%dI' % len(numbers), *numbers),
                   first) + body


STORED, ZERO, UNMAPPED = 3 << 60, 2 << 60, 1 << 60


def stored(index):
    """The entry of a grain table that numbers a grain."""
    return STORED | (index & 0xfff) << 48 | index >> 12


def sesparse(entries=(), grains=3, capacity=32768 * 2, fields=(), volatile=(),
             tables=(1, 0), cut=None):
    """A space-efficient extent: headers, directory, @tables grain tables in
    the order that is said, all @entries of the disk in them, and @grains
    grains full of 0x11, 0x22, ..."""
    gd, gt = 8, 16
    first = gt + 64 * len(tables)
    const = [0xcafebabe, 2 << 32 | 1, capacity, 8, 64] + [0] * 59
    const[10:26] = [1, 1, 2, 1, 3, 1, gd, 1, gt, 64 * len(tables), 4, 1, 5, 1,
                    first, 8 * grains]
    other = [0xcafecafe] + [0] * 63
    for sector, changes in (const, fields), (other, volatile):
        for index, value in dict(changes).items():
            sector[index] = value
    out = struct.pack('<64Q', *const) + struct.pack('<64Q', *other)
    out = sectors(out, gd) + sectors(struct.pack(
        '<%dQ' % len(tables), *(UNMAPPED | index if index >= 0 else 0
                                for index in tables)), gt - gd)
    places = [bytes(64 * SECTOR)] * len(tables)
    numbers = dict(entries)
    for table_index, place in enumerate(tables):
        if place in range(len(tables)):
            places[place] = struct.pack('<4096Q', *(
                numbers.get(4096 * table_index + i, 0) for i in range(4096)))
    out += b''.join(places)
    out += b''.join(bytes([0x11 * (i % 15 + 1)]) * (8 * SECTOR)
                    for i in range(grains))
    return out[:cut]


def marker(value, size, kind):
    return sectors(struct.pack('<QII', value, size, kind), 1)


def grain(sector, data, size=None):
    payload = zlib.compress(data)
    whole = struct.pack('<QI', sector, len(payload) if size is None else size)
    whole += payload
    return sectors(whole, -(-len(whole) // SECTOR))


def stream(first_sector=0, size=None, data=None, footer=True, eos=0,
           footer_gd=None, kind=3):
    """As a program writes it that cannot go back: the directory is last."""
    data = b'\x11' * (GRAIN * SECTOR) if data is None else data
    out = header(version=3, flags=0x30001, gd_offset=AT_END, rgd_offset=0,
                 compression=1, overhead=21)
    out += sectors(descriptor('RW 2048 SPARSE "x.vmdk"',
                              kind='streamOptimized'), 20)
    place = len(out) // SECTOR
    out += grain(first_sector, data, size)
    out += marker(4, 0, 1)
    tables = len(out) // SECTOR
    out += table([0, place] if first_sector else [place])
    out += marker(1, 0, 2)
    directory = len(out) // SECTOR
    out += sectors(struct.pack('<I', tables), 1)
    if footer:
        out += marker(1, 0, kind)
        out += header(version=3, flags=0x30001, rgd_offset=0, compression=1,
                      overhead=21,
                      gd_offset=directory if footer_gd is None else footer_gd)
    return out + marker(eos, 0, 0)
