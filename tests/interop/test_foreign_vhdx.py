# SPDX-License-Identifier: MIT
"""VHDX images: the genuine tools write and lamella reads, and the other way."""
import json

import pytest

from foreign import convert, make_sources, said, same
from harness import GENUINE, GiB, KiB, MiB, run
from vhdx_files import (LOCATOR, LOG, SECTOR, WAITING, bat_sector, header,
                        image, items, locator, log_entry, regions)

OPTIONS = ['', 'subformat=fixed', 'block_size=1M', 'block_state_zero=off']
CASES = [(source, options) for source in ('mixed', 'empty', 'sparse')
         for options in OPTIONS[:4 if source == 'mixed' else 1]]


@pytest.fixture(scope='module')
def sources(tmp_path_factory):
    return make_sources(tmp_path_factory.mktemp('raw'))


@pytest.mark.parametrize('source,options', CASES)
def test_reads_theirs(source, options, sources, genuine, reference, lamella,
                      tmp_path):
    path = tmp_path / 'theirs.vhdx'
    convert(genuine, 'vhdx', sources[source], path, options)
    same(lamella, 'vhdx', sources[source], path)
    for form in ('human', 'json'):
        for command in ('info', 'check'):
            arguments = [command, '-f', 'vhdx', '--output', form, path]
            assert said(lamella, *arguments) == said(reference, *arguments)


@pytest.mark.parametrize('source,options', CASES)
def test_they_read_ours(source, options, sources, lamella, tmp_path):
    if not GENUINE:
        pytest.skip('no genuine qemu-img here')
    path = tmp_path / 'ours.vhdx'
    convert(lamella, 'vhdx', sources[source], path, options)
    for tools in GENUINE:
        tools.run('check', '-f', 'vhdx', path)
        if source == 'sparse':      # they do not see that it is empty
            tools.io_run(path, 'read -P 0 1G 1M', 'read -P 0 2G 1000k',
                         options=['-f', 'vhdx'])
        else:
            same(tools, 'vhdx', sources[source], path)
    assert path.stat().st_blocks * 512 < 20 * MiB
    lamella.run('check', '-f', 'vhdx', path)
    same(lamella, 'vhdx', sources[source], path)
    back = tmp_path / 'back.raw'
    lamella.run('convert', '-f', 'vhdx', '-O', 'raw', path, back)
    lamella.run('compare', '-f', 'raw', '-F', 'raw', sources[source], back)


def without_chance(path):
    """But for who made it, names, numbers and the sums over them."""
    data = bytearray(path.read_bytes())
    data[8:520] = bytes(512)
    for at in (0x10000, 0x20000):
        data[at + 4:at + 48] = bytes(44)
    for at in (0x30000, 0x40000):       # theirs say of nothing: required
        data[at + 4:at + 8] = bytes(4)
        for entry in (0, 32):
            data[at + 16 + entry + 28] = 0
    at = int.from_bytes(data[0x30030 + 16:0x30030 + 24], 'little') + 0x10010
    data[at:at + 16] = bytes(16)
    return data


@pytest.mark.parametrize('size', [1, 512, 10 * MiB, GiB, GiB + 512, 100 * GiB,
                                  100 * GiB + 1, 1024 * GiB])
def test_new_images(size, reference, lamella, tmp_path):
    ours, theirs = tmp_path / 'ours', tmp_path / 'theirs'
    for options in ('log_size=1M', 'log_size=2097153,block_size=1',
                    'block_size=300M,block_state_zero=off'):
        for tools, path in ((reference, theirs), (lamella, ours)):
            tools.run('create', '-q', '-f', 'vhdx', '-o', options, path, size)
        assert without_chance(ours) == without_chance(theirs)


