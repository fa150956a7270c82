# SPDX-License-Identifier: MIT
"""Images of other formats whose fields lie: refused in one line, or read, but
within bounds of time and memory; and what is refused stays as it was."""
import struct

import pytest

from foreign_files import bochs, cloop, dmg
from harness import KiB, pytest_fail
from test_hostile import call, judge

DISK = (bytes(range(256)) * 300 + bytes(100 * KiB)).ljust(512 * KiB, b'\0')

# format: how numbers are written, then (place, bytes, value) that are wrong,
# and whether opening sees it.
LIES = {
    'vdi': ('<', [(0x44, 4, 2, True), (0x4c, 4, 4, True), (0x154, 4, 1, True),
                  (0x154, 4, 0xfffffe00, True), (0x158, 4, 0x200, True),
                  (0x158, 4, 0xfffffe00, True), (0x168, 4, 4096, True),
                  (0x170, 8, 1 << 62, True), (0x178, 4, 0, True),
                  (0x178, 4, 3, True), (0x178, 4, 1 << 31, True),
                  (0x17c, 4, 8, True), (0x180, 4, 0, True),
                  (0x180, 4, 0xffffffff, True), (0x184, 4, 1000, True),
                  (0x1a8, 4, 1, True), (0x1b8, 4, 1, True),
                  (0x200, 4, 7, False), (0x200, 4, 0xfffffff0, False)]),
    'parallels': ('<', [(16, 4, 3, True), (28, 4, 0, True),
                        (28, 4, 0xffffffff, True), (32, 4, 0, True),
                        (32, 4, 0xffffffff, True), (36, 8, 1 << 60, True),
                        (48, 4, 0xfffffff0, False), (64, 4, 1000, False),
                        (64, 4, 0xffffffff, False)]),
    'qed': ('<', [(4, 4, 0, True), (4, 4, 3, True), (4, 4, 1 << 31, True),
                  (8, 4, 0, True), (8, 4, 3, True), (8, 4, 1 << 30, True),
                  (12, 4, 0, True), (12, 4, 0xffffffff, True),
                  (16, 8, 8, True), (16, 8, 1, True), (40, 8, 1, True),
                  (40, 8, 0, True), (40, 8, 1 << 62, True),
                  (48, 8, 1 << 62, True), (48, 8, 77, True),
                  (4096, 8, 1 << 40, True), (4096, 8, 3, True)]),
    'qcow': ('>', [(4, 4, 3, True), (8, 8, 1, True), (8, 8, 1 << 50, True),
                   (24, 8, 0, True), (24, 8, 1 << 63, True),
                   (24, 8, 1 << 60, True), (32, 1, 8, True), (32, 1, 40, True),
                   (33, 1, 2, True), (33, 1, 60, True), (36, 4, 2, True),
                   (40, 8, 1 << 50, True), (40, 8, (1 << 64) - 8, True),
                   (48, 8, 1 << 50, True), (48, 8, 48, True)]),
    'bochs': ('<', [(64, 4, 5, True), (68, 4, 0xffffffff, True),
                    (72, 4, 0, True), (72, 4, 0xffffffff, True),
                    (76, 4, 0, True), (76, 4, 0xffffffff, True),
                    (80, 4, 0, True), (80, 4, 1000, True),
                    (80, 4, 1 << 31, True), (88, 8, 1 << 60, True),
                    (512, 4, 0xfffffff0, False)]),
    'cloop': ('>', [(128, 4, 0, True), (128, 4, 511, True),
                    (128, 4, 1 << 31, True), (132, 4, 0xffffffff, True),
                    (136, 8, 1 << 50, True), (144, 8, 1, True),
                    (144, 8, 1 << 63, True)]),
    # From the end of the file.
    'dmg': ('>', [(-512, 4, 0, True), (-512 + 60, 4, 2, False),
                  (-512 + 24, 8, 1 << 63, True), (-512 + 216, 8, 1 << 50, True),
                  (-512 + 224, 8, 0, True), (-512 + 224, 8, 1 << 62, True),
                  (-512 + 216, 8, 0, True), (-512 + 492, 8, 1 << 62, True)]),
}
CODES = {1: 'B', 4: 'I', 8: 'Q'}


