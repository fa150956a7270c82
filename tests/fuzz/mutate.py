# SPDX-License-Identifier: MIT
"""Changes of sound qcow2 images that know where everything is.

fields() lists what the image consists of: numbers of the header, entries of
tables, counters, names, payloads.  mutate() changes one to four of them to what
hurts most for their kind: to the place of another structure, one off a limit,
an entry taken from elsewhere.  All follows from a seed.

    python3 mutate.py IMAGE SEED COUNT FOLDER     writes so many mutants
"""
import os
import random
import struct
import sys

OFFSET_MASK = 0x00fffffffffffe00
COMPRESSED = 1 << 62
COPIED = 1 << 63
EXTENSIONS = {0x23852875: 'bitmaps', 0x0537be77: 'crypto'}

# Version 2's part of the header, then version 3's: offset, format, kind.
HEADER = [
    (4, 'I', 'version'), (8, 'Q', 'place'), (16, 'I', 'size32'),
    (20, 'I', 'bits'), (24, 'Q', 'size'), (32, 'I', 'few'), (36, 'I', 'count'),
    (40, 'Q', 'place'), (48, 'Q', 'place'), (56, 'I', 'count'),
    (60, 'I', 'count'), (64, 'Q', 'place')]
HEADER_3 = [(72, 'Q', 'features'), (80, 'Q', 'features'),
            (88, 'Q', 'features'), (96, 'I', 'bits'), (100, 'I', 'size32'),
            (104, 'I', 'few')]

SIZES = [0, 1, 511, 512, 513, 65535, 65536, 65537, 1 << 20, 1 << 21, 1 << 24,
         1 << 31, (1 << 31) - 1, (1 << 32) - 1, 1 << 32, 1 << 40, 1 << 44,
         1 << 56, (1 << 56) - 512, 1 << 61, 1 << 62, (1 << 63) - 1,
         (1 << 63) - 512, 1 << 63, (1 << 64) - 512, (1 << 64) - 1]