def test_taking_turns(genuine, lamella, tmp_path):
    """Both write into one image, one after the other."""
    path, raw = tmp_path / 'shared.vhdx', tmp_path / 'model.raw'
    lamella.run('create', '-q', '-f', 'vhdx', '-o', 'block_size=1M', path,
                '40M')
    lamella.run('create', '-q', '-f', 'raw', raw, '40M')
    script = ['write -P %d %d %d' % (i + 1, (i * 7919 * KiB) % (39 * MiB),
                                     512 + i * 1337 // 512 * 512 % (90 * KiB))
              for i in range(40)]
    script += ['write -z 3M 300k', 'write -z 8M 4M', 'write -P 9 9M 1k',
               'flush', 'write -P 4 30M 2M']
    lamella.io_run(raw, *script, options=['-f', 'raw'])
    for i in range(0, len(script), 9):
        tools = (lamella, genuine)[i // 9 % 2]
        tools.io_run(path, *script[i:i + 9], options=['-f', 'vhdx'])
    for tools in (lamella, genuine):
        same(tools, 'vhdx', raw, path)
        tools.run('check', '-f', 'vhdx', path)


# ------------------------------------------------------------------- the log

WANTED = bat_sector(4 * MiB | 6)
DATA = b'\xaa' * MiB


def entry(sequence=1, sector=WANTED, **fields):
    return log_entry(sequence, [(2 * MiB, sector)], **fields)


def around(log):
    """The same entry, beginning in the last sector of the ring."""
    one = entry(7, tail=MiB - SECTOR)
    return one[SECTOR:] + bytes(MiB - 2 * SECTOR) + one[:SECTOR]


# What the log holds, and the first byte of the disk when that was done.
LOGS = {
    'one': (entry(), 0xaa),
    'empty': (b'', 0),
    'of-another-time': (entry(name=b'\1' * 16), 0),
    'two': (entry() + entry(2, bat_sector(2)), 0),
    'two-the-second-alone': (entry() + entry(2, bat_sector(2), tail=8192), 0),
    'zeroes-first': (log_entry(1, [(2 * MiB, 4096), (2 * MiB, WANTED)]), 0xaa),
    'zeroes-last': (log_entry(1, [(2 * MiB, WANTED), (2 * MiB, 4096)]), 0),
    'file-to-grow': (entry(last=9 * MiB), 0xaa),
    'torn': (entry()[:8191] + b'x', 0),
    'later-in-the-ring': (bytes(8192) + entry(7, tail=8192), 0xaa),
    'around-the-end': (around(entry), 0xaa),
}


@pytest.mark.parametrize('name', LOGS)
def test_log(name, reference, lamella, tmp_path):
    """What waits in the log is done by who opens for writing, and keeps the
    others out."""
    log, first = LOGS[name]
    waits = name not in ('empty', 'of-another-time', 'torn')
    path = tmp_path / 'x.vhdx'
    content = image([0], headers=WAITING, log=log, data=DATA)
    path.write_bytes(content)
    done = run(*lamella.img, 'info', '-f', 'vhdx', path,
               status=1 if waits else 0)
    assert ('opened read-only, but contains a log that needs to be replayed'
            in done.stderr) == waits
    assert path.read_bytes() == content
    for tools in (reference, lamella):
        path.write_bytes(content)
        script = ['-c', 'read -P %d 0 1M' % first]
        run(*tools.io, '-f', 'vhdx', *script, path)
        after = path.read_bytes()
        if name == 'file-to-grow' and tools is lamella:
            assert len(after) >= 9 * MiB
    # Ours leaves none behind, whatever was in it.
    run(*lamella.io, '-r', '-f', 'vhdx', '-c', 'read -P %d 0 1M' % first, path)
    reference.run('check', '-f', 'vhdx', path)


def test_check_replays(reference, lamella, tmp_path):
    path = tmp_path / 'x.vhdx'
    content = image([0], headers=WAITING, log=entry(), data=DATA)
    told = []
    for tools in (reference, lamella):
        for form in ('human', 'json'):
            path.write_bytes(content)
            told.append(tools.run('check', '-r', 'all', '-f', 'vhdx',
                                  '--output', form, path))
    assert told[0] == told[2]
    assert json.loads(told[1]) == json.loads(told[3])


def test_number_behind_a_gap(lamella, tmp_path):
    """An entry whose tail is of another row does not count."""
    path = tmp_path / 'x.vhdx'
    path.write_bytes(image([0], headers=WAITING, data=DATA,
                           log=entry() + entry(3, bat_sector(2))))
    run(*lamella.io, '-f', 'vhdx', '-c', 'read -P 0xaa 0 1M', path)


def test_shorter_than_the_log_says(lamella, tmp_path):
    path = tmp_path / 'x.vhdx'
    content = image([0], headers=WAITING, log=entry(flushed=9 * MiB,
                                                    last=9 * MiB), data=DATA)
    path.write_bytes(content)
    done = run(*lamella.io, '-f', 'vhdx', '-c', 'read 0 512', path, status=1)
    assert 'the file was 9437184 bytes long' in done.stderr
    assert path.read_bytes() == content


# --------------------------------------------------------- rare, and foreign

def test_one_good_copy(reference, lamella, tmp_path):
    """Of headers and region tables."""
    path = tmp_path / 'x.vhdx'
    broken = bytes(4096)
    for fields in ({'headers': (header(5), broken)},
                   {'headers': (broken, header(6))},
                   {'headers': (header(9), header(6))},
                   {'tables': (regions(), bytes(65536))}):
        path.write_bytes(image([4 * MiB | 6], data=DATA, **fields))
        for tools in (reference, lamella):
            run(*tools.io, '-r', '-f', 'vhdx', '-c', 'read -P 0xaa 0 1M', path)
    path.write_bytes(image([4 * MiB | 6], data=DATA,
                           tables=(bytes(65536), regions())))
    run(*lamella.io, '-r', '-f', 'vhdx', '-c', 'read -P 0xaa 0 1M', path)


def test_states(reference, lamella, tmp_path):
    path = tmp_path / 'x.vhdx'
    for state in range(8):
        path.write_bytes(image([4 * MiB | state, 4 * MiB | 6], data=DATA))
        script = 'read -P %d 0 1M' % (0xaa if state == 6 else 0)
        outcome = [run(*tools.io, '-r', '-f', 'vhdx', '-c', script, path,
                       status=None).returncode
                   for tools in (reference, lamella)]
        assert outcome == [1, 1] if state in (4, 7) else outcome == [0, 0]


def test_sectors_of_4k(lamella, tmp_path):
    """The genuine tool has none of these: 32,768 blocks share a bitmap."""
    path = tmp_path / 'x.vhdx'
    path.write_bytes(image([4 * MiB | 6], items(logical=4096), data=DATA))
    run(*lamella.io, '-f', 'vhdx', '-c', 'read -P 0xaa 0 1M', '-c',
        'write -P 5 9M 4k', path)
    run(*lamella.io, '-r', '-f', 'vhdx', '-c', 'read -P 5 9M 4k', path)
    lamella.run('check', '-f', 'vhdx', path)


def test_differencing(lamella, tmp_path):
    """4096 blocks of 1 MiB share a block of bitmaps, whose entry is next."""
    (tmp_path / 'base.vhdx').write_bytes(
        image([4 * MiB | 6, 5 * MiB | 6], data=b'\x11' * 2 * MiB))
    bitmap = bytearray(MiB)
    bitmap[0] = 0b00000101              # sectors 0 and 2 of block 0
    bitmap[256 + 1] = 0x80              # sector 15 of block 1
    bat = [0] * 4097
    bat[0], bat[1], bat[4096] = 4 * MiB | 7, 5 * MiB | 7, 6 * MiB | 6
    parent = {'parent_linkage': '{83ed0ec3-24c8-49a6-a959-5e4bd1288791}',
              'relative_path': '.\\base.vhdx'}
    content = items(flags=2) + [(LOCATOR, locator(parent), 4)]
    top = tmp_path / 'top.vhdx'
    top.write_bytes(image(bat, content,
                          data=b'\x22' * 2 * MiB + bytes(bitmap)))
    run(*lamella.io, '-r', '-f', 'vhdx', '-c', 'read -P 0x22 0 512', '-c',
        'read -P 0x11 512 512', '-c', 'read -P 0x22 1k 512', '-c',
        'read -P 0x11 1536 %d' % (MiB - 1536 + 15 * 512), '-c',
        'read -P 0x22 %d 512' % (MiB + 15 * 512), '-c',
        'read -P 0x11 %d 1k' % (MiB + 16 * 512), '-c', 'read -P 0 2M 1M', top)
    assert 'backing file: base.vhdx' in lamella.run('info', top)
    before = top.read_bytes()
    done = run(*lamella.io, '-f', 'vhdx', '-c', 'write 0 512', top, status=1)
    assert 'a differencing VHDX can only be read' in done.stderr
    assert top.read_bytes() == before


def test_killed(genuine, lamella, tmp_path):
    """After a flush the log may wait; what it says is there, and who comes
    next does it."""
    path = tmp_path / 'x.vhdx'
    lamella.run('create', '-q', '-f', 'vhdx', '-o', 'block_size=1M', path,
                '40M')
    run(*lamella.io, '-f', 'vhdx', '-c', 'write -P 7 5M 64k', '-c', 'flush',
        '-c', 'write -P 8 9M 64k', '-c', 'abort', path, status=None)
    assert path.read_bytes()[MiB:MiB + 4] == b'loge'
    run(*genuine.io, '-f', 'vhdx', '-c', 'read -P 7 5M 64k', path)
    genuine.run('check', '-f', 'vhdx', path)
    assert LOG not in path.read_bytes()[:MiB]