def make(fmt, lamella, folder):
    path = folder / ('bad.' + fmt)
    recipe = {'bochs': bochs, 'cloop': cloop, 'dmg': dmg}.get(fmt)
    if recipe:
        path.write_bytes(recipe(DISK))
        return path
    options = {'parallels': ['-o', 'cluster_size=64k'],
               'qed': ['-o', 'cluster_size=4k,table_size=2']}.get(fmt, [])
    (folder / 'disk').write_bytes(DISK)
    lamella.run('convert', '-f', 'raw', '-O', fmt, *options, folder / 'disk',
                path)
    return path


@pytest.mark.parametrize('fmt', LIES)
def test_lies(fmt, lamella, tmp_path):
    image = make(fmt, lamella, tmp_path)
    sound, (order, lies) = image.read_bytes(), LIES[fmt]
    for place, size, value, seen in lies:
        bad = bytearray(sound)
        place %= len(bad)
        struct.pack_into(order + CODES[size], bad, place, value)
        image.write_bytes(bad)
        (tmp_path / 'out').unlink(missing_ok=True)
        commands = [['convert', '-f', fmt, '-O', 'raw', image.name, 'out'],
                    ['info', '-f', fmt, image.name],
                    ['check', '-f', fmt, image.name]]
        for arguments in commands[:1 if seen else 3]:
            argv = [*lamella.img, *arguments]
            done = call(argv, tmp_path)
            if arguments[0] != 'check':
                judge(argv, done)
            elif done.returncode not in (0, 1, 2, 3, 63):
                pytest_fail('%s: %s' % (argv, done))
            if seen and done.returncode == 0:
                pytest_fail('%s is not seen by %s' % ((place, value),
                                                      arguments))
        assert image.read_bytes() == bad


@pytest.mark.parametrize('fmt', LIES)
def test_cut_off(fmt, lamella, tmp_path):
    image = make(fmt, lamella, tmp_path)
    sound = image.read_bytes()
    for length in (0, 1, 47, 63, 64, 511, 513, len(sound) // 2,
                   len(sound) - 70 * KiB):
        image.write_bytes(sound[:max(length, 0)])
        argv = [*lamella.img, 'convert', '-f', fmt, '-O', 'raw', image.name,
                'out']
        judge(argv, call(argv, tmp_path))
        assert length > 512 or not (tmp_path / 'out').exists()


def test_marked_as_in_use(lamella, tmp_path):
    """Read; and written to if all entries make sense, or somebody repairs."""
    image = make('parallels', lamella, tmp_path)
    marked = bytearray(image.read_bytes())
    marked[44:48] = b'Ynot'
    image.write_bytes(marked)
    lamella.run('convert', '-f', 'parallels', '-O', 'raw', image,
                tmp_path / 'out')
    assert (tmp_path / 'out').read_bytes() == DISK
    argv = [*lamella.img, 'check', '-f', 'parallels', image]
    assert 'not closed correctly' in call(argv, tmp_path).stderr
    for argv in ([*lamella.img, 'check', '-r', 'all', '-f', 'parallels', image],
                 [*lamella.io, '-f', 'parallels', '-c', 'write 64k 512',
                  image]):
        image.write_bytes(marked)
        assert call(argv, tmp_path).returncode == 0
        assert image.read_bytes()[44:48] == bytes(4)
    # Where nothing is, nothing is afterwards, and nothing else changes.
    wild = bytearray(marked)
    wild[64:68] = b'\xff\xff\xff\x7f'
    image.write_bytes(wild)
    argv = [*lamella.img, 'check', '-r', 'all', '-f', 'parallels', image]
    assert call(argv, tmp_path).returncode in (0, 3)
    wild[44:48] = wild[64:68] = bytes(4)
    assert image.read_bytes() == wild
    marked[64:68] = marked[68:72]       # two entries for one cluster
    image.write_bytes(marked)
    argv = [*lamella.io, '-f', 'parallels', '-c', 'write 0 512', image]
    assert 'not closed correctly' in call(argv, tmp_path).stderr
    assert image.read_bytes() == marked
