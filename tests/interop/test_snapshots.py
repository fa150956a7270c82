# SPDX-License-Identifier: MIT
"""Internal snapshots by each tool on images of the other, and by both in turn.

A model keeps the bytes of the disk and of every snapshot; the genuine check
finds nothing after each step, whoever made it, and each snapshot reads by both
as it was when it was made.
"""
import os
import random
import re
import struct

import pytest

from harness import GENUINE, KiB, MiB
from workload import Shape, Workload, assert_same, guest_bytes, io_script

SHAPES = [
    Shape('default'),
    Shape('v2', 'compat=0.10'),
    Shape('512', size=600 * KiB, cluster=512),
    Shape('4k-refcount64', 'refcount_bits=64', size=2 * MiB, cluster=4 * KiB),
    Shape('2M', size=21 * MiB, cluster=2 * MiB),
    Shape('zstd', 'compression_type=zstd'),
    Shape('lazy', 'lazy_refcounts=on'),
    Shape('extended-16k', 'extended_l2=on', cluster=16 * KiB),
]


def listed(tools, image):
    """Id and name of each; the other columns changed between releases."""
    text = tools.run('snapshot', '-l', image)
    return re.findall(r'^(\d+) +(\S+)', text, re.MULTILINE)


@pytest.mark.parametrize('seed', [1])
@pytest.mark.parametrize('shape', SHAPES, ids=[s.name for s in SHAPES])
def test_in_turn(shape, seed, genuine, lamella, tmp_path):
    image = tmp_path / 'image.qcow2'
    rng = random.Random(seed)
    work = Workload(seed, shape)
    snapshots = {}
    genuine.run(*shape.create_args(image), image, shape.size)
    for number in range(12):
        tools = rng.choice([genuine, lamella])
        io_script(rng.choice([genuine, lamella]), image, work.commands(12))
        action = rng.choice(['create', 'create', 'apply', 'delete'])
        if action == 'create' or not snapshots:
            name = 's%d' % number
            tools.run('snapshot', '-c', name, image)
            snapshots[name] = bytes(work.model)
        elif action == 'apply':
            name = rng.choice(sorted(snapshots))
            tools.run('snapshot', '-a', name, image)
            work.model[:] = snapshots[name]
        else:
            name = rng.choice(sorted(snapshots))
            tools.run('snapshot', '-d', name, image)
            del snapshots[name]
        genuine.run('check', '-q', '-f', 'qcow2', image)
        lamella.run('check', '-q', '-f', 'qcow2', image)
        assert listed(genuine, image) == listed(lamella, image)
        assert_same(guest_bytes(lamella, image, tmp_path), work.model,
                    '%s by %s' % (action, tools.name))
    for name, content in snapshots.items():
        for tools in genuine, lamella:
            assert_same(guest_bytes(tools, image, tmp_path, '-l', name),
                        content, '%s read by %s' % (name, tools.name))


@pytest.mark.parametrize('makes,goes_back', [(0, 1), (1, 0), (1, 1)])
def test_other_size(makes, goes_back, genuine, lamella, tmp_path):
    tools = [genuine, lamella]
    image = tmp_path / 'image.qcow2'
    genuine.run('create', '-q', '-f', 'qcow2', image, '3M')
    io_script(genuine, image, ['write -q -P 1 1M 2M'])
    tools[makes].run('snapshot', '-c', 'small', image)
    genuine.run('resize', '-q', '-f', 'qcow2', image, '2G')
    io_script(genuine, image, ['write -q -P 2 2M 2M', 'write -q -P 3 1G 64k'])
    tools[makes].run('snapshot', '-c', 'large', image)
    for name, size in ('small', 3 * MiB), ('large', 2048 * MiB):
        tools[goes_back].run('snapshot', '-a', name, image)
        for one in tools:
            one.run('check', '-q', '-f', 'qcow2', image)
            assert '(%d bytes)' % size in one.run('info', image)
    io_script(genuine, image, ['read -q -P 1 1M 1M', 'read -q -P 2 2M 2M',
                               'read -q -P 3 1G 64k'])


def l1_table(image):
    with open(image, 'rb') as file:
        entries, offset = struct.unpack('>I', file.read(40)[36:40])[0], \
            struct.unpack('>Q', file.read(8))[0]
        file.seek(offset)
        return struct.unpack('>%dQ' % entries, file.read(8 * entries))


def tables(image):
    return [entry & ~(1 << 63) for entry in l1_table(image)]


def test_tables_are_shared(genuine, lamella, tmp_path):
    """A snapshot of what nobody wrote to since the last one takes no tables of
    its own, and writes tell them apart again."""
    image = tmp_path / 'image.qcow2'
    genuine.run('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', image,
                '64M')
    io_script(genuine, image, ['write -q -P 1 %dM 8k' % at
                               for at in range(64)])
    lamella.run('snapshot', '-c', 'first', image)
    first = tables(image)
    for name in 'second', 'third':
        lamella.run('snapshot', '-c', name, image)
        assert tables(image) == first
        genuine.run('check', '-q', '-f', 'qcow2', image)
    io_script(lamella, image, ['write -q -P 9 9M 4k'])
    io_script(genuine, image, ['write -q -P 9 20M 4k'])
    changed = [i for i, (old, new) in enumerate(zip(first, tables(image)))
               if old != new]
    assert changed == [at * MiB // (512 * 4 * KiB) for at in (9, 20)]
    for name, tool in (('second', lamella), ('first', genuine),
                       ('third', lamella)):
        io_script(genuine, image, ['read -q -P 9 9M 4k', 'read -q -P 9 20M 4k',
                                   'read -q -P 1 30M 8k'])
        tool.run('convert', '-O', 'raw', '-l', name, image, tmp_path / 'raw')
        io_script(genuine, tmp_path / 'raw', ['read -q -P 1 9M 8k'], 'raw')
        tool.run('snapshot', '-d', name, image)
        genuine.run('check', '-q', '-f', 'qcow2', image)
        lamella.run('check', '-q', '-f', 'qcow2', image)


def test_tables_are_taken_back(genuine, lamella, tmp_path):
    """Only tables that changed since the snapshot was made are new ones after
    it has gone, and the others' copies are not left behind."""
    image = tmp_path / 'image.qcow2'
    genuine.run('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=4k', image,
                '64M')
    io_script(genuine, image, ['write -q %dM 8k' % at for at in range(64)])
    before, blocks = l1_table(image), os.stat(image).st_blocks
    lamella.run('snapshot', '-c', 's', image)
    assert not set(before) & set(l1_table(image))
    io_script(lamella, image, ['write -q -P 9 9M 4k'])
    lamella.run('snapshot', '-d', 's', image)
    changed = [i for i, (old, new) in enumerate(zip(before, l1_table(image)))
               if old != new]
    assert changed == [9 * MiB // (512 * 4 * KiB)]
    assert os.stat(image).st_blocks <= blocks + 64
    genuine.run('check', '-q', '-f', 'qcow2', image)
    io_script(genuine, image, ['read -q -P 9 9M 4k'])