class Layout:
    """Where things are in the bytes of a sound image."""

    def __init__(self, data):
        self.data = data
        self.found = []         # (offset, format, kind)
        self.bits, = struct.unpack_from('>I', data, 20)
        self.cs = 1 << self.bits
        self.version, = struct.unpack_from('>I', data, 4)
        self.features = self.get('Q', 72) if self.version > 2 else 0
        self.order = self.get('I', 96) if self.version > 2 else 4
        self.entry = 16 if self.features & 16 else 8
        self.external = bool(self.features & 4)
        self.places = [0, len(data)]
        self.walk()

    def get(self, fmt, at):
        size = struct.calcsize('>' + fmt)
        return struct.unpack_from('>' + fmt, self.data, at)[0] \
            if 0 <= at <= len(self.data) - size else 0

    def add(self, at, fmt, kind):
        if at + struct.calcsize('>' + fmt) <= len(self.data):
            self.found.append((at, fmt, kind))

    def place(self, at):
        if 0 < at < len(self.data) and at not in self.places:
            self.places.append(at)

    def walk(self):
        for field in HEADER + (HEADER_3 if self.version > 2 else []):
            self.add(*field)
        self.walk_extensions()
        self.walk_l1(self.get('Q', 40), self.get('I', 36))
        self.walk_refcounts(self.get('Q', 48), self.get('I', 56))
        self.walk_snapshots(self.get('Q', 64), self.get('I', 60))

    def walk_extensions(self):
        at = self.get('I', 100) if self.version > 2 else 72
        while at + 8 <= len(self.data):
            kind, length = self.get('I', at), self.get('I', at + 4)
            self.add(at, 'I', 'magic')
            self.add(at + 4, 'I', 'length')
            if not kind:
                break
            name = EXTENSIONS.get(kind)
            if name == 'bitmaps':
                self.add(at + 8, 'I', 'count')
                self.add(at + 16, 'Q', 'size')
                self.add(at + 24, 'Q', 'place')
                self.walk_bitmaps(self.get('Q', at + 24), self.get('I', at + 8))
            elif name == 'crypto':
                self.add(at + 8, 'Q', 'place')
                self.add(at + 16, 'Q', 'size')
                self.walk_luks(self.get('Q', at + 8))
            else:
                for i in range(min(length, 48)):
                    self.add(at + 8 + i, 'B', 'byte')
            at += 8 + (length + 7) // 8 * 8
        backing = self.get('Q', 8)
        for i in range(min(self.get('I', 16), 64) if backing else 0):
            self.add(backing + i, 'B', 'byte')

    def walk_l1(self, at, count):
        self.place(at)
        for i in range(min(count, 64)):
            self.add(at + 8 * i, 'Q', 'entry')
            table = self.get('Q', at + 8 * i) & OFFSET_MASK
            if table and table not in self.places:
                self.place(table)
                self.walk_l2(table)

    def walk_l2(self, at):
        for i in range(min(self.cs // self.entry, 600)):
            where = at + self.entry * i
            value = self.get('Q', where)
            # Of what is empty there is plenty.
            if value or i < 4:
                self.add(where, 'Q', 'l2')
                if self.entry == 16:
                    self.add(where + 8, 'Q', 'bitmap')
            if value & COMPRESSED:
                mask = (1 << (62 - (self.bits - 8))) - 1
                for k in (0, 1, 5):
                    self.add((value & mask) + k, 'B', 'byte')
            elif not self.external:
                self.place(value & OFFSET_MASK)

    def walk_refcounts(self, at, clusters):
        self.place(at)
        for i in range(min(clusters * self.cs // 8, 64)):
            block = self.get('Q', at + 8 * i)
            if not block and i > 3:
                continue
            self.add(at + 8 * i, 'Q', 'entry')
            if not block:
                continue
            self.place(block)
            width = (1 << self.order) // 8
            fmt = {0: 'B', 1: 'B', 2: 'H', 4: 'I', 8: 'Q'}[width]
            for k in range(min(len(self.data) // self.cs + 2, 300)):
                self.add(block + k * (width or 1), fmt, 'counter')

    def walk_snapshots(self, at, count):
        if count:
            self.place(at)
        for _ in range(min(count, 8)):
            for offset, fmt, kind in (
                    (0, 'Q', 'place'), (8, 'I', 'count'), (12, 'H', 'length'),
                    (14, 'H', 'length'), (16, 'I', 'size32'),
                    (24, 'Q', 'size'), (32, 'I', 'size32'),
                    (36, 'I', 'length'), (40, 'Q', 'size'), (48, 'Q', 'size'),
                    (56, 'B', 'byte'), (64, 'B', 'byte')):
                self.add(at + offset, fmt, kind)
            self.walk_l1(self.get('Q', at), self.get('I', at + 8))
            at += (40 + self.get('I', at + 36) + self.get('H', at + 12) +
                   self.get('H', at + 14) + 7) // 8 * 8

    def walk_bitmaps(self, at, count):
        self.place(at)
        for _ in range(min(count, 8)):
            for offset, fmt, kind in (
                    (0, 'Q', 'place'), (8, 'I', 'count'),
                    (12, 'I', 'features32'), (16, 'B', 'few8'),
                    (17, 'B', 'bits8'), (18, 'H', 'length'),
                    (20, 'I', 'length'), (24, 'B', 'byte')):
                self.add(at + offset, fmt, kind)
            table = self.get('Q', at)
            self.place(table)
            for i in range(min(self.get('I', at + 8), 16)):
                self.add(table + 8 * i, 'Q', 'entry')
                self.place(self.get('Q', table + 8 * i) & OFFSET_MASK)
            at += (24 + self.get('I', at + 20) + self.get('H', at + 18) + 7) \
                // 8 * 8

    def walk_luks(self, at):
        self.place(at)
        self.add(at + 6, 'H', 'few16')
        for offset in (104, 108, 164):
            self.add(at + offset, 'I', 'size32')
        for offset in range(8, 104, 5):
            self.add(at + offset, 'B', 'byte')
        for slot in range(8):
            for offset in (0, 4, 40, 44):
                self.add(at + 208 + slot * 48 + offset, 'I', 'size32')


def new_value(rng, layout, fmt, kind, old, same):
    """@same: offsets of the other fields of this kind."""
    width = 8 * struct.calcsize('>' + fmt)
    choice = rng.randrange(10)
    if choice == 0:
        value = old ^ 1 << rng.randrange(width)
    elif choice == 1:
        value = old + rng.choice((-1, 1, 2, -2, layout.cs, -layout.cs))
    elif choice == 2:
        value = layout.get(fmt, rng.choice(same))
    elif kind in ('entry', 'l2', 'place'):
        value = pointer(rng, layout, kind, old)
    elif kind == 'counter':
        value = rng.choice((0, 1, 2, 3, (1 << width) - 1,
                            rng.getrandbits(width)))
    elif kind == 'bitmap':
        value = rng.choice((0, 1, 1 << 32, (1 << 64) - 1, 0xffffffff, old << 32,
                            old ^ rng.getrandbits(64), 0xffffffff << 32))
    elif kind in ('count', 'few', 'length') and choice < 7:
        value = rng.choice((0, 1, 2, old * 2, old + 8, 65536, 65535, 1 << 25,
                            1 << 28, layout.cs // 8, rng.getrandbits(12)))
    elif kind.startswith(('bits', 'few', 'version')) and choice < 8:
        value = rng.randrange(70)
    elif kind.startswith('features') and choice < 8:
        value = old ^ 1 << rng.randrange(9)
    else:
        value = rng.choice(SIZES + [rng.getrandbits(width)])
    return value & (1 << width) - 1


def pointer(rng, layout, kind, old):
    """To something else, with flags that may be right or not."""
    value = rng.choice(layout.places + [len(layout.data) + layout.cs,
                                        1 << 40, 1 << 55, OFFSET_MASK])
    value = value + rng.choice((0, 0, 0, 0, 512, layout.cs, 1, 7))
    if kind == 'l2' and rng.randrange(4) == 0:
        sectors = rng.getrandbits(layout.bits - 8)
        return COMPRESSED | sectors << (62 - (layout.bits - 8)) | \
            value & (1 << (62 - (layout.bits - 8))) - 1
    if kind != 'place':
        value |= rng.choice((0, 1, COPIED, COPIED, COPIED | 1, old & COPIED))
    return value


def mutate(data, seed):
    """The bytes of a mutant, and what was done in words."""
    rng = random.Random(seed)
    layout = Layout(data)
    out, said = bytearray(data), []
    by_kind = {}
    for field in layout.found:
        by_kind.setdefault(field[2], []).append(field)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        # Kinds first: there are many entries, and few fields of the header.
        kind = rng.choice(sorted(by_kind))
        at, fmt, _ = rng.choice(by_kind[kind])
        old = struct.unpack_from('>' + fmt, out, at)[0]
        same = [field[0] for field in by_kind[kind] if field[1] == fmt]
        value = new_value(rng, layout, fmt, kind, old, same)
        struct.pack_into('>' + fmt, out, at, value)
        said.append('%s at %#x: %#x -> %#x' % (kind, at, old, value))
    if rng.randrange(25) == 0:
        length = rng.choice((rng.randrange(len(out)), len(out) // layout.cs *
                             layout.cs - layout.cs, rng.choice(layout.places)))
        del out[max(length, 104):]
        said.append('cut at %#x' % len(out))
    return bytes(out), '; '.join(said)


def main():
    path, seed, count, folder = sys.argv[1:]
    with open(path, 'rb') as source:
        data = source.read()
    for i in range(int(seed), int(seed) + int(count)):
        mutant, said = mutate(data, i)
        name = '%s-%d' % (os.path.basename(path), i)
        with open(os.path.join(folder, name), 'wb') as out:
            out.write(mutant)
        print('%s: %s' % (name, said))


if __name__ == '__main__':
    main()
