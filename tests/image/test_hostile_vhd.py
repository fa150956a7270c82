# SPDX-License-Identifier: MIT
"""VHD and VHDX files that lie: one line and exit status 1, or it works, within
bounds of time, memory and disk; what is refused is as it was."""
import struct

import pytest

import vhd_files as vhd
import vhdx_files as vhdx
from harness import GiB, MiB, pytest_fail
from test_hostile import call, judge

FAR = 1 << 40


def footer(**fields):
    return lambda: vhd.dynamic(foot=vhd.footer(**fields))


def header(**fields):
    return lambda: vhd.dynamic(head=vhd.header(**fields))


def entries(*values, blocks=vhd.block(b'x' * vhd.BLOCK)):
    return lambda: vhd.dynamic(values, blocks)


def patched(content, at, value):
    return content[:at] + value + content[at + len(value):]


def locators(*values, name='', content=b''):
    def make():
        return vhd.dynamic((), content, vhd.footer(kind=vhd.DIFFERENCING),
                           vhd.header(name=name, locators=values))
    return make


# None: anything may come of it but harm.
VHD = {
    'checksum': (lambda: patched(vhd.dynamic(), 64, b'\1\2\3\4'),
                 'Incorrect header checksum'),
    'short-8': (lambda: b'conectix', 'checksum'),
    'short-511': (lambda: vhd.dynamic()[:511], None),
    'short-512': (lambda: vhd.dynamic()[:512], 'Invalid header magic'),
    'short-table': (lambda: vhd.dynamic()[:1550], 'Error reading pagetable'),
    'empty': (lambda: b'', 'too small for a VHD header'),
    'header-far': (footer(offset=FAR), 'Invalid header magic'),
    'header-at-0': (footer(offset=0), 'Invalid header magic'),
    'header-negative': (footer(offset=2 ** 63), 'beyond 2^63'),
    'header-none': (footer(offset=2 ** 64 - 1), 'beyond 2^63'),
    'size-0': (footer(size=0), None),
    'size-larger-than-table': (footer(size=11 * MiB), 'Page table too small'),
    'size-beyond': (footer(size=2041 * GiB), 'File too large'),
    'size-all-ones': (footer(size=2 ** 64 - 1), 'File too large'),
    'cookie': (header(cookie=b'cxsparsf'), 'Invalid header magic'),
    'block-0': (header(block=0), 'Invalid block size 0'),
    'block-1': (header(block=1), 'Invalid block size 1'),
    'block-3M': (header(block=3 * MiB), 'Invalid block size'),
    'block-all-ones': (header(block=2 ** 32 - 1), 'Invalid block size'),
    'block-2G': (header(block=2 ** 31), None),
    'table-far': (header(table=FAR), 'Error reading pagetable'),
    'table-all-ones': (header(table=2 ** 64 - 1), 'Error reading pagetable'),
    'table-on-footer': (header(table=0), "inside the footer's copy"),
    'table-odd': (header(table=1537), None),
    'entries-0': (header(entries=0), 'Page table too small'),
    'entries-many': (header(entries=2 ** 31 - 1), 'Max Table Entries too'),
    'entries-more-than-file': (header(entries=100000),
                               'Error reading pagetable'),
    'entry-beyond': (entries(100000), 'free_data_block_offset points'),
    'entry-all-but-ones': (entries(2 ** 32 - 2), 'free_data_block_offset'),
    'entry-on-footer': (entries(0), 'holds metadata'),
    'entry-on-header': (entries(1), 'holds metadata'),
    'entry-on-table': (entries(3), 'holds metadata'),
    'entry-twice': (entries(4, 4), None),
    'block-cut': (lambda: vhd.dynamic([4], b'x' * MiB)[:-512],
                  'free_data_block_offset'),
    'fixed-short': (lambda: vhd.fixed(bytes(MiB)), 'the file has 1048576'),
    'locator-far': (locators((b'W2ru', 20, FAR)), 'are not in the file'),
    'locator-long': (locators((b'W2ru', 2 ** 31, 0)), 'are not in the file'),
    'locator-half-pair': (locators((b'W2ru', 2, 2048),
                                   content=b'\x00\xd8'.ljust(512, b'\0')),
                          'has no place in a name'),
    'locator-control': (locators((b'W2ru', 4, 2048),
                                 content=b'a\0\n\0'.ljust(512, b'\0')),
                        'has no place in a name'),
    'parent-is-itself': (locators(name='bad.img'), None),
    'parent-is-absolute': (locators(name='/etc/passwd'), None),
}


def head(**fields):
    return lambda: vhdx.image(headers=(vhdx.header(5, **fields),
                                       vhdx.header(6, **fields)))


