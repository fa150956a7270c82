# SPDX-License-Identifier: MIT
"""convert onto block devices full of old data: what they read as afterwards,
and how many blocks they occupy."""
import os
import random
import subprocess

import pytest

from harness import KiB, MiB, random_bytes, run

SIZE = 32 * MiB
# What a file system may add to the data: extent blocks.
METADATA = 256 * KiB


class Source:
    """A raw file of data with holes, and what a target needs for it."""

    def __init__(self, path, size=SIZE, seed=1, gap=KiB * 256):
        self.path = str(path)
        rng = random.Random(seed)
        self.data_bytes = 0
        with open(path, 'wb') as out:
            out.truncate(size)
            offset = 0
            while offset < size:
                length = min(rng.randrange(1, 48) * 4096, size - offset)
                out.seek(offset)
                out.write(rng.randbytes(length))
                self.data_bytes += -(-length // 4096) * 4096
                offset += length + rng.randrange(1, gap // 4096) * 4096
        with open(path, 'rb') as data:
            self.bytes = data.read()


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path / 'source.raw')


def convert(lamella, *args, **kwargs):
    return run(*lamella.img, 'convert', *args, **kwargs)


def explain(lamella, *args):
    text = convert(lamella, '--explain', *args).stdout
    return dict(line.split(': ', 1) for line in text.splitlines())


def assert_reads_as(loop, expected):
    assert loop.read()[:len(expected)] == expected
    assert loop.read_cached()[:len(expected)] == expected


@pytest.mark.parametrize('cache', ['none', 'directsync', 'writeback',
                                   'writethrough', 'unsafe'])
def test_thin(lamella, loop_device, source, cache):
    loop = loop_device(SIZE)
    assert loop.blocks() >= SIZE
    loop.read_cached()                  # old pages are in the cache
    done = convert(lamella, '-n', '-t', cache, '-O', 'raw', source.path,
                   loop.path)
    assert done.stderr == '' and done.stdout == ''
    assert_reads_as(loop, source.bytes)
    assert loop.blocks() <= source.data_bytes + METADATA


@pytest.mark.parametrize('cache', ['none', 'writeback'])
def test_thin_from_overlay(lamella, loop_device, source, tmp_path, cache):
    """A chain whose overlay has data, zeroes over data, and discards."""
    base, overlay = tmp_path / 'base.qcow2', tmp_path / 'overlay.qcow2'
    convert(lamella, '-O', 'qcow2', source.path, base)
    run(*lamella.img, 'create', '-q', '-f', 'qcow2', '-b', base, '-F',
        'qcow2', overlay)
    lamella.io_run(overlay, 'write -P 7 1M 300k', 'write -z 4M 2M',
                   'write -P 0 8M 1M', options=['-f', 'qcow2'])
    expected = bytearray(source.bytes)
    expected[1 * MiB:1 * MiB + 300 * KiB] = b'\7' * (300 * KiB)
    expected[4 * MiB:6 * MiB] = bytes(2 * MiB)
    expected[8 * MiB:9 * MiB] = bytes(MiB)
    loop = loop_device(SIZE)
    convert(lamella, '-n', '-t', cache, '-O', 'raw', overlay, loop.path)
    assert_reads_as(loop, expected)
    data = sum(4096 for at in range(0, SIZE, 4096)
               if any(expected[at:at + 4096]))
    assert loop.blocks() <= data + METADATA


@pytest.mark.parametrize('cache', ['none', 'writeback'])
def test_fully_allocated(lamella, loop_device, source, cache):
    loop = loop_device(SIZE, fill=None)
    assert loop.blocks() < MiB
    convert(lamella, '-n', '-S', '0', '-t', cache, source.path, loop.path)
    assert_reads_as(loop, source.bytes)
    assert loop.blocks() >= SIZE


def test_strict_cache_writes(lamella, loop_device, source):
    loop = loop_device(SIZE)
    done = convert(lamella, '-n', '--strict-cache', source.path, loop.path)
    assert done.stderr == ''
    assert_reads_as(loop, source.bytes)
    assert loop.blocks() >= SIZE
    plan = explain(lamella, '-n', '--strict-cache', source.path, loop.path)
    assert plan['zeroes'] == 'written' and 'strict' in plan['reason']


def test_target_is_zero_clears_nothing(lamella, loop_device, source):
    loop = loop_device(SIZE)
    old = loop.read()
    convert(lamella, '-n', '-t', 'none', '--target-is-zero', source.path,
            loop.path)
    now = loop.read()
    for at in range(0, SIZE, 4096):
        block = source.bytes[at:at + 4096]
        expected = block if any(block) else old[at:at + 4096]
        assert now[at:at + 4096] == expected, at


@pytest.mark.parametrize('cache', ['none', 'writeback'])
def test_larger_sectors(lamella, loop_device, source, cache):
    loop = loop_device(SIZE, sector=4096)
    convert(lamella, '-n', '-t', cache, source.path, loop.path)
    assert_reads_as(loop, source.bytes)
    assert loop.blocks() <= source.data_bytes + METADATA


@pytest.mark.parametrize('cache', ['none', 'writeback'])
@pytest.mark.parametrize('tail', [b'\0' * 512, b'x' * 512],
                         ids=['zero', 'data'])
def test_unaligned_tail(lamella, loop_device, tmp_path, cache, tail):
    """A source that ends inside a sector: the rest of it stays."""
    path = tmp_path / 'odd.raw'
    contents = random_bytes(5, MiB) + bytes(MiB) + tail
    path.write_bytes(contents)
    loop = loop_device(4 * MiB, sector=4096)
    old = loop.read()
    convert(lamella, '-n', '-t', cache, '-f', 'raw', path, loop.path)
    assert_reads_as(loop, contents + old[len(contents):])


@pytest.mark.parametrize('cache', ['none', 'writeback'])
def test_beyond_the_source_is_untouched(lamella, loop_device, source, cache):
    loop = loop_device(SIZE + 8 * MiB)
    old = loop.read()
    convert(lamella, '-n', '-t', cache, source.path, loop.path)
    assert_reads_as(loop, source.bytes + old[SIZE:])


def test_too_small(lamella, loop_device, source):
    loop = loop_device(SIZE - MiB)
    old = loop.read()
    done = convert(lamella, '-n', '-t', 'none', source.path, loop.path,
                   status=1)
    assert 'output file is smaller than input file' in done.stderr
    assert loop.read() == old


@pytest.mark.parametrize('cache', ['none', 'writeback'])
def test_no_discard(lamella, loop_device, mount, source, cache):
    """The device can nothing: zeroes are written, which is said."""
    loop = loop_device(SIZE, folder=mount('ramfs'))
    assert loop.queue('discard_max_bytes') == 0
    done = convert(lamella, '-n', '-t', cache, source.path, loop.path)
    assert done.stderr == 'lamella: %s: no discard support; zeroes are ' \
        'written\n' % loop.path
    assert_reads_as(loop, source.bytes)
    plan = explain(lamella, '-n', '-t', cache, source.path, loop.path)
    assert plan['result'].startswith('fully allocated, although')


def test_no_discard_is_not_said_as_qemu_img(lamella, loop_device, mount,
                                            source, tmp_path):
    """Callers of qemu-img take any text on stderr for a failure."""
    link = tmp_path / 'qemu-img'
    link.symlink_to(lamella.img[0])
    loop = loop_device(SIZE, folder=mount('ramfs'))
    done = run(link, 'convert', '-n', '-t', 'none', source.path, loop.path)
    assert done.stderr == '' and done.stdout == ''
    assert_reads_as(loop, source.bytes)


def test_discard_switched_off(lamella, loop_device, source):
    loop = loop_device(SIZE)
    loop.queue('discard_max_bytes', 0)
    done = convert(lamella, '-n', '-t', 'none', source.path, loop.path)
    assert 'no discard support' in done.stderr
    assert done.stderr.count('\n') == 1
    assert_reads_as(loop, source.bytes)


def test_small_discards(lamella, loop_device, source):
    """The kernel splits the requests."""
    loop = loop_device(SIZE)
    loop.queue('discard_max_bytes', 64 * KiB)
    convert(lamella, '-n', '-t', 'none', source.path, loop.path)
    assert_reads_as(loop, source.bytes)
    assert loop.blocks() <= source.data_bytes + METADATA


def test_all_data_and_all_hole(lamella, loop_device, tmp_path):
    for name, contents in (('full', random_bytes(1, 4 * MiB)),
                           ('empty', bytes(4 * MiB))):
        path = tmp_path / name
        path.write_bytes(contents)
        loop = loop_device(4 * MiB)
        convert(lamella, '-n', '-t', 'none', '-f', 'raw', path, loop.path)
        assert_reads_as(loop, contents)
        data = 4 * MiB if name == 'full' else 0
        assert loop.blocks() <= data + METADATA


def test_write_protected(lamella, loop_device, source):
    loop = loop_device(SIZE)
    old = loop.read()
    subprocess.run(['blockdev', '--setro', loop.path], check=True)
    done = convert(lamella, '-n', '-t', 'none', source.path, loop.path,
                   status=1)
    assert done.stderr.count('\n') == 1 and loop.path in done.stderr
    subprocess.run(['blockdev', '--setrw', loop.path], check=True)
    assert loop.read() == old


def test_held_by_somebody(lamella, loop_device, source):
    """A mounted volume holds its device with O_EXCL."""
    loop = loop_device(SIZE)
    old = loop.read()
    fd = os.open(loop.path, os.O_RDWR | os.O_EXCL)
    try:
        done = convert(lamella, '-n', '-t', 'none', source.path, loop.path,
                       status=1)
    finally:
        os.close(fd)
    assert 'in use' in done.stderr
    assert loop.read() == old


def test_full_backing(lamella, loop_device, mount, source):
    """The volume runs out of space below: an error, not success."""
    loop = loop_device(SIZE, folder=mount('tmpfs', 'size=2m'), fill=None)
    for cache in 'none', 'writeback':
        done = convert(lamella, '-n', '-t', cache, '--target-is-zero',
                       source.path, loop.path, status=1)
        assert done.stderr.count('\n') == 1


def test_qcow2_on_a_device(lamella, loop_device, source, reference):
    loop = loop_device(2 * SIZE)
    convert(lamella, '-O', 'qcow2', '-t', 'none', source.path, loop.path)
    reference.run('check', '-f', 'qcow2', loop.path)
    reference.run('compare', '-f', 'raw', '-F', 'qcow2', source.path,
                  loop.path)


def test_genuine_agrees(lamella, loop_device, source, reference):
    """The same device contents and the same blocks, or fewer."""
    blocks = {}
    for tools in reference, lamella:
        loop = loop_device(SIZE)
        run(*tools.img, 'convert', '-n', '-t', 'none', source.path, loop.path)
        assert_reads_as(loop, source.bytes)
        blocks[tools.name] = loop.blocks()
    assert blocks[lamella.name] <= blocks[reference.name] + METADATA


def test_source_device(lamella, loop_device, tmp_path):
    loop = loop_device(8 * MiB)
    convert(lamella, '-f', 'raw', '-O', 'raw', '-T', 'none', loop.path,
            tmp_path / 'out.raw')
    assert (tmp_path / 'out.raw').read_bytes() == loop.read()
