# SPDX-License-Identifier: MIT
"""A device's old content never shows through: random sources, onto every kind
of loop device, over every kind of old data, with every -S and cache mode."""
import random

import pytest

from harness import KiB, MiB, run

BLOCK = 4096
SIZE = 4 * MiB
METADATA = 128 * KiB            # a file system's own blocks
ROUNDS = 5

# name: sector size, file system below, largest discard (None: as it is)
ROWS = {
    'discards': (512, None, None),
    'discards, sectors of 4096': (4096, None, None),
    'small discards': (512, None, 64 * KiB),
    'discards, tmpfs below': (512, 'tmpfs', None),
    'discard switched off': (512, None, 0),
    'discard switched off, sectors of 4096': (4096, None, 0),
    'nothing': (512, 'ramfs', None),
    'nothing, sectors of 4096': (4096, 'ramfs', None),
}


def random_bytes(rng, size, zeroes):
    """Runs of blocks, and of any length, of data or of zeroes."""
    out = bytearray(size)
    at = 0
    while at < size:
        length = rng.randrange(1, 60) * BLOCK if rng.random() < 0.7 \
            else rng.randrange(1, 40 * BLOCK)
        if not zeroes or rng.random() < 0.5:
            out[at:at + length] = rng.randbytes(min(length, size - at))
        at += length
    return bytes(out[:size])


def old_data(rng, kind):
    if kind == 'ones':
        return b'\xff' * SIZE
    if kind == 'nothing':
        return bytes(SIZE)
    return random_bytes(rng, SIZE, kind == 'islands')


def make_source(lamella, rng, folder, sector):
    """A raw file with holes, an image, or an overlay; what it reads as."""
    size = SIZE if rng.random() < 0.5 else rng.randrange(sector, SIZE, sector)
    contents = random_bytes(rng, size, True)
    raw = folder / 'source.raw'
    with open(raw, 'wb') as out:
        out.truncate(size)
        for at in range(0, size, BLOCK):
            block = contents[at:at + BLOCK]
            # Some zeroes are a hole, some are written.
            if any(block) or rng.random() < 0.5:
                out.seek(at)
                out.write(block)
    kind = rng.choice(['raw', 'qcow2', 'overlay'])
    if kind == 'raw':
        return raw, 'raw', contents
    image = folder / ('source.' + kind)
    if kind == 'qcow2':
        run(*lamella.img, 'convert', '-f', 'raw', '-O', 'qcow2',
            *rng.choice([[], ['-c']]), raw, image)
        return image, 'qcow2', contents
    run(*lamella.img, 'create', '-q', '-f', 'qcow2', '-b', raw, '-F', 'raw',
        image)
    contents = bytearray(contents)
    for byte in 0, rng.randrange(1, 256):
        at = rng.randrange(size)
        length = rng.randrange(1, size - at + 1)
        contents[at:at + length] = bytes([byte]) * length
        command = 'write -z' if byte == 0 else 'write -P %d' % byte
        lamella.io_run(image, '%s %d %d' % (command, at, length),
                       options=['-f', 'qcow2'])
    return image, 'qcow2', bytes(contents)


def data_blocks(contents):
    return sum(BLOCK for at in range(0, len(contents), BLOCK)
               if any(contents[at:at + BLOCK]))


def check_blocks(loop, plan, contents, old, sparse):
    """Thin where the plan says so: only data, and what lies beyond."""
    beyond = SIZE - len(contents) + BLOCK
    if sparse == '0':
        assert loop.blocks() >= len(contents) - BLOCK
    elif plan['result'] == 'thin':
        # A short run of zeroes is data to a large -S.
        slack = 64 * KiB * 64 if sparse == '64k' else 0
        assert loop.blocks() <= data_blocks(contents) + beyond + METADATA + \
            slack


@pytest.mark.parametrize('number', range(ROUNDS))
@pytest.mark.parametrize('row', ROWS)
def test_row(lamella, loop_device, mount, tmp_path, row, number):
    sector, below, largest = ROWS[row]
    rng = random.Random('%s %d' % (row, number))
    folder = mount(below) if below else None
    old = old_data(rng, rng.choice(['ones', 'nothing', 'islands', 'any']))
    loop = loop_device(SIZE, sector=sector, folder=folder, fill=old)
    if largest is not None:
        loop.queue('discard_max_bytes', largest)
    if rng.random() < 0.5:
        loop.read_cached()              # old pages are in the cache
    source, form, contents = make_source(lamella, rng, tmp_path, sector)
    cache = rng.choice(['none', 'directsync', 'writeback', 'writethrough',
                        'unsafe'])
    sparse = rng.choice(['0', '512', '4k', '4k', '64k'])
    argv = ['-n', '-t', cache, '-S', sparse, '-f', form, '-O', 'raw', source,
            loop.path]
    text = run(*lamella.img, 'convert', '--explain', *argv).stdout
    plan = dict(line.split(': ', 1) for line in text.splitlines())
    assert loop.read() == old           # explaining touches nothing
    done = run(*lamella.img, 'convert', *argv)

    want = contents + old[len(contents):]
    assert loop.read_cached() == want, argv
    assert loop.read() == want, argv
    check_blocks(loop, plan, contents, old, sparse)
    lost = plan['result'].startswith('fully allocated, although')
    assert done.stderr.count('\n') == lost
    assert not lost or plan['reason'] in done.stderr