def table(*regions, **fields):
    def make():
        one = vhdx.regions(regions or vhdx.REGIONS, **fields)
        return vhdx.image(tables=(one, one))
    return make


def items(**fields):
    return lambda: vhdx.image(content=vhdx.items(**fields))


def placed(item, *place):
    def make():
        content = vhdx.items()
        content[item] = (*content[item], *place)
        return vhdx.image(content=content)
    return make


def without(item):
    def make():
        content = vhdx.items()
        del content[item]
        return vhdx.image(content=content)
    return make


def bat(*values, data=b'\xaa' * MiB):
    return lambda: vhdx.image(values, data=data)


def log(*changes, **fields):
    return lambda: vhdx.image(
        headers=vhdx.WAITING, data=bytes(MiB),
        log=vhdx.log_entry(1, list(changes), **fields))


def matryoshka():
    """Entries that begin in each sector and claim the whole log."""
    one = bytearray(vhdx.log_entry(1, []))
    one[8:12] = struct.pack('<I', 8 * MiB)
    one[24:28] = bytes(4)
    content = bytearray(vhdx.image(headers=tuple(
        vhdx.header(n, log=vhdx.LOG, log_length=8 * MiB, log_offset=4 * MiB)
        for n in (5, 6))))
    return bytes(content) + bytes(one) * (8 * MiB // 4096)


def parent(*values):
    def make():
        content = vhdx.items(flags=2)
        content += [(vhdx.LOCATOR, value, 4) for value in values]
        return vhdx.image([7 | 4 * MiB], content, data=bytes(MiB))
    return make


BAT, META = vhdx.REGIONS
VHDX = {
    'identifier': (lambda: vhdx.image(identifier=b'vhdxfilf'), 'not a VHDX'),
    'short-8': (lambda: b'vhdxfile', 'No valid VHDX header'),
    'short-1M': (lambda: vhdx.image()[:MiB], None),
    'short-3M': (lambda: vhdx.image()[:3 * MiB], 'the table is missing'),
    'headers-same-number': (lambda: vhdx.image(headers=(
        vhdx.header(5), vhdx.header(5, writer=b'\7' * 16))),
        'No valid VHDX header'),
    'version': (head(version=2), 'No valid VHDX header'),
    'log-version': (head(log_version=1), 'log version 1'),
    'log-at-0': (head(log_offset=0), 'log: offset 0'),
    'log-odd': (head(log_offset=MiB + 512), 'log: offset'),
    'log-length': (head(log_length=4096), 'log: length 4096'),
    'log-0': (head(log_length=0), None),
    'log-on-bat': (head(log_offset=2 * MiB), 'overlaps with region'),
    'log-far': (head(log_offset=FAR, log=vhdx.LOG), 'are not in the file'),
    'log-long': (head(log_length=2 ** 32 - MiB, log=vhdx.LOG),
                 'are not in the file'),
    'regions-many': (table(count=2048), '2048 entries, the limit is 2047'),
    'regions-signature': (table(signature=b'regj'), 'wrong signature'),
    'no-bat': (table(META), 'no BAT region'),
    'no-metadata': (table(BAT), 'no metadata region'),
    'bat-twice': (table(BAT, META, BAT), 'two BAT regions'),
    'region-required': (table(BAT, META, (vhdx.UNKNOWN, FAR, MiB, 1)),
                        'required region'),
    'bat-at-0': (table((vhdx.BAT, 0, MiB, 1), META), 'BAT region: offset 0'),
    'bat-odd': (table((vhdx.BAT, 2 * MiB + 8, MiB, 1), META), 'BAT region'),
    'bat-negative': (table((vhdx.BAT, 2 ** 64 - MiB, MiB, 1), META),
                     'BAT region'),
    'bat-empty': (table((vhdx.BAT, 2 * MiB, 0, 1), META), 'length is 0'),
    'bat-short': (table((vhdx.BAT, 2 * MiB, 64, 1), META), 'needs 128'),
    'bat-far': (table((vhdx.BAT, FAR, MiB, 1), META), 'are not in the file'),
    'regions-overlap': (table((vhdx.BAT, 2 * MiB, 2 * MiB, 1), META),
                        'overlaps with region'),
    'metadata-far': (table(BAT, (vhdx.METADATA, FAR, MiB, 1)),
                     'the table is missing'),
    'items-many': (lambda: patched(vhdx.image(), 3 * MiB + 10, b'\xff\xff'),
                   'the limit is 2047'),
    'item-required': (lambda: vhdx.image(content=vhdx.items() + [
        (vhdx.UNKNOWN, b'x', 4)]), 'required metadata item'),
    'item-twice': (lambda: vhdx.image(content=vhdx.items() * 2), 'two items'),
    'item-in-table': (placed(0, 0, 8), 'is not in the region'),
    'item-at-end': (placed(0, MiB - 4, 8), 'is not in the region'),
    'item-far': (placed(0, 2 ** 32 - 8, 8), 'is not in the region'),
    'item-long': (placed(1, 65536, 2 ** 32 - 1), 'is not in the region'),
    'no-parameters': (without(0), "no item 'file parameters'"),
    'no-size': (without(1), "no item 'virtual disk size'"),
    'no-sectors': (without(3), "no item 'logical sector size'"),
    'block-0': (items(block=0), 'block size 0'),
    'block-3M': (items(block=3 * MiB), 'block size 3145728'),
    'block-512M': (items(block=512 * MiB), 'block size'),
    'size-65T': (items(size=65 << 40), 'beyond the limit of 64 TiB'),
    'size-all-ones': (items(size=2 ** 64 - 1), 'beyond the limit'),
    'size-more-than-bat': (items(size=FAR), 'the BAT region has'),
    'sectors-0': (items(logical=0), 'logical sector size 0'),
    'sectors-1': (items(logical=1), 'logical sector size 1'),
    'parent-without-locator': (items(flags=2), 'no parent locator'),
    'entry-on-log': (bat(6 | MiB), 'overlaps with region'),
    'entry-on-header': (bat(6), 'overlaps with region'),
    'entry-beyond': (bat(6 | 100 * MiB), 'points after end of file'),
    'entry-overflow': (bat(6 | 2 ** 64 - MiB), 'offset overflow'),
    'entry-twice': (bat(6 | 4 * MiB, 6 | 4 * MiB), None),
    'entry-state-4': (bat(4), None),
    'entry-partial': (bat(7 | 4 * MiB), None),
    'block-cut': (bat(6 | 4 * MiB, data=b'x' * 1000), None),
    'log-far-change': (log((FAR, bytes(4096))), None),
    'log-zeroes-far': (log((0, FAR)), None),
    'log-grows': (log((0, 4096), last=1 << 60), None),
    'log-kills-header': (log((0x10000, 4096), (0x20000, 4096)), None),
    'log-in-log': (matryoshka, None),
    'locator-short': (parent(b'x' * 10), None),
    'locator-many': (parent(vhdx.LOCATOR_VHDX + b'\0\0\xff\xff'),
                     'parent locator: 65535 entries'),
    'locator-far': (parent(vhdx.LOCATOR_VHDX + struct.pack(
        '<HHIIHH', 0, 1, 2 ** 31, 0, 8, 8)), 'are not in the item'),
    'no-bitmap': (parent(vhdx.locator({'relative_path': 'bad.img'})), None),
}

CASES = [('vpc', name) for name in VHD] + [('vhdx', name) for name in VHDX]


def commands(lamella, kind, refused):
    yield [*lamella.img, 'info', '-f', kind, 'bad.img']
    yield [*lamella.io, '-f', kind, '-c', 'write 1M 4k', '-c', 'flush',
           'bad.img']
    if refused:
        return
    yield [*lamella.img, 'map', '-f', kind, 'bad.img']
    yield [*lamella.img, 'convert', '-f', kind, '-O', 'raw', 'bad.img', 'out']


@pytest.mark.parametrize('kind,name', CASES)
def test_hostile(kind, name, lamella, tmp_path):
    make, words = (VHD if kind == 'vpc' else VHDX)[name]
    on_use = kind == 'vpc' and name.startswith('entry-on')
    image = tmp_path / 'bad.img'
    content = make()
    for argv in commands(lamella, kind, words and not on_use):
        image.write_bytes(content)
        done = call(argv, tmp_path)
        judge(argv, done)
        if words and not (on_use and ('info' in argv or 'write 1M 4k' in
                                      argv and not done.returncode)):
            if not done.returncode or words not in done.stderr:
                pytest_fail('%s\nnot said: %s\n%s' % (argv, words,
                                                      done.stderr))
        if done.returncode and not name.startswith('log-'):
            assert image.read_bytes() == content
    used = sum(path.stat().st_blocks * 512 for path in tmp_path.iterdir())
    assert used < 200 * MiB


@pytest.mark.parametrize('make', [vhd.dynamic, vhdx.image])
def test_not_guessed(make, lamella, tmp_path):
    """What strangers sent is not offered to these parsers."""
    (tmp_path / 'image').write_bytes(make())
    done = call([*lamella.img, 'info', '--untrusted', 'image'], tmp_path)
    assert 'file format: raw' in done.stdout
    done = call([*lamella.img, 'info', 'image'], tmp_path)
    assert 'file format: vhdx' in done.stdout or 'file format: vpc' in \
        done.stdout
